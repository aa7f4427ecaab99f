"""The answering side, with one end of a pair of sockets and a model that only counts."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from servers import manner
from waiting import wait_until

from echopix_cli.batch.asking import Asker
from echopix_cli.batch.items import BatchOptions, Group, Prepared
from echopix_cli.batch.outcomes import Outcome, Summary
from echopix_cli.batch.tasks import Task
from echopix_cli.media.plan import DecodePlan
from echopix_cli.serving import connection as module
from echopix_cli.serving import many_messages as mm
from echopix_cli.serving import messages as m
from echopix_cli.serving.answering import Cancelled
from echopix_cli.serving.connection import Connection
from echopix_cli.serving.desk import Desk
from echopix_cli.serving.place import listening, name_of, opened_folder, sockets
from echopix_cli.serving.server import Listener
from echopix_cli.serving.turns import Left, Turns
from echopix_cli.serving.wire import packed, received

TASK = Task("/a.mp4", "What?")
NUMBERS = Summary(1, 1, 0, 0, 0.0, 0.0)
LARGE = "k" * 2**22  # bytes, more than a socket holds
Sink = Callable[[Outcome], None]
Work = Callable[[tuple[Task, ...], Sink, dict[str, Any]], None]


class FakeDesk:
    """As a desk is used, without a model."""

    def __init__(self) -> None:
        self.ending, self.turns, self.answers, self.running = threading.Event(), Turns(), 0, 0

    @contextmanager
    def request(self) -> Iterator[None]:
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    turn = Desk.turn

    def lent(self, manner: m.Manner, notice: object) -> Any:
        return None


class Far:
    """A client of a connection that is served in a thread."""

    def __init__(self, desk: Any) -> None:
        near, self.socket = socket.socketpair()
        self.socket.settimeout(30)
        self.thread = threading.Thread(target=Connection(near, desk).serve, daemon=True)
        self.thread.start()

    def say(self, *messages: object) -> None:
        self.socket.sendall(b"".join(packed(message) for message in messages))

    def hear(self) -> Any:
        return received(self.socket)


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


def batch_that(monkeypatch: pytest.MonkeyPatch, work: Work) -> mm.AskMany:
    """A request for one task, whose batch does this."""

    def batch_of(engine: object, request: object, sink: Sink, **more: Any) -> Any:
        def run(tasks: tuple[Task, ...]) -> Summary:
            work(tasks, sink, more)
            return NUMBERS

        return SimpleNamespace(settings=BatchOptions(DecodePlan()), run=run)

    monkeypatch.setattr(module, "batch_of", batch_of)
    return mm.AskMany((TASK,), manner(1), False, True)


def test_a_batch_that_is_cancelled_while_it_waits_has_no_failures(
    desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks(tasks: tuple[Task, ...], sink: Sink, more: dict[str, Any]) -> None:
        engine: Any = None
        asker = Asker(engine, BatchOptions(DecodePlan()), 1.0, more["stop"], more["turn"])
        fetched: Any = object()
        for outcome in asker.ask(Group("/a.mp4", None, None, (TASK,)), Prepared(None, ((TASK, None),), fetched)):
            sink(outcome)

    with desk.turns.turn():
        far = Far(desk)
        far.say(batch_that(monkeypatch, asks))
        assert isinstance(far.hear(), mm.Began)
        wait_until(lambda: len(desk.turns) == 2)
        far.say(m.Cancel())
        assert far.hear() == mm.Summed(NUMBERS)


def test_a_request_is_cancelled_and_not_the_one_before_it(desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[bool] = []

    def asks(tasks: tuple[Task, ...], sink: Sink, more: dict[str, Any]) -> None:
        more["journal"].claim("k", tasks[0])
        stopped.append(more["stop"]())

    far, request = Far(desk), batch_that(monkeypatch, asks)
    far.say(request, request)
    assert [type(far.hear()) for _ in range(2)] == [mm.Began, mm.Claim]
    far.say(m.Cancel(), mm.Known(0))
    assert [type(far.hear()) for _ in range(3)] == [mm.Summed, mm.Began, mm.Claim]
    far.say(mm.Known(1))
    assert far.hear() == mm.Summed(NUMBERS)
    assert stopped == [False, True]


def test_what_was_answered_comes_though_it_was_cancelled(desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACKLOG", 1)
    stopped = threading.Event()

    def asks(tasks: tuple[Task, ...], sink: Sink, more: dict[str, Any]) -> None:
        wait_until(more["stop"])
        stopped.set()
        for _ in range(3):
            sink(Outcome(tasks[0], LARGE, None, None, None))

    far = Far(desk)
    far.say(batch_that(monkeypatch, asks), m.Cancel())
    assert stopped.wait(30)
    time.sleep(0.5)  # with other things
    assert [type(far.hear()) for _ in range(5)] == [mm.Began, mm.Ended, mm.Ended, mm.Ended, mm.Summed]


@pytest.mark.parametrize("reads", [True, False])
def test_a_client_that_stands_still_keeps_no_server_from_ending(
    desk: FakeDesk, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    monkeypatch.setattr(module, "_BACKLOG", 1)
    monkeypatch.setattr(module, "_LATE", 0.2)
    ended: list[str] = []

    def asks(tasks: tuple[Task, ...], sink: Sink, more: dict[str, Any]) -> None:
        try:
            if reads:
                more["journal"].claim("k", tasks[0])
            for _ in range(3):
                sink(Outcome(tasks[0], LARGE, None, None, None))
        except Cancelled:
            ended.append("cancelled")
            raise

    far = Far(desk)
    far.say(batch_that(monkeypatch, asks))
    wait_until(lambda: desk.running == 1)
    desk.ending.set()
    wait_until(lambda: desk.running == 0, 20.0)
    assert ended == ["cancelled"]


def test_a_server_ends_after_the_last_byte_of_an_answer(desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def asks(tasks: tuple[Task, ...], sink: Sink, more: dict[str, Any]) -> None:
        sink(Outcome(tasks[0], LARGE, None, None, None))
        done.set()

    far = Far(desk)
    far.say(batch_that(monkeypatch, asks))
    assert done.wait(30)
    time.sleep(0.3)
    assert desk.running == 1
    assert [type(far.hear()) for _ in range(3)] == [mm.Began, mm.Ended, mm.Summed]
    wait_until(lambda: desk.running == 0)


def test_nobody_begins_whose_wait_is_over() -> None:
    turns = Turns()
    with pytest.raises(Left), turns.turn(lambda: True):
        pytest.fail("it was had")
    assert len(turns) == 0


def test_while_a_server_ends_nobody_waits_for_its_greeting(runtime: Path, desk: FakeDesk) -> None:
    name, any_desk = name_of(m.Wish("tiny", "cpu", "auto", "auto")), cast(Any, desk)
    with opened_folder(make=True) as folder:
        assert folder is not None
        listener = listening(folder, name)
        late = socket.socket(socket.AF_UNIX)
        late.settimeout(30)
        late.connect(listener.getsockname())
        with desk.request():  # something is being answered
            thread = threading.Thread(target=Listener(listener, any_desk, None).serve, args=[lambda: True])
            thread.start()
            with suppress(ConnectionResetError):
                assert late.recv(1) == b"", "nobody is there"
            assert sockets(folder) == []
        thread.join(30)
        assert not thread.is_alive()
