"""The batch itself: files are decoded ahead of the model, every task ends in one record, nothing ends the rest."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from echopix_cli.batch.asking import Asker
from echopix_cli.batch.items import BatchOptions, Group, Prepared, groups, nothing_unexpected
from echopix_cli.batch.journal import FileFacts
from echopix_cli.batch.keys import Keys, model_facts
from echopix_cli.batch.outcomes import Before, Outcome, Summary
from echopix_cli.batch.progress import Progress
from echopix_cli.batch.reading import identify, read
from echopix_cli.batch.tasks import Task
from echopix_cli.batch.workers import Workers
from echopix_cli.decoding.worker import Worker
from echopix_cli.engine import Engine
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.opening import Changed, require_same, unwatched, window_of
from echopix_cli.engine.survey import Watch
from echopix_cli.errors import EchopixError, bare
from echopix_cli.files import WHOLE, Look, whole_identity
from echopix_cli.media import DecodePlan

_LOOK = 0.1  # seconds between looks at whether to stop, while a file is being decoded


class Batch:
    """Asks a loaded engine a list of tasks.

    Args:
        engine: the model.
        settings: of every answer.
        sink: takes every outcome, in order; what it raises ends the batch.
        journal: what was done before; None where nothing is kept.
        stop: asked often; once true, the current item is dropped and the batch ends.
        timeout: seconds that reading one clip, or one window of a film, may take.
        workers: decoding processes; None takes one for every two processors, at most four.
        fail_fast: end at the first failure.
        passed: told of tasks that were answered before.
        turn: what the model is used within, where others use it too; for one file or answer at a time.
        reading: what follows the reading of a film, by its path.
    """

    def __init__(
        self,
        engine: Engine,
        settings: BatchOptions,
        sink: Callable[[Outcome], None],
        *,
        journal: Before | None = None,
        stop: Callable[[], bool] = lambda: False,
        timeout: float = 600.0,
        workers: int | None = None,
        fail_fast: bool = False,
        passed: Callable[[int], None] = lambda count: None,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        reading: Callable[[str], Watch] = lambda path: unwatched,
    ) -> None:
        self.engine, self.settings, self.stop, self.timeout = engine, settings, stop, timeout
        self.workers = workers or decoders_for(os.cpu_count() or 1)
        self._progress = Progress(Keys(model_facts(engine), settings), sink, journal, stop, fail_fast, passed)
        self._window = window_of(engine, settings.films)
        self._asker = Asker(engine, settings, timeout, stop, turn, reading)
        self._files: dict[tuple[str, Look], FileFacts] = {}  # a file may be asked about in many spans

    def run(self, tasks: Sequence[Task]) -> Summary:
        """Ask everything; a file that fails fails alone.

        Raises:
            EchopixError: the journal's file is not what was written; or as the sink does.
        """
        pending: deque[tuple[Group, Future[Prepared]]] = deque()
        ahead = groups(tasks)
        workers = Workers(self.workers, self.timeout)
        began, waited = time.perf_counter(), 0.0
        try:
            while not self._progress.ended:
                # One clip more than there are workers: the model finds the next one ready, and memory is bounded.
                while len(pending) <= self.workers and (group := next(ahead, None)) is not None:
                    pending.append((group, workers.submit(self._preparing(group))))
                if not pending:
                    break
                group, future = pending.popleft()
                asked = time.perf_counter()
                prepared = self._wait(future)
                waited += time.perf_counter() - asked
                if prepared is not None:
                    self._finish(group, prepared)
                del future, prepared  # or this clip would be held while the next one is waited for
        finally:
            workers.close()
        self._progress.confirm()
        return self._progress.summary(len(tasks), time.perf_counter() - began, waited)

    def _wait(self, future: Future[Prepared]) -> Prepared | None:
        while not self.stop():
            try:
                return future.result(_LOOK)
            except NotYet:
                if future.done():  # of itself, or it ended just now
                    return future.result()
        return None

    def _preparing(self, group: Group) -> Callable[[Worker], Prepared]:
        """In a thread of its own: find out which file this is and what is left to ask about it, and decode it unless
        its features are there."""

        def prepare(worker: Worker) -> Prepared:
            file: FileFacts | None = None
            left: tuple[tuple[Task, str | None], ...] = tuple((task, None) for task in group.tasks)
            try:
                with nothing_unexpected():
                    file, look = identify(worker, group.media, partial(self._known, group.media))
                    self._files[group.media, look] = file
                    left = self._progress.left(group.tasks, file.sha256)
                    if not left:
                        return Prepared(file, ())
                    identity = _identity(worker, group.media, file)
                    require_same(group.media, look)
                    fetch = partial(self._fetch, worker, identity)
                    found = read(worker, group.media, group.plan(self.settings), look, self._window, fetch, identity)
                    if isinstance(found, Fetched):
                        return Prepared(file, left, found)
                    return Prepared(file, left, film=found, look=look, identity=identity)
            except Changed as raised:
                return Prepared(None, tuple((task, None) for task, _ in left), error=bare(raised))
            except EchopixError as raised:
                return Prepared(file, left, error=bare(raised))

        return prepare

    def _known(self, media: str, look: Look) -> FileFacts | None:
        return self._files.get((media, look)) or self._progress.facts_of(media, look.size, look.mtime_ns)

    def _fetch(self, worker: Worker, identity: str, media: str, plan: DecodePlan) -> Fetched:
        return self.engine.fetch(media, plan, worker.decode, lambda: identity)

    def _finish(self, group: Group, prepared: Prepared) -> None:
        """Ask what is left of a group, and hand on every outcome."""
        self._progress.skip(len(group.tasks) - len(prepared.open))
        if self._progress.ended:
            return
        for outcome in self._asker.ask(group, prepared):
            self._progress.take(outcome)
            if self._progress.ended:
                return


def decoders_for(cores: int) -> int:
    """How many processes decode on a machine with so many cores."""
    return max(1, min(4, cores // 2))


def _identity(worker: Worker, media: str, file: FileFacts) -> str:
    """As :func:`~echopix_cli.files.identity_of`, of a file whose bytes are known."""
    return whole_identity(file.sha256) if file.size <= WHOLE else worker.identity(media)
