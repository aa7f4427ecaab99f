"""Help, the manual page, completions, and what a wrong command line is told."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from places import ROOT

from echopix_cli.cli.app import command_line
from echopix_cli.cli.completion import SHELLS, target
from echopix_cli.cli.examples import EXAMPLES
from echopix_cli.cli.parameters import Parameter, allowed_in, choices_in, parameters_of
from echopix_cli.settings import unknown_variables
from echopix_cli.training.recipe import RECIPE

sys.path.insert(0, str(ROOT / "completions"))
import generate


def walked(own: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every parameter of a command tree, with the words that its command is called by."""
    yield from ((path, raw) for raw in own.params)
    for name, below in getattr(own, "commands", {}).items():
        yield from walked(below, *path, name)


TREE = {command.name: command for command in generate.command_tree()}


@pytest.mark.parametrize("columns", [50, 60, 80, 120])
@pytest.mark.parametrize("name", TREE)
def test_help_fits_and_names_everything(command: Any, monkeypatch: pytest.MonkeyPatch, name: str, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    asked = command("help", *name.split())
    assert asked.code == 0
    assert asked.out == command(*name.split(), "--help").out
    examples = {f"  {line}" for line, _ in EXAMPLES[name]}
    assert len(examples) == 3
    lines = asked.out.splitlines()
    assert examples <= set(lines)
    assert all(len(line) <= columns for line in lines if line not in examples)
    for python in ("INTEGER", "list[", "<int>", "PATH ", "FLOAT", "None", "Optional"):
        assert f" {python}" not in asked.out
    flat = " ".join(asked.out.split())
    for own in parameters_of(TREE[name].part):
        assert own.label in asked.out
        assert own.text in flat or own.text.replace("- ", "-") in flat.replace("- ", "-")
        if own.default:
            assert f"[default: {own.default}]" in flat


def test_help_says_defaults_and_allowed_values(command: Any) -> None:
    shown = " ".join(command("ask", "--help").out.split())
    assert "most frames sampled from one clip [default: 120]" in shown
    assert "--quantize auto|none|int8|nf4" in shown
    assert "[auto, float32, bfloat16, float16] [default: auto]" in shown


def test_choices_are_those_that_the_program_takes() -> None:
    """Whatever a metavar lists is what is read, and the other way round."""
    from echopix_cli import settings
    from echopix_cli.cli.bench import SHAPE_NAMES
    from echopix_cli.cli.formats import FORMATS
    from echopix_cli.training import recipe

    def of(name: str, option: str) -> tuple[str, ...]:
        return next(own.choices for own in TREE[name].options if option in own.names)

    expected = {
        ("train", "--stage"): recipe.STAGES,
        ("ask", "--quantize"): settings.QUANTIZATIONS,
        ("ask", "--dtype"): settings.DTYPES,
        ("ask", "--sieve"): settings.SIEVES,
        ("ask", "--format"): FORMATS,
        ("bench", "--shape"): SHAPE_NAMES,
    }
    assert {place: of(*place) for place in expected} == expected
    for own in (*settings.TABLE.values(), *recipe.RECIPE.values()):
        for word in choices_in(own.metavar):
            assert own.parse(word) == word


def test_every_declared_option_offers_what_is_read() -> None:
    """Options come from declarations: each is offered the words that its declaration reads, and no other."""
    from echopix_cli.settings import TABLE
    from echopix_cli.training.recipe import RECIPE

    declared = {own.help: own for own in (*TABLE.values(), *RECIPE.values())}
    found = {(c.name, own.names[0]): (own, declared[own.help]) for c in TREE.values() for own in c.options
             if own.help in declared}  # fmt: skip
    assert len(found) > 100
    for option, setting in found.values():
        assert option.choices == choices_in(setting.metavar)
        assert option.names[0] in (setting.flag, *setting.flags[:1])
        if option.choices and setting.name not in ("device", "data"):
            with pytest.raises(ValueError, match=", ".join(option.choices)):
                setting.parse("nothing of the kind")


@pytest.mark.parametrize(
    ("metavar", "shown"),
    [("auto|cpu|cuda|cuda:N", "[auto, cpu, cuda, cuda:N]"), ("HOST:PORT|auto", "[HOST:PORT, auto]"), ("NAME|DIR", ""),
     ("A|B|…", ""), ("N", ""), ("", "")],
)  # fmt: skip
def test_what_is_allowed_is_shown_whole(metavar: str, shown: str) -> None:
    """Completions leave out what is not typed as it stands, such as ``cuda:N``; the tables of the manual do not."""
    assert allowed_in(metavar) == shown


def test_settings_that_mean_something_else_to_a_command() -> None:
    def text(name: str, option: str) -> str:
        return next(own.text for own in TREE[name].options if option in own.names)

    assert text("eval", "--max-new-tokens") == "longest answer, in tokens (default: 32)"
    assert text("ask", "--max-new-tokens") == "longest answer, in tokens [default: 256]"
    assert "auto is none here (default: auto)" in text("bench", "--quantize")
    assert "where float16 is refused (auto: the recipe's); with --export" in text("train", "--dtype")
    assert text("ask", "--dtype") == "precision of the weights [auto, float32, bfloat16, float16] [default: auto]"


def offered(*words: str) -> list[str]:
    """What bash offers for the last word."""
    listing = " ".join(f"'{word}'" for word in words)
    code = (
        f"source '{ROOT / 'completions' / 'echopix.bash'}'; compopt() {{ :; }}; COMP_WORDS=({listing}); "
        f'COMP_CWORD=$(({len(words)}-1)); _echopix; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()


VALUES = [
    (command.name, name, tuple(word for word in generate.words_of(own) if ":" not in word))
    for command in TREE.values()
    for own in command.options
    for name in own.names
    if own.value and generate.words_of(own)
]


def test_bash_offers_every_value_after_its_option() -> None:
    code = [f"source '{ROOT / 'completions' / 'echopix.bash'}'; compopt() {{ :; }}"]
    for name, option, _ in VALUES:
        words = " ".join(f"'{word}'" for word in ["echopix", *name.split(), option, ""])
        code.append(f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); COMPREPLY=(); _echopix")
        code.append('echo "${COMPREPLY[*]}"')
    done = subprocess.run(["bash", "-c", "\n".join(code)], capture_output=True, text=True, check=True)
    found = [tuple(line.split()) for line in done.stdout.splitlines()]
    assert found == [words for _, _, words in VALUES]
    assert len(VALUES) > 30


@pytest.mark.parametrize("name", ["_echopix", "echopix.fish"])
def test_other_shells_hold_every_value(name: str) -> None:
    script = (ROOT / "completions" / name).read_text().replace("\\:", ":")
    for command in TREE.values():
        for own in command.options:
            if own.value and (words := generate.words_of(own)):
                assert " ".join(words) in script
        if command.words:
            assert " ".join(command.words) in script


def test_model_names_are_offered() -> None:
    assert offered("echopix", "ask", "--model", "qwen") == ["qwen2.5-omni-3b", "qwen2.5-omni-7b"]
    assert offered("echopix", "models", "info", "ti") == ["tiny"]
    assert offered("echopix", "help", "mod") == ["models"]
    assert offered("echopix", "train", "--stage", "") == ["towers", "full", "sieve"]


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not on this machine")
def test_the_manual_page_is_one(tmp_path: Path) -> None:
    page = ROOT / "completions" / "echopix.1"
    done = subprocess.run(
        ["man", "--warnings", "-l", str(page)], env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    shown = re.sub(r".\x08", "", done.stdout)
    for name in TREE:
        assert not name or re.search(rf"^{name.upper()}$", shown, re.MULTILINE)
    assert 'echopix ask clip.mp4 "What instrument is playing?"' in " ".join(shown.split())
    assert "warning" not in done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_are_installed_where_the_shell_looks(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shell: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for _ in range(2):  # ours is replaced
        assert command("--install-completion").code == 0
        assert target(shell).read_text() == command("--show-completion", shell).out
        assert "written by completions/generate.py" in target(shell).read_text()
    target(shell).write_text("mine\n")
    assert command("--install-completion").code == 2
    assert target(shell).read_text() == "mine\n"


@pytest.mark.parametrize(
    ("arguments", "said", "next_word"),
    [
        (["aks", "demo"], "echopix has no command 'aks'", "echopix ask"),
        (["models", "lst"], "echopix models has no command 'lst'", "echopix models list"),
        (["help", "models", "pul"], "no command 'pul'", "echopix models pull"),
        (["ask", "demo", "--budgte", "1"], "echopix ask has no option --budgte", "--budget"),
        (["ask", "demo", "--budget"], "--budget needs a value", "--budget, -b FRACTION: "),
        (["eval", "--compare", "a.json"], "--compare needs 2 values", "--compare A.json B.json: "),
        (["--show-completion"], "--show-completion needs a value", "--show-completion bash"),
        (["scene"], "OUT is missing", "echopix scene --help"),
        (["scene", "o.mp4", "--size", "1"], "--size: expected a whole number from 32 to 2160", "default: 224"),
        (["scene", "o.mp4", "--seed", "x"], "--seed: expected a whole number", "default: 0"),
        (
            ["train", "--out", "x", "--decay", "2"],
            "echopix train has no option --decay",
            "--set decay=VALUE: share of the steps",
        ),
        (
            ["train", "--out", "x", "--steps", "0"],
            "--steps: '0' does not fit: expected a whole number",
            "optimizer steps",
        ),
        (["doctor", "now"], "echopix doctor takes no argument now", "echopix doctor --help"),
        (["ask", "demo", "What?", "--dtype", "bfloat6"], "did you mean bfloat16?", "precision"),
        (["ask", "demo", "What?", "--budget", "110%"], "0.1 or 10%", "budget"),
        (["ask", "demo", "What?", "--max-frames", "many"], "expected a whole number of at least 1", "most frames"),
        (["ask", "demo", "What?", "--start", "1x"], "1m20s", "begin here"),
        (["ask", "demo", "What?", "-Q", "And where?"], "'What?' is no file", "give each question with -Q"),
        (["--show-completion", "tcsh"], "there is no completion for tcsh", "bash"),
    ],
)
def test_wrong_command_lines(command: Any, arguments: list[str], said: str, next_word: str) -> None:
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert next_word in ran.err.splitlines()[1]
    assert len(ran.err.splitlines()) == 2
    for python in ("invalid literal", "could not convert", "Input should", "is not a valid", "type="):
        assert python not in ran.err


def test_a_question_that_is_broken_off_is_an_interruption(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_off() -> Path:
        raise typer.Abort

    monkeypatch.setattr("echopix_cli.cli.config.config_path", broken_off)
    ran = command("config")
    assert (ran.code, ran.err) == (130, "error: interrupted\n")


def test_no_command_shows_the_help(command: Any) -> None:
    for arguments in ([], ["models"]):
        ran = command(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == command(*arguments, "--help").out


def test_a_file_in_the_place_of_a_command(command: Any, clips: dict[str, Path]) -> None:
    ran = command(clips["dark"], "What?")
    assert ran.code == 2
    assert f"try: echopix ask {clips['dark']}" in ran.err


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("budget", "10%", 0.1), ("budget", " 5 %", 0.05), ("budget", "100%", 1.0), ("budget", "0.2", 0.2),
        ("start", "1m20s", 80.0), ("start", "1h", 3600.0), ("start", "1h 2m 3.5s", 3723.5), ("start", "90s", 90.0),
        ("start", "5min", 300.0), ("limit_memory", "8G", 8_000_000_000), ("limit_memory", "8GiB", 2**33),
        ("limit_frame_bytes", "512m", 512_000_000), ("timeout", "10m", 600.0), ("timeout", "0.5", 0.5),
    ],
)  # fmt: skip
def test_words_that_a_person_types(name: str, value: str, read: float) -> None:
    from echopix_cli.settings import resolve

    found = resolve({}, {f"ECHOPIX_{name.upper()}": value}, Path("/none")).settings
    assert getattr(found, name) == pytest.approx(read, rel=1e-12)


@pytest.mark.parametrize("text", ["m", "", "1m80s", "h5", "1s2m", "1.5m", "1h90m", "-5s", "1:2m"])
def test_what_is_no_time(text: str) -> None:
    from echopix_cli.times import parse_time

    with pytest.raises(ValueError, match="not a time"):
        parse_time(text)


def test_variables_that_nothing_reads_are_warned_about(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPIX_BUGDET", "0.1")
    ran = command("config", "--json")
    assert json.loads(ran.out)["settings"]["budget"]["origin"] == "default"
    assert "ECHOPIX_BUGDET is set, and nothing reads it; did you mean ECHOPIX_BUDGET?" in ran.err


def test_every_variable_that_the_program_names_is_known() -> None:
    """In code and in docstrings alike: a name that is read and not known would be warned about."""
    sources = "\n".join(path.read_text() for path in (ROOT / "echopix_cli").rglob("*.py"))
    named = set(re.findall(r"\bECHOPIX_[A-Z_]*[A-Z]\b", sources))
    assert {"ECHOPIX_UNSEEN_FONT", "ECHOPIX_CACHE_DIR"} <= named
    assert unknown_variables(dict.fromkeys(named, "x")) == []


def texts_in(source: str) -> Iterator[str]:
    """The texts of a module that are no docstrings, and the parts of those that are put together."""
    nodes = list(ast.walk(ast.parse(source)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_options_that_texts_name_are_there() -> None:
    """Such as those of hints: what begins with two dashes is an option of some command, and what --set sets a key."""
    raws = [raw for _, raw in walked(typer.main.get_command(command_line()))]
    options = {name for raw in raws for name in (*raw.opts, *raw.secondary_opts)}
    texts = [text for path in (ROOT / "echopix_cli").rglob("*.py") for text in texts_in(path.read_text())]
    named = {word for text in texts for word in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)}
    assert "--budget" in named
    assert named <= options | {"--help", "--unseen-font"}  # the latter is of a script
    keys = {key for text in texts for key in re.findall(r"--set (\w+)=", text)}
    assert "sieve_layers" in keys
    assert keys <= set(RECIPE)


def test_parameters_say_what_typer_knows() -> None:
    app = typer.Typer()

    @app.command()
    def one(name: str, count: int = typer.Option(3, "--count", "-n", min=1, metavar="N", help="how many")) -> None: ...

    found = parameters_of(typer.main.get_command(app))
    assert found[:2] == [
        Parameter((), "NAME", "", "Arguments", required=True),
        Parameter(("--count", "-n"), "N", "how many", "Other", default="3"),
    ]


NAMED = [
    (path, raw)
    for path, raw in walked(typer.main.get_command(command_line()))
    if Path in (raw.type_descriptor.annotation, *get_args(raw.type_descriptor.annotation))
    or not {"DIR", "FILE", "DATA"}.isdisjoint((raw.metavar or "").split("|"))
]


@pytest.mark.parametrize(("path", "raw"), NAMED, ids=[f"{' '.join(path)} {raw.name}" for path, raw in NAMED])
def test_an_empty_name_of_a_file_is_not_the_current_folder(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...], raw: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [*path, *([max(raw.opts, key=len)] if raw.opts[0].startswith("-") else [])]
    done = command(*options, *[""] * max(1, raw.nargs))
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("error: ") and "the name is empty" in done.err
    assert not list(tmp_path.iterdir())
