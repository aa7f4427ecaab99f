"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer

from echopix_cli.cli.help import Command, Group
from echopix_cli.cli.run import Run as Run
from echopix_cli.declarations import Setting
from echopix_cli.errors import UsageError
from echopix_cli.parsers import parse_budget
from echopix_cli.settings import MANY, SHOW, TABLE
from echopix_cli.times import parse_time

# Settings that commands have options for, in the order of their help.
CHOOSING = ("prefilter", "question_layer")
LOADING = ("model", "device", "dtype", "quantize", "keep_source")
SAMPLING = ("fps", "max_frames", "max_pixels")
FILMS = ("window", "look")
PARTS = ("no_audio", "no_video")
TRACKS = ("audio_track", "video_track")
PRINTING = ("quiet", "debug", "no_color")
PRINTING_MORE = ("quiet", "verbose", "debug", "no_color")
ASKING = (  # all that concerns a question and its answer, whoever puts it
    "budget", "sieve", *CHOOSING, *LOADING, "server", "system", "max_new_tokens", "temperature", *SAMPLING, *FILMS,
    "start", "end", *PARTS, *TRACKS, "cache", *PRINTING_MORE,
)  # fmt: skip


def option(declared: Setting) -> Any:
    """A declared value as an option. Its default is None, which :func:`resolve` takes for "not given"."""
    flags = declared.flags or (declared.flag,)
    metavar, panel = declared.metavar or None, declared.panel or None
    return typer.Option(*flags, help=declared.help, metavar=metavar, rich_help_panel=panel, show_default=False)


def _parameter(declared: Setting) -> inspect.Parameter:
    kind: Any = bool | None if declared.switch else str | None
    hint: Any = Annotated[kind, option(declared)]
    return inspect.Parameter(declared.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


def taking(*names: str, **helps: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options for these settings, after its own, and as its first argument a :class:`Run`.

    Args:
        names: of the settings, in the order of the help.
        helps: of settings that mean something else to this command than to others, in place of their own.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(function).parameters.values()
        declared = [replace(TABLE[name], help=helps.get(name, TABLE[name].help)) for name in names]
        parameters = [*own, *map(_parameter, declared)]

        @wraps(function)
        def command(**given: Any) -> None:
            run = Run.begin({name: given.pop(name) for name in names})
            function(run, **given)

        command.__annotations__ = {each.name: each.annotation for each in parameters}
        vars(command)["__signature__"] = inspect.Signature(
            [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        )
        return command

    return decorate


Json = Annotated[
    bool, typer.Option("--json", help="print JSON objects instead of text", rich_help_panel=SHOW, show_default=False)
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="text|jsonl|tsv|csv",
        help="how answers are printed, the same on a terminal and in a pipe (default: text; of several files in a "
        "pipe jsonl)",
        rich_help_panel=SHOW,
        show_default=False,
    ),
]


def many(help: str, *flags: str, metavar: str | None = None) -> Any:
    """An option about many files and questions."""
    return typer.Option(*flags, help=help, metavar=metavar, rich_help_panel=MANY, show_default=False)


Questions = Annotated[
    list[str] | None,
    many("a question; repeat for more", "--question", "-Q", metavar="TEXT"),
]


_Function = TypeVar("_Function", bound=Callable[..., Any])


class Commands(typer.Typer):
    """A group whose commands print our help."""

    def command(self, name: str | None = None, **more: Any) -> Callable[[_Function], _Function]:
        """As of ``typer.Typer``."""
        return super().command(name, **{"cls": Command, **more})


def group(name: str, help: str, **more: Any) -> Commands:
    """A command that consists of commands; ``more`` as of ``typer.Typer``."""
    context = {"help_option_names": ["-h", "--help"]}
    return Commands(
        name=name,
        help=help,
        cls=Group,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        context_settings=context,
        **more,
    )


def read_budget(text: str) -> float:
    """One of several budgets of a command line.

    Raises:
        UsageError: it is no fraction in (0, 1].
    """
    try:
        return parse_budget(text)
    except ValueError as error:
        raise UsageError(f"--budget: {text!r} does not fit: {error}", "--budget 0.1 keeps a tenth") from None


def read_length(flag: str, text: str) -> float:
    """The length of a movie on a command line, in seconds.

    Raises:
        UsageError: it is no time.
    """
    try:
        return parse_time(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", f"{flag} 10:00") from None
