"""One client of the server: its requests are answered one after the other, and cancelled when it goes away.

A thread reads what the client says, another writes what it is told, so that the model never waits for a client: what
one answer comes to is kept here until the client takes it. Only the outcomes of a batch, which may be many, wait.
"""

from __future__ import annotations

import itertools
import math
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from echopix_cli.batch.items import Stopped
from echopix_cli.batch.journal import FileFacts
from echopix_cli.batch.outcomes import Outcome
from echopix_cli.batch.tasks import Task
from echopix_cli.errors import EchopixError, told
from echopix_cli.media import require_file
from echopix_cli.serving import many_messages as mm
from echopix_cli.serving import messages as m
from echopix_cli.serving.answering import Cancelled, Held, answer
from echopix_cli.serving.batches import batch_of
from echopix_cli.serving.client import Ending
from echopix_cli.serving.desk import Desk
from echopix_cli.serving.turns import Left
from echopix_cli.serving.wire import Garbled, packed, received

_LOOK = 0.1  # seconds between looks at whether anybody still waits
_LATE = 5.0  # seconds that a client may keep a server that ends
_BACKLOG = 64  # outcomes of a batch that a client may not have taken yet


class Connection:
    """A client that was greeted.

    Args:
        connection: to it.
        desk: with the model.
    """

    def __init__(self, connection: socket.socket, desk: Desk) -> None:
        self._connection, self._desk = connection, desk
        self._out: queue.SimpleQueue[tuple[bytes, bool] | threading.Event | None] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[tuple[Any, threading.Event] | None] = queue.SimpleQueue()
        self._replies: dict[int, queue.SimpleQueue[mm.Known]] = {}
        self._numbers = itertools.count()
        self._room = threading.Semaphore(_BACKLOG)
        self._cancelled = threading.Event()  # the request that is being answered
        self._gone = threading.Event()
        self._held = Held()

    def serve(self) -> None:
        """Answer until the client goes away, or the server ends and nothing is under way."""
        threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._write)]
        for thread in threads:
            thread.start()
        try:
            while (queued := self._requests.get()) is not None:
                request, self._cancelled = queued
                with self._desk.request():  # which a server that ends waits for: to the last byte
                    self._answered(request)
                    sent = threading.Event()
                    self._out.put(sent)
                    self._waited(sent.wait, _LATE)
        finally:
            self._out.put(None)
            threads[1].join(5.0)
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()

    def _answered(self, request: Any) -> None:
        try:
            match request:
                case m.Ask():
                    self._ask(request)
                    self._say(m.Done())
                case mm.AskMany():
                    self._ask_many(request)
        except Cancelled:
            pass
        except Left:
            self._say(failure_of(Ending("the server is ending", "run again")))
        except Exception as error:  # one request's failure is not the server's
            self._say(failure_of(told(error, "run again with --no-server and --debug, and report it")))

    def _stopped(self) -> bool:
        return self._cancelled.is_set() or self._gone.is_set()

    def _ask(self, request: m.Ask) -> None:
        require_file(request.path)
        self._say(m.Found())
        with self._desk.turn(self._stopped):
            engine = self._desk.lent(request.manner, self._say)
            self._say(m.Loaded(0.0))
            answer(engine, request, self._counted, stop=self._stopped, held=self._held)

    def _counted(self, event: m.Event) -> None:
        self._desk.answers += isinstance(event, m.Answered)
        self._say(event)

    def _ask_many(self, request: mm.AskMany) -> None:
        places = {id(task): place for place, task in enumerate(request.tasks)}
        serials: dict[int, tuple[EchopixError, int]] = {}

        def sink(outcome: Outcome) -> None:
            self._desk.answers += outcome.answer is not None
            failure = None
            if (error := outcome.error) is not None:
                _, serial = serials.setdefault(id(error), (error, len(serials)))
                failure = replace(failure_of(error), serial=serial)
            if not self._waited(lambda seconds: self._room.acquire(timeout=seconds)):
                raise Cancelled
            ended = mm.Ended(places[id(outcome.task)], outcome.key, outcome.file, outcome.answer, failure)
            self._out.put((packed(ended), True))

        def stop() -> bool:
            return self._stopped() or self._desk.ending.is_set()

        @contextmanager
        def turn() -> Iterator[None]:
            try:
                with self._desk.turn(self._stopped):
                    yield
            except Left:
                raise Stopped from None

        batch = batch_of(
            self._desk.lent(request.manner, self._say),
            request,
            sink,
            journal=_Elsewhere(self._inquire, places) if request.resumes else None,
            stop=stop,
            passed=lambda count: self._say(mm.Passed(count)),
            turn=turn,
            reading=lambda media: lambda *far: self._say(mm.WatchedOf(media, m.Watched(*far))),
        )
        self._say(mm.Began(batch.settings.plan))
        summary = batch.run(request.tasks)
        left = summary.tasks - summary.done
        if left and self._desk.ending.is_set() and not (self._stopped() or (request.fail_fast and summary.failed)):
            hint = "run again to go on" if request.resumes else "run again"
            raise Ending(f"the server has ended; {summary.done} of {summary.tasks} done", hint)
        self._say(mm.Summed(summary))

    def _inquire(self, question: Callable[[int], Any]) -> mm.Known:
        """Ask the client, from any thread.

        Raises:
            Cancelled: it is gone, or says nothing while the server ends.
        """
        number = next(self._numbers)
        reply = self._replies[number] = queue.SimpleQueue()
        known: list[mm.Known] = []

        def came(seconds: float) -> bool:
            with suppress(queue.Empty):
                known.append(reply.get(timeout=seconds))
            return bool(known)

        try:
            self._say(question(number))
            if self._waited(came):
                return known[0]
        finally:
            del self._replies[number]
        raise Cancelled

    def _waited(self, came: Callable[[float], bool], most: float = math.inf) -> bool:
        """Wait for what the client does; whether it did. One that keeps a server that ends counts as gone.

        Args:
            came: waits for so many seconds; whether it came.
            most: seconds.
        """
        until = time.monotonic() + most
        while not came(_LOOK):
            if self._gone.is_set() or time.monotonic() >= until:
                if self._desk.ending.is_set():
                    self._gone.set()
                return False
            if self._desk.ending.is_set():
                until = min(until, time.monotonic() + _LATE)
        return True

    def _say(self, message: Any) -> None:
        self._out.put((packed(message), False))

    def _read(self) -> None:
        cancelled = threading.Event()  # the newest request
        try:
            while True:
                match received(self._connection):
                    case m.Cancel():
                        cancelled.set()
                    case mm.Known() as known:
                        if (waiting := self._replies.get(known.number)) is not None:
                            waiting.put(known)
                    case request:
                        cancelled = threading.Event()
                        self._requests.put((request, cancelled))
        except (OSError, EOFError, Garbled):
            self._gone.set()
            self._requests.put(None)

    def _write(self) -> None:
        while (message := self._out.get()) is not None:
            if isinstance(message, threading.Event):
                message.set()
                continue
            try:
                self._connection.sendall(message[0])
            except OSError:
                self._gone.set()
            if message[1]:
                self._room.release()


class _Elsewhere:
    """The journal of a client: what was done before."""

    def __init__(self, inquire: Callable[[Callable[[int], Any]], mm.Known], places: dict[int, int]) -> None:
        self._inquire, self._places = inquire, places

    def claim(self, key: str, task: Task) -> bool:
        return self._inquire(lambda number: mm.Claim(number, key, self._places[id(task)])).claimed

    def facts_of(self, media: str, size: int, mtime_ns: int) -> FileFacts | None:
        return self._inquire(lambda number: mm.FactsWanted(number, media, size, mtime_ns)).facts

    def confirm(self) -> None:
        """The client does, once it has the summary."""


def failure_of(error: EchopixError) -> m.Failure:
    """An error in words."""
    return m.Failure(error.kind, error.message, error.hint, int(error.exit_code))
