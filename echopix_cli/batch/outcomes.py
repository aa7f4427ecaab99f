"""What comes of a batch: an outcome a task, and the numbers of all. No torch here: a command that only shows them has
no need of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from echopix_cli.batch.journal import FileFacts
from echopix_cli.batch.tasks import Task
from echopix_cli.errors import EchopixError
from echopix_cli.results import Answer


@dataclass(frozen=True)
class Outcome:
    """One task's end: an answer or an error, under the key that it can be found again by.

    ``key`` and ``file`` are None where the file could not even be read.
    """

    task: Task
    key: str | None
    file: FileFacts | None
    answer: Answer | None = None
    error: EchopixError | None = None


@dataclass(frozen=True)
class Summary:
    """How many tasks a batch had, how many of them were answered or failed now, and were answered before.

    ``seconds`` it took, and for how many of them the model ``waited`` for a clip: what decoding did not hide
    beside it, in which a GPU is idle. ``events``: what a person should hear of how it went.
    """

    tasks: int
    answered: int
    failed: int
    before: int
    seconds: float
    waited: float
    events: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        """Tasks that have their record."""
        return self.answered + self.failed + self.before


class Before(Protocol):
    """What was done before: a :class:`~.journal.Journal`, or who asks one elsewhere."""

    def claim(self, key: str, task: Task) -> bool:
        """As :meth:`.Journal.claim`; called from several threads."""

    def facts_of(self, media: str, size: int, mtime_ns: int) -> FileFacts | None:
        """As :meth:`.Journal.facts_of`; called from several threads."""

    def confirm(self) -> None:
        """As :meth:`.Journal.confirm`."""
