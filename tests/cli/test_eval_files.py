"""``echopix eval`` on questions about files: where they lie, what was read of them, and what could not be."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from echopix_cli.media import DecodePlan

ONE = ("--sieve", "none", "-b", "1")


@pytest.fixture
def folder(clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, above ``d``, which holds two clips and ``q.jsonl`` with a question about each."""
    home = tmp_path / "d"
    home.mkdir()
    lines = []
    for name in ("both.mp4", "dark.m4a"):
        shutil.copy(clips[Path(name).stem], home / name)
        lines.append({"media": name, "question": "What?", "answer": "dog"})
    (home / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_answers_are_found_again_from_another_folder(run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And by whole paths; also what failed is tried again, in the place of its line."""
    (folder / "d/dark.m4a").rename(folder / "later.m4a")
    monkeypatch.chdir(folder / "d")
    assert run("eval", "--data", "q.jsonl", "--items", "it.jsonl", *ONE).code == 1
    monkeypatch.chdir(folder)
    (folder / "later.m4a").rename(folder / "d/dark.m4a")
    for data, before in (("d/q.jsonl", 1), ("d/q.jsonl", 2), (folder / "d/q.jsonl", 2)):
        ran = run("eval", "--data", data, "--items", "d/it.jsonl", *ONE)
        assert (ran.code, f"note: {before} of 2 questions were answered before" in ran.err) == (0, True), ran.err
    items = [json.loads(line) for line in (folder / "d/it.jsonl").read_text().splitlines()]
    assert [(item["media"], item["folder"]) for item in items] == [
        ("both.mp4", str(folder / "d")), ("d/dark.m4a", str(folder))
    ]  # fmt: skip


def test_scenes_start_nowhere(run, folder: Path) -> None:
    """They are no files: the folder says nothing of them."""
    arguments = ("eval", "--count", "1", "--items", "it.jsonl", *ONE)
    assert run(*arguments).code == 0
    assert "folder" not in json.loads((folder / "it.jsonl").read_text())
    assert "note: 1 of 1 questions were answered before" in run(*arguments).err


def test_the_report_says_which_part_of_the_files_was_read(run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it was set: enough to run it again."""
    arguments = ("eval", "--data", "d/q.jsonl", "--count", "1", "--json", *ONE)
    whole = run(*arguments).records[0]["options"]
    assert {field.name for field in fields(DecodePlan)} - {"limits"} <= whole.keys()
    assert (whole["start"], whole["end"], whole["audio_track"]) == (None, None, None)
    for name, value in (("START", "0:01"), ("END", "2"), ("AUDIO_TRACK", "0")):
        monkeypatch.setenv(f"ECHOPIX_{name}", value)
    part = run(*arguments).records[0]["options"]
    assert part == {**whole, "start": 1.0, "end": 2.0, "audio_track": 0}


def test_markdown_and_tables_say_what_failed(run, folder: Path) -> None:
    arguments = ("eval", "--data", "d/q.jsonl", "--markdown", *ONE)
    whole = run(*arguments)
    assert (whole.code, "ailed" in whole.out) == (0, False)
    (folder / "d/dark.m4a").unlink()
    ran = run(*arguments)
    assert (ran.code, "\nFailed: 1 question, counted as wrong.\n" in ran.out) == (1, True)
    assert "1 question, counted as wrong" in run("eval", "--data", "d/q.jsonl", *ONE).err
