"""What the command tree says about its options and arguments, for help, completions, the manual page and errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from echopix_cli.declarations import Setting
from echopix_cli.settings import TABLE

_LONGEST_METAVAR = 26  # characters; longer lists of choices stand in the text
OTHER = "Other"


@dataclass(frozen=True)
class Parameter:
    """One option or argument of a command.

    Attributes:
        names: spellings, the long one first; of an argument none.
        value: what stands for its value; empty for a switch.
        help: in plain words, without choices and default.
        group: the heading that it stands below.
        choices: the values that are allowed, where they can be listed.
        default: in words; empty where there is none to speak of.
        required: whether it has to be given.
        repeats: whether it may be given more than once.
    """

    names: tuple[str, ...]
    value: str
    help: str
    group: str
    choices: tuple[str, ...] = ()
    default: str = ""
    required: bool = False
    repeats: bool = False

    @property
    def label(self) -> str:
        """How it is written, its value shortened where that is a long list."""
        value = self.value if len(self.value) <= _LONGEST_METAVAR else "NAME"
        return " ".join(part for part in (", ".join(self.names), value) if part)

    @property
    def text(self) -> str:
        """Its help, with what is allowed and what holds without it."""
        parts = [self.help]
        if len(self.value) > _LONGEST_METAVAR:
            parts.append(allowed_in(self.value))
        if self.default:
            parts.append(f"[default: {self.default}]")
        if self.required:
            parts.append("[required]")
        return " ".join(part for part in parts if part)

    @property
    def spoken(self) -> str:
        """All of it in one line, for who used it wrongly."""
        return f"{self.label}: {self.text}"


def parameters_of(command: Any) -> list[Parameter]:
    """A command's arguments, then its options, as they were declared.

    Args:
        command: of typer's tree.
    """
    return [*_arguments(command), *_options(command)]


def typed_in(context: Any) -> dict[str, Parameter]:
    """Those that a command line gives, by the name of the function's argument.

    Args:
        context: typer's, of the command that runs.
    """
    sources = ((raw, context.get_parameter_source(raw.name)) for raw in context.command.params)
    return {raw.name: parameter(raw) for raw, source in sources if source is not None and source.name == "COMMANDLINE"}


def parameter(raw: Any) -> Parameter:
    """What typer knows of one parameter."""
    # A switch's other way round comes last: it takes back what a config file has set.
    names = tuple(name for name in (*sorted(raw.opts, key=len)[::-1], *raw.secondary_opts) if name.startswith("-"))
    is_switch = bool(getattr(raw, "is_flag", False))
    value = "" if is_switch else (raw.metavar or (raw.name or "").upper())
    return Parameter(
        names,
        value,
        " ".join((getattr(raw, "help", None) or "").split()),
        getattr(raw, "rich_help_panel", None) or (OTHER if names else "Arguments"),
        choices_in(value),
        _default(raw, is_switch),
        bool(raw.required),
        raw.nargs == -1 or bool(getattr(raw, "multiple", False)),
    )


def choices_in(metavar: str) -> tuple[str, ...]:
    """The values that a metavar such as ``auto|cpu|cuda:N`` lists: those that are typed as they stand there."""
    parts = metavar.split("|")
    return tuple(part for part in parts if part == part.lower() and part.isascii()) if len(parts) > 1 else ()


def allowed_in(metavar: str) -> str:
    """All that a metavar lists, to be read: ``[auto, cpu, cuda:N]``; nothing where none of it is typed as it stands."""
    return f"[{', '.join(metavar.split('|'))}]" if choices_in(metavar) else ""


@cache
def _declared() -> dict[str, Setting]:
    """Settings and recipe keys by their help."""
    from echopix_cli.training.recipe import RECIPE

    return {own.help: own for own in (*TABLE.values(), *RECIPE.values())}


def _arguments(command: Any) -> Iterator[Parameter]:
    for raw in command.params:
        if not any(name.startswith("-") for name in raw.opts):
            yield parameter(raw)


def _options(command: Any) -> Iterator[Parameter]:
    for raw in command.params:
        if any(name.startswith("-") for name in raw.opts):
            yield parameter(raw)
    yield Parameter(("--help", "-h"), "", "show this message and exit", OTHER)


def _default(raw: Any, is_switch: bool) -> str:
    """What holds where nobody says; nothing where the help says it, or where a switch is simply off."""
    help = getattr(raw, "help", None) or ""
    value = raw.default
    if value is None and help in (declared := _declared()):
        value = declared[help].default
    if value in (None, "") or is_switch or callable(value) or "default" in help:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
