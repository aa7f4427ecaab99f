"""The only writer: answers and JSON to stdout, everything else to stderr, all of it inert."""

from __future__ import annotations

import io
import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from echopix_cli.errors import EchopixError
from echopix_cli.files import named

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

    from echopix_cli.results import Answer

SCHEMA_VERSION = 1  # of JSON objects
_PLAIN_SPACE = {"\n", "\t"}
# Characters that reorder or hide text on a terminal; category Cf also holds joiners that scripts need.
_DIRECTION = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def inert(text: str) -> str:
    """Text that a terminal only shows: control and direction characters become visible escapes."""

    def show(character: str) -> str:
        if character in _PLAIN_SPACE:
            return character
        if character in _DIRECTION or unicodedata.category(character) in ("Cc", "Cs"):
            code = ord(character)
            return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
        return character

    return "".join(show(character) for character in text)


def one_line(text: str) -> str:
    """As :func:`inert`, on one line."""
    return inert(" ".join(text.split()))


class ReaderGone(Exception):
    """Whoever read stdout has closed it, as ``head`` does when it has seen enough."""


class Output:
    """Where a command writes. Streams are those of the moment it is made, so that tests can swap them.

    Args:
        quiet: no tables, notices or progress; errors are always shown.
        color: None decides by the terminal and ``NO_COLOR``.
    """

    def __init__(self, quiet: bool = False, color: bool | None = None) -> None:
        self.quiet = quiet
        self.color = color
        self.stdout: TextIO = sys.stdout
        self.stderr: TextIO = sys.stderr
        for stream in (self.stdout, self.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character shows its code
                stream.reconfigure(errors="backslashreplace")
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """Rich console on stderr."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(
                file=self.stderr, no_color=True if self.color is False else None, highlight=False, emoji=False
            )
        return self._console

    @property
    def answers_on_terminal(self) -> bool:
        """Whether stdout is a terminal, where an answer is shown as it comes."""
        return self.stdout.isatty()

    def answer(self, text: str, end: str = "\n") -> None:
        """Write answer text to stdout."""
        self._write(inert(text) + end)

    def record(self, value: dict[str, Any]) -> None:
        """Write one JSON object on one line to stdout."""
        self._write(json.dumps(value, ensure_ascii=True) + "\n")

    def _write(self, text: str) -> None:
        try:
            self.stdout.write(text)
            self.stdout.flush()
        except BrokenPipeError:
            raise ReaderGone from None  # of BrokenPipeError, typer would make exit code 1

    def show(self, renderable: RenderableType) -> None:
        """Show a table on stderr."""
        if not self.quiet:
            self.stdout.flush()
            self.console.print(renderable)

    def notice(self, text: str) -> None:
        """Say something worth knowing on stderr."""
        if not self.quiet:
            self._line("note: ", text, "yellow")

    def error(self, error: EchopixError) -> None:
        """One line for what failed and why, one for what to do next."""
        self._line("error: ", one_line(error.message), "bold red")
        if error.hint:
            self._line("  try: ", one_line(error.hint), "cyan")

    def _line(self, label: str, text: str, style: str) -> None:
        from rich.text import Text

        self.stdout.flush()
        line = Text(label, style=style)
        line.append(one_line(text), style="default")
        self.console.print(line, soft_wrap=True)

    @property
    def _shows_progress(self) -> bool:
        return not self.quiet and self.stderr.isatty() and os.environ.get("TERM") != "dumb"

    @contextmanager
    def tally(self, total: int) -> Iterator[Tally]:
        """Progress through so many items."""
        if not self._shows_progress:
            yield Tally(None, total)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield Tally(progress, total)

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """A spinner while something takes time; only on a terminal. Yields what changes its text."""
        if not self._shows_progress:
            yield lambda text: None
            return
        from rich.text import Text

        with self.console.status(Text(one_line(text))) as status:
            yield lambda text: status.update(Text(one_line(text)))


class Tally:
    """A progress bar on stderr with rate and time left; nothing where there is no terminal to show it on."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task("", total=total, rate="")
        self._began = time.monotonic()
        self._count = 0

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self._count += count
        if self._progress is not None and self._task is not None:
            rate = 60 * self._count / max(time.monotonic() - self._began, 1e-9)
            self._progress.update(self._task, advance=count, rate=f"{rate:.0f}/min")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while something else is written to the terminal."""
        if self._progress is None:
            yield
            return
        self._progress.stop()
        yield
        self._progress.start()


def answer_record(answer: Answer) -> dict[str, Any]:
    """An answer as the JSON object of schema version 1."""
    raw = asdict(answer)
    raw["latency_s"] = {name: round(value, 6) for name, value in raw.pop("latency").items()}
    raw["peak_memory_bytes"] = raw.pop("peak_memory")
    rate = answer.tokens_per_second
    raw["tokens_per_second"] = None if rate is None else round(rate, 3)
    raw["audio"] = str(answer.audio)
    raw["notices"] = list(answer.notices)
    for choice in raw["choices"]:
        choice["probability"] = round(choice["probability"], 6)
    raw["choices"] = list(raw["choices"])
    order = (
        "question answer choices finish_reason audio tokens budget sieve question_layer prefilter cached "
        "latency_s tokens_per_second peak_memory_bytes model sampling notices"
    )
    return {"schema_version": SCHEMA_VERSION, **named(raw["media"]), **{name: raw[name] for name in order.split()}}
