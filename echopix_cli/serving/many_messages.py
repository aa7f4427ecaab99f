"""As :mod:`.messages`, of many files and questions."""

from __future__ import annotations

from dataclasses import dataclass

from echopix_cli.batch.journal import FileFacts
from echopix_cli.batch.outcomes import Summary
from echopix_cli.batch.tasks import Task
from echopix_cli.media.plan import DecodePlan
from echopix_cli.results import Answer
from echopix_cli.serving.messages import Failure, Manner, Watched


@dataclass(frozen=True)
class AskMany:
    """Many tasks; ``resumes`` where the client knows what was done before."""

    tasks: tuple[Task, ...]
    manner: Manner
    fail_fast: bool
    resumes: bool


@dataclass(frozen=True)
class Known:
    """The answer to :class:`Claim` or :class:`FactsWanted`."""

    number: int
    claimed: bool = False
    facts: FileFacts | None = None


@dataclass(frozen=True)
class Began:
    """A batch begins."""

    plan: DecodePlan


@dataclass(frozen=True)
class Claim:
    """A question to the client: was this task, by its place in the list, answered before under this key?"""

    number: int
    key: str
    place: int


@dataclass(frozen=True)
class FactsWanted:
    """A question to the client: what is known of the bytes of a file that looks like this?"""

    number: int
    media: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Passed:
    """So many tasks were answered before."""

    count: int


@dataclass(frozen=True)
class WatchedOf:
    """How far the reading of the film ``media`` has come."""

    media: str
    watched: Watched


@dataclass(frozen=True)
class Ended:
    """One task's end, by its place in the list; as :class:`~echopix_cli.batch.outcomes.Outcome`."""

    place: int
    key: str | None
    file: FileFacts | None
    answer: Answer | None
    failure: Failure | None


@dataclass(frozen=True)
class Summed:
    """A batch is done, with its numbers."""

    summary: Summary
