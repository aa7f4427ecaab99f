"""How much of what the tokens are worth a budget keeps: (budget − none) / (full − none), with intervals by clips."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from echopix_cli.evaluation.intervals import Interval
from echopix_cli.evaluation.marks import Marks
from echopix_cli.evaluation.resampling import OverFamilies, Resamples, gap_of, interval_of, ratio_of
from echopix_cli.evaluation.values import AROUND, OWN, ByClip, Recovered, Recovery

NONE = "none"
# Families of rendered scenes whose right answer is that nothing is there: no token can be needed for it.
NEED_NO_TOKEN = ("silent", "dark")
BEFORE = "before CS2: "  # begins the name of a setting of the full-token model's own report


def fulls(names: Collection[str]) -> list[str]:
    """Settings, by name, that keep everything: candidates for what a budget is measured against."""
    return [name for name in names if name == AROUND or name in [f"{own}@1" for own in OWN]]


def with_full(marks: Marks, before: Marks) -> Marks:
    """Marks with those of the full-token model before CS2, where it keeps everything, on the same questions."""
    added = {f"{BEFORE}{name}": before.right[name] for name in fulls(before.right)}
    return replace(marks, right={**marks.right, **added})


def best_full(marks: Marks) -> str | None:
    """The setting that keeps everything and is right most often, in the mean over families; the first of equals."""
    families = np.array(marks.families, dtype=object)
    found = [name for name in marks.right if name.startswith(BEFORE) or name in fulls(marks.right)]

    def mean(name: str) -> float:
        return float(np.mean([marks.right[name][families == family].mean() for family in dict.fromkeys(families)]))

    return max(found, key=mean, default=None)


def by_clip(marks: Marks, resamples: Resamples, names: Sequence[str]) -> dict[str, ByClip]:
    """Accuracy of settings with intervals by clips."""
    values = marks.values(names)
    each: dict[str, dict[str, Interval]] = {name: {} for name in names}
    over = OverFamilies()
    for family, value, drawn in resamples.by_family(values, marks.families):
        over.add(value, drawn)
        for place, name in enumerate(names):
            each[name][family] = interval_of(float(value[place]), drawn[..., place])
    assert over.mean is not None
    mean, drawn_mean = over.mean
    whole, drawn = values.mean(axis=0), resamples.means(values, np.ones(len(marks), bool))
    return {
        name: ByClip(
            interval_of(float(whole[place]), drawn[..., place]),
            interval_of(float(mean[place]), drawn_mean[..., place]),
            each[name],
        )
        for place, name in enumerate(names)
    }


def recovery(marks: Marks, resamples: Resamples, names: Sequence[str], apart: Collection[str] = ()) -> Recovery | None:
    """What settings recover.

    A family stands apart, and does not count in the mean, where ``none`` is as right as everything: the interval of the
    difference (:func:`gap_of`) reaches 0. The mean is (mean − mean of none) / (mean of full − mean of none), means over
    the other families.

    Args:
        marks: of the questions.
        resamples: of their clips.
        names: of settings to say it of; ``none`` and what is measured against are passed over.
        apart: families that stand apart whatever is measured.

    Returns:
        None where ``none`` was not measured, or nothing that keeps everything.
    """
    full = best_full(marks)
    if full is None or NONE not in marks.right:
        return None
    shown = [name for name in names if name not in (full, NONE)]
    values = marks.values([full, NONE, *shown])
    over = OverFamilies()
    needing: dict[str, Interval] = {}
    left_out: dict[str, Interval] = {}
    each: dict[str, dict[str, Interval | None]] = {name: {} for name in shown}
    for family, value, drawn in resamples.by_family(values, marks.families):
        own = marks.of(family)
        gap = gap_of(
            float(value[0] - value[1]), drawn[..., 0] - drawn[..., 1], marks.right[full][own], marks.right[NONE][own]
        )
        if family in apart or gap.low <= 0.0:
            left_out[family] = gap
            continue
        needing[family] = gap
        over.add(value, drawn)
        for place, name in enumerate(shown, 2):
            each[name][family] = _share(value, drawn, place)
    settings = []
    for place, name in enumerate(shown, 2):
        if over.mean is None:
            settings.append(Recovered(name, None, None, {}))
            continue
        mean, drawn = over.mean
        accuracy = interval_of(float(mean[place]), drawn[..., place])
        settings.append(Recovered(name, accuracy, _share(mean, drawn, place), each[name]))
    return Recovery(full, needing, left_out, tuple(settings))


def _share(value: np.ndarray, drawn: np.ndarray, place: int) -> Interval | None:
    """(value − none) / (full − none) of a column; full and none are the first two."""
    return ratio_of(
        float(value[place] - value[1]),
        float(value[0] - value[1]),
        drawn[..., place] - drawn[..., 1],
        drawn[..., 0] - drawn[..., 1],
    )
