"""The part of a batch that needs the model: what was read of a file becomes an outcome for each of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from echopix_cli.batch.items import BatchOptions, Group, Prepared, Stopped, nothing_unexpected
from echopix_cli.batch.outcomes import Outcome
from echopix_cli.batch.tasks import Task
from echopix_cli.choices import posed
from echopix_cli.engine import Encoded, Engine
from echopix_cli.engine.opening import open_media, require_same, unwatched
from echopix_cli.engine.survey import Watch
from echopix_cli.errors import DeviceError, EchopixError, UsageError, bare
from echopix_cli.results import Answer

# Questions that a film's windows pass for at once. Each holds as many rows as its last prompt may have, and none is
# answered before the last window has passed; more of them read the film again, from the cache where one is kept.
_AT_ONCE = 32


class Asker:
    """Asks a loaded engine.

    Args:
        engine: the model.
        settings: of every answer.
        timeout: seconds that reading one window of a film may take.
        stop: asked often; once true, what is under way is dropped.
        turn: what the model is used within, where others use it too; for one file or answer at a time.
        reading: what follows the reading of a film, by its path.
    """

    def __init__(
        self,
        engine: Engine,
        settings: BatchOptions,
        timeout: float,
        stop: Callable[[], bool] = lambda: False,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        reading: Callable[[str], Watch] = lambda path: unwatched,
    ) -> None:
        self.engine, self.settings, self.timeout, self.stop, self.turn = engine, settings, timeout, stop, turn
        self.reading = reading

    def ask(self, group: Group, prepared: Prepared) -> Iterator[Outcome]:
        """The outcomes of a group's open tasks, as they come; fewer where it was told to stop."""
        read: list[Encoded] = []  # what the next tasks can be put to
        failure, most = prepared.error, _AT_ONCE
        for place, (task, key) in enumerate(prepared.open):
            answer, error = None, failure
            try:
                while error is None and not read:
                    left = prepared.open[place:]
                    try:
                        read = self._read(group, prepared, left[:most])
                    except EchopixError as raised:
                        film, some = prepared.film is not None, min(most, len(left))
                        if film and some > 1 and isinstance(raised, DeviceError | UsageError):
                            most = -(-some // 2)  # one, or all of them at once, are too much
                            continue
                        error = bare(raised)
                        if film and isinstance(raised, UsageError):
                            most = _AT_ONCE  # it is this question's
                        else:
                            failure = error  # what one file cannot do, its other questions cannot
                if error is None:
                    answer = self._answer(read.pop(0), task)
            except Stopped:
                return
            except EchopixError as raised:
                error = bare(raised)
            yield Outcome(task, key, prepared.file, answer, error)

    def _read(self, group: Group, prepared: Prepared, some: Sequence[tuple[Task, str | None]]) -> list[Encoded]:
        """For each of some tasks what it can be put to: a clip for all, of a film the windows that it chose from."""
        with nothing_unexpected(), self.turn():
            if prepared.film is None:
                assert prepared.fetched is not None
                return [self.engine.encode(prepared.fetched)] * len(some)
            questions = [posed(task.question, task.choices) for task, _ in some]
            own = self.settings
            found = open_media(
                self.engine,
                group.media,
                group.plan(own),
                questions,
                own.asking,
                own.films,
                self._watching(group.media),
                prepared.film,
                timeout=self.timeout,
            )
            assert prepared.look is not None
            require_same(group.media, prepared.look, prepared.identity)
            return list(found)

    def _watching(self, path: str) -> Watch:
        told = self.reading(path)

        def watch(done: float, total: float, stage: str) -> None:
            if self.stop():
                raise Stopped
            told(done, total, stage)

        return watch

    def _answer(self, encoded: Encoded, task: Task) -> Answer:
        own = self.settings.asking
        asking = own if task.budget is None else replace(own, budget=task.budget)
        with nothing_unexpected(), self.turn():
            if task.choices:
                return self.engine.decide(encoded, task.question, task.choices, asking)
            for event in self.engine.stream(encoded, task.question, asking):
                if isinstance(event, Answer):
                    return event
                if self.stop():
                    raise Stopped
        raise AssertionError("a stream ends with its answer")
