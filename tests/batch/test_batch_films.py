"""Films in batches: what their headers say of their length, and files that go away while they are read."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_files import asked, records_of
from clips import write_clip
from places import ROOT
from waiting import wait_until

from echopix_cli.batch import asking
from echopix_cli.batch.journal import Journal
from echopix_cli.decoding.worker import Worker
from echopix_cli.engine import Engine
from echopix_cli.engine.opening import open_media
from echopix_cli.errors import DeviceError


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


def test_the_record_says_what_was_glanced_at_and_the_manual_names_all_of_it(ask, tmp_path: Path) -> None:
    out, path = tmp_path / "out.jsonl", write_clip(tmp_path / "a.mkv", seconds=11.5)
    assert ask(path, "What?", "--window", "1", "--max-frames", "2", "--look", "3", "-o", out).code == 0
    film = records_of(out)[0]["film"]
    fields = ["windows", "window_seconds", "unread", "looked", "frames", "survivors", "share", "glance"]
    assert list(film) == fields
    assert (film["windows"], film["glance"], len(film["looked"])) == (12, 1, 3)
    assert film["frames"] == 9 * 1 + 3 * 2
    for page in ("media", "batches"):
        text = (ROOT / "echopix_cli" / "manual" / f"{page}.md").read_text()
        assert [field for field in fields if f"`{field}`" not in text] == []


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


def test_other_permissions_meanwhile_are_no_change(
    ask, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, decode = tmp_path / "out.jsonl", Worker.decode

    def decoded(worker: Worker, path: str, plan: object) -> object:
        Path(path).chmod(0o600 if Path(path).stat().st_mode & 0o77 else 0o644)
        return decode(worker, path, plan)  # type: ignore[arg-type]

    monkeypatch.setattr(Worker, "decode", decoded)
    assert ask(folder, "What?", "--window", "1", "-o", out).code == 0
    assert [record["film"]["windows"] for record in records_of(out)] == [4, 4]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which features are kept: those of every window."""
    monkeypatch.setenv("ECHOPIX_CACHE", "true")
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def test_many_questions_are_answered_some_at_a_time(
    kept: Path, ask, tmp_path: Path, counted: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question holds rows of its own until it is answered; the windows are decoded once for all of them."""
    events, append = list[object](), Journal.append

    def opened(engine: Engine, path: str, plan: object, questions: list[str], *more: Any, **options: Any) -> Any:
        events.append(len(questions))
        return open_media(engine, path, plan, questions, *more, **options)  # type: ignore[arg-type]

    def appended(journal: Journal, record: dict[str, Any]) -> None:
        events.append("answer")
        append(journal, record)

    monkeypatch.setattr(asking, "open_media", opened)
    monkeypatch.setattr(Journal, "append", appended)
    out, path, questions = tmp_path / "out.jsonl", write_clip(tmp_path / "a.mkv", seconds=1.75), tmp_path / "q.txt"
    questions.write_text("".join(f"Question {number}?\n" for number in range(34)))
    ran = ask(path, "--questions", questions, "--window", "1", "-o", out)
    assert ran.code == 0
    assert events == [32, *["answer"] * 32, 2, *["answer"] * 2]
    assert counted["decode"] == 2, "windows"
    records = records_of(out)
    assert [record["question"] for record in records] == questions.read_text().splitlines()
    assert ask(path, "Question 33?", "--window", "1", "-o", tmp_path / "alone.jsonl").code == 0
    (alone,) = records_of(tmp_path / "alone.jsonl")
    same = ("key", "answer", "tokens", "moments", "film", "sampling", "notices")
    assert [records[33][name] for name in same] == [alone[name] for name in same]


def test_a_question_that_is_too_much_fails_alone(
    kept: Path, ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where the device has no room for so many at once, fewer go."""
    passes = []

    def opened(engine: Engine, path: str, plan: object, questions: list[str], *more: Any, **options: Any) -> Any:
        passes.append(len(questions))
        if len(questions) > 4:
            raise DeviceError("out of memory", "take a smaller --budget")
        return open_media(engine, path, plan, questions, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asking, "open_media", opened)
    monkeypatch.setattr(asking, "_AT_ONCE", 8)
    out, path, questions = tmp_path / "out.jsonl", write_clip(tmp_path / "a.mkv", seconds=1.75), tmp_path / "q.txt"
    texts = [f"Question {number}?" if number != 5 else "word " * 40_000 for number in range(10)]
    questions.write_text("".join(f"{text}\n" for text in texts))
    ran = ask(path, "--questions", questions, "--window", "1", "-o", out)
    assert ran.code == 1
    failed = ["error" in record for record in records_of(out)]
    assert failed == [number == 5 for number in range(10)]
    assert passes[:3] == [8, 4, 4] and passes.count(8) == 1


@pytest.mark.slow
def test_what_is_killed_in_a_film_goes_on_from_the_windows_that_it_read(
    kept: Path, spawn, ask, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its processes at once, as where the machine's memory has run out."""
    windows, out = 80, tmp_path / "out.jsonl"
    (tmp_path / "media").mkdir()
    shutil.copy(clips["dark"], tmp_path / "media" / "a.m4a")
    write_clip(tmp_path / "media" / "b.mp4", seconds=windows)
    shutil.copy(clips["dark"], tmp_path / "media" / "c.m4a")
    command = (tmp_path / "media", "What?", "--window", "1", "-o", out)
    with spawn(*command) as batch:
        wait_until(lambda: len(list(kept.glob("*.safetensors"))) >= 12, process=batch)
        os.killpg(batch.pid, signal.SIGKILL)
        batch.communicate(timeout=60)
    assert asked(records_of(out)) == [("a.m4a", "What?")], "the film was being read"
    before = {path.name: path.stat().st_ino for path in kept.glob("*.safetensors")}
    assert 12 <= len(before) < windows
    first, decode, starts = out.read_bytes(), Worker.decode, list[float]()

    def decoded(worker: Worker, path: str, plan: Any) -> Any:
        if path.endswith("b.mp4"):
            starts.append(plan.start)
        return decode(worker, path, plan)

    monkeypatch.setattr(Worker, "decode", decoded)
    ran = ask(*command)
    assert ran.code == 0 and ran.err.startswith("note: 2 answered, 0 failed, 1 before")
    assert out.read_bytes().startswith(first)
    records = records_of(out)
    assert sorted(asked(records)) == [(name, "What?") for name in ("a.m4a", "b.mp4", "c.m4a")], "each once"
    (film,) = [record["film"] for record in records if record["media"].endswith("b.mp4")]
    assert (film["windows"], film["unread"]) == (windows, 0)
    read = int(starts[1])
    assert read > 0, "windows were kept"
    assert starts == [windows - 1.0, *map(float, range(read, windows - 1))], "the last one tells how long the film is"
    after = {path.name: path.stat().st_ino for path in kept.glob("*.safetensors")}
    assert before.items() <= after.items(), "none of them was made again"
    assert len(after) - len(before) == len(starts), "and none that was kept was decoded"
