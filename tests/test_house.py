"""The house rules that a reader relies on: which room may import which, and who may import heavy libraries."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from places import ROOT, TESTS

PACKAGE = ROOT / "echopix_cli"
# A room may import itself, these, and the plain modules.
MAY_IMPORT = {
    "media": set(),
    "decoding": {"media"},
    "scenes": {"media"},
    "model": {"media"},
    "weights": {"model"},
    "engine": {"model", "media", "decoding", "weights"},
    "measure": {"engine", "model", "media", "weights"},
    "training": {"scenes", "decoding", "media", "model", "weights"},
    "batch": {"engine", "decoding", "media", "weights"},
    "evaluation": {"engine", "decoding", "model", "media", "weights", "scenes"},
    "serving": {"batch", "engine", "decoding", "media", "weights"},
    "assets": set(),
    "cli": {
        *("batch", "decoding", "engine", "evaluation", "measure", "model", "media", "scenes", "serving", "training"),
        "weights",
    },
}
PLAIN = {
    *("choices", "results", "settings", "declarations", "parsers", "errors", "files", "shelf", "documents", "times"),
    *("records", "sizes", ""),
}
ONLY_IN = {"av": {"media", "scenes"}, "soundfile": {"media", "scenes"}, "rich": {"cli"}, "typer": {"cli"}}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    tree = parsed(path)
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0] if path.parent != PACKAGE else ""
    for name in imports(path):
        first, _, rest = name.partition(".")
        if first == "echopix_cli" and room:
            other = rest.partition(".")[0]
            assert other in {room} | PLAIN | MAY_IMPORT[room], f"{room} imports {name}"
        if first in ONLY_IN:
            assert room in ONLY_IN[first], f"{room} imports {name}"


def test_files_are_decoded_in_processes_of_their_own() -> None:
    """Only what runs in those calls the media room's readers: one damaged file crashes FFmpeg now and then."""
    reading = {"echopix_cli.media": {"load_clip", "probe"}, "echopix_cli.media.load": {"load_clip", "probe"}}
    callers = set()
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & reading.get(
                node.module or "", set()
            ):
                callers.add(str(path.relative_to(PACKAGE)))
            if isinstance(node, ast.Attribute) and node.attr == "load_clip":
                callers.add(str(path.relative_to(PACKAGE)))
    assert callers == {"media/__init__.py", "decoding/server.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_is_imported_late(path: Path) -> None:
    """At module level only where everything needs it, so that --help stays instant."""
    room = path.relative_to(PACKAGE).parts[0] if path.parent != PACKAGE else ""
    if room not in ("model", "engine", "training", "evaluation", "measure"):
        assert not {name.partition(".")[0] for name in imports(path, True)} & {"torch", "transformers"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_at_once(statements: list[ast.stmt]) -> Iterator[str]:
    """Names that a module needs as it is imported, and those that only its annotations need (TYPE_CHECKING)."""
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If | ast.Try):
            handled = [line for handler in getattr(node, "handlers", []) for line in handler.body]
            yield from imported_at_once([*node.body, *handled, *node.orelse, *getattr(node, "finalbody", [])])


def needs(modules: dict[str, Path]) -> dict[str, set[str]]:
    """For each module those that it imports by name; a name in a package is the package's where it is no module."""
    found = {}
    for module, path in modules.items():
        names = {name if name in modules else name.rpartition(".")[0] for name in imported_at_once(parsed(path).body)}
        found[module] = (names & set(modules)) - {module}
    return found


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph of imports, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """The face of the whole package aside: what it offers is loaded when it is touched."""
    graph = needs({module_of(path): path for path in FILES})
    assert {"echopix_cli.errors", "echopix_cli.settings"} <= graph["echopix_cli.cli.options"], "imports are found"
    assert "echopix_cli.errors" in graph["echopix_cli"], "under TYPE_CHECKING, too"
    graph["echopix_cli"] = set()
    assert circle_in(graph) == []
    assert circle_in({**graph, "echopix_cli.errors": {"echopix_cli.settings"}}) != []


@pytest.mark.parametrize(
    "path", [*FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_the_wheel_holds_no_scripts() -> None:
    """What rebuilds assets lies in tests/tools. Templates are rendered in a process of their own, which runs a file."""
    scripts = [str(path.relative_to(PACKAGE)) for path in FILES if '__name__ == "__main__"' in path.read_text()]
    assert scripts == ["__main__.py", "model/render.py"]


SCRIPTS = sorted(path for room in ("benchmarks", "golden", "gpu", "tools") for path in (TESTS / room).rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(TESTS)))
def test_what_scripts_import_is_there(path: Path) -> None:
    """They run by hand, on other machines: nothing else would notice that a name has moved."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "echopix_cli":
            module = import_module(str(node.module))
            for alias in node.names:
                below = hasattr(module, "__path__") and find_spec(f"{node.module}.{alias.name}")
                assert hasattr(module, alias.name) or below, alias.name


def test_who_asks_a_server_needs_no_torch() -> None:
    """What these modules import as they are imported, and what that imports, and so on."""
    asking = ("place", "messages", "many_messages", "wire", "client", "client_many")
    paths = {module_of(path): path for path in FILES}
    open_ones, reached = [f"echopix_cli.serving.{name}" for name in asking], set()
    while open_ones:
        if (module := open_ones.pop()) not in reached:
            reached.add(module)
            names = set(imports(paths[module], True))
            assert not {name.partition(".")[0] for name in names} & {"torch", "transformers", "numpy", "av"}, module
            open_ones += names & set(paths)
    assert {"echopix_cli.errors", "echopix_cli.batch.tasks"} <= reached
