"""How far a batch has come: the same, whether its tasks are done here or by a fleet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from echopix_cli.batch.journal import FileFacts
from echopix_cli.batch.keys import Keys
from echopix_cli.batch.outcomes import Before, Outcome, Summary
from echopix_cli.batch.tasks import Task
from echopix_cli.files import WHOLE


class Progress:
    """Counts how tasks end, and says which of them are left and whether to go on.

    Args:
        keys: of the answers.
        sink: takes every outcome; what it raises ends the batch.
        journal: what was done before; None where nothing is kept.
        stop: asked often; once true, the batch ends.
        fail_fast: end at the first failure.
        passed: told of tasks that were answered before.
    """

    def __init__(
        self,
        keys: Keys,
        sink: Callable[[Outcome], None],
        journal: Before | None,
        stop: Callable[[], bool],
        fail_fast: bool,
        passed: Callable[[int], None],
    ) -> None:
        self.answered = self.failed = self.before = 0
        self._keys, self._sink, self._journal = keys, sink, journal
        self._stop, self._fail_fast, self._passed = stop, fail_fast, passed

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be done."""
        return self._stop() or (self._fail_fast and self.failed > 0)

    def facts_of(self, media: str, size: int, mtime_ns: int) -> FileFacts | None:
        """As :meth:`.Journal.facts_of`; called from several threads.

        Of small files nothing is known from before: size and time may be another one's, and reading them is quick.
        """
        if self._journal is None or size <= WHOLE:
            return None
        return self._journal.facts_of(media, size, mtime_ns)

    def left(self, tasks: Sequence[Task], sha256: str) -> tuple[tuple[Task, str], ...]:
        """Those that were not answered before, each with its answer's key; called from several threads.

        Args:
            tasks: about one file.
            sha256: of that file.
        """
        keyed = [(task, self._keys.key(sha256, task)) for task in tasks]
        return tuple((t, key) for t, key in keyed if self._journal is None or not self._journal.claim(key, t))

    def skip(self, count: int) -> None:
        """So many tasks were answered before."""
        self.before += count
        if count:
            self._passed(count)

    def take(self, outcome: Outcome) -> None:
        """One task's end."""
        self.answered += outcome.error is None
        self.failed += outcome.error is not None
        self._sink(outcome)

    def confirm(self) -> None:
        """As :meth:`.Journal.confirm`."""
        if self._journal is not None:
            self._journal.confirm()

    def summary(self, tasks: int, seconds: float, waited: float, events: Sequence[str] = ()) -> Summary:
        """Of so many tasks, as of now."""
        return Summary(tasks, self.answered, self.failed, self.before, seconds, waited, tuple(events))
