"""What budgets cost on one file and answer to one question, measured side by side in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.engine import Engine
from echopix_cli.engine.opening import open_media, unwatched
from echopix_cli.engine.options import AskOptions, FilmOptions
from echopix_cli.engine.sieves import AUTO
from echopix_cli.engine.survey import Watch
from echopix_cli.measure.rounds import Disturbance, Ratio, Spread, disagreement, interleave, paired_ratios, ratio_of
from echopix_cli.measure.rounds import spread_of as spread_of
from echopix_cli.media import DecodePlan
from echopix_cli.results import Answer

FULL = 1.0


@dataclass(frozen=True)
class ProfileRow:
    """One budget: its answer, stage times, and how it compares with keeping everything.

    ``stages`` are named as in :class:`~echopix_cli.results.StageTimes`, but ``sieve`` is only that of the prompt which
    is answered; what a film's windows took before it, the same for every budget, is ``windows``, 0 of a clip.
    ``forward`` = sieve + prefill.
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
class _Pass:
    """An answer, and its seconds by stage as of :attr:`ProfileRow.stages`."""

    answer: Answer
    stages: dict[str, float]

    @classmethod
    def of(cls, answer: Answer, windows: float) -> _Pass:
        """An answer, with the seconds of its sieving that the windows of a film took."""
        stages = {name: value for name, value in asdict(answer.latency).items() if name != "load"}
        sieve = stages["sieve"] - windows
        return cls(answer, stages | {"windows": windows, "sieve": sieve, "forward": sieve + stages["prefill"]})


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
    reading: Watch = unwatched,
) -> Profile:
    """Measure budget 1.0 and ``budgets`` on one file.

    The file is decoded and encoded once a round, and each time every budget answers, so that slow moments of the
    machine fall on all budgets alike. A film's windows are sieved once a round for all budgets, and what is compared is
    the prompt that they hand on. On a CPU, rounds are repeated in which other work took the processor; on any
    device, more are run while the rounds disagree.

    Args:
        repeat: rounds wanted.
        warmup: rounds before them that do not count.
        repeats: rounds that may be added to them; as many as ``repeat`` without it.
        options: of generation, and the sieve below budget 1.0. There the model's own keeps everything, whatever is
            chosen below.
        films: how a file is read that is longer than one window.
        watch: called with (rounds done, rounds expected).
        reading: is told how far the reading of a film has come, in each round anew.

    Raises:
        UsageError, MediaError, DeviceError: as :meth:`Engine.read` and :meth:`Engine.stream`.
    """
    order = [FULL, *sorted({budget for budget in budgets if budget != FULL}, reverse=True)]
    whole = replace(options, sieve=replace(options.sieve, name=AUTO))
    # Of a film each takes the rows of the windows with it.
    ways = [whole, options] if whole != options else [options]

    def prepare() -> tuple[Encoded, ...]:
        return open_media(engine, path, plan, [question] * len(ways), ways, films, reading)

    def answer(encoded: tuple[Encoded, ...], budget: float) -> _Pass:
        place = 0 if budget == FULL else -1
        found = engine.ask(encoded[place], question, replace(ways[place], budget=budget))
        return _Pass.of(found, encoded[place].seconds.get("sieve", 0.0))

    def doubt(passes: Mapping[float, Sequence[_Pass]]) -> str | None:
        for budget in order:
            if (apart := disagreement(paired_ratios(passes[FULL], passes[budget], _forward))) is not None:
                return f"at budget {budget:g} {apart}"
        return None

    measured = interleave(
        order,
        prepare,
        answer,
        trials=repeat,
        warmup=warmup,
        repeats=repeats,
        doubt=doubt,
        disturbance=Disturbance if engine.device.type == "cpu" else None,
        watch=watch,
    )
    full = measured.passes[FULL]
    rows = tuple(_row(budget, passes, full) for budget, passes in measured.passes.items())
    return Profile(path, question, repeat, warmup, measured.counted, measured.disturbed, measured.doubt, rows)


def _row(budget: float, passes: Sequence[_Pass], full: Sequence[_Pass]) -> ProfileRow:
    ours, theirs = _peak(passes), _peak(full)
    return ProfileRow(
        budget=budget,
        answer=passes[-1].answer,
        stages={name: spread_of([one.stages[name] for one in passes]) for name in passes[-1].stages},
        ratio=ratio_of(paired_ratios(full, passes, _forward)),
        memory_ratio=theirs / ours if ours and theirs else None,
        same_answer=passes[-1].answer.answer == full[-1].answer.answer,
    )


def _forward(one: _Pass) -> float:
    return one.stages["forward"]


def _peak(passes: Sequence[_Pass]) -> int | None:
    peaks = [one.answer.peak_memory.device_allocated for one in passes]
    return max((peak for peak in peaks if peak is not None), default=None)
