"""The batch itself: files are decoded ahead of the model, every task ends in one record, nothing ends the rest."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from echopix_cli.batch.journal import FileFacts, Journal
from echopix_cli.batch.tasks import Task
from echopix_cli.batch.workers import Workers
from echopix_cli.decoding.worker import Worker
from echopix_cli.engine import AskOptions, Encoded, Engine
from echopix_cli.engine.choices import posed
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.opening import Changed, film_in, grown, open_media, require_same
from echopix_cli.engine.options import FilmOptions
from echopix_cli.errors import EchopixError, bare, described
from echopix_cli.files import WHOLE, Look, look_at, sha256_of, whole_identity
from echopix_cli.media import DecodePlan, MediaInfo
from echopix_cli.results import Answer
from echopix_cli.weights.registry import is_commit

_LOOK = 0.1  # seconds between looks at whether to stop, while a file is being decoded


@dataclass(frozen=True)
class BatchOptions:
    """What holds for every task: a plan from :meth:`Engine.plan`, and how answers are made."""

    plan: DecodePlan
    asking: AskOptions = field(default_factory=AskOptions)
    films: FilmOptions = field(default_factory=FilmOptions)


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
    beside it, in which a GPU is idle.
    """

    tasks: int
    answered: int
    failed: int
    before: int
    seconds: float
    waited: float

    @property
    def done(self) -> int:
        """Tasks that have their record."""
        return self.answered + self.failed + self.before


@dataclass(frozen=True)
class _Group:
    """Tasks about the same span of the same file: decoded and encoded once."""

    media: str
    start: float | None
    end: float | None
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class _Prepared:
    """A group after its file was looked at: what is left to ask, and the file's content, or why there is none. A film's
    is read when its turn comes, for all of its questions at once."""

    file: FileFacts | None
    open: tuple[tuple[Task, str | None], ...]
    fetched: Fetched | None = None
    film: MediaInfo | None = None
    look: Look | None = None
    error: EchopixError | None = None


class _Stopped(Exception):
    """A film is no longer to be read."""


class Batch:
    """Asks a loaded engine a list of tasks.

    Args:
        engine: the model.
        settings: of every answer.
        sink: takes every outcome, in order; what it raises ends the batch.
        journal: what was done before; None where nothing is kept.
        stop: asked often; once true, the current item is dropped and the batch ends.
        timeout: seconds that reading one file may take.
        workers: decoding processes; None takes one for every two processors, at most four.
        fail_fast: end at the first failure.
        passed: told of tasks that were answered before.
    """

    def __init__(
        self,
        engine: Engine,
        settings: BatchOptions,
        sink: Callable[[Outcome], None],
        *,
        journal: Journal | None = None,
        stop: Callable[[], bool] = lambda: False,
        timeout: float = 600.0,
        workers: int | None = None,
        fail_fast: bool = False,
        passed: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.engine, self.settings, self.sink, self.journal = engine, settings, sink, journal
        self.stop, self.timeout, self.fail_fast, self.passed = stop, timeout, fail_fast, passed
        self.workers = workers or max(1, min(4, (os.cpu_count() or 1) // 2))
        self.answered = self.failed = self.before = 0
        self._facts = self._settled_facts()
        self._files: dict[tuple[str, Look], FileFacts] = {}  # a file may be asked about in many spans

    def run(self, tasks: Sequence[Task]) -> Summary:
        """Ask everything; a file that fails fails alone.

        Raises:
            EchopixError: the journal's file is not what was written; or as the sink does.
        """
        pending: deque[tuple[_Group, Future[_Prepared]]] = deque()
        groups = _groups(tasks)
        workers = Workers(self.workers, self.timeout)
        began, waited = time.perf_counter(), 0.0
        try:
            while not self._ended():
                # One clip more than there are workers: the model finds the next one ready, and memory is bounded.
                while len(pending) <= self.workers and (group := next(groups, None)) is not None:
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
        if self.journal is not None:
            self.journal.confirm()
        seconds = time.perf_counter() - began
        return Summary(len(tasks), self.answered, self.failed, self.before, seconds, waited)

    def _ended(self) -> bool:
        return self.stop() or (self.fail_fast and self.failed > 0)

    def _wait(self, future: Future[_Prepared]) -> _Prepared | None:
        while not self.stop():
            try:
                return future.result(_LOOK)
            except NotYet:
                if future.done():
                    raise
        return None

    def _preparing(self, group: _Group) -> Callable[[Worker], _Prepared]:
        """In a thread of its own: find out which file this is and what is left to ask about it, and decode it unless
        its features are there."""

        def prepare(worker: Worker) -> _Prepared:
            file: FileFacts | None = None
            left: tuple[tuple[Task, str | None], ...] = tuple((task, None) for task in group.tasks)
            try:
                with _nothing_unexpected():
                    file, look = self._identify(worker, group.media)
                    keyed = [(task, self._key(file.sha256, task)) for task in group.tasks]
                    left = tuple((t, key) for t, key in keyed if self.journal is None or not self.journal.claim(key, t))
                    if not left:
                        return _Prepared(file, ())
                    plan = self._plan(group)
                    info = worker.probe(group.media, plan.limits)
                    if film_in(self.engine, info, plan, self.settings.films) is not None:
                        return _Prepared(file, left, film=info, look=look)
                    identity = partial(_identity, worker, group.media, file)
                    fetched = self.engine.fetch(group.media, plan, worker.decode, identity)
                    require_same(group.media, look)  # or an answer about one content would get another one's key
                    if longer := grown(self.engine, info, plan, self.settings.films, fetched.content):
                        return _Prepared(file, left, film=longer, look=look)
                    return _Prepared(file, left, fetched)
            except Changed as raised:
                return _Prepared(None, tuple((task, None) for task, _ in left), error=bare(raised))
            except EchopixError as raised:
                return _Prepared(file, left, error=bare(raised))

        return prepare

    def _identify(self, worker: Worker, media: str) -> tuple[FileFacts, Look]:
        """A file's bytes; without reading them again where size and time say that they are known."""
        try:
            look = look_at(media)
        except (OSError, ValueError):
            worker.fingerprint(media)  # says what is wrong with it
            raise Changed(media) from None
        known = self._files.get((media, look))
        if known is None and self.journal is not None:
            known = self.journal.facts_of(media, look.size, look.mtime_ns)
        if known is None:
            known = FileFacts(worker.fingerprint(media), look.size, look.mtime_ns)
            require_same(media, look)
        self._files[media, look] = known
        return known, look

    def _plan(self, group: _Group) -> DecodePlan:
        plan = self.settings.plan
        return replace(
            plan,
            start=plan.start if group.start is None else group.start,
            end=plan.end if group.end is None else group.end,
        )

    def _finish(self, group: _Group, prepared: _Prepared) -> None:
        """Ask what is left of a group, and hand on every outcome."""
        skipped = len(group.tasks) - len(prepared.open)
        self.before += skipped
        if skipped:
            self.passed(skipped)
        encoded: tuple[Encoded, ...] | None = None
        failure = prepared.error
        for place, (task, key) in enumerate(prepared.open):
            if self._ended():
                return
            answer, error = None, failure
            try:
                if failure is None:
                    if encoded is None:
                        encoded = self._encode(group, prepared)
                    if (answer := self._answer(encoded[place], task)) is None:
                        return
            except _Stopped:
                return
            except EchopixError as raised:
                error = bare(raised)
                failure = error if encoded is None else None  # what one file cannot do, its other questions cannot
            self.answered += error is None
            self.failed += error is not None
            self.sink(Outcome(task, key, prepared.file, answer, error))

    def _encode(self, group: _Group, prepared: _Prepared) -> tuple[Encoded, ...]:
        """For each open task of a group what it can be put to."""
        with _nothing_unexpected():
            if prepared.film is None:
                assert prepared.fetched is not None
                return (self.engine.encode(prepared.fetched),) * len(prepared.open)
            questions = [posed(task.question, task.choices) for task, _ in prepared.open]
            own, media = self.settings, group.media
            found = open_media(
                self.engine,
                media,
                self._plan(group),
                questions,
                own.asking,
                own.films,
                self._watch,
                prepared.film,
                timeout=self.timeout,
            )
            assert prepared.look is not None
            require_same(media, prepared.look)
            return found

    def _watch(self, done: float, total: float, stage: str) -> None:
        if self.stop():
            raise _Stopped

    def _answer(self, encoded: Encoded, task: Task) -> Answer | None:
        """One answer; None when it was to be dropped."""
        own = self.settings.asking
        asking = own if task.budget is None else replace(own, budget=task.budget)
        with _nothing_unexpected():
            if task.choices:
                return self.engine.decide(encoded, task.question, task.choices, asking)
            for event in self.engine.stream(encoded, task.question, asking):
                if isinstance(event, Answer):
                    return event
                if self.stop():
                    return None
        raise AssertionError("a stream ends with its answer")

    def _settled_facts(self) -> dict[str, Any]:
        """What changes answers, of model and settings."""
        facts = self.engine.facts
        plan = {
            name: value for name, value in asdict(self.settings.plan).items() if name not in ("start", "end", "limits")
        }
        return {
            "model": [facts.name, weights_of(self.engine), facts.dtype, facts.quantization],
            "plan": plan,
            "options": asdict(self.settings.asking.generation),
            "sieve": asdict(self.settings.asking.sieve),
        } | ({} if self.settings.films == FilmOptions() else {"films": asdict(self.settings.films)})

    def _key(self, sha256: str, task: Task) -> str:
        """What an answer depends on, in 32 hexadecimal digits."""
        own = self.settings
        facts = {
            **self._facts,
            "media": sha256,
            "question": task.question,
            "choices": task.choices,
            "budget": own.asking.budget if task.budget is None else task.budget,
            "start": own.plan.start if task.start is None else task.start,
            "end": own.plan.end if task.end is None else task.end,
        }
        text = json.dumps(facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _identity(worker: Worker, media: str, file: FileFacts) -> str:
    """As :func:`~echopix_cli.files.identity_of`, of a file whose bytes are known."""
    return whole_identity(file.sha256) if file.size <= WHOLE else worker.identity(media)


def weights_of(engine: Engine) -> str | None:
    """What a model's answers come from: a commit, which never comes to mean other weights, or its files.

    Those of the demonstration model are known by their content, for every installation puts them there anew; of others
    that would take too long.
    """
    source = engine.source
    if is_commit(source.revision):
        return source.revision
    if not source.demonstration:
        return engine.loaded_from
    content = [(file.name, sha256_of(file)) for file in sorted(source.folder.iterdir()) if file.is_file()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _groups(tasks: Iterable[Task]) -> Iterator[_Group]:
    """Tasks by what has to be decoded for them, in order of their first."""
    grouped: dict[tuple[str, float | None, float | None], list[Task]] = {}
    for task in tasks:
        grouped.setdefault((task.media, task.start, task.end), []).append(task)
    for (media, start, end), own in grouped.items():
        yield _Group(media, start, end, tuple(own))


@contextmanager
def _nothing_unexpected() -> Iterator[None]:
    """What nobody thought of is one item's failure too."""
    try:
        yield
    except (EchopixError, _Stopped):
        raise
    except Exception as error:
        what = described(error)
        raise EchopixError(f"unexpected failure: {what}", "ask this file alone with --debug, and report it") from error
