"""Help: options in named groups with what is allowed and what holds without them, and examples; as wide as the
terminal."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from typer.core import TyperCommand, TyperGroup

from echopix_cli.cli.manual import MORE, topics
from echopix_cli.cli.misuse import told_of
from echopix_cli.cli.parameters import OTHER, Parameter, parameter, parameters_of
from echopix_cli.errors import UsageError
from echopix_cli.settings import SHOW

_WIDEST_LABEL = 30  # characters; what is longer has its text below it
_NAMES = {"DIR", "FILE", "DATA"}  # metavars of what names a file, a folder or a set of data
_NARROW = 70  # columns, below which all texts stand below their labels


class Command(TyperCommand):
    """A command with our help, which takes text as it is."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        _spare(self.params)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is left of the command line; of what does not fit, the command is known."""
        with told_of(ctx):
            return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        """The whole help text."""
        return help_text(self, ctx)

    def get_help_option(self, ctx: Any) -> Any:
        """``--help``, which writes as everything else is written."""
        return _written(super().get_help_option(ctx))


class Group(TyperGroup):
    """A group of commands with our help."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        _spare(self.params)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is left of the command line; of what does not fit, the command is known."""
        with told_of(ctx):
            return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        """The whole help text."""
        return help_text(self, ctx)

    def get_help_option(self, ctx: Any) -> Any:
        """``--help``, which writes as everything else is written."""
        return _written(super().get_help_option(ctx))


def _spare(parameters: Sequence[Any]) -> None:
    """Convert values of parameters only where they are to become something else than they are."""
    for raw in parameters:
        raw.process_value = _sparing(raw)


def _sparing(raw: Any) -> Callable[[Any, Any], Any]:
    """How a parameter's value is converted: what is text and stays text, and what was not given, not at all.

    The library does all of it with another one, whose import takes a command that only asks a server longer than the
    rest of its work.
    """
    convert: Callable[[Any, Any], Any] = raw.process_value
    kind, several = raw.type_descriptor.annotation, raw.nargs == -1 or bool(getattr(raw, "multiple", False))
    metavar = raw.metavar or ""
    named = Path in (kind, *get_args(kind)) or not _NAMES.isdisjoint(metavar.split("|"))
    if raw.required and not named:
        return convert

    def process(context: Any, value: Any) -> Any:
        if named and "" in (value if isinstance(value, tuple) else (value,)):
            own = parameter(raw)  # the current folder, if it were taken: a shell's unset variable
            raise UsageError(f"{own.names[0] if own.names else own.value}: the name is empty", own.spoken)
        if raw.required:
            return convert(context, value)
        if value is None:
            value = () if several else None
        elif kind == list[str] and isinstance(value, tuple) and all(isinstance(item, str) for item in value):
            value = list(value)
        elif not (kind is str and isinstance(value, str)):
            return convert(context, value)
        return value if raw.callback is None else raw.callback(context, raw, value)

    return process


def _written(option: Any) -> Any:
    def show(ctx: Any, param: Any, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            from echopix_cli.cli.output import Output

            Output().answer(ctx.get_help())
            ctx.exit()

    option.callback = show
    _spare([option])
    return option


def help_text(command: Any, ctx: Any) -> str:
    """A command's help."""
    width = shutil.get_terminal_size().columns
    return "\n".join(_lines(command, ctx.command_path, width))


def usage_of(command: Any, path: str) -> str:
    """How a command is called."""
    words = [path, "[OPTIONS]"]
    for own in parameters_of(command):
        if not own.names:
            word = own.value + ("…" if own.repeats else "")
            words.append(word if own.required else f"[{word}]")
    return " ".join([*words, *(["COMMAND …"] if hasattr(command, "commands") else [])])


def summary_of(command: Any) -> str:
    """The first line of what a command says of itself, which is a sentence."""
    return inspect.cleandoc(command.help or "").partition("\n")[0]


def examples_of(path: str) -> tuple[tuple[str, str], ...]:
    """What to type and what it does; ``path`` is a command's, with the program's name before it."""
    from echopix_cli.cli.examples import EXAMPLES

    return EXAMPLES.get(path.partition(" ")[2], ())


def groups_of(command: Any) -> dict[str, list[Parameter]]:
    """Options and arguments by heading, in the order in which headings first appear; what is printed, and ``Other``,
    come last."""
    grouped: dict[str, list[Parameter]] = {}
    for own in parameters_of(command):
        grouped.setdefault(own.group, []).append(own)
    last = {title: grouped.pop(title) for title in (SHOW, OTHER) if title in grouped}
    return grouped | last


def _lines(command: Any, path: str, width: int) -> Iterator[str]:
    yield from textwrap.wrap(f"Usage: {usage_of(command, path)}", width, subsequent_indent="       ")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield ""
        yield from textwrap.wrap(paragraph, width)
    if examples := examples_of(path):
        yield "\nExamples:"
        for line, what in examples:
            yield f"  {line}"
            yield from textwrap.wrap(what, width, initial_indent="      ", subsequent_indent="      ")
    for title, members in groups_of(command).items():
        yield f"\n{title}:"
        yield from _columns([(own.label, own.text) for own in members], width)
    if hasattr(command, "commands"):
        yield "\nCommands:"
        yield from _columns([(name, summary_of(below)) for name, below in command.commands.items()], width)
    name = path.partition(" ")[2]
    if not name:
        yield "\nTopics (echopix help TOPIC):"
        yield from _columns(list(topics().items()), width)
    elif name in MORE:
        yield ""
        yield from textwrap.wrap("More: " + ", ".join(f"echopix help {topic}" for topic in MORE[name]), width)
    if command.epilog:
        yield ""
        yield from textwrap.wrap(command.epilog, width)


def _columns(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Labels on the left, texts beside them or, where that is too narrow, below."""
    label_width = 2 if width < _NARROW else min(_WIDEST_LABEL, max(len(label) for label, _ in rows))
    indent = " " * (label_width + 4)
    for label, text in rows:
        lines = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent) or [""]
        if len(label) > label_width:
            yield f"  {label}"
        else:
            lines[0] = f"  {label:{label_width}}  {lines[0][len(indent) :]}".rstrip()
        yield from (line for line in lines if line)
