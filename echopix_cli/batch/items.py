"""What goes through a batch: tasks about one file, what was read for them, and how each of them ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from echopix_cli.batch.journal import FileFacts
from echopix_cli.batch.tasks import Task
from echopix_cli.engine import AskOptions
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.options import FilmOptions
from echopix_cli.errors import EchopixError, described
from echopix_cli.files import Look
from echopix_cli.media import DecodePlan, MediaInfo


@dataclass(frozen=True)
class BatchOptions:
    """What holds for every task: a plan from :meth:`Engine.plan`, and how answers are made."""

    plan: DecodePlan
    asking: AskOptions = field(default_factory=AskOptions)
    films: FilmOptions = field(default_factory=FilmOptions)


@dataclass(frozen=True)
class Group:
    """Tasks about the same span of the same file: decoded and encoded once."""

    media: str
    start: float | None
    end: float | None
    tasks: tuple[Task, ...]

    def plan(self, settings: BatchOptions) -> DecodePlan:
        """What to take of the file."""
        plan = settings.plan
        return replace(
            plan,
            start=plan.start if self.start is None else self.start,
            end=plan.end if self.end is None else self.end,
        )


@dataclass(frozen=True)
class Prepared:
    """A group after its file was looked at: what is left to ask, and the file's content, or why there is none. A film's
    is read when its turn comes, for some of its questions at once."""

    file: FileFacts | None
    open: tuple[tuple[Task, str | None], ...]
    fetched: Fetched | None = None
    film: MediaInfo | None = None
    look: Look | None = None
    identity: str = ""
    error: EchopixError | None = None


class Stopped(Exception):
    """What is under way is no longer wanted."""


def groups(tasks: Iterable[Task]) -> Iterator[Group]:
    """Tasks by what has to be decoded for them, in order of their first."""
    grouped: dict[tuple[str, float | None, float | None], list[Task]] = {}
    for task in tasks:
        grouped.setdefault((task.media, task.start, task.end), []).append(task)
    for (media, start, end), own in grouped.items():
        yield Group(media, start, end, tuple(own))


@contextmanager
def nothing_unexpected() -> Iterator[None]:
    """What nobody thought of is one item's failure too."""
    try:
        yield
    except (EchopixError, Stopped):
        raise
    except Exception as error:
        what = described(error)
        raise EchopixError(f"unexpected failure: {what}", "ask this file alone with --debug, and report it") from error
