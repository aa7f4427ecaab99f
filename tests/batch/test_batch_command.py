"""``echopix ask`` with many files and questions: what it asks, what it keeps, and how it ends."""

from __future__ import annotations

import base64
import gc
import io
import json
import os
import re
import signal
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_files import asked, records_of

from echopix_cli.batch.items import BatchOptions
from echopix_cli.batch.run import Batch
from echopix_cli.batch.tasks import Task
from echopix_cli.cli.output import Output
from echopix_cli.decoding.worker import Worker
from echopix_cli.engine import Engine
from echopix_cli.media import DecodePlan


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


# --- what is asked


def test_every_file_and_question_is_one_line(ask, clips: dict[str, Path], tmp_path: Path, counted: Any) -> None:
    folder = tmp_path / "media"
    (folder / "sub").mkdir(parents=True)
    os.link(clips["both"], folder / "b.mp4")
    os.link(clips["dark"], folder / "sub" / "a.m4a")
    os.link(clips["dark"], folder / ".hidden.m4a")
    (folder / "notes.txt").write_text("no media")
    (tmp_path / "questions.jsonl").write_text(
        '{"question": "Dog?", "id": 3, "choices": ["yes", "no", "unclear"]}\n{"question": "Where?"}\n'
    )
    ran = ask(folder, "-Q", "What?", "-Q", "Who?", "--questions", tmp_path / "questions.jsonl", "--budget", "0.5")
    assert (ran.code, ran.err) == (0, "note: 8 answered, 0 failed\n")
    questions = ["What?", "Who?", "Dog?", "Where?"]
    assert asked(ran.records) == [(name, question) for name in ("b.mp4", "a.m4a") for question in questions]
    assert counted == {"fingerprint": 2, "decode": 2, "encode": 2, "load": 1}
    for record in ran.records:
        # The next three are of one decoding: the very same seconds, however often it is asked.
        first = next(other for other in ran.records if other["media"] == record["media"])
        for stage in ("decode", "vision", "audio"):
            assert record["latency_s"][stage] == first["latency_s"][stage]
        assert record["budget"] == 0.5
        assert len(record["key"]) == 32
        status = os.stat(record["media"])
        assert (record["file"]["size"], record["file"]["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
    assert len({record["key"] for record in ran.records}) == 8
    chosen = [record for record in ran.records if record["question"] == "Dog?"]
    for record in chosen:
        assert record["id"] == 3
        assert [choice["text"] for choice in record["choices"]] == ["yes", "no", "unclear"]
        assert sum(choice["probability"] for choice in record["choices"]) == pytest.approx(1.0, abs=1e-5)
        assert record["answer"] in ("yes", "no", "unclear")
        assert record["finish_reason"] == "choice"
    assert [record["choices"] for record in ran.records if record["question"] != "Dog?"] == [[]] * 6
    assert list(ran.records[0])[:6] == ["schema_version", "id", "key", "file", "media", "question"]


def test_paths_come_in_on_stdin(ask, sounds: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    odd = sounds / "a\nb.m4a"
    os.link(sounds / "5.m4a", odd)
    stdin(monkeypatch, os.fsencode(odd) + b"\0" + os.fsencode(sounds / "1.m4a") + b"\0")
    assert asked(ask("-", "-0", "What?").records) == [("a\nb.m4a", "What?"), ("1.m4a", "What?")]
    stdin(monkeypatch, f"{sounds / '2.m4a'}\r\n\n{clips['silent']}\n".encode())
    ran = ask("-", "-Q", "What?", sounds / "0.m4a", "--glob", "*")
    assert asked(ran.records) == [("2.m4a", "What?"), ("silent.mp4", "What?"), ("0.m4a", "What?")]
    stdin(monkeypatch, b"\n")
    ran = ask("-", "What?")
    assert (ran.code, ran.out) == (2, "")
    assert "no paths came in on stdin" in ran.err


def test_a_task_file(ask, sounds: Path, tmp_path: Path, counted: Any) -> None:
    lines = [
        {"id": "x1", "media": "sounds/0.m4a", "question": "What?"},
        {"id": 2, "media": str(sounds / "1.m4a"), "question": "Who?", "budget": 1},
        {"media": "sounds/0.m4a", "question": "What?", "start": 1, "end": "0:02"},
        {"id": "x4", "media": "sounds/0.m4a", "question": "Dog?", "choices": ["A. yes", "B. no"], "start": 1, "end": 2},
        {"id": "x5", "media": "sounds/none.m4a", "question": "What?"},
        {"id": "x6", "media": "sounds/0.m4a", "question": "What?", "start": 99},
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ran = ask("--input", tmp_path / "tasks.jsonl", "--budget", "0.25", "--choices", "left|right")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "note: 4 answered, 2 failed"
    records = {record["id"]: record for record in ran.records}
    assert len(ran.records) == 6
    assert set(records) == {"x1", 2, None, "x4", "x5", "x6"}
    assert type(ran.records[3]["id"]) is int or type(records[2]["id"]) is int
    assert [records[name]["budget"] for name in ("x1", 2, None)] == [0.25, 1.0, 0.25]
    assert (records[None]["sampling"]["start"], records[None]["sampling"]["end"]) == (1.0, pytest.approx(2.0, abs=0.1))
    assert records["x1"]["sampling"]["audio_seconds"] == pytest.approx(3.0, abs=0.1)
    assert records[None]["sampling"]["audio_seconds"] == pytest.approx(1.0, abs=0.1)
    assert records[None]["latency_s"]["decode"] == records["x4"]["latency_s"]["decode"]
    assert [choice["text"] for choice in records["x4"]["choices"]] == ["yes", "no"]
    assert [choice["text"] for choice in records["x1"]["choices"]] == ["left", "right"]
    assert "does not exist" in records["x5"]["error"]["message"]
    assert (records["x5"]["key"], records["x5"]["file"]) == (None, None)
    assert len(records["x6"]["key"]) == 32  # the file could be read, but there is nothing at 99 s
    assert counted["decode"] == 4
    assert counted["encode"] == 3


def test_malformed_input_is_refused_before_the_model_is_loaded(ask, sounds: Path, tmp_path: Path, counted: Any) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"media": "sounds/0.m4a", "question": "What?"}\n{"media": 3}\n')
    out = tmp_path / "out.jsonl"
    ran = ask("--input", tmp_path / "tasks.jsonl", "-o", out)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {tmp_path}/tasks.jsonl, line 2: 'media' is missing")
    assert not out.exists()
    ran = ask(sounds, "-Q", "Who?", "-Q", "What?", "-Q", "What?")
    assert (ran.code, ran.err.splitlines()) == (
        2,
        [
            f"error: {sounds / '0.m4a'} is asked twice: What?",
            "  try: leave one out, or give each an id of its own",
        ],
    )
    one = {"media": "sounds/1.m4a", "question": "What?", "start": 1, "budget": 0.5}
    lines = [one, {**one, "id": 1}, {**one, "start": 2, "choices": ["a", "b"]}]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ran = ask("--input", tmp_path / "tasks.jsonl")
    assert (ran.code, ran.err.splitlines()) == (
        2,
        [
            f"error: {sounds / '1.m4a'} is asked twice, with another start and choices: What?",
            '  try: give each an id of its own: {"id": "clip-1"}',
        ],
    )
    assert counted["load"] == 0


def test_shares_merge_to_the_whole(ask, sounds: Path, tmp_path: Path) -> None:
    parts = []
    for own in (1, 2, 3, 4):
        assert (
            ask(sounds, "-Q", "What?", "-Q", "Who?", "--shard", f"{own}/4", "-o", tmp_path / f"{own}.jsonl").code == 0
        )
        parts.append((tmp_path / f"{own}.jsonl").read_bytes())
    assert all(parts)
    (tmp_path / "all.jsonl").write_bytes(b"".join(parts))
    whole = asked(records_of(tmp_path / "all.jsonl"))
    assert sorted(whole) == sorted((f"{number}.m4a", text) for number in range(6) for text in ("What?", "Who?"))
    ran = ask(sounds, "-Q", "What?", "-Q", "Who?", "-o", tmp_path / "all.jsonl")
    assert (ran.code, ran.err) == (0, "note: 0 answered, 0 failed, 12 before\n")


def test_a_share_without_files_loads_no_model(ask, sounds: Path, tmp_path: Path, counted: dict[str, int]) -> None:
    """Its part is there all the same, for whoever merges all of them, and so are the columns of a table."""
    out = tmp_path / "7.jsonl"
    ran = ask(sounds, "What?", "--shard", "7/8", "-o", out, "--format", "csv")
    assert (ran.code, out.read_bytes(), counted["load"]) == (0, b"", 0)
    assert ran.out.splitlines() == ["id,media,question,answer,probability,audio,kept,total,notices,error"]
    assert ran.err == "note: --shard 7/8 holds no files: there are fewer of them than shares\n"


# --- files are decoded ahead, but not far


def test_decoding_runs_ahead_of_the_model_within_bounds(ask, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is encoded here before the file after it has been decoded: without overlap this would never end."""
    decoded, encoded, ahead = [], [], []
    decode, encode = Worker.decode, Engine.encode
    progress = threading.Condition()

    def decoding(self: Worker, *arguments: Any) -> Any:
        found = decode(self, *arguments)
        with progress:
            decoded.append(arguments[0])
            progress.notify_all()
        return found

    def encoding(self: Engine, *arguments: Any) -> Any:
        with progress:
            enough = min(len(encoded) + 2, 6)
            assert progress.wait_for(lambda: len(decoded) >= enough, 60)
        time.sleep(0.3)  # in which the decoders could run away
        with progress:
            ahead.append(len(decoded) - len(encoded))
            encoded.append(arguments)
        return encode(self, *arguments)

    monkeypatch.setattr(Worker, "decode", decoding)
    monkeypatch.setattr(Engine, "encode", encoding)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # one worker
    ran = ask(sounds, "What?", "-v")
    assert ran.code == 0
    assert (len(decoded), len(encoded)) == (6, 6)
    told = re.search(r"the model waited ([\d.]+) s of ([\d.]+) s \((\d+) %\) for files to be decoded", ran.err)
    assert told, ran.err
    assert float(told[1]) + 6 * 0.3 <= float(told[2]) + 0.2, "rounded; what the model did itself is no waiting"
    assert max(ahead) == 2  # the one that is asked about, and the next


def test_a_folder_that_cannot_be_read_is_one_error(
    ask, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any disk's lost+found."""
    lost, out = sounds / "lost+found", tmp_path / "out.jsonl"
    lost.mkdir()
    scan = os.scandir  # permissions do not bind the superuser, who may run this

    def refuse(path: str) -> object:
        if os.path.basename(path) == "lost+found":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    ran = ask(sounds, "-Q", "What?", "-Q", "Who?", "-o", out)
    said = [line for line in ran.err.splitlines() if str(lost) in line]
    assert ran.code == 1 and len(said) == 1, ran.err
    assert ran.err.splitlines()[-1] == "note: 12 answered, 2 failed"
    lost.rmdir()
    (lost).with_suffix(".m4a").write_bytes((sounds / "0.m4a").read_bytes() + b"\0\0\0\x08free")
    assert (
        ask(sounds, "-Q", "What?", "-Q", "Who?", "-o", out).err
        == "note: 2 answered, 0 failed, 12 before; 2 failures of other tasks stay in it\n"
    )


ODD_NAMES = (b"\xff\xfe.m4a", b"a\xffb.m4a", b"a\xfeb.m4a", "ä\u2028.m4a".encode(), b"plain.m4a")


def test_names_that_are_no_text_make_json_that_every_parser_reads(ask, clips: dict[str, Path], tmp_path: Path) -> None:
    folder, out = tmp_path / "media", tmp_path / "out.jsonl"
    folder.mkdir()
    for name in ODD_NAMES:
        os.link(clips["dark"], os.fsencode(folder) + b"/" + name)
    bad = folder / os.fsdecode(b"bad\xff.mp4")
    bad.write_text("no media")
    ran = ask(folder, "What?", "-o", out)
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "note: 5 answered, 1 failed")
    names = {}
    for record in [*records_of(out), *ask(folder, "What?").records, *ask(bad.with_name(os.fsdecode(ODD_NAMES[0])),
                   "What?", "--json").records]:  # fmt: skip
        json.dumps(record, ensure_ascii=False).encode()  # what strict parsers ask for: no half of a character
        raw = base64.b64decode(record["media_bytes"]) if "media_bytes" in record else record["media"].encode()
        assert record["media"] == raw.decode(errors="replace")
        names[raw] = record["media"]
    assert set(names) == {os.fsencode(folder) + b"/" + name for name in (*ODD_NAMES, b"bad\xff.mp4")}
    assert len(set(names.values())) == len(names) - 1, "two read alike, and are told apart all the same"
    again = ask(folder, "What?", "-o", out)
    assert again.err.splitlines()[-1] == "note: 0 answered, 1 failed, 5 before"


def test_an_item_for_which_memory_does_not_suffice_holds_none_of_it(
    clips: dict[str, Path], random_engine: Engine, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the next one fails as well."""
    thinker, held = type(random_engine.model.thinker), []
    original = {name: getattr(thinker, name) for name in ("encode_mel", "score")}

    def failing(name: str, path: Path) -> Any:
        def fail(self: Any, *arguments: Any, **options: Any) -> Any:
            if failing_now[0] != path:
                return original[name](self, *arguments, **options)
            taken = torch.zeros(1000)
            held.append(weakref.ref(taken))
            held.extend(weakref.ref(value) for value in arguments if isinstance(value, torch.Tensor))
            raise torch.OutOfMemoryError("CUDA out of memory")

        return fail

    failing_now, alive, kept = [sounds / "0.m4a"], [], []
    encode = Engine.encode

    def encoding(self: Engine, fetched: Any) -> Any:
        clip = fetched.content
        failing_now[0] = Path(clip.path)
        if clip.path.endswith(("0.m4a", "1.m4a")):
            held.append(weakref.ref(clip.waveform))
        else:
            gc.collect()
            alive.append([reference() is None for reference in held])
        del clip
        return encode(self, fetched)

    monkeypatch.setattr(Engine, "encode", encoding)
    monkeypatch.setattr(thinker, "encode_mel", failing("encode_mel", sounds / "0.m4a"))
    monkeypatch.setattr(thinker, "score", failing("score", sounds / "1.m4a"))
    batch = Batch(
        random_engine, BatchOptions(random_engine.plan(DecodePlan())), kept.append
    )  # whoever reports keeps the errors
    batch.run([Task(str(sounds / f"{number}.m4a"), "What?") for number in range(3)])
    assert [type(outcome.error).__name__ for outcome in kept] == ["DeviceError", "DeviceError", "NoneType"]
    assert len(held) >= 5
    assert alive == [[True] * len(held)]


# --- failures


def test_the_first_failure_may_end_it(ask, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    (sounds / "2.m4a").write_text("no media")
    ran = ask(sounds, "-Q", "What?", "-Q", "Who?", "-o", out, "--fail-fast")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "note: 4 answered, 1 failed, 7 not tried"
    (failed,) = [record for record in records_of(out) if "error" in record]
    assert failed["error"]["type"] == "MediaError"
    assert failed["error"]["exit_code"] == 4
    assert set(failed) == {"schema_version", "id", "key", "file", "media", "question", "error"}
    os.remove(sounds / "2.m4a")
    ran = ask(sounds, "-Q", "What?", "-Q", "Who?", "-o", out, "--fail-fast")
    assert (ran.code, ran.err) == (0, "note: 6 answered, 0 failed, 4 before; 1 failure of other tasks stays in it\n")


def test_what_nobody_thought_of_fails_alone(ask, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the model, in decoding, and where files are looked at."""
    encode, decode, stat = Engine.encode, Worker.decode, os.stat

    def encoding(self: Engine, fetched: Any) -> Any:
        if fetched.content.path.endswith("1.m4a"):
            raise ZeroDivisionError("boom")
        return encode(self, fetched)

    def decoding(self: Worker, path: str, *arguments: Any) -> Any:
        if path.endswith("2.m4a"):
            raise TimeoutError("tick")  # which waiting for a future raises, too
        return decode(self, path, *arguments)

    def looking(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).endswith("3.m4a") and threading.current_thread() is not threading.main_thread():
            raise MemoryError
        return stat(path, *arguments, **options)

    monkeypatch.setattr(Engine, "encode", encoding)
    monkeypatch.setattr(Worker, "decode", decoding)
    monkeypatch.setattr(os, "stat", looking)
    ran = ask(sounds, "What?")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "note: 3 answered, 3 failed"
    failed = {os.path.basename(r["media"])[0]: r["error"]["message"] for r in ran.records if "error" in r}
    assert {number: message.partition(": ")[2] for number, message in failed.items()} == {
        "1": "ZeroDivisionError: boom", "2": "TimeoutError: tick", "3": "MemoryError"
    }  # fmt: skip


def test_a_file_that_hangs_fails_alone(ask, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, stopped = Worker.decode, []

    def decoding(self: Worker, path: str, *arguments: Any) -> Any:
        if not path.endswith("1.m4a"):
            return decode(self, path, *arguments)
        assert self._pid is not None
        os.kill(self._pid, signal.SIGSTOP)
        stopped.append(self.timeout)
        self.timeout = 2.0  # of this file alone: a busy machine needs more for the others
        try:
            return decode(self, path, *arguments)
        finally:
            self.timeout = stopped[-1]

    monkeypatch.setattr(Worker, "decode", decoding)
    ran = ask(sounds, "What?", "--timeout", "300")
    assert ran.code == 1
    (failed,) = [record for record in ran.records if "error" in record]
    assert failed["media"].endswith("1.m4a")
    assert "took longer than 2 s" in failed["error"]["message"]
    assert len(ran.records) == 6
    assert stopped == [300.0]


def test_a_terminal_sees_answers_and_the_file_keeps_records(
    ask, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Output, "answers_on_terminal", True)
    out = tmp_path / "out.jsonl"
    (sounds / "5.m4a").write_text("no media")
    ran = ask(sounds, "What?", "-o", out)
    assert [line.partition(": ")[0] for line in ran.out.splitlines()] == [str(sounds / f"{n}.m4a") for n in range(5)]
    assert len(records_of(out)) == 6
    assert "5.m4a is not a media file" in ran.err
    assert len(ask(sounds, "What?", "--json").records) == 6
