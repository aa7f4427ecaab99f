"""The output file of a batch, cut anywhere, held by others, on disks that are full, and mistaken for another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_lines import FILE, OURS, line, record, reopened

from echopix_cli.batch.journal import FileFacts, Journal, Spelling
from echopix_cli.batch.tasks import Task
from echopix_cli.cli.eval_items import item_record
from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.evaluation.values import ItemResult

ODD = st.text(st.characters(codec=None, exclude_categories=()), min_size=1, max_size=4)  # surrogates and all
TASKS = st.builds(Task, ODD, ODD, st.none() | st.integers() | ODD)
ENTRIES = st.lists(
    st.tuples(TASKS, st.text("0123456789abcdef", min_size=1, max_size=3), st.booleans()),
    min_size=1,
    max_size=6,
    unique_by=lambda entry: (entry[0].media, entry[0].question, entry[0].id),
)


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(ENTRIES)
def test_cut_anywhere_whole_lines_stay(tmp_path_factory: pytest.TempPathFactory, entries: list[Any]) -> None:
    path = tmp_path_factory.mktemp("cut") / "out.jsonl"
    journal = reopened(path)
    ends = [0]
    for task, key, failed in entries:
        journal.append(record(task, key, failed))
        ends.append(path.stat().st_size)
    journal.close()
    content = path.read_bytes()
    assert content.count(b"\n") == len(entries)
    answered = [task for task, _, failed in entries if not failed]
    for cut in range(ends[max(0, len(ends) - 3)], len(content) + 1):
        path.write_bytes(content[:cut])
        journal = reopened(path, answered)
        whole = sum(end - 1 <= cut for end in ends[1:])  # the newline may be missing
        assert path.read_bytes() == content[: ends[whole]]
        for number, (task, key, failed) in enumerate(entries):
            assert journal.claim(key, task) == (number < whole and not failed)
        if cut % 16 == 0:  # each of these waits for the disk
            journal.append(record(Task("m", "q"), "key"))
            assert path.read_bytes() == content[: ends[whole]] + line(Task("m", "q"), "key")
        journal.close()


@settings(max_examples=60)
@given(ENTRIES, st.data())
def test_failures_of_these_tasks_go_and_all_else_stays(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Any], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "failures.jsonl"
    path.write_bytes(b"".join(line(*entry) for entry in entries))
    mine = data.draw(st.sets(st.sampled_from([entry[0] for entry in entries])))
    kept = [entry for entry in entries if not (entry[2] and entry[0] in mine)]
    journal = reopened(path, sorted(mine, key=repr))
    assert path.read_bytes() == b"".join(line(*entry) for entry in kept)
    for task, key, failed in entries:
        if task in mine:
            assert journal.claim(key, task) or failed
            assert not journal.claim("another key", task)
    journal.close()
    assert not list(path.parent.glob(".*.part"))


def test_a_run_that_never_began_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    Journal(path).close()
    assert not path.exists()
    path.touch()
    Journal(path).close()
    assert path.read_bytes() == b"", "it was there before"
    path.unlink()
    journal = Journal(path)
    path.write_text("theirs")
    journal.close()
    assert path.read_text() == "theirs"
    with pytest.raises(UsageError, match="stdout"):
        Journal(Path("-"))


def test_what_is_known_of_files(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(line(Task("a.mp4", "q"), "key", file=FILE) + line(Task("b.mp4", "q"), None, True, None))
    journal = reopened(path)
    assert journal.facts_of("a.mp4", 10, 20) == FileFacts(FILE["sha256"], 10, 20)
    assert journal.facts_of("a.mp4", 11, 20) is None
    assert journal.facts_of("a.mp4", 10, 21) is None
    assert journal.facts_of("b.mp4", 10, 20) is None
    journal.close()


FOREIGN = {
    "binary": bytes(range(256)).replace(b"\n", b"") * 20,
    "zeros": bytes(4096),
    "binary with newlines": bytes(range(256)) * 20,
    "text": b"Dear diary,\ntoday\n",
    "text without newline": b"Dear diary",
    "a bracket": b"[",
    "an empty line": b"\n",
    "JSON of another kind": b'{"name": "echopix", "version": 1}\n',
    "JSON of another kind, one line, no newline": b'{"schema_version": 1, "layers": [1, 2]}',
    "JSON that nests deeply": b'{"schema_version": ' + b"[" * 100_000,
    "lines that nest deeply": b"[" * 100_000 + b"\n",
    "a list": b"[1, 2]\n",
    "a task list": b'{"media": "a.mp4", "question": "What?", "id": "1"}\n',
    "answers of single files": b'{"schema_version": 1, "media": "a.mp4", "question": "What?", "answer": "x"}\n',
    "an id of another kind": OURS.replace(b'"id": null', b'"id": [1]'),
    "facts of another kind": OURS.replace(b'"file": null', b'"file": {"sha256": 1, "size": [], "mtime_ns": 2}'),
    "a key of another kind": OURS.replace(b'"key": "key"', b'"key": {}'),
    "ours, then another": OURS + b"and then\n",
    "ours, then another without newline": OURS + b"and then",
    "ours, then another, then a torn one": OURS + b"x\n" + OURS[:30],
}


@pytest.mark.parametrize("name", FOREIGN)
def test_another_file_named_by_mistake_is_left_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / "precious"
    path.write_bytes(FOREIGN[name])
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is no record of a batch") as raised:
            reopened(path, [Task("a.mp4", "q")], overwrite)
        assert f"{path}, line " in raised.value.message
        assert "--overwrite" not in raised.value.hint
        assert path.read_bytes() == FOREIGN[name]
        assert os.listdir(tmp_path) == ["precious"]


def test_records_are_overwritten_where_that_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(line(Task("b.mp4", "q"), "other") + line(Task("failed.mp4", "q"), None, True) + OURS[:40])
    journal = reopened(path, [Task("a.mp4", "q")], overwrite=True)
    assert not journal.claim("other", Task("b.mp4", "q"))
    journal.append(record(Task("a.mp4", "q"), "key"))
    journal.close()
    assert path.read_bytes() == OURS


def test_blank_lines_at_the_end_go(tmp_path: Path) -> None:
    path, failed = tmp_path / "out.jsonl", line(Task("failed.mp4", "q"), None, True)
    for tail in (b"\n", b"\r\n", b" \n\n", b"\n" + OURS[:30]):
        for before in (OURS, failed + OURS, OURS + failed):
            path.write_bytes(before + tail)
            journal = reopened(path, [Task("failed.mp4", "q"), Task("a.mp4", "q")])
            assert journal.claim("key", Task("a.mp4", "q"))
            journal.append(record(Task("b.mp4", "q"), "key"))
            journal.close()
            assert path.read_bytes() == OURS + line(Task("b.mp4", "q"), "key")


def test_a_record_that_lacks_only_its_newline_stays(tmp_path: Path) -> None:
    path, task, failed = tmp_path / "out.jsonl", Task("b.mp4", "q"), Task("failed.mp4", "q")
    last = line(task, "key")[:-1]
    for before, tail in ((b"", b""), (b"", bytes(300)), (OURS, b""), (OURS, bytes(300)), (OURS + b"\n", b"")):
        for gone in (b"", line(failed, None, True)):
            path.write_bytes(gone + before + last + tail)
            opened = Journal(path, [failed, task])
            assert path.read_bytes() == gone + before + last + tail
            opened.begin()
            assert path.read_bytes() == before.replace(b"\n\n", b"\n") + last + b"\n"
            assert opened.claim("key", task)
            opened.append(record(failed, "key"))
            opened.close()
            assert path.read_bytes() == before.replace(b"\n\n", b"\n") + last + b"\n" + line(failed, "key")
    path.write_bytes(OURS + line(failed, None, True)[:-1])
    reopened(path, [failed]).close()
    assert path.read_bytes() == OURS, "a failure is tried again"
    path.write_bytes(OURS[:-1])
    reopened(path, overwrite=True).close()
    assert path.read_bytes() == b""


def test_items_of_an_evaluation_are_no_records_of_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    item = json.dumps(item_record(ItemResult("1", "a.mp4", "f", "q", "yes", 2, 1, {}), "key", {})).encode()
    items = Spelling("an evaluation", "--items", by_setting=True)
    for content, spelling in (
        (item + b"\n", Spelling()),
        (item, Spelling()),
        (OURS + item + b"\n", Spelling()),
        (OURS, items),
        (item + b"\n" + OURS, items),
    ):
        path.write_bytes(content)
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="is no record of"):
                Journal(path, overwrite=overwrite, spelling=spelling)
            assert path.read_bytes() == content
    path.write_bytes(item + b"\n")
    opened = Journal(path, spelling=items, keep=True)
    assert list(opened.kept) == ["key"]
    opened.close()


def test_lines_that_the_power_took(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for before, tail in ((OURS, bytes(700)), (OURS, OURS[:50] + bytes(300)), (b"", OURS[:50] + bytes(300))):
        path.write_bytes(before + tail)
        reopened(path).close()
        assert path.read_bytes() == before


def test_nothing_changes_before_it_begins(tmp_path: Path) -> None:
    """A model that does not load, or a setting that does not fit, must not cost what was there."""
    path, task = tmp_path / "out.jsonl", Task("a.mp4", "q")
    content = line(task, "key", True) + line(Task("b.mp4", "q"), "key") + OURS[:40]
    for overwrite in (False, True):
        path.write_bytes(content)
        Journal(path, [task], overwrite).close()
        assert path.read_bytes() == content
    reopened(path, [task], overwrite=True).close()
    assert path.read_bytes() == b""


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, path = tmp_path / "elsewhere" / "real.jsonl", tmp_path / "out.jsonl"
    path.symlink_to(target)
    journal = reopened(path)  # the link leads nowhere yet
    journal.append(record(Task("a.mp4", "q"), "key", failed=True))
    journal.append(record(Task("b.mp4", "q"), "key"))
    journal.close()
    reopened(path, [Task("a.mp4", "q")]).close()
    assert path.is_symlink()
    assert target.read_bytes() == line(Task("b.mp4", "q"), "key")
    assert os.listdir(target.parent) == ["real.jsonl"]


def test_permissions_stay(tmp_path: Path) -> None:
    path, task = tmp_path / "out.jsonl", Task("a.mp4", "q")
    path.write_bytes(line(task, None, True))
    path.chmod(0o640)
    reopened(path, [task]).close()
    assert path.stat().st_mode & 0o777 == 0o640


def test_places_where_no_lines_can_be_kept(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "round").symlink_to("round")
    for path, said in (
        (tmp_path / "pipe", "is a pipe or device"),
        (Path("/dev/null"), "is a pipe or device|cannot be written"),
        (tmp_path / "folder", "is a folder"),
        (tmp_path / "none" / "out.jsonl", "does not exist"),
        (tmp_path / "round", "symbolic links"),
    ):
        for overwrite in (False, True):
            with pytest.raises(EchopixError, match=said):
                Journal(path, (), overwrite)
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe", "round"]


# --- what others do to the file while it is written

FIRST, SECOND = (record(Task(name, "q"), "key") for name in ("a.mp4", "b.mp4"))


def replaced(path: Path) -> None:
    (path.parent / "new").write_bytes(path.read_bytes())
    os.replace(path.parent / "new", path)


def edited(path: Path) -> None:
    """In place, and no longer or shorter than before."""
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b" \n")


INTERFERENCE: dict[str, Callable[[Path], object]] = {
    "removed": os.remove,
    "renamed": lambda path: os.rename(path, path.with_name("renamed")),
    "replaced": replaced,
    "replaced by a link": lambda path: (os.rename(path, path.with_name("kept")), path.symlink_to("nowhere")),
    "replaced by a folder": lambda path: (os.remove(path), path.mkdir()),
    "emptied": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 5),
    "lengthened": lambda path: path.write_bytes(path.read_bytes() + OURS),
}


@pytest.mark.parametrize("what", [*INTERFERENCE, "edited"])
def test_a_file_that_others_change_ends_the_batch(tmp_path: Path, what: str) -> None:
    """Before a line is written and after the last one; nothing is written to a file that is not as it was left."""
    for change_before in ("begin", "append", "confirm"):
        folder = tmp_path / change_before
        folder.mkdir()
        path = folder / "out.jsonl"
        path.write_bytes(OURS)
        journal = Journal(path, [])
        if change_before != "begin":
            journal.begin()
            journal.append(FIRST)
        if change_before == "begin" and what == "edited":
            continue  # nothing was written that could be missing
        {**INTERFERENCE, "edited": edited}[what](path)
        before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        step: dict[str, Callable[[], object]] = {
            "begin": journal.begin, "append": partial(journal.append, SECOND), "confirm": journal.confirm
        }  # fmt: skip
        with pytest.raises(EchopixError, match=r"out\.jsonl was changed by somebody else while it was written") as told:
            step[change_before]()
        assert "\n" not in told.value.message and told.value.hint
        journal.close()
        assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before


def test_a_link_that_leads_elsewhere_ends_the_batch(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.symlink_to("first")
    journal = reopened(path)
    journal.append(FIRST)
    path.unlink()
    path.symlink_to("second")
    (tmp_path / "second").write_bytes((tmp_path / "first").read_bytes())
    with pytest.raises(EchopixError, match="another file lies there"):
        journal.confirm()
    journal.close()


def test_a_file_cut_in_the_middle_of_writing_has_no_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and the write there is a moment left."""
    path, write = tmp_path / "out.jsonl", os.write
    journal = reopened(path)
    journal.append(FIRST)

    def cutting(file: int, content: bytes) -> int:
        os.truncate(path, 0)
        return write(file, content)

    monkeypatch.setattr(os, "write", cutting)
    with pytest.raises(EchopixError, match="was changed by somebody else"):
        journal.append(SECOND)
    journal.close()
    assert path.read_bytes() == line(Task("b.mp4", "q"), "key")


def test_a_name_that_was_planted_is_not_written_to(tmp_path: Path) -> None:
    """Of the file that takes the place of this one; whoever may write to the folder may guess it."""
    path, failed, victim = tmp_path / "out.jsonl", Task("failed.mp4", "q"), tmp_path / "victim"
    planted = tmp_path / ".out.jsonl.part"
    for plant in (lambda: planted.symlink_to(victim), lambda: os.link(victim, planted), lambda: os.mkfifo(planted)):
        victim.write_bytes(b"precious")
        path.write_bytes(line(failed, None, True) + OURS)
        plant()
        reopened(path, [failed]).close()
        assert path.read_bytes() == OURS
        assert victim.read_bytes() == b"precious"
        assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "victim"]
