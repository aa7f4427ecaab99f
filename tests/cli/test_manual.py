"""The manual: what ``echopix help TOPIC`` shows, and that README and pages hold together."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import typer
from places import ROOT
from rich.cells import cell_len

from echopix_cli.cli.app import command_line
from echopix_cli.cli.manual import MORE, page, topics
from echopix_cli.cli.output import Output

CARD = ROOT / "echopix_cli" / "assets" / "MODEL_CARD.md"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", CARD, *sorted((ROOT / "echopix_cli" / "manual").glob("*.md"))]
STYLE = re.compile(r"\x1b\[[0-9;]*m")
BLOCK = re.compile(r"```\w*\n(.*?)```", re.DOTALL)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """stdout is one, in colour."""
    monkeypatch.setattr(Output, "answers_on_terminal", property(lambda self: True))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize("topic", topics())
def test_a_pipe_gets_the_page_as_it_stands(command: Any, topic: str) -> None:
    shown = command("help", topic)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == (ROOT / "echopix_cli" / "manual" / f"{topic}.md").read_text()


@pytest.mark.parametrize("columns", [50, 80, 120])
@pytest.mark.parametrize("topic", topics())
def test_a_terminal_gets_the_page_in_its_width(
    command: Any, terminal: None, monkeypatch: pytest.MonkeyPatch, topic: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = command("help", topic)
    assert shown.code == 0
    assert STYLE.search(shown.out)
    lines = STYLE.sub("", shown.out).splitlines()
    code = [line.rstrip() for block in BLOCK.findall(page(topic)) for line in block.splitlines()]
    assert [line for line in code if line not in lines] == []  # whole, to be copied
    assert [line for line in lines if cell_len(line) > columns and line not in code] == []
    assert "```" not in shown.out


@pytest.mark.parametrize("name", ["NO_COLOR", "ECHOPIX_NO_COLOR"])
def test_no_colour(command: Any, terminal: None, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9])", command("help", "media").out)


def test_text_is_no_markup(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    Output().page(
        "# [red]T[/red]\n\n[bold]b[/bold] :smile: `[i]c[/i]` \x1b]0;title\x07 <b>x</b>\n\n```sh\n[u]d[/u]\n```\n"
    )
    shown = STYLE.sub("", capsys.readouterr().out)
    for word in ("[red]T[/red]", "[bold]b[/bold]", ":smile:", "[i]c[/i]", "[u]d[/u]", "\\x1b]0;title\\x07"):
        assert word in shown
    assert "\x1b" not in shown


def test_help_lists_commands_and_topics(command: Any) -> None:
    listed = command("help").out
    assert all(
        re.search(rf"^  {topic} +{re.escape(about)}$", listed, re.MULTILINE) for topic, about in topics().items()
    )
    assert "echopix help TOPIC" in listed


def test_topics_are_no_commands_and_commands_lead_to_them(command: Any) -> None:
    root: Any = typer.main.get_command(command_line())
    assert all(topics().values())
    assert not set(topics()) & set(root.commands)
    assert set(MORE) == set(root.commands) - {"help"}
    assert {topic for pages in MORE.values() for topic in pages} <= set(topics())
    assert "More: echopix help media, echopix help batches" in command("ask", "--help").out


@pytest.mark.parametrize(
    ("words", "said", "near"),
    [
        (["mdia"], "no command and no topic 'mdia'", "echopix help media"),
        (["Training"], "no command and no topic 'Training'", "echopix help training"),
        (["aks"], "no command and no topic 'aks'", "echopix help ask"),
        (["../../README"], "no command and no topic '../../README'", "echopix help"),
        (["media", "sound"], "the page media has no parts", "echopix help media"),
    ],
)
def test_a_wrong_topic(command: Any, words: list[str], said: str, near: str) -> None:
    asked = command("help", *words)
    assert (asked.code, asked.out) == (2, "")
    assert said in asked.err
    assert asked.err.splitlines()[1] == f"  try: {near}"


def test_links_lead_somewhere() -> None:
    found = []
    for path in PAGES:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(), flags=re.DOTALL)
        found += [(path, target) for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [(path, target) for path, target in found if not target.startswith("https://")]
    assert len(local) > 20
    assert [(path.name, target) for path, target in local if not (path.parent / target).exists()] == []


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 9_000
    assert set(re.findall(r"\(echopix_cli/manual/(\w+)\.md\)", text)) == set(topics())
    assert len(re.findall(r"^python3 -m venv", text, re.MULTILINE)) == 2  # what .ci/run runs


def test_the_page_of_the_architecture_names_what_there_is() -> None:
    """Every class, function, method, room and file on it exists; every room, and every file beside them, is on it."""
    text = (ROOT / "echopix_cli" / "manual" / "architecture.md").read_text()
    package = ROOT / "echopix_cli"
    trees = {path: ast.parse(path.read_text()) for path in package.rglob("*.py")}
    defined = set()
    for node in (node for tree in trees.values() for node in tree.body):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            defined.add(node.name)
        if isinstance(node, ast.ClassDef):
            defined |= {f"{node.name}.{own.name}" for own in node.body if isinstance(own, ast.FunctionDef)}
    rooms = {
        path.parent.name for path in trees if path.name == "__init__.py" and path.parent.parent.name == "echopix_cli"
    }
    files = {str(path.relative_to(ROOT / "echopix_cli")) for path in trees}
    beside = {path.stem for path in trees if path.parent == package and not path.stem.startswith("__")}
    known = defined | rooms | files | beside
    named = {name for name in re.findall(r"`([^`]+)`", text) if not name.startswith("echopix ")}
    assert len(named) > 40
    assert named - known == set()
    assert rooms - named == {"assets"}
    assert beside - named == set()
