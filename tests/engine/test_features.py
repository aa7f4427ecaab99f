"""Features on the disk: a hit is what a miss would have been, and whatever is wrong with an entry, the answer comes."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from feature_entries import entries, same, timeless
from safetensors.torch import load_file, save, save_file

from echopix_cli.decoding.worker import Worker
from echopix_cli.engine import AskOptions, Engine, GenerationOptions, SieveOptions
from echopix_cli.engine import features as features_module
from echopix_cli.engine.features import FeatureCache, Fetched, open_features
from echopix_cli.files import WHOLE
from echopix_cli.measure.profiling import profile
from echopix_cli.media import DecodePlan, Limits, load_clip
from echopix_cli.model.thinker import EchoingPixelsThinker as Thinker
from echopix_cli.shelf import Shelf
from echopix_cli.weights.checkpoint import open_checkpoint

SHORT = GenerationOptions(max_new_tokens=4)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "features", 2**30)


def let_keep(engine: Engine, shelf: Shelf, notice: Callable[[str], None] = lambda text: None) -> None:
    """Give a loaded engine the cache that it would have been loaded with."""
    assert engine.loaded_from is not None
    checkpoint = replace(open_checkpoint(engine.source.folder), revision=engine.loaded_from)
    engine.features = open_features(shelf, engine.model, engine.processor.rules, checkpoint, notice)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def no_cache_stays(random_engine: Engine, stock_engine: Engine) -> Iterator[None]:
    yield
    random_engine.features = stock_engine.features = None


@pytest.fixture
def engine(random_engine: Engine, shelf: Shelf, said: list[str]) -> Engine:
    let_keep(random_engine, shelf, said.append)
    return random_engine


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often files are decoded and towers run."""
    counts = {"decode": 0, "vision": 0, "audio": 0}

    def count(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **named)

        return counted

    monkeypatch.setattr(Worker, "stream", count("decode", Worker.stream))
    monkeypatch.setattr(Thinker, "encode_pixels", count("vision", Thinker.encode_pixels))
    monkeypatch.setattr(Thinker, "encode_mel", count("audio", Thinker.encode_mel))
    return counts


# --- a hit


@pytest.mark.parametrize("model", ["random_engine", "stock_engine"])
def test_answers_are_the_same_from_the_cache(
    model: str, request: pytest.FixtureRequest, shelf: Shelf, clips: dict[str, Path], calls: dict[str, int]
) -> None:
    engine: Engine = request.getfixturevalue(model)
    plan = engine.plan(DecodePlan())
    let_keep(engine, shelf)
    first = engine.read(str(clips["both"]), plan)
    assert calls == {"decode": 1, "vision": 1, "audio": 1}
    second = engine.read(str(clips["both"]), plan)
    assert calls == {"decode": 1, "vision": 1, "audio": 1}
    engine.features = None
    assert (first.cached, second.cached) == (False, True)
    assert same(first, second)
    for name in engine.sieves:
        for budget in (1.0, 0.1):
            made, found = (
                engine.ask(one, "What?", AskOptions(budget, SHORT, SieveOptions(name))) for one in (first, second)
            )
            assert (made.cached, found.cached) == (False, True)
            assert timeless(made) == timeless(found)
    made, found = (engine.decide(one, "What?", ["a dog", "a cat"], AskOptions(0.3)) for one in (first, second))
    assert timeless(made) == timeless(found)
    times = found.latency
    assert (times.vision, times.audio) == (0.0, 0.0)
    assert 0.0 < times.decode < times.total


@pytest.mark.parametrize(
    ("clip", "plan"),
    [
        ("silent", DecodePlan()),
        ("dark", DecodePlan()),
        ("both", DecodePlan(audio=False)),
        ("both", DecodePlan(start=1.0, end=2.0)),
        ("both", DecodePlan(max_audio_seconds=2.0)),
        ("both", DecodePlan(max_frames=1, min_frames=1)),
    ],
)
def test_all_that_a_clip_says_of_itself_is_kept(
    engine: Engine, clips: dict[str, Path], calls: dict[str, int], clip: str, plan: DecodePlan
) -> None:
    path, wanted = str(clips[clip]), engine.plan(plan)
    first = engine.read(path, wanted)
    before = dict(calls)
    second = engine.read(path, wanted)
    assert calls == before
    assert second.cached and same(first, second)


def test_a_long_picture_is_mentioned_from_the_cache_too(
    engine: Engine, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = engine.plan(DecodePlan())
    engine.read(str(clips["silent"]), plan)
    monkeypatch.setattr(engine.model.config.text, "max_position_embeddings", 30)
    found = engine.read(str(clips["silent"]), plan)
    assert found.cached
    assert found.notices[-1].startswith("the picture spans 0:02, but this model can tell times apart up to 0:01 only")


def test_another_name_finds_the_same_and_keeps_its_own(engine: Engine, clips: dict[str, Path], tmp_path: Path) -> None:
    plan = engine.plan(DecodePlan())
    engine.read(str(clips["dark"]), plan)
    renamed, link = tmp_path / "ä\udcff.m4a", tmp_path / "link.m4a"
    shutil.copyfile(clips["dark"], renamed)
    link.symlink_to(clips["dark"])
    for path in (renamed, link):
        found = engine.read(str(path), plan)
        assert found.cached
        assert found.path == str(path)


def test_large_files_are_known_by_time_and_samples(engine: Engine, clips: dict[str, Path], tmp_path: Path) -> None:
    plan, path = engine.plan(DecodePlan()), tmp_path / "large.m4a"
    padding = WHOLE.to_bytes(4, "big") + b"free" + bytes(WHOLE - 8)
    path.write_bytes(clips["dark"].read_bytes() + padding)
    assert not engine.read(str(path), plan).cached
    assert engine.read(str(path), plan).cached
    os.utime(path, (1, 1))
    assert not engine.read(str(path), plan).cached


# --- what features depend on


def test_each_thing_that_features_depend_on_has_its_own_place(
    engine: Engine, shelf: Shelf, clips: dict[str, Path], random_checkpoint: Path, tmp_path: Path
) -> None:
    path, plan = str(clips["both"]), engine.plan(DecodePlan())
    changed = tmp_path / "changed.mp4"
    changed.write_bytes(clips["both"].read_bytes() + b"\0\0\0\x08free")
    assert engine.features is not None
    places = [engine.features.entry(path, plan), engine.features.entry(str(changed), plan)]
    for change in (
        {"start": 1.0}, {"end": 2.0}, {"fps": 1.0}, {"max_frames": 5}, {"min_frames": 2}, {"max_pixels": 20_000},
        {"min_pixels": 784}, {"audio": False}, {"video": False}, {"audio_track": 0}, {"video_track": 0},
        {"max_audio_seconds": 2.0},
    ):  # fmt: skip
        places.append(engine.features.entry(path, replace(plan, **change)))  # type: ignore[arg-type]
    places.append(cache_of(Engine.load(str(random_checkpoint), "cpu", "bfloat16"), shelf).entry(path, plan))
    for number, part in enumerate(("visual.", "audio_tower.")):
        other = altered(random_checkpoint, tmp_path / f"model-{number}", part)
        places.append(cache_of(Engine.load(str(other), "cpu"), shelf).entry(path, plan))
    assert None not in places
    assert len({place.name for place in places if place}) == len(places) == 17

    limited = engine.features.entry(path, replace(plan, limits=Limits(max_tracks=5)))
    assert limited == places[0]
    sieve = altered(random_checkpoint, tmp_path / "model-sieve", ".compressor.")
    assert cache_of(Engine.load(str(sieve), "cpu"), shelf).entry(path, plan).name == places[0].name
    for odd in (tmp_path, tmp_path / "none", "a\0b"):
        assert engine.features.entry(str(odd), plan) is None


def altered(folder: Path, copy: Path, part: str) -> Path:
    """A copy of a checkpoint in which one tensor of a part is another, in a file of the same size."""
    shutil.copytree(folder, copy)
    tensors = load_file(copy / "model.safetensors")
    name = next(name for name in sorted(tensors) if part in name)
    save_file({**tensors, name: tensors[name] + 1}, copy / "model.safetensors", {"format": "pt"})
    return copy


def cache_of(engine: Engine, shelf: Shelf) -> FeatureCache:
    let_keep(engine, shelf)
    assert engine.features is not None
    return engine.features


def test_towers_are_hashed_once_and_again_when_their_file_is_replaced(
    random_checkpoint: Path, shelf: Shelf, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    original = features_module.read_tensors
    monkeypatch.setattr(features_module, "read_tensors", lambda of: read.append(of.folder) or original(of))
    own = tmp_path / "model"
    shutil.copytree(random_checkpoint, own)
    engine = Engine.load(str(own), "cpu")
    first, again = cache_of(engine, shelf), cache_of(engine, shelf)
    assert first.model == again.model
    assert read == [own]

    other = altered(random_checkpoint, tmp_path / "other", "visual.")
    os.replace(other / "model.safetensors", own / "model.safetensors")
    engine.features = None
    let_keep(engine, shelf, said.append)  # what is loaded is no longer what lies there
    assert engine.features is None
    assert said == [f"features are not kept: {own} has changed since the model was loaded"]
    second, kept = cache_of(Engine.load(str(own), "cpu"), shelf).model, list(shelf.folder.glob("*.towers"))
    assert second != first.model and len(kept) == 2
    content = {path: path.read_bytes() for path in kept}
    one, two = kept
    for damaged in (
        dict.fromkeys(kept, b"torn"),
        dict.fromkeys(kept, b""),
        dict.fromkeys(kept, bytes(32)),  # which would give all models the same features
        dict.fromkeys(kept, bytes(64)),
        {one: content[two], two: content[one]},
        {path: bytes(32) + content[path][32:] for path in kept},
        {path: content[path][:-1] for path in kept},
    ):
        for path, wrong in damaged.items():
            path.write_bytes(wrong)
        assert cache_of(Engine.load(str(own), "cpu"), shelf).model == second


def test_what_changes_while_it_is_decoded_is_not_kept(
    engine: Engine, shelf: Shelf, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, original = tmp_path / "clip.m4a", Worker.stream
    shutil.copyfile(clips["dark"], path)

    def replaced(*arguments: Any, **named: Any) -> Any:
        os.utime(path, (9, 9))
        return original(*arguments, **named)

    monkeypatch.setattr(Worker, "stream", replaced)
    assert not engine.read(str(path), engine.plan(DecodePlan())).cached
    assert entries(shelf) == []


def test_what_the_disk_refused_is_not_kept_as_missing(engine: Engine, shelf: Shelf, clips: dict[str, Path]) -> None:
    path, plan = str(clips["both"]), engine.plan(DecodePlan())
    clip = load_clip(path, plan)
    assert engine.features is not None
    for refused, kept in ((True, 0), (False, 1)):
        engine.encode(Fetched(replace(clip, refused=refused), engine.features.entry(path, plan)))
        assert len(entries(shelf)) == kept


def test_profiles_and_others_without_a_cache_measure_every_round(
    random_engine: Engine, clips: dict[str, Path], calls: dict[str, int]
) -> None:
    plan = random_engine.plan(DecodePlan())
    profile(
        random_engine,
        str(clips["both"]),
        plan,
        "What?",
        [],
        repeat=2,
        warmup=0,
        repeats=0,
        options=AskOptions(generation=SHORT),
    )
    assert calls == {"decode": 2, "vision": 2, "audio": 2}


# --- what may be wrong with an entry


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit of the features": lambda content: flipped(content, len(content) - 5),
    "a bit of the facts": lambda content: flipped(content, content.index(b"audio_status") + 18),
    "a bit of the header's length": lambda content: flipped(content, 1),
    "a bit of a shape": lambda content: flipped(content, content.index(b'"shape":[') + 9),
    "cut short": lambda content: content[:-100],
    "cut in the header": lambda content: content[:50],
    "empty": lambda content: b"",
    "no safetensors": lambda content: b"what is this?" * 99,
    "a foreign file of tensors": lambda content: save({"video": torch.zeros(3, 4)}),
    "a foreign file with metadata": lambda content: save({"x": torch.zeros(3)}, {"echopix": '["0", "{}"]'}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entries_are_made_again(
    engine: Engine, shelf: Shelf, said: list[str], clips: dict[str, Path], damage: str
) -> None:
    plan, path = engine.plan(DecodePlan()), str(clips["both"])
    first = engine.read(path, plan)
    (entry,) = entries(shelf)
    good = entry.read_bytes()
    entry.write_bytes(DAMAGES[damage](good))
    assert entry.read_bytes() != good
    again = engine.read(path, plan)
    assert not again.cached
    assert same(first, again)
    assert entry.read_bytes() == good
    assert len(said) == 1
    assert said[0].startswith(f"features kept of {path} are damaged and are made again: ")
    assert engine.read(path, plan).cached


def test_an_entry_under_anothers_name_is_no_hit(
    engine: Engine, shelf: Shelf, said: list[str], clips: dict[str, Path]
) -> None:
    plan = engine.plan(DecodePlan())
    engine.read(str(clips["both"]), plan)
    (entry,) = entries(shelf)
    assert engine.features is not None
    place = engine.features.entry(str(clips["dark"]), plan)
    assert place is not None
    shutil.copyfile(entry, shelf.folder / place.name)
    found = engine.read(str(clips["dark"]), plan)
    assert (found.cached, found.video) == (False, None)
    assert said[0].endswith("ValueError: they belong to another file")
    assert engine.read(str(clips["dark"]), plan).cached


def test_an_entry_that_cannot_be_read_or_replaced(
    engine: Engine, shelf: Shelf, said: list[str], clips: dict[str, Path]
) -> None:
    plan = engine.plan(DecodePlan())
    engine.read(str(clips["both"]), plan)
    (entry,) = entries(shelf)
    entry.unlink()
    entry.mkdir()
    for _ in range(2):
        assert not engine.read(str(clips["both"]), plan).cached
    assert len(said) == 1  # once is enough
    assert said[0].startswith(f"features are not kept: cannot write {entry}")
    assert [path.name for path in shelf.folder.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_costs_no_answer(engine: Engine, shelf: Shelf, said: list[str], clips: dict[str, Path]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        encoded = engine.read(str(clips["both"]), engine.plan(DecodePlan()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert engine.ask(encoded, "What?", AskOptions(0.1, SHORT)).tokens.kept == 12
    assert len(said) == 1
    assert said[0].startswith("features are not kept: cannot write")
    assert entries(shelf) == []


def test_what_is_larger_than_the_cap_is_not_kept_and_smaller_things_are(
    random_engine: Engine, said: list[str], clips: dict[str, Path], tmp_path: Path
) -> None:
    plan, shelf = random_engine.plan(DecodePlan()), Shelf(tmp_path / "features", 60_000)
    let_keep(random_engine, shelf, said.append)
    both, silent = (random_engine.read(str(clips[name]), plan) for name in ("both", "silent"))
    random_engine.features = None
    assert both.audio is not None and silent.video is not None
    assert both.audio.nbytes > 57_000 and silent.video.nbytes < 50_000
    assert len(entries(shelf)) == 1
    assert len(said) == 1 and "more than the 60,000" in said[0]
