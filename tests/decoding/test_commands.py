"""Commands about a file that crashes its decoder: one line and the code of media, whichever command reads it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from echopix_cli.decoding.worker import Worker

WHOLE = ("--fps", 25, "--max-frames", 400, "--window", 60)  # as one clip, not as the windows of a film


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Decoders of files that are called ``long.mp4`` die for real, when the first part of the clip is there."""
    return dying(monkeypatch, signal.SIGSEGV)


def dying(monkeypatch: pytest.MonkeyPatch, number: int, start: float | None = None, times: int = 99) -> list[int]:
    """Which decoders died by this signal: all of ``long.mp4``, or those of what begins so late; at most so many."""
    stream, died = Worker.stream, []

    def streamed(self: Worker, path: str, plan: Any) -> Iterator[Any]:
        for part in stream(self, path, plan):
            due = path.endswith("long.mp4") and self._pid not in died and len(died) < times
            if due and (start is None or plan.start == start):
                assert self._pid is not None
                os.kill(self._pid, signal.SIGSTOP)
                os.kill(self._pid, number)
                os.kill(self._pid, signal.SIGCONT)
                died.append(self._pid)
            yield part

    monkeypatch.setattr(Worker, "stream", streamed)
    return died


@pytest.mark.parametrize(
    ("number", "times", "code", "unread"),
    [(signal.SIGSEGV, 9, 0, 1), (signal.SIGKILL, 1, 0, 0), (signal.SIGKILL, 2, 1, None)],
)
def test_one_window_of_a_film(
    run,
    long_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    times: int,
    code: int,
    unread: int | None,
) -> None:
    """What crashes its decoder is a window less; of one that was killed nobody knows, and the film is asked again."""
    died = dying(monkeypatch, number, start=5.0, times=times)
    out = tmp_path / "out.jsonl"
    arguments = ("ask", long_clip, "What?", "--window", 5, "-o", out)
    ran = run(*arguments)
    (record,) = map(json.loads, out.read_text().splitlines())
    assert (ran.code, record.get("film", {}).get("unread")) == (code, unread), ran.err
    if code:
        assert "the decoder crashed (SIGKILL)" in record["error"]["message"] and len(died) == 2
        assert "1 answered, 0 failed" in run(*arguments).err


def said(clip: Path) -> str:
    return f"error: {clip}: the decoder crashed (SIGSEGV)\n  try: copy or download it again\n"


@pytest.mark.parametrize("words", [("ask", "What?"), ("profile", "-b", "0.5")])
def test_one_file(run, long_clip: Path, crashing: list[int], words: tuple[str, ...]) -> None:
    ran = run(words[0], long_clip, *words[1:], *WHOLE)
    told = "".join(line for line in ran.err.splitlines(keepends=True) if not line.startswith("note: "))
    assert (ran.code, ran.out, told) == (4, "", said(long_clip))
    assert len(crashing) == 1


def test_one_file_of_many(run, long_clip: Path, clips: dict[str, Path], crashing: list[int]) -> None:
    ran = run("ask", long_clip, clips["dark"], "What?", *WHOLE)
    assert (ran.code, ran.err) == (1, said(long_clip) + "note: 1 answered, 1 failed\n")
    assert len(crashing) == 1


def test_one_question_of_many(
    run, long_clip: Path, clips: dict[str, Path], tmp_path: Path, crashing: list[int]
) -> None:
    data, items = tmp_path / "questions.jsonl", tmp_path / "items.jsonl"
    lines = [{"media": str(path), "question": "What?", "answer": "a dog"} for path in (long_clip, clips["dark"])]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ran = run("eval", "--data", data, "--items", items, "-b", 0.5, "--sieve", "auto", *WHOLE)
    assert ran.code == 1
    (failed, answered) = [json.loads(line)["settings"] for line in items.read_text().splitlines()]
    assert {outcome["failure"] for outcome in failed.values()} == {f"{long_clip}: the decoder crashed (SIGSEGV)"}
    assert {outcome["failure"] for outcome in answered.values()} == {None}
    assert len(crashing) == 1
