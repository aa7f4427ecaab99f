"""Budgets measured side by side in one process, so that ratios mean something on a noisy machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

from echopix_cli.engine.engine import Encoded, Engine, GenerationOptions
from echopix_cli.engine.sieves import AUTO, SieveOptions
from echopix_cli.media import DecodePlan
from echopix_cli.results import Answer

FULL = 1.0
STAGES = ("decode", "vision", "audio", "sieve", "prefill", "first_token", "generate", "total")


@dataclass(frozen=True)
class Spread:
    """Median of several runs and half their interquartile range, in seconds."""

    median: float
    spread: float


@dataclass(frozen=True)
class ProfileRow:
    """One budget: its answer, stage times, and how it compares with keeping everything.

    ``stages`` are named as in :class:`~echopix_cli.results.StageTimes`, plus ``forward`` = sieve + prefill.
    ``speedup`` is the full run's forward time over this one's; ``memory_ratio`` the full run's peak on the
    device over this one's, weights and towers included. It is None on a CPU, where a process's resident
    peak holds what earlier runs freed and says nothing about one budget.
    """

    budget: float
    answer: Answer
    stages: dict[str, Spread]
    speedup: float
    memory_ratio: float | None
    same_answer: bool


@dataclass(frozen=True)
class Profile:
    """All budgets of one clip and question; the first row is budget 1.0."""

    media: str
    question: str
    repeat: int
    warmup: int
    rows: tuple[ProfileRow, ...]


def spread_of(values: Sequence[float]) -> Spread:
    """Median and half the interquartile range; 0 for a single value."""
    if len(values) < 2:
        return Spread(values[0], 0.0)
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Spread(median(values), (high - low) / 2)


def profile(
    engine: Engine,
    path: str,
    plan: DecodePlan,
    question: str,
    budgets: Sequence[float],
    *,
    repeat: int = 5,
    warmup: int = 1,
    options: GenerationOptions = GenerationOptions(),  # noqa: B008 - frozen
    sieve: SieveOptions = SieveOptions(),  # noqa: B008 - frozen
    watch: Callable[[int, int], None] | None = None,
) -> Profile:
    """Measure budget 1.0 and ``budgets`` on one file.

    The file is decoded and encoded ``repeat`` times, and each time every budget answers, so that slow
    moments of the machine fall on all budgets alike. ``warmup`` rounds come first and do not count.

    Args:
        sieve: what chooses below budget 1.0. There the model's own keeps everything, whatever is chosen below.
        watch: called with (rounds done, rounds in all).

    Raises:
        UsageError, MediaError, DeviceError: as :meth:`Engine.read` and :meth:`Engine.stream`.
    """
    order = [FULL, *sorted({budget for budget in budgets if budget != FULL}, reverse=True)]
    whole = replace(sieve, name=AUTO)
    runs: dict[float, list[Answer]] = {budget: [] for budget in order}
    for turn in range(warmup + repeat):
        encoded: Encoded | None = engine.read(path, plan)
        assert encoded is not None
        # Each round begins with another budget: what runs first after the towers runs in colder caches.
        begin = turn % len(order)
        for budget in (*order[begin:], *order[:begin]):
            answer = engine.ask(encoded, question, budget, options, sieve if budget < FULL else whole)
            if turn >= warmup:
                runs[budget].append(answer)
        encoded = None  # or its features would count towards the next round's peak memory
        if watch is not None:
            watch(turn + 1, warmup + repeat)
    full = runs[FULL]
    rows = tuple(_row(budget, answers, full) for budget, answers in runs.items())
    return Profile(path, question, repeat, warmup, rows)


def _row(budget: float, answers: Sequence[Answer], full: Sequence[Answer]) -> ProfileRow:
    stages = {name: spread_of([getattr(a.latency, name) for a in answers]) for name in STAGES}
    stages["forward"] = spread_of(_forward(answers))
    ours, theirs = _peak(answers), _peak(full)
    return ProfileRow(
        budget=budget,
        answer=answers[-1],
        stages=stages,
        speedup=median(_forward(full)) / stages["forward"].median,
        memory_ratio=theirs / ours if ours and theirs else None,
        same_answer=answers[-1].answer == full[-1].answer,
    )


def _forward(answers: Sequence[Answer]) -> list[float]:
    return [answer.latency.sieve + answer.latency.prefill for answer in answers]


def _peak(answers: Sequence[Answer]) -> int | None:
    peaks = [answer.peak_memory.device_allocated for answer in answers]
    return max((peak for peak in peaks if peak is not None), default=None)
