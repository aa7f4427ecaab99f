"""How far an evaluation has come, and what ends it early."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from echopix_cli.errors import Interrupted

if TYPE_CHECKING:
    from echopix_cli.engine.survey import Watch
    from echopix_cli.evaluation.values import Condition, Graded, ItemResult

Say = Callable[[str], None]


def watch_of(say: Say, count: int, setting: Condition) -> Callable[[ItemResult], None]:
    """Tells how far it is, how it goes with the first setting, and how long it will take."""
    began = time.monotonic()
    outcomes: list[Graded] = []

    def watch(result: ItemResult) -> None:
        outcomes.append(result.outcomes[setting])
        done, right = len(outcomes), sum(outcome.right for outcome in outcomes)
        failed = sum(outcome.answer is None for outcome in outcomes)
        left = (time.monotonic() - began) / done * (count - done)
        trouble = f", {failed} failed" if failed else ""
        say(f"{done} of {count} questions, {setting.name}: {right} right{trouble}; {_minutes(left)} left")

    return watch


def reading_of(say: Say, received: Sequence[int], interrupted: Callable[[], Interrupted]) -> Callable[[str], Watch]:
    """What follows the reading of a film, by its path: it tells how far that is, and ends it at a signal.

    Args:
        say: shows a line.
        received: signals, as they come.
        interrupted: what the evaluation then ends with.
    """
    from echopix_cli.cli.ask_one import films_progress

    def of(path: str) -> Watch:
        told = films_progress(say, path)

        def watch(done: float, total: float, stage: str) -> None:
            if received:
                raise interrupted()
            told(done, total, stage)

        return watch

    return of


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
