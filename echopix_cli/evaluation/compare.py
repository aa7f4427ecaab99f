"""Two reports about the same questions: paired differences, with intervals by clips."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from echopix_cli.evaluation.intervals import Interval, wider
from echopix_cli.evaluation.marks import Marks
from echopix_cli.evaluation.resampling import OverFamilies, Resamples, gap_of, interval_of
from echopix_cli.evaluation.values import OWN


@dataclass(frozen=True)
class SettingPair:
    """A setting of the first report beside one of the second, by their names.

    ``accuracy`` and ``reference_accuracy`` are means over families, of the first and of the second. ``mean`` is their
    difference, first − second, ``overall`` that over all questions, ``families`` that of each family.
    """

    setting: str
    reference: str
    accuracy: Interval
    reference_accuracy: Interval
    mean: Interval
    overall: Interval
    families: dict[str, Interval]


@dataclass(frozen=True)
class ReportPair:
    """Two reports beside one another."""

    questions: int
    clips: int
    pairs: tuple[SettingPair, ...]


def compare(ours: Marks, theirs: Marks) -> ReportPair:
    """Compare settings of the same name; the models' own sieves at the same budget, whichever they are; or, where each
    report has one setting only, these.

    Raises:
        ValueError: other questions, or no setting to compare.
    """
    if other := ours.same_questions(theirs.ids, theirs.asked):
        raise ValueError(f"they are about different questions: {other}")
    pairs = matched(ours.right, theirs.right)
    if not pairs:
        raise ValueError(
            f"they have no setting in common: {', '.join(ours.right)} in one, {', '.join(theirs.right)} in the other"
        )
    resamples = Resamples(ours.clips)
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    values = np.column_stack([ours.values(left), theirs.values(right)])
    values = np.column_stack([values, values[:, : len(pairs)] - values[:, len(pairs) :]])
    over, families = OverFamilies(), [dict[str, Interval]() for _ in pairs]
    for family, value, drawn in resamples.by_family(values, ours.families):
        over.add(value, drawn)
        chosen = ours.of(family)
        for place, own in enumerate(families):
            gap = 2 * len(pairs) + place
            answers = values[chosen, place], values[chosen, len(pairs) + place]
            own[family] = gap_of(float(value[gap]), drawn[:, gap], *answers)
    assert over.mean is not None
    mean, drawn_mean = over.mean
    whole, drawn = values.mean(axis=0), resamples.means(values, np.ones(len(ours), bool))
    made = []
    for place, (setting, reference) in enumerate(pairs):
        columns = (place, len(pairs) + place, 2 * len(pairs) + place)
        first, second, less = (interval_of(float(mean[column]), drawn_mean[:, column]) for column in columns)
        answers = values[:, columns[0]], values[:, columns[1]]
        overall = gap_of(float(whole[columns[2]]), drawn[:, columns[2]], *answers)
        less = wider(less, _mean(families[place].values()))
        made.append(SettingPair(setting, reference, first, second, less, overall, families[place]))
    return ReportPair(len(ours), resamples.clips, tuple(made))


def _mean(gaps: Collection[Interval]) -> Interval:
    """The mean of independent differences, by their intervals; within -1 and 1."""
    value = sum(gap.value for gap in gaps) / len(gaps)
    half = math.sqrt(sum(gap.half**2 for gap in gaps)) / len(gaps)
    return Interval(value, max(-1.0, value - half), min(1.0, value + half))


def matched(ours: Iterable[str], theirs: Iterable[str]) -> list[tuple[str, str]]:
    """Which settings, by name, are compared with which."""
    first, second = list(ours), list(theirs)
    there = {_whatever_sieve(name): name for name in second}
    pairs = [(name, name if name in second else there.get(_whatever_sieve(name), "")) for name in first]
    pairs = [pair for pair in pairs if pair[1]]
    return pairs or ([(first[0], second[0])] if len(first) == len(second) == 1 else [])


def _whatever_sieve(name: str) -> str:
    sieve, at, budget = name.partition("@")
    return f"auto{at}{budget}" if sieve in OWN else name
