"""``echopix chat``: on a terminal as a person types, and from a pipe."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from places import ROOT
from terminals import Terminal

from echopix_cli.cli.demo import right_answer
from echopix_cli.cli.output import AnswersLost, Output, ReaderGone


@pytest.fixture
def script(run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``script(lines, clip)``: a conversation from a pipe, with the random model."""

    def chat(lines: str, *arguments: object) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return run("chat", *arguments, "--device", "cpu")

    return chat


def test_a_script_gives_a_record_a_line_and_reads_the_file_once(
    script: Any, run: Any, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from echopix_cli.engine import Engine

    reads = []
    read = Engine.read
    monkeypatch.setattr(Engine, "read", lambda self, path, *more: reads.append(path) or read(self, path, *more))
    lines = "What?\n\n/budget 50%\nWhere?\n/start 0.2\nWhen?\n/start\nWhere?\n"
    ran = script(lines + f"/save {tmp_path / 'answers.jsonl'}\n", clips["both"])
    records = ran.records
    assert (ran.code, [record["question"] for record in records]) == (0, ["What?", "Where?", "When?", "Where?"])
    assert [record["budget"] for record in records] == [0.1, 0.5, 0.5, 0.5]
    assert [record["sampling"]["start"] for record in records] == [0.0, 0.0, 0.2, 0.0]
    assert len(reads) == 3, "once, and again where another part of it was asked about"
    saved = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [record["answer"] for record in saved] == [record["answer"] for record in records]
    assert [record.get("turns_seen") for record in records] == [None, 1, None, None]
    (alone,) = run("ask", clips["both"], "Where?", "--json", "--budget", "0.5", "--device", "cpu").records
    assert (alone["answer"], alone["tokens"]) == (records[3]["answer"], records[3]["tokens"])


def test_both_ends_of_a_part_are_set_at_once(script: Any, clips: dict[str, Path]) -> None:
    lines = "/start 0 /end 0.2\n/start 0.4 /end 0.9\nWhat?\n/end 0.3 /start 0.1\nWhat?\n/end 0.05\n"
    ran = script(lines, clips["silent"])
    spans = [(record["sampling"]["start"], record["sampling"]["end"]) for record in ran.records]
    assert (ran.code, spans) == (2, [(0.4, 0.9), (0.1, 0.3)])


def test_waiting_begins_with_each_question(script: Any, clips: dict[str, Path]) -> None:
    began = time.monotonic()
    ran = script("What?\nWhere?\n", clips["silent"], "-v")
    waited = [record["waited_s"]["total"] for record in ran.records]
    assert waited[1] > 0 and sum(waited) < time.monotonic() - began


def test_turns_before_go_into_the_prompt(script: Any, clips: dict[str, Path]) -> None:
    lines = f"What?\nWhere?\nWhere?\n/new\nWhere?\n/open {clips['silent']}\nWhere?\nAnd?\n"
    ran = script(lines, clips["both"], "--max-new-tokens", "4")
    records = ran.records
    assert [record.get("turns_seen") for record in records] == [None, 1, 2, None, None, 1]
    text = [record["tokens"]["text"] for record in records]
    assert text[3] < text[1] < text[2]
    assert "turns before were not read" not in ran.err


def test_turns_before_go_with_every_window_of_a_film(script: Any, clips: dict[str, Path]) -> None:
    shown = script("What?\nWhere?\n/new\nWhere?\n", clips["both"], "--window", "1", "--fps", "8")
    first, second, alone = shown.records
    assert [record["film"]["windows"] for record in (first, second, alone)] == [3, 3, 3]
    assert [record.get("turns_seen") for record in (first, second, alone)] == [None, 1, None]
    assert second["tokens"]["text"] > alone["tokens"]["text"]


def test_of_turns_that_do_not_fit_the_newest_are_read_and_that_is_said(script: Any, clips: dict[str, Path]) -> None:
    words = ["x " * 200] * 3  # of which two fit
    ran = script("\n".join([*words, "Where?", "Where?"]), clips["silent"], "--max-new-tokens", "1")
    assert [record.get("turns_seen") for record in ran.records] == [None, 1, 2, 2, 3]
    assert ran.err.count("of 3 turns before, the last 2 were read") == 1


def test_a_model_of_single_questions_says_so_once(script: Any) -> None:
    ran = script("What instrument is playing?\nWhat instrument is playing?\nWhat?\n", "demo", "--model", "tiny", "-q")
    assert [record.get("turns_seen") for record in ran.records] == [None, 0, 0]
    assert ran.records[0]["answer"] == ran.records[1]["answer"] == right_answer()
    assert ran.records[0]["tokens"] == ran.records[1]["tokens"]
    assert ran.err.count("turns before were not read: the model takes single questions") == 1


def test_what_fails_in_a_script_is_a_record_too(script: Any, clips: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("no film")
    ran = script(f"What?\n/open {broken}\nWhat?\n/open {clips['silent']}\nWhat?\n", clips["both"])
    assert (ran.code, ["error" in record for record in ran.records]) == (1, [False, True, False])
    assert ran.records[1]["error"]["type"] == "MediaError"


def test_a_command_that_cannot_be_followed_ends_a_script(script: Any, clips: dict[str, Path], tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for line, said in (
        ("/budget 2", "not a budget"),
        ("/end 0", "not after its start"),
        (f"/save {taken}", "exists already"),
        ("/open nowhere.mp4", "does not exist"),
        ("/where", None),
    ):
        ran = script(f"What?\n{line}\nWhat?\n", clips["silent"])
        if said is None:
            assert (ran.code, len(ran.records)) == (0, 2)
        else:
            assert (ran.code in (2, 4), len(ran.records)) == (True, 1), line
            assert said in ran.err
    assert taken.read_text() == "mine"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # which it is depends on the locale
def test_a_question_in_another_encoding_is_one_that_fails(
    run: Any, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, errors: str
) -> None:
    raw = b"What?\n" + "Où?\n".encode("latin-1") + "Où?\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8", errors=errors))
    ran = run("chat", clips["silent"], "--device", "cpu")
    assert (ran.code, [record["question"] for record in ran.records]) == (1, ["What?", "O\ufffd?", "Où?"])
    error = {"type": "UsageError", "message": "the question is not valid UTF-8", "exit_code": 2}
    assert [error.items() <= record.get("error", {}).items() for record in ran.records] == [False, True, False]
    assert ran.err.count("error: ") == 1


def test_a_byte_order_mark_is_no_part_of_the_first_line(script: Any, clips: dict[str, Path]) -> None:
    (record,) = script("\ufeff/budget 0.5\nWhat?\n", clips["silent"]).records
    assert (record["budget"], record["question"]) == (0.5, "What?")


def test_what_it_saved_is_not_replaced_once_something_else_has_written_it(
    run: Any, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "saved.jsonl"

    class Lines(io.StringIO):
        def __iter__(self) -> Any:
            yield from ("What?\n", f"/save {saved}\n", "Where?\n", f"/save {saved}\n")
            assert len(saved.read_text().splitlines()) == 2
            saved.write_text("notes\n")
            yield f"/save {saved}\n"

    monkeypatch.setattr("sys.stdin", Lines())
    ran = run("chat", clips["silent"], "--device", "cpu")
    assert ran.code == 2 and "was changed since" in ran.err
    assert saved.read_text() == "notes\n"


def test_a_stdout_that_cannot_be_written_ends_a_script(
    script: Any, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(output: Output, text: str) -> None:
        raise AnswersLost("cannot write to stdout: No space left on device")

    monkeypatch.setattr(Output, "_write", full)
    ran = script("What?\nWhere?\n", clips["silent"])
    assert ran.code == 1 and ran.err.count("cannot write to stdout") == 1


def test_the_budget_is_said_under_quiet_too(script: Any, clips: dict[str, Path]) -> None:
    assert "the budget is 0.5" in script("/budget 0.5\n", clips["silent"], "-q").err


@pytest.fixture
def conversation(run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``conversation(lines, *arguments)``: what is typed on a terminal, without the terminal."""

    def chat(lines: list[str], *arguments: object) -> Any:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
        prompt = SimpleNamespace(lines=lambda: iter(lines))
        monkeypatch.setattr("echopix_cli.cli.chat_prompt.Prompt", lambda history, status: prompt)
        return run("chat", *arguments, "--device", "cpu")

    return chat


@pytest.mark.parametrize("how", ["conversation", "script"])
def test_a_file_that_fails_leaves_no_other_unasked(
    how: str, request: pytest.FixtureRequest, clips: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("no film")
    lines: Any = ["What?"] if how == "conversation" else "What?\n"
    ran = request.getfixturevalue(how)(lines, broken, clips["silent"])
    assert ran.err.count("error: ") == 1 and str(broken) in ran.err
    if how == "script":
        assert [record["media"] for record in ran.records] == [str(broken), str(clips["silent"])]
    else:
        assert (ran.code, ran.out.startswith(f"{clips['silent']}: ")) == (0, True)


@pytest.mark.parametrize("flags", [(), ("--debug",)])
def test_what_nobody_foresaw_ends_no_conversation(
    conversation: Any, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    from echopix_cli.engine import Engine

    stream, asked = Engine.stream, list[str]()

    def at_first(self: Any, encoded: Any, question: str, options: Any) -> Any:
        asked.append(question)
        if len(asked) == 1:
            raise ZeroDivisionError("boom")
        return stream(self, encoded, question, options)

    monkeypatch.setattr(Engine, "stream", at_first)
    ran = conversation(["What?", "Where?"], clips["silent"], *flags)
    assert (ran.code, asked, len(ran.out.splitlines())) == (0, ["What?", "Where?"], 1)
    assert ran.err.count("error: unexpected failure: ZeroDivisionError: boom") == 1
    assert ran.err.count("in at_first") == len(flags)


def test_a_conversation_whose_reader_is_gone_ends(
    conversation: Any, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(output: Output, text: str) -> None:
        raise ReaderGone

    monkeypatch.setattr(Output, "_write", gone)
    ran = conversation(["What?", "Where?"], clips["silent"])
    assert (ran.code, ran.err) == (141, ran.err.replace("error", ""))


def test_several_files_are_all_asked(script: Any, clips: dict[str, Path]) -> None:
    ran = script("What?\n", clips["both"], clips["silent"])
    assert [record["media"] for record in ran.records] == [str(clips["both"]), str(clips["silent"])]


@pytest.mark.parametrize(("most", "reads"), [(2**28, ["both", "silent"]), (0, ["both", "silent"] * 2)])
def test_several_files_are_read_once_as_far_as_memory_for_them_goes(
    script: Any, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, most: int, reads: list[str]
) -> None:
    from echopix_cli.engine import Engine

    read, found = Engine.read, list[str]()
    monkeypatch.setattr("echopix_cli.serving.answering._MOST_HELD", most)
    monkeypatch.setattr(Engine, "read", lambda self, path, *more: found.append(path) or read(self, path, *more))
    ran = script("What?\nWhat?\n", clips["both"], clips["silent"], "--no-server")
    assert found == [str(clips[name]) for name in reads]
    assert len({(record["media"], record["answer"]) for record in ran.records[:2]}) == 2
    assert len(ran.records) == 4


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "ECHOPIX_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 120])
def test_a_conversation_on_a_terminal(columns: int, tmp_path: Path) -> None:
    with Terminal("chat", "demo", "--device", "cpu", columns=columns, environment=environment(tmp_path)) as terminal:
        terminal.wait_for("Ctrl-D")
        terminal.wait_for(">")
        terminal.type("What instrument is playing?\r")
        terminal.wait_for(f"\n{right_answer()}")
        terminal.wait_for(">")
        terminal.type("/whe")
        terminal.wait_for("/whe")
        terminal.type("\t")
        terminal.wait_for("re")
        terminal.type("\r")
        assert "sound" in terminal.wait_for("%")
        terminal.type("/budget 2\r")
        terminal.wait_for("not a budget")
        terminal.type("/help\r")
        terminal.wait_for("turns before are read with")
        terminal.type("half a question\x03")
        terminal.type(f"/save {tmp_path}/out.jsonl\r")
        terminal.wait_for("1 answer in")
        terminal.wait_for(">")
        terminal.type("\x04")
        assert terminal.ended() == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["answer"] == right_answer()
    history = tmp_path / "cache" / "chat-history"
    assert "What instrument is playing?" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
    drawn = [line for line in terminal.shown.splitlines() if line.startswith(("picture", "sound", "error", "note"))]
    assert drawn and max(map(len, drawn)) <= columns


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
def test_ctrl_c_while_the_libraries_are_imported_leaves_a_conversation(tmp_path: Path, seconds: float) -> None:
    arguments = ("chat", "demo", "--device", "cpu", "--no-server")
    with Terminal(*arguments, columns=80, environment=environment(tmp_path)) as terminal:
        terminal.wait_for(">")
        terminal.type("What instrument is playing?\r")
        terminal.wait_for("loading the model")
        time.sleep(seconds)
        terminal.type("\x03")
        terminal.wait_for("stopped")
        terminal.wait_for(">")
        terminal.type("What instrument is playing?\r")
        terminal.wait_for(f"\n{right_answer()}")
        terminal.wait_for(">")
        terminal.type("\x04")
        assert terminal.ended() == 0


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_and_not_the_conversation(
    random_checkpoint: Path, clips: dict[str, Path], tmp_path: Path
) -> None:
    arguments = ("chat", str(clips["both"]), "--model", str(random_checkpoint), "--max-new-tokens", "20000")
    with Terminal(*arguments, "--device", "cpu", columns=80, environment=environment(tmp_path)) as terminal:
        terminal.wait_for(">")
        terminal.type("What?\r")
        terminal.wait_for("What?\n")
        terminal.wait_for("answering")
        terminal.wait_for("|")  # which this model says again and again
        terminal.type("\x03")
        terminal.wait_for("stopped")
        terminal.wait_for(">")
        terminal.type("/budget\r")
        terminal.wait_for("the budget is the model's own")
        terminal.wait_for(">")
        terminal.type("\x04")
        assert terminal.ended() == 0
