"""Paired differences of settings on the same questions: over all of them, over families, and of each family."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from echopix_cli.evaluation.intervals import Interval, wider
from echopix_cli.evaluation.marks import Marks
from echopix_cli.evaluation.resampling import OverFamilies, Resamples, gap_of, interval_of


@dataclass(frozen=True)
class Gaps:
    """How much oftener one setting is right than another.

    ``overall`` is over all questions, ``mean`` over families, ``needing`` over the families that need tokens, None
    where none does; ``families`` has that of each family.
    """

    overall: Interval
    mean: Interval
    needing: Interval | None
    families: dict[str, Interval]


def differences(
    marks: Marks, resamples: Resamples, pairs: Sequence[tuple[str, str]], needing: Collection[str] = ()
) -> list[Gaps]:
    """How much oftener the first setting of each pair is right than the second.

    Args:
        marks: of the questions.
        resamples: of their clips.
        pairs: of settings, by name.
        needing: families that need tokens.
    """
    if not pairs:
        return []
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    values = marks.values(names)
    ours, theirs = ([names.index(pair[side]) for pair in pairs] for side in (0, 1))
    every, some = OverFamilies(), OverFamilies()
    families: list[dict[str, Interval]] = [{} for _ in pairs]
    for family, value, drawn in resamples.by_family(values, marks.families):
        gap, drawn_gap = value[ours] - value[theirs], drawn[..., ours] - drawn[..., theirs]
        every.add(gap, drawn_gap)
        if family in needing:
            some.add(gap, drawn_gap)
        own = values[marks.of(family)]
        for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            families[place][family] = gap_of(float(gap[place]), drawn_gap[..., place], own[:, a], own[:, b])
    plain, drawn = values.mean(axis=0), resamples.means(values, np.ones(len(marks), bool))
    found = []
    for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        each = families[place]
        mean = _over(every, place, list(each.values()))
        assert mean is not None
        overall = gap_of(float(plain[a] - plain[b]), drawn[..., a] - drawn[..., b], values[:, a], values[:, b])
        needed = _over(some, place, [gap for family, gap in each.items() if family in needing])
        found.append(Gaps(overall, mean, needed, each))
    return found


def _over(families: OverFamilies, place: int, gaps: Sequence[Interval]) -> Interval | None:
    """A pair's mean over families with the wider of two intervals: by drawing anew, and from those of each family."""
    if families.mean is None:
        return None
    value, drawn = families.mean
    return wider(interval_of(float(value[place]), drawn[..., place]), _mean(gaps))


def _mean(gaps: Collection[Interval]) -> Interval:
    """The mean of independent differences, by their intervals, each end from those ends; of one it is that one.

    Source: G. Y. Zou and A. Donner, Construction of confidence limits about effect measures: a general approach, 2008.
    """
    value = sum(gap.value for gap in gaps) / len(gaps)
    below, above = (
        math.sqrt(sum((gap.value - end) ** 2 for gap, end in zip(gaps, ends, strict=True))) / len(gaps)
        for ends in ([gap.low for gap in gaps], [gap.high for gap in gaps])
    )
    return Interval(value, max(-1.0, value - below), min(1.0, value + above))
