"""Output files of several batches made one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from batch_files import asked, records_of
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_lines import OURS, line, record, reopened

from echopix_cli.batch.merging import Merged, merge
from echopix_cli.batch.tasks import Task
from echopix_cli.errors import UsageError

TASKS = [Task(f"{name}.mp4", question) for name in "ab" for question in ("p", "q")]


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(TASKS), st.sampled_from(["k1", "k2", None])), max_size=6),
        min_size=1,
        max_size=4,
    )
)
def test_each_answer_is_there_once_and_no_error_beside_one(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[Task, str | None]]]
) -> None:
    """Whatever was written how often, in which file; None is the key of a failure. Merging again changes nothing."""
    folder = tmp_path_factory.mktemp("parts")
    paths = [folder / f"{number}.jsonl" for number in range(len(parts))]
    for path, lines in zip(paths, parts, strict=True):
        path.write_bytes(b"".join(line(task, key, key is None) for task, key in lines))
    out = folder / "out.jsonl"
    merged = merge(paths, out)
    everything = [pair for lines in parts for pair in lines]
    answers = {(task, key) for task, key in everything if key is not None}
    failed = {task for task, key in everything if key is None} - {task for task, _ in answers}
    expected = [
        *((task.media, task.question, key) for task, key in answers),
        *((t.media, t.question, None) for t in failed),
    ]
    found = [(one["media"], one["question"], one["key"]) for one in records_of(out)]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert merged == Merged(len(expected), len(failed), len(everything) - len(expected))
    content = out.read_bytes()
    assert merge([*paths, out], out).records == len(expected)
    assert out.read_bytes() == content


def test_the_first_answer_and_the_last_error_stay(tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    one, other = record(TASKS[0], "key"), record(TASKS[1], None, True)
    first.write_text(json.dumps({**one, "answer": "first"}) + "\n" + json.dumps({**other, "error": {"n": 1}}) + "\n")
    second.write_text(json.dumps({**one, "answer": "second"}) + "\n" + json.dumps({**other, "error": {"n": 2}}))
    merge([first, second], tmp_path / "out.jsonl")
    answer, error = records_of(tmp_path / "out.jsonl")
    assert (answer["answer"], error["error"]) == ("first", {"n": 2})


def test_a_batch_goes_on_with_what_was_merged(ask: Any, command: Any, sounds: Path, tmp_path: Path) -> None:
    """Shards, one of them with a line that was cut off."""
    parts = [tmp_path / f"part-{number}.jsonl" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        assert ask(sounds, "What?", "--shard", f"{number}/3", "-o", part).code == 0
    with parts[1].open("ab") as file:
        file.write(OURS[:40])
    out = tmp_path / "out.jsonl"
    ran = command("records", "merge", *parts, "-o", out, "--json")
    assert ran.records == [{"schema_version": 1, "output": str(out), "records": 4, "errors": 0, "left_out": 0}]
    ran = ask(sounds, "What?", "-o", out)
    assert (ran.code, ran.err) == (0, "note: 2 answered, 0 failed, 4 before\n")
    assert sorted(asked(records_of(out))) == [(f"{number}.m4a", "What?") for number in range(6)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"root:x:0:0\n", "line 1, is no record of a batch"),
        (OURS + b'{"a": 1}\n', "line 2, is no record of a batch"),
        (OURS + b"torn", "line 2, is no record of a batch"),
        (OURS[:-2] + b', "settings": {}}\n', "line 1, is no record of a batch"),
        (None, "cannot read"),
    ],
)
def test_nothing_is_written_where_a_part_is_none(tmp_path: Path, content: bytes | None, says: str) -> None:
    good, bad, out = (tmp_path / name for name in ("good.jsonl", "bad.jsonl", "out.jsonl"))
    good.write_bytes(OURS)
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(UsageError, match=says):
        merge([good, bad], out)
    assert not out.exists()
    out.write_bytes(OURS)
    with pytest.raises(UsageError, match=says):
        merge([good, bad], out)
    assert out.read_bytes() == OURS


def test_files_that_are_being_written_are_left_alone(tmp_path: Path) -> None:
    part, out = tmp_path / "part.jsonl", tmp_path / "out.jsonl"
    part.write_bytes(OURS)
    out.write_bytes(OURS)
    for path in (part, out):
        journal = reopened(path)
        try:
            with pytest.raises(UsageError, match=f"another process writes {path}"):
                merge([part], out)
        finally:
            journal.close()
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "part.jsonl"]
    assert out.read_bytes() == OURS
