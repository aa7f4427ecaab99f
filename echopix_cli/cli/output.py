"""The only writer: answers and JSON to stdout, everything else to stderr, all of it inert."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from echopix_cli.errors import EchopixError
from echopix_cli.records import SCHEMA_VERSION as SCHEMA_VERSION
from echopix_cli.records import answer_record as answer_record
from echopix_cli.times import clock

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

    from echopix_cli.results import Answer

_ROOM_FOR_TEXT = 30  # columns that the last cell of a row needs beside the others
_COMMANDS = ("echopix ", "pip ", "python ")  # hints that are copied, and so never broken into lines
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


class AnswersLost(EchopixError):
    """Stdout cannot be written; so no more answers are of any use."""


class ReaderGone(Exception):
    """The reader of stdout has closed it, as ``head`` does when it has enough lines."""


def discard(descriptor: int) -> None:
    """Redirect a descriptor to ``/dev/null``, so that the interpreter's last flush does not fail once more."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def occupy_closed_streams() -> None:
    """Put ``/dev/null`` in the place of closed standard streams, whose numbers the next opened file would take."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - lives as long as the process


class Aside:
    """A stream beside the answers: what cannot be written there is lost, and the answers are not lost with it.

    Args:
        stream: None where it is closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115 - lives as long as this
        self._lost = False

    def write(self, text: str) -> int:
        """Write; after a failure, discard."""
        if not self._lost:
            try:
                return self._stream.write(text)
            except (OSError, ValueError):
                self._lose()
        return len(text)

    def flush(self) -> None:
        """Flush; ignore failures."""
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._lose()

    def _lose(self) -> None:
        self._lost = True
        with suppress(OSError, ValueError):
            discard(self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Output:
    """Where a command writes. Streams are those of the moment it is made, so that tests can swap them.

    Args:
        quiet: no tables, notices or progress; errors and warnings are always shown.
        color: None decides by the terminal and ``NO_COLOR``.
    """

    def __init__(self, quiet: bool = False, color: bool | None = None) -> None:
        self.quiet = quiet
        self.color = color
        self.stdout: TextIO | None = sys.stdout  # None where it is closed, as the interpreter has it
        self.stderr = cast(TextIO, Aside(sys.stderr))
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character shows its code
                stream.reconfigure(errors="backslashreplace")
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """Rich console on stderr."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(
                file=cast(IO[str], self.stderr),
                no_color=True if self.color is False else None,
                highlight=False,
                emoji=False,
            )
        return self._console

    @property
    def answers_on_terminal(self) -> bool:
        """Whether stdout is a terminal, where an answer is shown as it comes."""
        return self.stdout is not None and self.stdout.isatty()

    def answer(self, text: str, end: str = "\n") -> None:
        """Write answer text to stdout."""
        self._write(inert(text) + end)

    def page(self, markdown: str) -> None:
        """Write a page to stdout: laid out for the width of a terminal, as it stands anywhere else."""
        if not self.answers_on_terminal:
            self.answer(markdown, end="")
            return
        from echopix_cli.cli.pages import laid_out

        self._write(laid_out(inert(markdown), shutil.get_terminal_size().columns, self.color))

    def columns(self, cells: Sequence[str], widths: Sequence[int]) -> None:
        """Write a row to stdout: in one line, or on a terminal that is too narrow each further cell below, indented.

        Args:
            cells: plain text.
            widths: of all cells but the last.
        """
        shown = [one_line(cell) for cell in cells]
        row = "  ".join([*(f"{cell:{width}}" for cell, width in zip(shown, widths, strict=False)), shown[-1]]).rstrip()
        room = shutil.get_terminal_size().columns if self.answers_on_terminal else None
        if room is None or len(row) <= room:
            self.answer(row)
            return
        import textwrap

        head = "".join(f"{cell:{width}}  " for cell, width in zip(shown, widths, strict=False))
        if len(head) + _ROOM_FOR_TEXT <= room and len(head) == sum(widths) + 2 * len(widths):
            lines = textwrap.wrap(shown[-1], room, initial_indent=head, subsequent_indent=" " * len(head))
        else:
            lines = textwrap.wrap("  ".join(cell for cell in shown[:-1] if cell), room, subsequent_indent="  ")
            lines += textwrap.wrap(shown[-1], room, initial_indent="    ", subsequent_indent="    ")
        self.answer("\n".join(lines))

    def record(self, value: dict[str, Any]) -> None:
        """Write one JSON object on one line to stdout."""
        self._write(json.dumps(value, ensure_ascii=True) + "\n")

    def _write(self, text: str) -> None:
        """Write to stdout at once.

        Raises:
            ReaderGone: nobody reads it.
            AnswersLost: it cannot be written.
        """
        if self.stdout is None:
            raise ReaderGone
        try:
            self.stdout.write(text)
            self.stdout.flush()
        except BrokenPipeError:
            discard(self.stdout.fileno())
            raise ReaderGone from None  # of BrokenPipeError, typer would make exit code 1
        except OSError as error:
            discard(self.stdout.fileno())
            reason = error.strerror or str(error)
            raise AnswersLost(f"cannot write to stdout: {reason}", "make room, or send it elsewhere") from None

    def show(self, renderable: RenderableType) -> None:
        """Show tables on stderr, with one blank line where they leave several, and none at the ends of lines."""
        if not self.quiet:
            from echopix_cli.cli.layout import Trimmed

            self.console.print(Trimmed(renderable))

    def notice(self, text: str) -> None:
        """Say something worth knowing on stderr."""
        if not self.quiet:
            self._line("note: ", text, "yellow")

    def warn(self, text: str) -> None:
        """Say on stderr what nobody may miss, under ``quiet`` too: what was lost, and what an answer is worth."""
        self._line("note: ", text, "yellow")

    def error(self, error: EchopixError) -> None:
        """One line for what failed and why, one for what to do next."""
        self._line("error: ", one_line(error.message), "bold red")
        if error.hint:
            self._line("  try: ", one_line(error.hint), "cyan", whole=error.hint.startswith(_COMMANDS))

    def _line(self, label: str, text: str, style: str, whole: bool = False) -> None:
        """Words on stderr, wrapped where a terminal ends; ``whole`` in one piece, to be copied."""
        if not self._draws:
            self.stderr.write(f"{label}{one_line(text)}\n")
            self.stderr.flush()
            return
        from rich.text import Text

        from echopix_cli.cli.layout import Words

        line = Text(label, style=style)
        line.append(one_line(text), style="default")
        if whole or not self.console.is_terminal:
            self.console.print(line, soft_wrap=True)
        else:
            self.console.print(Words(line))

    @property
    def _draws(self) -> bool:
        """Whether stderr is a terminal, or is to be taken for one: then the library draws, and is imported."""
        forced = any(os.environ.get(name) for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))
        return self._console is not None or forced or self.stderr.isatty()

    @property
    def _shows_progress(self) -> bool:
        return not self.quiet and self.stderr.isatty() and os.environ.get("TERM") != "dumb"

    @contextmanager
    def tally(self, total: int) -> Iterator[Tally]:
        """Progress through so many items."""
        if not self._shows_progress:
            yield Tally(None, total)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.text import Text

        class Bar(Progress):
            """With a line below it about the item at hand, which may take long."""

            def get_renderables(self) -> Iterator[RenderableType]:
                yield from super().get_renderables()
                for task in self.tasks:
                    if task.fields["at"]:
                        yield Text(task.fields["at"], no_wrap=True, overflow="ellipsis")

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        with Bar(*columns, console=self.console, transient=True) as progress:
            yield Tally(progress, total)

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """A spinner and a clock while something takes time; only on a terminal. Yields what changes its text."""
        if not self._shows_progress:
            yield lambda text: None
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(one_line(text), total=None)
            yield lambda text: progress.update(task, description=one_line(text))


class Tally:
    """A progress bar on stderr with rate and time left; nothing where there is no terminal to show it on."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task("", total=total, rate="", at="")
        self._began = time.monotonic()
        self._count = self._failed = 0
        self._left = total

    def advance(self, count: int = 1, failed: bool = False) -> None:
        """Count items that are done, or ``failed``; the rate and the time left follow from these alone."""
        self._count += count
        self._failed += count * failed
        self._left -= count
        rate = self._count / max(time.monotonic() - self._began, 1e-9)
        left = f", {clock(round(self._left / rate))} left" if self._left else ""
        self._draw(count, f"{60 * rate:.0f}/min" + left + (f", {self._failed} failed" if self._failed else ""))

    def skip(self, count: int) -> None:
        """Count items that an earlier run has done; they change no rate."""
        self._left -= count
        self._draw(count, None)

    def tell(self, text: str) -> None:
        """Show how far the next item has come, until it is counted."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, at=one_line(text))

    def _draw(self, count: int, rate: str | None) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=count, at="")
            if rate is not None:
                self._progress.update(self._task, rate=rate)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while something else is written to the terminal."""
        if self._progress is None:
            yield
            return
        self._progress.stop()
        yield
        self._progress.start()


def unkept(answer: Answer) -> dict[str, str]:
    """The modality of which the sieve kept nothing, though it kept something of the other, and that in words."""
    tokens = answer.tokens
    return {
        name: f"nothing of the {name} was kept (0 of {part.total} tokens)"
        for name, part in (("picture", tokens.video), ("sound", tokens.audio))
        if part.total and not part.kept and tokens.kept
    }
