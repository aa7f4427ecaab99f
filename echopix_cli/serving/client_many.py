"""The asking side of a batch: what was done before stays with who asks, and so does the file of records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from echopix_cli.batch.journal import Journal
from echopix_cli.batch.outcomes import Outcome, Summary
from echopix_cli.batch.tasks import Task
from echopix_cli.errors import EchopixError
from echopix_cli.media.plan import DecodePlan
from echopix_cli.serving import many_messages as mm
from echopix_cli.serving import messages as m
from echopix_cli.serving.client import Naming, Server, absolute, error_of

if TYPE_CHECKING:
    from echopix_cli.engine.survey import Watch


def ask_many(
    server: Server,
    request: mm.AskMany,
    journal: Journal | None,
    began: Callable[[DecodePlan], None],
    sink: Callable[[Outcome], None],
    passed: Callable[[int], None],
    stop: Callable[[], bool],
    reading: Callable[[str], Watch],
) -> Summary:
    """Have a server answer many tasks.

    Args:
        server: that fits.
        request: as typed.
        journal: what was done before.
        began: is told, first, how files are read.
        sink, passed, stop, reading: as of :class:`~echopix_cli.batch.run.Batch`.

    Raises:
        Ending: before ``began`` was told, the server did not begin; later, it ended and did not do all.
        EchopixError: as :meth:`Server.events`; or as the sink does.
    """
    tasks = request.tasks
    there = replace(request, tasks=tuple(replace(task, media=absolute(task.media)) for task in tasks))
    named = Naming({asked.media: task.media for asked, task in zip(there.tasks, tasks, strict=True)})
    errors: dict[int, EchopixError] = {}
    watches: dict[str, Watch] = {}
    for event in server.events(there, named, stop):
        match event:
            case mm.Began(plan):
                began(plan)
            case mm.Claim(number, key, place):
                assert journal is not None
                server.send(mm.Known(number, claimed=journal.claim(key, tasks[place])))
            case mm.FactsWanted(number, media, size, mtime_ns):
                assert journal is not None
                facts = journal.facts_of(named.files.get(media, media), size, mtime_ns)
                server.send(mm.Known(number, facts=facts))
            case mm.Passed(count):
                passed(count)
            case mm.WatchedOf(media, m.Watched(done, total, stage)):
                if media not in watches:
                    watches[media] = reading(named.files.get(media, media))
                watches[media](done, total, stage)
            case mm.Ended():
                sink(_outcome(event, tasks[event.place], there.tasks[event.place].media, errors))
            case mm.Summed(summary):
                if journal is not None:
                    journal.confirm()
                return summary
    raise AssertionError("a batch ends with its numbers")


def _outcome(ended: mm.Ended, task: Task, media: str, errors: dict[int, EchopixError]) -> Outcome:
    """A task's end; the server calls its file ``media``. An error that several share is one object."""
    answer = None if ended.answer is None else replace(ended.answer, media=task.media)
    error = None
    if (failure := ended.failure) is not None:
        named = Naming({media: task.media})
        error = errors.setdefault(failure.serial, error_of(failure, named))
    return Outcome(task, ended.key, ended.file, answer, error)
