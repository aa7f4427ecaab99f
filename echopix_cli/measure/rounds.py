"""Ways of doing the same work compared within rounds, so that ratios mean something on a busy machine.

A round runs every way once and begins with another one each time. A ratio is taken between two passes of one round and
only then summed up over rounds. Rounds in which other work took the processor are repeated; where that does not help,
the result says that nothing can be concluded.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Generic, TypeVar

Way = TypeVar("Way")  # what distinguishes the passes of a round
Prepared = TypeVar("Prepared")  # what the passes of one round share
Pass = TypeVar("Pass")  # what one of them gives

CONFIDENCE = 0.95
# A preemption lasts some 3 ms under Linux's default slices, so that this many a second of processor time cost about
# 10 % of it. On two cores 1 to 20 were counted on a quiet machine, 90 to 900 beside another process.
SWITCHES_PER_SECOND, SWITCHES_AT_ANY_TIME = 30.0, 5
AGREEMENT = 1.3  # the upper quartile of a ratio's pairs over the lower, beyond which they do not agree


@dataclass(frozen=True)
class Spread:
    """Median of several runs and their quartiles, None for a single run."""

    median: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Ratio:
    """Median of ratios taken pair by pair, and an interval for it.

    ``low`` and ``high`` are two of the pairs, chosen by rank so that the true median lies between them with at least
    ``confidence``, whatever the distribution: 0.95 from six pairs on, less with fewer. None for a single pair.
    """

    median: float
    low: float | None = None
    high: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Rounds(Generic[Way, Pass]):
    """What was measured.

    Attributes:
        passes: of each way, one for each round that counts, in the order of the rounds.
        counted: rounds that count.
        disturbed: rounds in which other work took the processor.
        doubt: why nothing can be concluded from ratios; None where they hold.
    """

    passes: dict[Way, tuple[Pass, ...]]
    counted: int
    disturbed: int
    doubt: str | None


def spread_of(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    if len(values) < 2:
        return Spread(values[0])
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Spread(median(values), low, high)


def ratio_of(pairs: Sequence[float]) -> Ratio:
    """Median of paired ratios with its interval by ranks."""
    count = len(pairs)
    if count < 2:
        return Ratio(pairs[0])
    # The median lies below the k-th smallest of n with the chance of fewer than k heads in n throws of a coin.
    outside, rank = 2.0 ** (1 - count), 1
    while (wider := outside + math.comb(count, rank) * 2.0 ** (1 - count)) <= 1 - CONFIDENCE:
        outside, rank = wider, rank + 1
    ordered = sorted(pairs)
    return Ratio(median(pairs), ordered[rank - 1], ordered[-rank], 1 - outside)


def paired_ratios(base: Sequence[Pass], own: Sequence[Pass], seconds: Callable[[Pass], float]) -> list[float]:
    """Round by round, the seconds of ``base``'s pass over those of ``own``'s."""
    return [seconds(theirs) / seconds(ours) for theirs, ours in zip(base, own, strict=True)]


def disagreement(pairs: Sequence[float]) -> str | None:
    """What there is to say where the pairs of one ratio are too far apart; None where they agree."""
    found = spread_of(pairs)
    if found.low is None or found.high is None or found.high <= AGREEMENT * found.low:
        return None
    return f"half of the rounds' speed-ups lie outside {found.low:.2f}–{found.high:.2f}×"


class Disturbance:
    """Counts from its making how often the scheduler took the processor away from this process."""

    def __init__(self) -> None:
        self._switches, self._seconds = _switches(), time.process_time()

    @property
    def noticed(self) -> bool:
        """Whether it was more often than on a quiet machine."""
        return too_often(_switches() - self._switches, time.process_time() - self._seconds)


def too_often(switches: int, seconds: float) -> bool:
    """Whether so many involuntary context switches in so many seconds of processor time tell of other work."""
    return switches > SWITCHES_AT_ANY_TIME + SWITCHES_PER_SECOND * seconds


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def interleave(
    ways: Sequence[Way],
    prepare: Callable[[], Prepared],
    run: Callable[[Prepared, Way], Pass],
    *,
    trials: int,
    warmup: int,
    repeats: int | None = None,
    doubt: Callable[[Mapping[Way, Sequence[Pass]]], str | None] = lambda passes: None,
    disturbance: Callable[[], Disturbance] | None = Disturbance,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Rounds[Way, Pass]:
    """Run every way in rounds until ``trials`` undisturbed ones agree, or repeating has not helped.

    Args:
        prepare: called once a round; what it gives is released before the next.
        run: one pass.
        trials: rounds wanted.
        warmup: rounds before them that do not count.
        repeats: rounds that may come on top; as many as ``trials`` without it.
        doubt: why ratios of these passes do not hold, if they do not.
        disturbance: what watches a pass; None where the processor is not what works.
        watch: called with (rounds done, rounds expected).
    """
    undisturbed: list[dict[Way, Pass]] = []
    every: list[dict[Way, Pass]] = []

    def round_of(turn: int) -> tuple[dict[Way, Pass], bool]:
        prepared, made, noticed = prepare(), {}, False
        begin = turn % len(ways)  # what runs first after preparing runs in colder caches
        for way in (*ways[begin:], *ways[:begin]):
            watching = disturbance() if disturbance else None
            made[way] = run(prepared, way)
            noticed = noticed or (watching is not None and watching.noticed)
        return made, noticed

    most = trials + (trials if repeats is None else repeats)
    why: str | None = None
    for turn in range(warmup + most):
        made, noticed = round_of(turn)
        if turn >= warmup:
            every.append(made)
            undisturbed += [] if noticed else [made]
        missing, left = trials - len(undisturbed), warmup + most - turn - 1
        why = None if missing > 0 else doubt(_by_way(ways, undisturbed))
        hopeless = len(every) >= trials and missing > left
        again = not hopeless and (missing > 0 or why is not None)
        watch(turn + 1, turn + 1 + (min(left, max(0, warmup - turn - 1) + max(missing, 1)) if again else 0))
        if not again:
            break
    disturbed = len(every) - len(undisturbed)
    if len(undisturbed) >= trials:
        return Rounds(_by_way(ways, undisturbed), len(undisturbed), disturbed, why)
    why = f"other work took the processor in {disturbed} of {len(every)} rounds"
    return Rounds(_by_way(ways, every), len(every), disturbed, why)


def _by_way(ways: Sequence[Way], rounds: Sequence[Mapping[Way, Pass]]) -> dict[Way, tuple[Pass, ...]]:
    return {way: tuple(made[way] for made in rounds) for way in ways}
