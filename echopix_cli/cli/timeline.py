"""Where answers rest along the length of a file, for tables and pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from echopix_cli.results import Answer, KeptToken, Moment
from echopix_cli.times import stretch

WORDS = {"video": "picture", "audio": "sound"}
_BASE, _MARKS = "▁", "▂▃▄▅▆▇█"
_ASCII_BASE, _ASCII_MARKS = ".", ":-=+*#@"
_HIGHEST = 3  # moments that are named
_LABEL = 13  # columns before a line, as before the facts below it
_LONGEST, _LONGEST_OF_MANY, _SHORTEST = 96, 40, 8  # columns of a line
_STRETCH = 24  # columns for a moment behind a line


@dataclass(frozen=True)
class Timeline:
    """A stretch of media time, in seconds, and the moments of one answer in it, highest first.

    ``modalities`` are those of which the answer had any tokens.
    """

    start: float
    end: float
    modalities: tuple[str, ...]
    moments: tuple[Moment, ...]

    @classmethod
    def of(cls, answer: Answer) -> Timeline | None:
        """An answer's; None where nothing was kept, or where there is no time: of a still picture."""
        sampling, tokens = answer.sampling, answer.tokens
        still = sampling.frames <= 1 and not tokens.audio.total
        if still or not answer.moments:
            return None
        last = max(moment.end for moment in answer.moments)
        end = last if sampling.end is None else sampling.end
        parts = (("video", tokens.video), ("audio", tokens.audio))
        found = cls(sampling.start, end, tuple(name for name, part in parts if part.total), answer.moments)
        return found if end > sampling.start else None

    def within(self, moment: Moment) -> tuple[float, float]:
        """Where a moment begins and ends, as fractions of the length, in [0, 1]."""
        length = self.end - self.start
        first, last = ((time - self.start) / length for time in (moment.start, moment.end))
        first = min(max(first, 0.0), 1.0)
        return first, min(max(last, first), 1.0)

    def words(self, moment: Moment) -> str:
        """From where to where a moment goes."""
        return stretch(moment.start, moment.end, self.end)

    @property
    def ends(self) -> tuple[str, str]:
        """Where it begins and ends, written alike."""
        first, _, last = stretch(self.start, self.end).partition("–")
        return first, last

    def height(self, moment: Moment) -> float:
        """A moment's share beside the highest one's, in [0, 1]."""
        highest = max(each.share for each in self.moments)
        return moment.share / highest if highest else 1.0

    def cells(self, modality: str, count: int) -> list[float | None]:
        """The line of one modality in so many cells: the height of the highest moment in each; None without one."""
        line: list[float | None] = [None] * count
        for moment in self.moments:
            if moment.modality == modality:
                first, last = self.within(moment)
                begin = min(math.floor(first * count), count - 1)
                for place in range(begin, max(begin + 1, min(math.ceil(last * count), count))):
                    line[place] = max(line[place] or 0.0, self.height(moment))
        return line

    def density(self, tokens: Sequence[KeptToken], count: int) -> dict[str, list[float]]:
        """The shares of kept tokens, spread over the time of each, in so many cells of each modality's line."""
        lines = {modality: [0.0] * count for modality in self.modalities}
        scale = count / (self.end - self.start)
        for token in tokens:
            first = min(max((token.start - self.start) * scale, 0.0), count)
            last = min(max((token.end - self.start) * scale, first), count)
            begin = min(math.floor(first), count - 1)
            for place in range(begin, max(begin + 1, math.ceil(last))):
                within = min(last, place + 1) - max(first, place)
                lines[token.modality][place] += token.share * (within / (last - first) if last > first else 1.0)
        return lines


def share_words(moment: Moment) -> str:
    """A moment's share in percent."""
    return "< 1 %" if moment.share < 0.005 else f"{100 * moment.share:.0f} %"


@dataclass(frozen=True)
class Where:
    """Lines of picture and sound for each of a file's answers, with marks as high as the share of what was kept there.

    Of one answer the three highest moments stand below; of several, the highest of each line behind it.
    """

    answers: Sequence[Answer]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich calls to draw them."""
        shown = [(number, found) for number, each in enumerate(self.answers, 1) if (found := Timeline.of(each))]
        lines = [
            line
            for number, timeline in shown
            for line in (
                _one(timeline, options)
                if len(self.answers) == 1
                else _of_many(timeline, f"{number}".rjust(len(f"{len(self.answers)}")), options)
            )
        ]
        yield from (Text(line.plain.replace("–", "-")) if options.ascii_only else line for line in lines)
        if lines:
            yield Text()


def _one(timeline: Timeline, options: ConsoleOptions) -> Iterator[Text]:
    room = min(options.max_width - _LABEL, _LONGEST)
    if room >= _SHORTEST:
        for modality in timeline.modalities:
            yield _labelled(WORDS[modality], _LABEL).append_text(_line(timeline, modality, room, options.ascii_only))
        first, last = timeline.ends
        yield _labelled("", _LABEL).append(first.ljust(room - len(last)) + last, style="dim")
    highest = timeline.moments[:_HIGHEST]
    spans = [timeline.words(moment) for moment in highest]
    rows = [
        f"{span:{max(map(len, spans))}}  {WORDS[moment.modality]:7}  {share_words(moment):>5}"
        for moment, span in zip(highest, spans, strict=True)
    ]
    if _LABEL + max(map(len, rows)) > options.max_width:  # below, in as few columns as they take
        yield _labelled("moments", 0)
        for moment, span in zip(highest, spans, strict=True):
            yield Text(f" {span} {WORDS[moment.modality]} {share_words(moment)}")
        return
    for place, words in enumerate(rows):
        yield _labelled("" if place else "moments", _LABEL).append(words)


def _of_many(timeline: Timeline, number: str, options: ConsoleOptions) -> Iterator[Text]:
    label = len(number) + 10
    room = min(options.max_width - label - _STRETCH, _LONGEST_OF_MANY)
    for place, modality in enumerate(timeline.modalities):
        head = " " * len(number) if place else number
        line = _labelled(f"{head} {WORDS[modality]}", label)
        if room >= _SHORTEST:
            line.append_text(_line(timeline, modality, room, options.ascii_only)).append("  ")
        own = next((moment for moment in timeline.moments if moment.modality == modality), None)
        yield line.append(f"{timeline.words(own)} {share_words(own)}" if own else "")


def _line(timeline: Timeline, modality: str, count: int, ascii_only: bool) -> Text:
    base, marks = (_ASCII_BASE, _ASCII_MARKS) if ascii_only else (_BASE, _MARKS)
    line = Text()
    for height in timeline.cells(modality, count):
        if height is None:
            line.append(base, style="dim")
        else:
            line.append(marks[max(0, math.ceil(height * len(marks)) - 1)], style="cyan")
    return line


def _labelled(label: str, width: int) -> Text:
    return Text(no_wrap=True).append(label.ljust(width), style="dim")
