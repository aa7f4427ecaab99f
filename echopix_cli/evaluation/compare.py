"""Two reports about the same questions: paired differences, with intervals by clips."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from echopix_cli.evaluation.gaps import differences
from echopix_cli.evaluation.intervals import Interval
from echopix_cli.evaluation.marks import Marks
from echopix_cli.evaluation.recovered import by_clip
from echopix_cli.evaluation.resampling import Resamples
from echopix_cli.evaluation.values import OWN

_FIRST, _SECOND = "first: ", "second: "  # begin names of settings, of both reports in one


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
    recordings: int
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
    first = {f"{_FIRST}{name}": ours.right[name] for name, _ in pairs}
    second = {f"{_SECOND}{name}": theirs.right[name] for _, name in pairs}
    both = replace(ours, right={**first, **second})
    resamples = Resamples(ours.clips, recordings=ours.recordings)
    named = [(f"{_FIRST}{a}", f"{_SECOND}{b}") for a, b in pairs]
    right = by_clip(both, resamples, list(both.right))
    made = [
        SettingPair(*pair, right[a].mean, right[b].mean, gaps.mean, gaps.overall, gaps.families)
        for pair, (a, b), gaps in zip(pairs, named, differences(both, resamples, named), strict=True)
    ]
    return ReportPair(len(ours), resamples.clips, resamples.recordings, tuple(made))


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
