"""``ask`` with a server says what it says without one."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clips import write_clip
from servers import Running, environment, listens, serving
from terminals import Terminal
from waiting import wait_until

from echopix_cli.results import DEMONSTRATION

_TIMES = re.compile(r"[0-9.]+ (?:ms|s|[MG]iB|tokens/s)")


def words(text: str) -> list[str]:
    """Lines without what differs between any two runs: seconds, memory, and the room that they take."""
    return [" ".join(_TIMES.sub("#", line).replace("─", "").split()) for line in text.splitlines()]


def settled(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what differs between any two runs."""
    without = ("latency_s", "waited_s", "peak_memory_bytes", "tokens_per_second")
    return {name: value for name, value in record.items() if name not in without}


@pytest.mark.parametrize(
    "arguments",
    [
        ["{both}", "What instrument is playing?"],
        ["{both}", "-Q", "What?", "-Q", "Where is it?"],
        ["{silent}", "What?", "-q"],
        ["{dark}", "What?", "--choices", "a dog|a cat|neither", "-v"],
        ["{both}", "What?", "--window", "1", "--fps", "8"],
        ["{both}", "What?", "--format", "tsv", "--system", "Be brief."],
        ["nowhere.mp4", "What?"],
        ["{both}", "What?", "--sieve", "question-attention"],
        ["{both}", "What?", "--start", "1:00"],
        ["{both}", "{silent}", "nowhere.mp4", "-Q", "What?", "-Q", "Where?", "--format", "text"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_words_and_exit_codes_are_the_same(near: Running, run, clips: dict[str, Path], arguments: list[str]) -> None:
    typed = [argument.format(**clips) for argument in arguments]
    answers = near.welcome().answers
    there, here = run("ask", *typed), run("ask", *typed, "--no-server")
    assert (there.code, there.out) == (here.code, here.out)
    assert words(there.err) == words(here.err)
    assert (near.welcome().answers > answers) == (here.out != ""), "the server answered what was answered"


def test_records_are_the_same_but_for_the_server(
    near: Running, run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips["both"].parent)  # names are as they were typed, and the server works elsewhere
    typed = ("ask", "both.mp4", "-Q", "What?", "-Q", "Where?", "--json")
    there, here = run(*typed).records, run(*typed, "--no-server").records
    assert [settled(record) for record in there] == [settled(record) | {"server": True} for record in here]
    assert {record["latency_s"]["load"] for record in there} == {0.0}
    assert all(record["latency_s"]["load"] > 0 and "server" not in record for record in here)
    assert all(record["waited_s"]["load"] == 0.0 for record in there)


def test_a_batch_resumes_what_was_answered_with_and_without_a_server(
    near: Running, run, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips["both"].parent)
    output = tmp_path / "answers.jsonl"
    typed = ("ask", "both.mp4", "silent.mp4", "-o", output)
    first = run(*typed, "-Q", "What?")
    assert (first.code, "2 answered, 0 failed" in first.err) == (0, True)
    second = run(*typed, "-Q", "What?", "-Q", "Where?")
    assert "2 answered, 0 failed, 2 before" in second.err
    assert "0 answered, 0 failed, 4 before" in run(*typed, "-Q", "What?", "-Q", "Where?", "--no-server").err
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["media"] for record in records] == ["both.mp4", "silent.mp4"] * 2
    assert all(record["server"] for record in records)


def test_a_batch_shows_below_its_bar_how_far_a_film_is(near: Running, tmp_path: Path) -> None:
    path, out = write_clip(tmp_path / "long.mkv", seconds=19.5), tmp_path / "out.jsonl"
    write_clip(tmp_path / "short.mkv", seconds=0.5)
    command = ["ask", str(tmp_path), "What?", "--window", "1", "--device", "cpu", "-o", str(out)]
    variables = environment(near.runtime, ECHOPIX_MODEL=near.model, ECHOPIX_MAX_NEW_TOKENS="2")
    with Terminal(*command, columns=200, environment=variables) as terminal:
        terminal.wait_for("0/2")
        terminal.wait_for(f"reading {path}: 0:")
        terminal.wait_for("2 answered")
        assert terminal.ended() == 0
    assert all(json.loads(line)["server"] for line in out.read_text().splitlines())


def test_files_about_answers_are_written_by_the_client(
    near: Running, run, clips: dict[str, Path], tmp_path: Path
) -> None:
    page, moments = tmp_path / "page.html", tmp_path / "moments.vtt"
    ran = run("ask", clips["both"], "What?", "--report", page, "--vtt", moments)
    assert ran.code == 0
    assert moments.read_text().startswith("WEBVTT")
    assert "<html" in page.read_text()
    folder = tmp_path / "pages"
    assert run("ask", clips["both"], clips["silent"], "-Q", "What?", "--report", folder).code == 0
    assert len(list(folder.glob("*.html"))) == 3


IMPORTED = (
    "import json, sys\n"
    "from echopix_cli.__main__ import main\n"
    "try:\n    main()\n"
    "finally:\n    print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
)
# Ours that one question takes, beside the package itself: every further one is waited for at each question.
ASKING = {
    *(
        "cli",
        "cli.answer_files",
        "cli.answering",
        "cli.app",
        "cli.ask",
        "cli.ask_one",
        "cli.completion",
        "cli.demo",
        "cli.fleet",
    ),
    *("cli.formats", "cli.help", "cli.manual", "cli.misuse", "cli.options", "cli.output", "cli.parameters", "cli.run"),
    *("cli.own_files", "cli.signals", "cli.threads", "cli.waiting", "declarations", "errors", "files"),
    *("media", "media.plan", "media.values", "parsers", "records", "results"),
    *("serving", "serving.client", "serving.messages", "serving.place", "serving.wire"),
    *("settings", "sizes", "times", "weights", "weights.names"),
}
# Where the model is named by a path or a name of the registry.
NAMING = {
    *("documents", "model", "model.shapes", "weights.containment", "weights.packing", "weights.registry"),
    *("weights.environment", "weights.store"),
}
SLOW = {"asyncio", "email", "hashlib", "http", "importlib.metadata", "multiprocessing", "rich", "ssl"}


def imported(command: list[str], runtime: Path) -> set[str]:
    """Every module that a command imports."""
    own = environment(runtime, ECHOPIX_DEVICE="cpu", ECHOPIX_MAX_NEW_TOKENS="4")
    done = subprocess.run([sys.executable, "-c", IMPORTED, *command], env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_client_imports_neither_torch_nor_transformers(near: Running, clips: dict[str, Path]) -> None:
    for more in (["--json"], ["--choices", "yes|no"], [str(clips["silent"]), "-Q", "What?"]):
        question = [] if "-Q" in more else ["What?"]
        names = imported(["ask", str(clips["both"]), *more, *question, "--model", near.model], near.runtime)
        roots = {name.partition(".")[0] for name in names}
        assert roots & {"torch", "transformers", "numpy", "av", "tokenizers", "safetensors", "huggingface_hub"} == set()
        if more == ["--json"]:  # a table for a person imports what draws it, after the answer
            ours = {name.partition(".")[2] for name in names if name.startswith("echopix_cli.")}
            assert ours == ASKING | NAMING | {"__main__"}
            assert names & SLOW == set()


@pytest.mark.slow
def test_what_was_said_is_not_said_again_by_who_goes_on_without_a_server(
    runtime: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECHOPIX_DEVICE", "cpu")
    with serving(runtime, "tiny") as server:
        wait_until(lambda: listens(server))

        class Lines(io.StringIO):
            def __iter__(self) -> Iterator[str]:
                yield "What instrument is playing?\n"
                server.process.kill()
                server.process.wait()
                yield "What instrument is playing?\n"

        monkeypatch.setattr("sys.stdin", Lines())
        ran = command("chat", "demo")
    assert [record.get("server", False) for record in ran.records] == [True, False]
    assert ran.err.count(DEMONSTRATION) == 1


def test_names_that_mean_the_same_everywhere_are_not_looked_up(tmp_path: Path) -> None:
    code = "import sys; from echopix_cli.serving.client import wish_of; {}; print(*sys.modules)"
    wishes = "print(*[wish_of(name, '', '', '').model for name in ('auto', 'tiny')])"
    done = subprocess.run([sys.executable, "-c", code.format(wishes)], capture_output=True, text=True, check=True)
    wished, modules = done.stdout.splitlines()
    assert wished == "auto tiny"
    assert not set(modules.split()) & {f"echopix_cli.{name}" for name in NAMING}
