"""Films in a cache that does not hold all of their windows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from echopix_cli.decoding.worker import Worker
from echopix_cli.engine import Engine
from echopix_cli.engine.features import open_features
from echopix_cli.engine.opening import open_media
from echopix_cli.engine.options import FilmOptions
from echopix_cli.errors import FileLost
from echopix_cli.media import DecodePlan
from echopix_cli.shelf import FEATURES, Shelf
from echopix_cli.weights.checkpoint import open_checkpoint


@pytest.fixture(scope="module")
def engine(random_checkpoint: Path) -> Engine:
    return Engine.load(str(random_checkpoint), "cpu")


def test_a_film_that_the_cache_does_not_hold_keeps_its_first_windows(
    engine: Engine, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there of other files goes for them; they do not go for the later ones, and that is said once."""
    said, starts, decode = list[str](), list[Any](), Worker.decode
    path, plan = str(clips["both"]), engine.plan(DecodePlan())

    def decoded(worker: Worker, path: str, plan: DecodePlan) -> Any:
        starts.append(plan.start)
        return decode(worker, path, plan)

    def opened(shelf: Shelf) -> list[Any]:
        """When the windows began that a question had to have decoded."""
        features = open_features(
            shelf, engine.model, engine.processor.rules, open_checkpoint(engine.source.folder), said.append
        )
        monkeypatch.setattr(engine, "features", features)
        starts.clear()
        open_media(engine, path, plan, ["What?"], films=FilmOptions(window=1.0))
        return list(starts)

    monkeypatch.setattr(Worker, "decode", decoded)
    whole, other = Shelf(tmp_path / "whole", 2**30), "0" * 64 + FEATURES
    assert opened(whole) == [2.0, 0.0, 1.0], "the last one first, to find the end"
    sizes = {item.path.name: item.size for item in whole.items() if item.path.name.endswith(FEATURES)}
    assert len(sizes) == 3
    assert opened(whole) == [] and said == []

    small = Shelf(tmp_path / "small", sum(sizes.values()) - 1)
    small.put(other, bytes(max(sizes.values())))
    os.utime(small.folder / other, (1.0, 1.0))  # unused for longest
    assert opened(small) == [2.0, 0.0, 1.0]
    kept = {item.path.name: item.path.stat().st_ino for item in small.items() if item.path.name.endswith(FEATURES)}
    assert list(kept) == list(sizes)[:2]
    words = f"of {path} are kept: cache_size, {small.cap:,} bytes, is too small for all of its windows"
    assert said == [f"features of only a part {words}"]
    assert opened(small) == [2.0], "those that were kept are found"
    assert {name: (small.folder / name).stat().st_ino for name in kept} == kept


def test_nothing_of_another_film_is_kept_under_the_first_ones_identity(
    engine: Engine, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A film that is replaced while its windows are read, whichever of them have been by then."""
    shelf = Shelf(tmp_path / "shelf", 2**30)
    features = open_features(shelf, engine.model, engine.processor.rules, open_checkpoint(engine.source.folder))
    monkeypatch.setattr(engine, "features", features)
    path = tmp_path / "replaced.mp4"
    path.write_bytes(clips["both"].read_bytes())
    moments = list[float]()

    def watch(done: float, total: float, stage: str) -> None:
        if done and not moments:  # the windows that follow are of the other file, and say so at the end only
            (tmp_path / "new.mp4").write_bytes(clips["both"].read_bytes() + b"\0\0\0\x08free")
            os.replace(tmp_path / "new.mp4", path)
            moments.append(done)

    with pytest.raises(FileLost, match=r"replaced\.mp4 changed while it was read"):
        open_media(engine, str(path), engine.plan(DecodePlan()), ["What?"], films=FilmOptions(window=0.5), watch=watch)
    kept = [item for item in shelf.items() if item.path.name.endswith(FEATURES)]
    assert moments and len(kept) < 3, "those read before it was replaced, and none of the three or more after it"
