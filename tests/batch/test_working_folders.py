"""One output file of batches that are run in several folders, where the same relative names are other files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from batch_files import records_of
from journal_lines import FILE, line, record, reopened

from echopix_cli.batch.merging import merge
from echopix_cli.batch.tasks import Task

BROKEN = b"no film\n" * 9


@pytest.fixture
def folders(clips: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """``broken`` and ``good`` hold a ``cam.m4a``, ``other`` what is in the good one under another name."""
    for name, file, content in (
        ("broken", "cam.m4a", BROKEN),
        ("good", "cam.m4a", clips["dark"].read_bytes()),
        ("other", "other.m4a", clips["dark"].read_bytes()),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(content)
    return {name: tmp_path / name for name in ("broken", "good", "other")}


def said(out: Path) -> list[tuple[Any, ...]]:
    return [(Path(one.get("folder", "")).name, one["media"], "error" in one) for one in records_of(out)]


def test_each_file_has_its_record(
    ask: Any, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each is found again in its own folder, or by its whole path, or where the folder has another name."""
    out, everything = tmp_path / "out.jsonl", []
    for name, file, code in (("broken", "cam.m4a", 1), ("good", "cam.m4a", 0), ("other", "other.m4a", 0)):
        monkeypatch.chdir(folders[name])
        ran = ask(file, "What?", "-o", "../out.jsonl")
        everything.append((name, file, code == 1))
        assert (ran.code, said(out)) == (code, everything)
    for place, file in ((folders["good"], "cam.m4a"), (tmp_path, folders["good"] / "cam.m4a"), (tmp_path, "good")):
        monkeypatch.chdir(place)
        assert "0 answered, 0 failed, 1 before" in ask(file, "What?", "-o", out).err
    folders["good"].rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert "0 answered, 0 failed, 1 before" in ask("cam.m4a", "What?", "-o", out).err
    assert said(out) == everything
    assert "folder" not in ask(tmp_path / "moved" / "cam.m4a", "What?", "--json", "-Q", "Who?").out


def test_a_file_that_is_named_twice_is_answered_twice(
    ask: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders["good"])
    for expected in ("2 answered, 0 failed\n", "0 answered, 0 failed, 2 before\n"):
        assert ask("cam.m4a", folders["good"] / "cam.m4a", "What?", "-o", "out.jsonl").err.endswith(expected)


def test_of_lines_without_a_folder_no_name_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "out.jsonl"
    path.write_bytes(line(Task("cam.mp4", "What?"), "key"))
    for media, expected in (("other.mp4", False), ("cam.mp4", True)):
        journal = reopened(path, [Task(media, "What?")])
        assert journal.claim("key", Task(media, "What?")) is expected
        journal.close()


@pytest.mark.parametrize(
    ("folder", "file", "errors"),
    [("/a", None, 0), ("/b", None, 1), ("/b", FILE, 0), ("/b", {**FILE, "sha256": "cd" * 32}, 1)],
)
def test_an_error_goes_where_its_own_file_was_answered(
    tmp_path: Path, folder: str, file: dict[str, Any] | None, errors: int
) -> None:
    """In the same folder, or with the same content under that name."""
    task, parts = Task("cam.mp4", "What?"), [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    answer = {**record(task, "key", file=FILE), "folder": "/a"}
    error = {**record(task, None, True, file), "folder": folder}
    for part, one in zip(parts, (answer, error), strict=True):
        part.write_text(json.dumps(one) + "\n")
    assert merge(parts, tmp_path / "out.jsonl").errors == errors
