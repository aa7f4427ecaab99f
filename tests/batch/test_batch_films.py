"""Films in batches: what their headers say of their length, and files that go away while they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from batch_files import records_of
from clips import write_clip

from echopix_cli.decoding.worker import Worker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two films of a little less than four seconds; the header of one says that it lasts half a second."""
    (tmp_path / "films").mkdir()
    content = bytearray(write_clip(tmp_path / "films" / "honest.mkv", seconds=3.75).read_bytes())
    place = content.index(b"\x44\x89\x88") + 3
    content[place : place + 8] = np.array([500.0], ">f8").tobytes()
    (tmp_path / "films" / "short.mkv").write_bytes(content)
    return tmp_path / "films"


def test_a_film_is_one_whatever_its_header_says(ask, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert ask(folder, "What?", "--window", "1", "-o", out).code == 0
    honest, short = records_of(out)
    assert honest["film"] == short["film"]
    assert honest["tokens"] == short["tokens"]
    assert (honest["film"]["windows"], honest["film"]["unread"]) == (4, 0)


def test_a_film_that_goes_away_is_one_failed_record(
    ask, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, decode, asked = tmp_path / "out.jsonl", Worker.decode, list[str]()

    def decoded(worker: Worker, path: str, plan: object) -> object:
        if path.endswith("honest.mkv"):
            asked.append(path)
            if len(asked) == 2:
                Path(path).unlink()
        return decode(worker, path, plan)  # type: ignore[arg-type]

    monkeypatch.setattr(Worker, "decode", decoded)
    assert ask(folder, "What?", "--window", "1", "-o", out).code == 1
    gone, short = records_of(out)
    assert gone["error"]["message"].endswith("honest.mkv changed while it was read")
    assert len(asked) == 2
    assert short["film"]["unread"] == 0
