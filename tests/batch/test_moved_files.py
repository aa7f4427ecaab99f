"""Files that are called otherwise, or lie elsewhere, than when they were asked about."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from batch_files import asked, records_of
from journal_lines import OURS, line, record, reopened

from echopix_cli.batch.tasks import Task


def test_a_file_under_a_new_name_is_known_by_its_content(tmp_path: Path) -> None:
    path, old = tmp_path / "out.jsonl", Task(str(tmp_path / "old.mp4"), "What?")
    path.write_bytes(line(old, "key"))
    for tasks, expected in (
        ([old], [True]),
        ([Task("new.mp4", "What?")], [True]),
        ([old, Task("copy.mp4", "What?")], [True, False]),  # one line is there, and it is the first one's
        ([Task("copy.mp4", "What?"), old], [False, True]),
        ([Task("new.mp4", "What?"), Task("copy.mp4", "What?")], [True, False]),
    ):
        journal = reopened(path, tasks)
        assert [journal.claim("key", task) for task in tasks] == expected
        assert not any(journal.claim("key", task) for task in tasks)  # each line stands for one task
        journal.close()


def test_a_copy_is_another_task_and_another_spelling_is_not(tmp_path: Path) -> None:
    path, old, copy = tmp_path / "out.jsonl", tmp_path / "a.mp4", tmp_path / "b.mp4"
    old.write_bytes(b"video")
    copy.write_bytes(b"video")
    (tmp_path / "link.mp4").symlink_to(old)
    path.write_bytes(line(Task(str(old), "What?"), "key"))
    for task, expected in (
        (Task(str(copy), "What?"), False),
        (Task(str(tmp_path / "link.mp4"), "What?"), True),
        (Task(f"{tmp_path}/./a.mp4", "What?"), True),
        (Task(str(old), "What?", 7), False),  # an id that nothing was answered under
    ):
        journal = reopened(path, [task])
        assert journal.claim("key", task) is expected, task
        journal.close()
    old.rename(tmp_path / "c.mp4")
    journal = reopened(path, [Task(str(copy), "What?")])
    assert journal.claim("key", Task(str(copy), "What?")), "whatever it was called, it is no longer there"
    journal.close()


def test_a_failure_goes_with_its_file(tmp_path: Path) -> None:
    """To where the file is now that was tried; whoever asks about it gets a line, and two would be one too many."""
    path, old, new = tmp_path / "out.jsonl", tmp_path / "a" / "bad.mp4", tmp_path / "b" / "bad.mp4"
    old.parent.mkdir()
    old.write_bytes(b"no media")
    facts = {"sha256": "ab" * 32, "size": 8, "mtime_ns": old.stat().st_mtime_ns}
    failed = line(Task(str(old), "What?", 7), "key", True, facts)

    def left(task: Task) -> bytes:
        path.write_bytes(failed + OURS)
        journal = reopened(path, [task])
        journal.close()
        content = path.read_bytes()
        assert journal.other_errors == content.count(b"error")
        return content

    shutil.copytree(old.parent, new.parent)  # with its times
    assert left(Task(str(new), "What?", 7)) == failed + OURS, "a copy is another file"
    old.unlink()
    for other in (Task(str(new), "Who?", 7), Task(str(new), "What?"), Task(str(tmp_path / "none.mp4"), "What?", 7)):
        assert left(other) == failed + OURS
    assert left(Task(str(new), "What?", 7)) == OURS
    os.utime(new, (1, 1))
    assert left(Task(str(new), "What?", 7)) == failed + OURS, "no more is known to be that file"


def test_a_failure_is_known_from_another_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the place that its name leads to, where nothing is known of the file."""
    path, below = tmp_path / "out.jsonl", tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("none.mp4", "below/../none.mp4", "./none.mp4", str(tmp_path / "none.mp4")):
        failed = record(Task(name, "What?"), "key", failed=True) | {"folder": str(tmp_path)}
        path.write_text(json.dumps(failed) + "\n")
        monkeypatch.chdir(below)
        reopened(path, [Task("../none.mp4", "What?")]).close()
        assert path.read_bytes() == b"", name
        monkeypatch.chdir(tmp_path)


def test_a_folder_that_was_moved_has_a_line_for_each_of_its_files(ask, sounds: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "out.jsonl", tmp_path / "moved"
    for number in (0, 1, 2):
        (sounds / f"{number}.m4a").unlink()
    (sounds / "bad.m4a").write_text("no media\n" * 9)
    assert ask(sounds, "What?", "-o", out).err.splitlines()[-1] == "note: 3 answered, 1 failed"
    sounds.rename(moved)
    (moved / "5.m4a").rename(moved / "renamed.m4a")
    assert ask(moved, "What?", "-o", out).err.splitlines()[-1] == "note: 0 answered, 1 failed, 3 before"
    records = records_of(out)
    assert sorted(asked(records)) == [(f"{name}.m4a", "What?") for name in ("3", "4", "5", "bad")]
    assert [record["media"] for record in records if "error" in record] == [str(moved / "bad.m4a")]
