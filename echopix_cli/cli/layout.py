"""How words and tables are laid out on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

_BOUND = "\ufdd0"  # a space that is not one while lines are broken; Unicode leaves this code to programs
_UNIT = re.compile(r"(?<=\d) (?=[\w%×°])")


@dataclass(frozen=True)
class Words:
    """A text that is broken between words, but not between a number and what it counts: ``6.19 s``."""

    text: Text

    def _bound(self) -> Text:
        bound = self.text.copy()
        bound.plain = _UNIT.sub(_BOUND, self.text.plain)
        return bound

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """What rich calls to know how wide it is."""
        return Measurement.get(console, options, self._bound())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich calls to draw it."""
        for line in self._bound().wrap(console, options.max_width, overflow="fold"):
            line.plain = line.plain.replace(_BOUND, " ")
            line.rstrip()
            yield line


@dataclass(frozen=True)
class Trimmed:
    """Tables without spaces at the ends of lines, and with no blank line but one between them."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich calls to draw it."""
        blank = False
        for line in console.render_lines(self.inner, options, pad=False):
            kept = _without_end(line)
            if kept:
                if blank:
                    yield Segment.line()
                yield from kept
                yield Segment.line()
            blank = not kept


def _without_end(line: Iterable[Segment]) -> list[Segment]:
    """A line's segments up to the last character that is no space."""
    kept = list(line)
    while kept and not kept[-1].text.rstrip():
        kept.pop()
    if kept:
        kept[-1] = kept[-1]._replace(text=kept[-1].text.rstrip())
    return kept
