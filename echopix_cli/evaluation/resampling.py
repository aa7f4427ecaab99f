"""Intervals by drawing clips anew, and recordings: questions that share one are right and wrong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from echopix_cli.evaluation.intervals import Interval, paired_difference, wider

RESAMPLES = 4000
SEED = 0
_ENDS = (2.5, 97.5)  # percentiles
_AT_ONCE = 256  # sets
_DRAWN_AT_ONCE = 1 << 18  # clips or recordings


class Resamples:
    """Sets of as many clips as there are, drawn with replacement (the bootstrap over clusters); and, where it is known
    which recorded samples clips play, sets of as many recordings as there are, drawn likewise.

    Every statistic comes from the same sets, so that differences and ratios are paired. With recordings there are two
    ways of drawing, and an interval is the wider of theirs: other clips of the same recordings, and other recordings.

    In a set of recordings a question counts 1 + sum(times drawn - 1) / sqrt(n) times, the sum over the n recordings of
    its clip. Of one recording that is how often it was drawn. However many there are, all questions vary as much, and
    two vary together by the cosine of their recordings: of the same ones entirely, of others not at all. Means are
    moved by weighted deviations from the mean, as in the wild bootstrap, since a weight may be negative. A question
    whose clip plays nothing is drawn with its clip.

    Sources: A. C. Davison and D. V. Hinkley, Bootstrap methods and their application, 1997, section 3.8, for clusters;
    X. Shao, The dependent wild bootstrap, 2010, for weights that depend on one another as observations may.

    Args:
        clips: each question's clip, by any name.
        resamples: how many sets.
        seed: of the draws; the same one gives the same intervals.
        recordings: those that each question's clip plays, by any names; nothing, or none of any, where nobody knows.

    Raises:
        ValueError: there are no questions.
    """

    def __init__(
        self,
        clips: Sequence[str],
        resamples: int = RESAMPLES,
        seed: int = SEED,
        recordings: Sequence[Sequence[str]] = (),
    ) -> None:
        if not clips:
            raise ValueError("nothing to draw from")
        number = _numbered(clips)
        self.clips = len(number)
        self._clip_of = np.array([number[clip] for clip in clips])
        self._times = _drawn(self.clips, resamples, np.random.default_rng(seed))
        self.recordings = len({name for own in recordings for name in own})
        if self.recordings:
            alone = [(f"clip {clip}",) for clip in clips]
            units = [
                tuple(f"plays {name}" for name in own) or unit for own, unit in zip(recordings, alone, strict=True)
            ]
            played = _numbered([unit for own in units for unit in own])
            pairs = [(place, played[unit], len(own) ** -0.5) for place, own in enumerate(units) for unit in own]
            self._plays, self._recording_of, weights = map(np.array, zip(*pairs, strict=True))
            self._weights = weights[:, None]
            self._times_played = _drawn(len(played), resamples, np.random.default_rng((seed, 1)))

    def means(self, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """What some questions' mean is in each set.

        Args:
            values: (questions, columns), such as whether each setting was right.
            chosen: bool (questions,), those that count; at least one.

        Returns:
            float64 (ways of drawing, sets, columns); not a number where a set has none of the chosen questions.
        """
        clips, places = np.unique(self._clip_of[chosen], return_inverse=True)
        sums = np.zeros((len(clips), values.shape[1] + 1))
        np.add.at(sums, places, np.column_stack([values[chosen], np.ones(len(places))]))
        drawn = np.concatenate([rows[:, clips].astype(np.float64) @ sums for rows in _pieces(self._times)])
        with np.errstate(invalid="ignore"):
            by_clip = np.asarray(drawn[:, :-1] / drawn[:, -1:])
        return np.stack([by_clip, self._by_recording(values, chosen)] if self.recordings else [by_clip])

    def _by_recording(self, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """(sets, columns), as of :meth:`means`, within the values that there are; no set lacks the chosen questions."""
        mean = values[chosen].mean(axis=0)
        own = chosen[self._plays]
        sums = np.zeros((self._times_played.shape[1], values.shape[1]))
        np.add.at(sums, self._recording_of[own], self._weights[own] * (values[self._plays[own]] - mean))
        moved = [(rows.astype(np.float64) - 1.0) @ sums for rows in _pieces(self._times_played)]
        drawn = mean + np.concatenate(moved) / chosen.sum()
        return np.asarray(np.clip(drawn, values[chosen].min(axis=0), values[chosen].max(axis=0)))

    def by_family(self, values: np.ndarray, families: Sequence[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Each family's name, its means (columns,) and those of each set, as :meth:`means` has them.

        Args:
            values: (questions, columns).
            families: each question's.
        """
        own = np.array(families, dtype=object)
        for family in dict.fromkeys(families):
            chosen = own == family
            yield family, values[chosen].mean(axis=0), self.means(values, chosen)


def _numbered(names: Sequence[object]) -> dict[object, int]:
    """Different names by number, in the order in which they first appear."""
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def _drawn(count: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (sets, count): how often a set has each of so many things. Of more than 200 times there is no chance."""
    times = np.empty((resamples, count), np.uint8)
    some = max(1, _DRAWN_AT_ONCE // count)
    for begin in range(0, resamples, some):
        rows = times[begin : begin + some]
        drawn = rng.integers(0, count, rows.shape) + count * np.arange(len(rows))[:, None]
        rows[:] = np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)
    return times


def _pieces(times: np.ndarray) -> Iterator[np.ndarray]:
    """The sets, some at a time: as numbers of eight bytes all of them may be too many."""
    for begin in range(0, len(times), _AT_ONCE):
        yield times[begin : begin + _AT_ONCE]


class OverFamilies:
    """The plain mean over families of what :meth:`Resamples.by_family` yields, family by family."""

    def __init__(self) -> None:
        self._values: list[np.ndarray] = []
        self._sums: np.ndarray | float = 0.0
        self._counts: np.ndarray | int = 0

    def add(self, value: np.ndarray, drawn: np.ndarray) -> None:
        """One more family."""
        self._values.append(value)
        here = np.isfinite(drawn)
        self._sums = self._sums + np.where(here, drawn, 0.0)
        self._counts = self._counts + here

    @property
    def mean(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(columns,) and (ways, sets, columns), of each set over its families; None without any family."""
        if not self._values:
            return None
        with np.errstate(invalid="ignore"):
            return np.mean(self._values, axis=0), np.asarray(self._sums / self._counts)


def interval_of(value: float, drawn: np.ndarray) -> Interval:
    """A statistic with its percentile interval, the wider one of the ways of drawing.

    Args:
        value: of the questions themselves.
        drawn: (ways, sets) of each set; those that are not a number do not count.
    """
    low, high = np.nanpercentile(drawn, _ENDS, axis=-1)
    return Interval(value, float(low.min()), float(high.max()))


def gap_of(value: float, drawn: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """A paired difference with the wider of two intervals: by drawing anew, and by counting questions.

    The first is a point where all clips go the same way, however few there are; the second never is.

    Args:
        value: of the difference.
        drawn: (ways, sets) of each set.
        ours: bool (questions,), which were answered rightly.
        theirs: likewise.
    """
    counted = paired_difference(ours.astype(bool).tolist(), theirs.astype(bool).tolist())
    return wider(interval_of(value, drawn), counted)


def ratio_of(above: float, below: float, drawn_above: np.ndarray, drawn_below: np.ndarray) -> Interval | None:
    """A ratio with its percentile interval, the wider one of the ways of drawing; an end may be infinite.

    A set whose denominator is not positive says nothing about how large the ratio is, and counts against both ends.

    Args:
        above: numerator.
        below: denominator; None is returned where it is not positive.
        drawn_above: (ways, sets) of each set.
        drawn_below: likewise.
    """
    if below <= 0.0:
        return None
    ends = [_ends_of(*way) for way in zip(np.atleast_2d(drawn_above), np.atleast_2d(drawn_below), strict=True)]
    return Interval(above / below, min(low for low, _ in ends), max(high for _, high in ends))


def _ends_of(drawn_above: np.ndarray, drawn_below: np.ndarray) -> tuple[float, float]:
    """Both ends of a ratio's interval, of the sets (sets,) of one way of drawing."""
    known = np.isfinite(drawn_above) & np.isfinite(drawn_below)
    above_each, below_each = drawn_above[known], drawn_below[known]
    positive = below_each > 0.0
    ratios = above_each[positive] / below_each[positive]
    unknown = np.full(int((~positive).sum()), np.inf)
    low = np.percentile(np.concatenate([-unknown, ratios]), _ENDS[0], method="lower")
    high = np.percentile(np.concatenate([ratios, unknown]), _ENDS[1], method="higher")
    return float(low), float(high)
