"""What budgets cost on one file and answer to one question, measured side by side in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.engine import Engine
from echopix_cli.engine.opening import open_media
from echopix_cli.engine.options import AskOptions, FilmOptions
from echopix_cli.engine.sieves import AUTO
from echopix_cli.measure.rounds import Disturbance, Ratio, Spread, disagreement, interleave, paired_ratios, ratio_of
from echopix_cli.measure.rounds import spread_of as spread_of
from echopix_cli.media import DecodePlan
from echopix_cli.results import Answer

FULL = 1.0
STAGES = ("decode", "vision", "audio", "sieve", "prefill", "first_token", "generate", "total")


@dataclass(frozen=True)
class ProfileRow:
    """One budget: its answer, stage times, and how it compares with keeping everything.

    ``stages`` are named as in :class:`~echopix_cli.results.StageTimes`, plus ``forward`` = sieve + prefill.
    ``ratio`` is the full run's forward time over this one's, pair by pair within a round; ``memory_ratio`` the full
    run's peak on the device over this one's, weights and towers included. It is None on a CPU, where a process's
    resident peak holds what earlier runs freed and says nothing about one budget.
    """

    budget: float
    answer: Answer
    stages: dict[str, Spread]
    ratio: Ratio
    memory_ratio: float | None
    same_answer: bool

    @property
    def speedup(self) -> float:
        """Of sieve and prefill over budget 1.0."""
        return self.ratio.median


@dataclass(frozen=True)
class Profile:
    """All budgets of one clip and question; the first row is budget 1.0.

    ``repeat`` rounds were asked for, ``rounds`` count, and in ``disturbed`` others or, with a ``doubt``, of these,
    other work took the processor. ``doubt`` says why nothing can be concluded from the ratios; it is None where they
    hold.
    """

    media: str
    question: str
    repeat: int
    warmup: int
    rounds: int
    disturbed: int
    doubt: str | None
    rows: tuple[ProfileRow, ...]


def profile(
    engine: Engine,
    path: str,
    plan: DecodePlan,
    question: str,
    budgets: Sequence[float],
    *,
    repeat: int = 6,
    warmup: int = 1,
    repeats: int | None = None,
    options: AskOptions = AskOptions(),  # noqa: B008 - frozen
    films: FilmOptions = FilmOptions(),  # noqa: B008 - frozen
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Profile:
    """Measure budget 1.0 and ``budgets`` on one file.

    The file is decoded and encoded once a round, and each time every budget answers, so that slow moments of the
    machine fall on all budgets alike. On a CPU, rounds are repeated in which other work took the processor; on any
    device, more are run while the rounds disagree.

    Args:
        repeat: rounds wanted.
        warmup: rounds before them that do not count.
        repeats: rounds that may be added to them; as many as ``repeat`` without it.
        options: of generation, and the sieve below budget 1.0. There the model's own keeps everything, whatever is
            chosen below.
        films: how a file is read that is longer than one window.
        watch: called with (rounds done, rounds expected).

    Raises:
        UsageError, MediaError, DeviceError: as :meth:`Engine.read` and :meth:`Engine.stream`.
    """
    order = [FULL, *sorted({budget for budget in budgets if budget != FULL}, reverse=True)]
    whole = replace(options.sieve, name=AUTO)

    def answer(encoded: Encoded, budget: float) -> Answer:
        sieve = options.sieve if budget < FULL else whole
        return engine.ask(encoded, question, replace(options, budget=budget, sieve=sieve))

    def doubt(passes: Mapping[float, Sequence[Answer]]) -> str | None:
        for budget in order:
            if (apart := disagreement(paired_ratios(passes[FULL], passes[budget], _forward))) is not None:
                return f"at budget {budget:g} {apart}"
        return None

    measured = interleave(
        order,
        lambda: open_media(engine, path, plan, [question], options, films)[0],
        answer,
        trials=repeat,
        warmup=warmup,
        repeats=repeats,
        doubt=doubt,
        disturbance=Disturbance if engine.device.type == "cpu" else None,
        watch=watch,
    )
    full = measured.passes[FULL]
    rows = tuple(_row(budget, answers, full) for budget, answers in measured.passes.items())
    return Profile(path, question, repeat, warmup, measured.counted, measured.disturbed, measured.doubt, rows)


def _row(budget: float, answers: Sequence[Answer], full: Sequence[Answer]) -> ProfileRow:
    stages = {name: spread_of([getattr(a.latency, name) for a in answers]) for name in STAGES}
    stages["forward"] = spread_of([_forward(a) for a in answers])
    ours, theirs = _peak(answers), _peak(full)
    return ProfileRow(
        budget=budget,
        answer=answers[-1],
        stages=stages,
        ratio=ratio_of(paired_ratios(full, answers, _forward)),
        memory_ratio=theirs / ours if ours and theirs else None,
        same_answer=answers[-1].answer == full[-1].answer,
    )


def _forward(answer: Answer) -> float:
    return answer.latency.sieve + answer.latency.prefill


def _peak(answers: Sequence[Answer]) -> int | None:
    peaks = [answer.peak_memory.device_allocated for answer in answers]
    return max((peak for peak in peaks if peak is not None), default=None)
