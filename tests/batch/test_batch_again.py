"""A batch that is run again: what is asked anew, what is kept, and files that change in between."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch_files import asked, records_of

from echopix_cli.batch.items import BatchOptions
from echopix_cli.batch.keys import Keys, model_facts
from echopix_cli.batch.tasks import Task
from echopix_cli.decoding.worker import Worker
from echopix_cli.engine import Engine
from echopix_cli.media import DecodePlan


def test_running_again_asks_what_is_left(ask, sounds: Path, tmp_path: Path, counted: Any) -> None:
    out = tmp_path / "out.jsonl"
    (sounds / "3.m4a").write_text("no media\n" * 9)
    first = ask(sounds, "What?", "-o", out)
    assert (first.code, first.out) == (1, "")
    assert "3.m4a is not a media file" in first.err
    assert first.err.splitlines()[-1] == "note: 5 answered, 1 failed"
    assert asked(records_of(out)) == [(f"{number}.m4a", "What?") for number in range(6)]
    before = {record["media"]: record for record in records_of(out) if "error" not in record}

    counted.update(dict.fromkeys(counted, 0))
    again = ask(sounds, "What?", "-o", out)
    assert again.code == 1
    assert again.err.splitlines()[-1] == "note: 0 answered, 1 failed, 5 before"
    assert counted["encode"] == 0
    assert counted["fingerprint"] == 6  # small files are read anew, whatever size and time say
    assert len(records_of(out)) == 6

    os.replace(sounds / "0.m4a", sounds / "renamed.m4a")
    os.utime(sounds / "1.m4a")  # touched, but the same
    (sounds / "2.m4a").write_bytes(
        (sounds / "2.m4a").read_bytes() + b"\0\0\0\x08free"
    )  # the same name, another content
    (sounds / "3.m4a").write_bytes((sounds / "4.m4a").read_bytes())  # mended; by chance a copy of another
    os.utime(sounds / "3.m4a", ns=(1, 1))
    third = ask(sounds, "What?", "-o", out)
    assert (third.code, third.err) == (0, "note: 2 answered, 0 failed, 4 before\n")
    records = records_of(out)
    assert asked(records) == [(f"{number}.m4a", "What?") for number in (0, 1, 2, 4, 5, 2, 3)]
    assert [record for record in records if "error" in record] == []
    assert records[:5] == list(before.values())
    assert records[5]["key"] != records[2]["key"]


def test_settings_that_change_answers_ask_again(ask, sounds: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out.jsonl", sounds / "0.m4a"
    for number, settings in enumerate(
        (
            (),
            ("--budget", "0.3"),
            ("--start", "1"),
            ("--choices", "yes|no"),
            ("--choices", "no|yes"),
            ("--sieve", "uniform"),
            ("--max-new-tokens", "3"),
            ("--system", "You sing."),
        ),
        1,
    ):
        ran = ask(file, "What?", "-o", out, *settings)
        assert (ran.code, ran.err) == (0, "note: 1 answered, 0 failed\n"), settings
        assert len({record["key"] for record in records_of(out)}) == number
    for settings in ((), ("--budget", "0.3"), ("--timeout", "500"), ("--device", "cpu"), ("--quiet",)):
        assert ask(file, "What?", "-o", out, *settings).code == 0
    assert len(records_of(out)) == 8  # those were answered, or change nothing


def test_another_model_asks_again(
    ask, sounds: Path, tmp_path: Path, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    out = tmp_path / "out.jsonl"
    own = tmp_path / random_checkpoint.name
    shutil.copytree(random_checkpoint, own)
    assert ask(sounds / "0.m4a", "What?", "-o", out).code == 0
    tensors = load_file(own / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, own / "model.safetensors")
    monkeypatch.setenv("ECHOPIX_MODEL", str(own))
    assert ask(sounds / "0.m4a", "What?", "-o", out).code == 0
    assert len({record["key"] for record in records_of(out)}) == 2


def test_another_bundled_model_of_the_same_version_asks_again(tmp_path: Path) -> None:
    """And the same one, installed anew elsewhere, does not."""
    from safetensors.torch import load_file, save_file

    engine, task = Engine.load("tiny", "cpu"), Task("a.mp4", "What?")
    settings = BatchOptions(engine.plan(DecodePlan()))

    def key() -> str:
        return Keys(model_facts(engine), settings).key("ab" * 32, task)

    assert engine.source.demonstration
    first, copy = key(), tmp_path / "elsewhere"
    shutil.copytree(engine.source.folder, copy)
    engine.source = replace(engine.source, folder=copy)
    assert key() == first
    (weights,) = copy.glob("*.safetensors")
    tensors = load_file(weights)
    name = min(tensors)
    save_file({**tensors, name: tensors[name] + 1}, weights)
    assert key() != first


@pytest.mark.parametrize("small", [True, False])
def test_files_that_change_places_and_keep_size_and_time(
    ask, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Any, small: bool
) -> None:
    """As copying tools leave them. A small file is read again; of a large one size and time are believed, but to
    overwrite; and whatever is believed, no features of one are kept as the other's."""
    monkeypatch.setenv("ECHOPIX_CACHE", "true")
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path / "cache"))
    if not small:
        for place in ("echopix_cli.files", "echopix_cli.batch.progress", "echopix_cli.batch.run"):
            monkeypatch.setattr(f"{place}.WHOLE", 100)
    out, first, second = tmp_path / "out.jsonl", sounds / "0.m4a", sounds / "1.m4a"
    size = max(first.stat().st_size, second.stat().st_size)
    for file in (first, second):
        with file.open("ab") as opened:
            opened.write(b"\0" * (size - file.stat().st_size))
        os.utime(file, (1, 1))
    assert ask(first, second, "-Q", "What?", "-o", out).code == 0
    before = {record["media"]: record["file"]["sha256"] for record in records_of(out)}
    first.rename(tmp_path / "kept")
    second.rename(first)
    (tmp_path / "kept").rename(second)
    counted.update(dict.fromkeys(counted, 0))
    again = ask(first, second, "-Q", "What?", "-o", out)
    assert counted["fingerprint"] == (2 if small else 0)
    said = "note: 2 answered, 0 failed" if small else "note: 0 answered, 0 failed, 2 before"
    assert again.err.splitlines()[-1] == said
    assert ask(first, second, "-Q", "What?", "-o", out, "--overwrite").code == 0
    after = {record["media"]: record["file"]["sha256"] for record in records_of(out)}
    assert [after[str(first)], after[str(second)]] == [before[str(second)], before[str(first)]]
    answers = {record["media"]: record for record in records_of(out)}
    for file in (first, second):
        alone = ask(file, "-Q", "What?", "--json", "--no-cache").records[0]
        assert (answers[str(file)]["answer"], answers[str(file)]["moments"]) == (alone["answer"], alone["moments"])


def test_the_output_among_what_is_named_is_not_asked_about(ask, sounds: Path) -> None:
    """As where a shell's clips/* or --glob names it from the second run on."""
    out = sounds / "answers.jsonl"
    assert ask(sounds, "--glob", "*", "What?", "-o", out).code == 0
    again = ask(sounds, "--glob", "*", "What?", "-o", out)
    assert (again.code, f"note: {out} is the --output, and is not asked about" in again.err) == (0, True)
    named = ask(sounds / "0.m4a", out, "-Q", "What?", "-o", out)
    assert (named.code, named.err.splitlines()[-1]) == (0, "note: 0 answered, 0 failed, 1 before")
    assert ask(out, "-Q", "What?", "-o", out).code == 2


def test_failures_of_files_that_are_gone_are_counted(ask, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    (sounds / "half.m4a").write_text("no media\n" * 9)
    assert ask(sounds, "What?", "-o", out).code == 1
    (sounds / "half.m4a").unlink()
    again = ask(sounds, "What?", "-o", out)
    assert again.code == 0
    assert again.err.splitlines()[-1].endswith("before; 1 failure of other tasks stays in it")


@pytest.mark.parametrize("length", [249, 250, 255])
def test_an_output_whose_name_is_as_long_as_names_may_be(ask, sounds: Path, tmp_path: Path, length: int) -> None:
    out = tmp_path / ("n" * (length - 6) + ".jsonl")
    missing = tmp_path / "none.m4a"
    for _ in range(2):  # the second run takes the failure's line out
        assert ask(sounds / "0.m4a", missing, "-Q", "What?", "-o", out).code == 1
    assert len(records_of(out)) == 2
    assert [file.name for file in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "text"])
def test_of_what_was_answered_before_a_table_has_its_columns(ask, sounds: Path, tmp_path: Path, form: str) -> None:
    command = (sounds, "What?", "-o", tmp_path / "out.jsonl", "--format", form)
    table = form in ("csv", "tsv")
    first = ask(*command).out.splitlines()
    assert len(first) == 6 + table
    assert ask(*command).out.splitlines() == (first[:1] if table else [])


def test_names_that_differ_in_spaces_alone_are_told_apart(ask, clips: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a b.m4a", "a  b.m4a", "a\nb.m4a"):
        (tmp_path / name).write_bytes(clips["dark"].read_bytes())
    shown = ask(tmp_path, "What?", "--format", "text").out.splitlines()
    assert {line.partition(".m4a: ")[0] for line in shown} == {
        f"{tmp_path}/{name}" for name in ("a b", "a  b", r"a\nb")
    }


def test_beginning_anew(ask, sounds: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out.jsonl", sounds / "0.m4a"
    assert ask(file, "What?", "-o", out).code == 0
    assert ask(file, "Who?", "-o", out).code == 0
    before = out.read_bytes()
    ran = ask(file, "What?", "-o", out, "--overwrite", "--model", tmp_path / "none")
    assert ran.code == 3
    assert out.read_bytes() == before  # a model that is not there costs nothing
    assert ask(file, "What?", "-o", out, "--overwrite", "--sieve", "none-such").code == 2
    assert out.read_bytes() == before
    assert ask(file, "What?", "-o", out, "--overwrite").code == 0
    assert asked(records_of(out)) == [("0.m4a", "What?")]


def test_what_is_read_is_not_overwritten(ask, sounds: Path, tmp_path: Path) -> None:
    content = (sounds / "0.m4a").read_bytes()
    (tmp_path / "link.m4a").symlink_to(sounds / "0.m4a")
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(json.dumps({"media": "sounds/0.m4a", "question": "What?"}))
    for arguments in (
        (sounds, "What?", "-o", sounds / "0.m4a"),
        (sounds, "What?", "-o", tmp_path / "link.m4a"),
        ("--input", tasks, "-o", tasks),
        (sounds, "--questions", tasks, "-o", tasks),
    ):
        for flag in ("--overwrite", "--resume"):
            ran = ask(*arguments, flag)
            assert (ran.code, ran.out) == (2, "")
    assert (sounds / "0.m4a").read_bytes() == content
    assert tasks.read_text().startswith("{")


@pytest.mark.parametrize("how", ["another content", "the same size and time", "written to", "removed"])
@pytest.mark.parametrize("cache", ["true", "false"])
def test_a_file_that_changes_while_it_is_read_gets_no_answer(
    ask, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, cache: str
) -> None:
    """Or an answer about the new content would stand under the key of the old one, and be taken for it for good."""
    monkeypatch.setenv("ECHOPIX_CACHE", cache)
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path / "cache"))
    out, media, decode, other = tmp_path / "out.jsonl", sounds / "0.m4a", Worker.decode, sounds / "1.m4a"
    old, original, time = media.read_bytes(), tmp_path / "original", os.stat(media).st_mtime_ns
    os.link(media, original)

    def decoding(self: Worker, path: str, *arguments: Any) -> Any:
        found = decode(self, path, *arguments)
        if path == str(media):
            match how:
                case "another content" | "the same size and time":
                    os.replace(other, media)
                    if how == "the same size and time":
                        assert media.stat().st_size == original.stat().st_size
                        os.utime(media, ns=(time, time))
                case "written to":
                    media.write_bytes(old + b"\0\0\0\x08free")
                case "removed":
                    os.remove(media)
        return found

    monkeypatch.setattr(Worker, "decode", decoding)
    ran = ask(media, "-Q", "What?", "-Q", "Who?", "-o", out)
    assert ran.code == 1
    for record in records_of(out):
        assert record["error"] == {
            "type": "MediaError",
            "message": f"{media} changed while it was read",
            "hint": "run again when nothing writes to it any more",
            "exit_code": 4,
        }
        assert (record["key"], record["file"]) == (None, None)
    assert len(records_of(out)) == 2
    monkeypatch.setattr(Worker, "decode", decode)
    if how == "removed":
        os.link(original, media)
    ran = ask(media, "-Q", "What?", "-Q", "Who?", "-o", out)
    assert (ran.code, ran.err) == (0, "note: 2 answered, 0 failed\n")
    assert {record["cached"] for record in records_of(out)} == {False}, "nor are its features kept"
