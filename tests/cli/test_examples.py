"""Every example of the README, of the manual and of the help: run as it is typed, or, where it needs a hub, a GPU or
minutes, read by the program as far as its first step."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

import pytest
import typer
from places import ROOT

from echopix_cli.cli.app import command_line
from echopix_cli.cli.demo import QUESTION, demo_clip, right_answer
from echopix_cli.cli.examples import EXAMPLES
from echopix_cli.settings import read_models, resolve
from echopix_cli.training.recipe import read_values

CARD = ROOT / "echopix_cli" / "assets" / "MODEL_CARD.md"
PAGES = [ROOT / "README.md", CARD, *sorted((ROOT / "echopix_cli" / "manual").glob("*.md"))]
SETTINGS = r"(?:[A-Z_]+=\S+ )*"
# What takes a model hub, a GPU or minutes. All else runs.
LONG = re.compile(
    r"echopix (train|bench|eval|profile|serve|models (pull|verify|rm|path|info) (qwen|hf:)"
    r"|ask .*--(model (runs|qwen)|engine ray))"
)
ANSWERS = {QUESTION: right_answer(), "What is on the left?": "car"}


def page_lines() -> Iterator[str]:
    """Command lines of the shell blocks of the README and the manual, comments left out."""
    for page in PAGES:
        for kind, block in re.findall(r"```(sh|console)\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                if line.startswith(("#", "python3 -m venv")) or (kind == "console" and not line.startswith("$ ")):
                    continue  # the two that install are run by .ci/run
                yield re.sub(r"\s+#.*", "", line.removeprefix("$ "))


def blocks(page: Path, language: str) -> list[str]:
    """Blocks of code in a language on a page."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def helped_lines() -> Iterator[str]:
    for command in EXAMPLES.values():
        yield from (line for line, _ in command)


LINES = list(dict.fromkeys([*helped_lines(), *page_lines()]))
SIMPLE = [line for line in LINES if re.match(rf"{SETTINGS}echopix ", line) and not re.search(r"[|>;&$]", line)]


@pytest.fixture(scope="module")
def example_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that examples name, each with the bundled clip's picture and sound, or its sound."""
    import soundfile

    from echopix_cli.media import load_clip

    folder = tmp_path_factory.mktemp("examples")
    (folder / "clips").mkdir()
    for name in ("clip.mp4", "film.mkv", "movie.mp4", "clips/a.mp4", "clips/take-1.mkv"):
        shutil.copy(demo_clip(), folder / name)
    sound = load_clip(demo_clip()).waveform
    assert sound is not None
    soundfile.write(folder / "song.flac", sound, 16_000)
    (folder / "questions.txt").write_text("\n".join(ANSWERS))
    task = {"id": 1, "media": "clip.mp4", "question": QUESTION}
    (folder / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    (folder / "questions.jsonl").write_text(json.dumps({**task, "answer": ANSWERS[QUESTION]}) + "\n")
    for number in (1, 2):
        record = {"schema_version": 1, "key": "0" * 32, "file": None, **task, "id": number}
        record["answer"] = ANSWERS[QUESTION]
        (folder / f"part-{number}.jsonl").write_text(json.dumps(record) + "\n")
    return folder


@pytest.fixture
def sandbox(example_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own that holds those files, and is the current one."""
    folder = tmp_path / "sandbox"
    shutil.copytree(example_files, folder)
    monkeypatch.chdir(folder)
    return folder


def test_there_are_examples() -> None:
    assert len(SIMPLE) > 60
    assert all(len(lines) == 3 for lines in EXAMPLES.values())
    assert len(PAGES) > 10
    assert not [page for page in PAGES if "What plays?" in page.read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "echopix_cli/manual/python.md"])
def test_python_examples_run(page: str) -> None:
    """All of a page's, one after the other."""
    program = "\n".join(blocks(ROOT / page, "python"))
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == ANSWERS[QUESTION]


def test_python_examples_are_on_the_pages_that_are_run() -> None:
    assert [page.name for page in PAGES if blocks(page, "python")] == ["README.md", "python.md"]


def test_config_files_and_recipes_that_are_shown_are_read(tmp_path: Path) -> None:
    (models,) = blocks(ROOT / "echopix_cli" / "manual" / "weights.md", "toml")
    (tmp_path / "config.toml").write_text(models)
    folder, pinned = str(tmp_path / "runs" / "mine"), "hf:Qwen/Qwen2.5-Omni-3B@COMMIT"
    assert read_models(tmp_path / "config.toml") == {"mine": folder, "pinned": pinned}
    (recipe,) = blocks(ROOT / "echopix_cli" / "manual" / "training.md", "toml")
    (tmp_path / "recipe.toml").write_text(recipe)
    assert read_values(tmp_path / "recipe.toml")["families"] == ("instrument", "order")
    assert sum(len(blocks(page, "toml")) for page in PAGES) == 2


def test_the_record_that_is_shown_is_one(command: Any, sandbox: Path) -> None:
    """Names and, one level down, names: those of a real record; what the page leaves out is empty."""
    shown = [json.loads(text) for page in PAGES for text in blocks(page, "json")]
    record = next(one for one in shown if "schema_version" in one)
    real = json.loads(command("ask", "clip.mp4", QUESTION, "--model", "tiny", "--json").out)
    for ours, theirs in (
        (record, real),
        *((record[name], real[name]) for name in record if isinstance(record[name], dict)),
    ):
        assert not set(ours) - set(theirs)
        assert not [name for name in set(theirs) - set(ours) if theirs[name]]


@pytest.mark.parametrize("line", [line for line in SIMPLE if not LONG.search(line)])
def test_examples_run(command: Any, sandbox: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setenv("ECHOPIX_MODEL", "tiny")
    typed = f"{QUESTION}\n" if " chat " in line else ""
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    words = shlex.split(line.replace("--count 50", "--count 2").replace("--count 5", "--count 2"))
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    before = set(sandbox.iterdir())
    ran = command(*(name for word in words[1:] for name in (sorted(glob(word)) or [word])))
    if "--online" in words:
        assert ran.code in (0, 1)  # as the network has it
        return
    assert ran.code == 0, ran.err
    if words[1] in ("ask", "chat"):
        check_answers(typed + line, ran.out, written(sandbox, before))


def written(folder: Path, before: set[Path]) -> list[Path]:
    """Tables of answers that lie in a folder and did not before."""
    return sorted(path for path in {*folder.iterdir()} - before if path.suffix in (".jsonl", ".csv"))


def check_answers(line: str, out: str, files: list[Path]) -> None:
    """All that a command line asks is answered, on stdout or in files: rightly, or by one of the choices that it gives,
    among which the bundled model chooses at chance."""
    asked = [question for question in ANSWERS if question in line or "questions.txt" in line] or [QUESTION]
    found = list(answers_in(out, asked[0]))
    for path in files:
        if path.suffix == ".csv":
            with path.open(newline="") as file:
                found += [(row["question"], row["answer"]) for row in csv.DictReader(file)]
        else:
            found += answers_in(path.read_text(), asked[0])
    assert {question for question, _ in found} == set(asked)
    words = shlex.split(line)
    offered = words[words.index("--choices") + 1].split("|") if "--choices" in words else []
    right = {*ANSWERS.items(), *((QUESTION, choice.removeprefix("a ")) for choice in offered)}
    assert {(question, answer.removeprefix("a ")) for question, answer in found} <= right


def answers_in(text: str, only: str) -> Iterator[tuple[str, str]]:
    """Questions and answers of lines: of a record, of a pair, or of the only question, alone or behind a file."""
    for line in text.splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            if "error" not in record:
                yield record["question"], record["answer"]
        elif " → " in line:
            question, _, answer = line.partition(" → ")
            yield question, answer
        else:
            yield only, line.split("\t")[1] if "\t" in line else line


def test_wrong_answers_are_found(tmp_path: Path) -> None:
    """Alone, in a pair, behind a file, in a record and in a table; and so is what was not answered."""
    right, (other, seen) = ANSWERS[QUESTION], list(ANSWERS.items())[1]
    both = f'echopix ask clip.mp4 -Q "{QUESTION}" -Q "{other}"'
    one, table = f'echopix ask clip.mp4 "{QUESTION}"', tmp_path / "answers.csv"
    check_answers(both, f"{QUESTION} → {right}\n{other} → a {seen}\n", [])
    check_answers(one, f"clip.mp4\t{right}\n", [])
    table.write_text(f"question,answer\n{QUESTION},{seen}\n")
    (tmp_path / "part-1.jsonl").write_text(json.dumps({"question": QUESTION, "answer": seen}) + "\n")
    for line, out, files in (
        (one, "", []),
        (one, seen, []),
        (one, f"clip.mp4\t{seen}", []),
        (both, f"{QUESTION} → {right}\n", []),
        (both, f"{QUESTION} → {right}\n{other} → {right}\n", []),
        (one, right, [table]),
        (one, right, [tmp_path / "part-1.jsonl"]),
    ):
        with pytest.raises(AssertionError):
            check_answers(line, out, files)


@pytest.mark.parametrize("line", [line for line in SIMPLE if LONG.search(line)])
def test_long_examples_are_understood(line: str) -> None:
    """Names, values and settings of the whole command line fit."""
    words = shlex.split(line)
    while "=" in words[0]:
        words.pop(0)
    own: Any = typer.main.get_command(command_line())
    context = own.make_context("echopix", words[1:])
    name, below, rest = own.resolve_command(context, [*context._protected_args, *context.args])
    while hasattr(below, "commands"):
        context = below.make_context(name, rest, parent=context)
        name, below, rest = below.resolve_command(context, [*context._protected_args, *context.args])
    flags = below.make_context(name, rest, parent=context).params
    resolve({key: value for key, value in flags.items() if not isinstance(value, (list, tuple))}, {}, Path("/none"))


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in LINES if line not in SIMPLE and not LONG.search(line)])
def test_examples_of_the_shell_run(command: Any, sandbox: Path, tmp_path: Path, line: str) -> None:
    """Pipes, loops and redirections, by bash; and what reads a batch's records."""
    if shutil.which(line.split()[0]) is None and line.startswith("jq"):
        pytest.skip("jq is not on this machine")
    if "echopix" not in line:
        (sandbox / "clips" / "broken.mp4").write_text("no film")
        choices = ("--choices", f"{ANSWERS[QUESTION]}|a {ANSWERS[QUESTION]}")  # whichever it takes is right
        assert command("ask", "clips", QUESTION, *choices, "--model", "tiny", "-o", "answers.jsonl").code == 1
        shutil.copy(sandbox / "answers.jsonl", sandbox / "part-1.jsonl")
    else:
        for path in sandbox.glob("part-*"):  # which it is to write itself
            path.unlink()
    os.utime(sandbox / "clips", (1, 1))
    (sandbox / "last-run").touch()
    os.utime(sandbox / "last-run", (2, 2))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "echopix").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m echopix_cli "$@"\n')
    (tmp_path / "bin" / "echopix").chmod(0o755)
    own = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "ECHOPIX_MODEL": "tiny"}
    slurm = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    before = set(sandbox.iterdir())
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", line], env={**os.environ, **own, **slurm},
        cwd=sandbox, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "error:" not in done.stderr
    if "select(.error)" in line:
        assert [row.split("\t")[0] for row in done.stdout.splitlines()] == ["clips/broken.mp4"]
    elif "models" in line:
        assert done.stdout
    else:
        check_answers(line, done.stdout, written(sandbox, before))
        for path in sandbox.glob("*answers.jsonl"):  # of a batch, whatever it was about
            assert command("records", "merge", path, "-o", tmp_path / "merged.jsonl").code == 0
