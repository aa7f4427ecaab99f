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
    stream, died = Worker.stream, []

    def dying(self: Worker, path: str, plan: Any) -> Iterator[Any]:
        for part in stream(self, path, plan):
            if path.endswith("long.mp4") and self._pid not in died:
                assert self._pid is not None
                os.kill(self._pid, signal.SIGSTOP)
                os.kill(self._pid, signal.SIGSEGV)
                os.kill(self._pid, signal.SIGCONT)
                died.append(self._pid)
            yield part

    monkeypatch.setattr(Worker, "stream", dying)
    return died


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
