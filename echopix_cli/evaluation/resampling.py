"""Intervals by drawing clips anew: questions about one clip are right and wrong together, and count as one draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from echopix_cli.evaluation.intervals import Interval, paired_difference, wider

RESAMPLES = 4000
SEED = 0
_ENDS = (2.5, 97.5)  # percentiles
_AT_ONCE = 256  # sets
_DRAWN_AT_ONCE = 1 << 18  # clips


class Resamples:
    """Sets of as many clips as there are, drawn with replacement (the bootstrap over clusters).

    Every statistic comes from the same sets, so that differences and ratios are paired.

    Source: A. C. Davison and D. V. Hinkley, Bootstrap methods and their application, 1997, section 3.8.

    Args:
        clips: each question's clip, by any name.
        resamples: how many sets.
        seed: of the draws; the same one gives the same intervals.

    Raises:
        ValueError: there are no questions.
    """

    def __init__(self, clips: Sequence[str], resamples: int = RESAMPLES, seed: int = SEED) -> None:
        if not clips:
            raise ValueError("nothing to draw from")
        number = {clip: place for place, clip in enumerate(dict.fromkeys(clips))}
        self.clips = len(number)
        self._clip_of = np.array([number[clip] for clip in clips])
        rng = np.random.default_rng(seed)
        # (sets, clips): how often a set has a clip. Of two hundred and more times in one set there is no chance.
        self._times = np.empty((resamples, self.clips), np.uint8)
        some = max(1, _DRAWN_AT_ONCE // self.clips)
        for begin in range(0, resamples, some):
            rows = self._times[begin : begin + some]
            drawn = rng.integers(0, self.clips, rows.shape) + self.clips * np.arange(len(rows))[:, None]
            rows[:] = np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)

    def means(self, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """What some questions' mean is in each set.

        Args:
            values: (questions, columns), such as whether each setting was right.
            chosen: bool (questions,), those that count; at least one.

        Returns:
            float64 (sets, columns); not a number where a set has none of the chosen questions.
        """
        clips, places = np.unique(self._clip_of[chosen], return_inverse=True)
        sums = np.zeros((len(clips), values.shape[1] + 1))
        np.add.at(sums, places, np.column_stack([values[chosen], np.ones(len(places))]))
        drawn = np.concatenate([rows[:, clips].astype(np.float64) @ sums for rows in self._pieces()])
        with np.errstate(invalid="ignore"):
            return np.asarray(drawn[:, :-1] / drawn[:, -1:])

    def by_family(self, values: np.ndarray, families: Sequence[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Each family's name, its means (columns,) and those of each set (sets, columns), as :meth:`means` has them.

        Args:
            values: (questions, columns).
            families: each question's.
        """
        own = np.array(families, dtype=object)
        for family in dict.fromkeys(families):
            chosen = own == family
            yield family, values[chosen].mean(axis=0), self.means(values, chosen)

    def _pieces(self) -> Iterator[np.ndarray]:
        """The sets, some at a time: as numbers of eight bytes all of them may be too many."""
        for begin in range(0, len(self._times), _AT_ONCE):
            yield self._times[begin : begin + _AT_ONCE]


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
        """(columns,) and (sets, columns), of each set over the families that it has; None without any family."""
        if not self._values:
            return None
        with np.errstate(invalid="ignore"):
            return np.mean(self._values, axis=0), np.asarray(self._sums / self._counts)


def interval_of(value: float, drawn: np.ndarray) -> Interval:
    """A statistic with its percentile interval.

    Args:
        value: of the questions themselves.
        drawn: (sets,) of each set; those that are not a number do not count.
    """
    low, high = np.nanpercentile(drawn, _ENDS)
    return Interval(value, float(low), float(high))


def gap_of(value: float, drawn: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """A paired difference with the wider of two intervals: by drawing clips anew, and by counting questions.

    The first is a point where all clips go the same way, however few there are; the second never is.

    Args:
        value: of the difference.
        drawn: (sets,) of each set.
        ours: bool (questions,), which were answered rightly.
        theirs: likewise.
    """
    counted = paired_difference(ours.astype(bool).tolist(), theirs.astype(bool).tolist())
    return wider(interval_of(value, drawn), counted)


def ratio_of(above: float, below: float, drawn_above: np.ndarray, drawn_below: np.ndarray) -> Interval | None:
    """A ratio with its percentile interval; an end may be infinite.

    A set whose denominator is not positive says nothing about how large the ratio is, and counts against both ends.

    Args:
        above: numerator.
        below: denominator; None is returned where it is not positive.
        drawn_above: (sets,) of each set.
        drawn_below: likewise.
    """
    if below <= 0.0:
        return None
    known = np.isfinite(drawn_above) & np.isfinite(drawn_below)
    above_each, below_each = drawn_above[known], drawn_below[known]
    positive = below_each > 0.0
    ratios = above_each[positive] / below_each[positive]
    unknown = np.full(int((~positive).sum()), np.inf)
    low = np.percentile(np.concatenate([-unknown, ratios]), _ENDS[0], method="lower")
    high = np.percentile(np.concatenate([ratios, unknown]), _ENDS[1], method="higher")
    return Interval(above / below, float(low), float(high))
