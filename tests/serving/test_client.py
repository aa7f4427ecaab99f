"""The asking side against a server that does as it is told: one end of a pair of sockets."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from servers import manner

from echopix_cli.batch.outcomes import Outcome, Summary
from echopix_cli.batch.tasks import Task
from echopix_cli.errors import EchopixError
from echopix_cli.media.plan import DecodePlan
from echopix_cli.serving import many_messages as mm
from echopix_cli.serving import messages as m
from echopix_cli.serving.client import Ending, Naming, Server, absolute
from echopix_cli.serving.client_many import ask_many
from echopix_cli.serving.wire import packed, received

REQUEST = mm.AskMany((Task("/a.mp4", "What?"),), manner(1), False, False)


class Pair:
    """A client, and the other end of its connection."""

    def __init__(self) -> None:
        own, self.far = socket.socketpair()
        self.far.settimeout(10)
        welcome: Any = None
        self.server = Server(own, welcome)

    def say(self, *messages: object) -> None:
        self.far.sendall(b"".join(packed(message) for message in messages))


def test_ctrl_c_is_seen_while_events_come_without_a_pause() -> None:
    pair = Pair()
    pair.say(*[mm.Passed(1)] * 50, mm.Summed(Summary(50, 0, 0, 50, 0.0, 0.0)))
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 3

    assert len(list(pair.server.events(m.Cancel(), Naming({}), stop))) == 51
    heard = [received(pair.far), received(pair.far)]
    assert (heard, len(asked)) == ([m.Cancel(), m.Cancel()], 4), "the request, and that it is cancelled"


@pytest.mark.parametrize(
    ("said", "kind"),
    [([], Ending), ([m.Found()], Ending), ([m.Found(), m.Loaded(0.0)], EchopixError)],
    ids=["nothing", "found", "loaded"],
)
def test_a_server_that_is_gone_before_it_began_is_done_without(said: list[object], kind: type) -> None:
    pair = Pair()
    pair.say(*said)
    threading.Timer(0.1, pair.far.close).start()
    with pytest.raises(EchopixError) as raised:
        pair.server.ask(m.Ask("/a.mp4", ("What?",), (), manner(1)), lambda event: None)
    assert type(raised.value) is kind


def test_a_connection_that_takes_nothing_is_a_server_that_did_not_begin() -> None:
    pair = Pair()
    pair.far.close()
    with pytest.raises(Ending):
        ask_many(pair.server, REQUEST, None, nothing, nothing, nothing, lambda: False, nothing)


def test_a_list_that_no_message_holds_is_asked_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("echopix_cli.serving.wire.MOST", 100)
    with pytest.raises(Ending, match=r"a message of [0-9,]+ bytes is too long"):
        ask_many(Pair().server, REQUEST, None, nothing, nothing, nothing, lambda: False, nothing)


def test_a_batch_goes_on_without_a_server_that_ended(
    run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair()
    pair.server.welcome = Welcomed()
    pair.far.close()
    monkeypatch.setattr("echopix_cli.serving.client.find_server", lambda wish: pair.server)
    ran = run("ask", clips["silent"], clips["dark"], "-Q", "What?", "--json", "--device", "cpu")
    assert (ran.code, len(ran.records), "2 answered, 0 failed" in ran.err) == (0, 2, True)
    assert not any("server" in record for record in ran.records)


def test_absolute_paths_lead_anywhere_without_a_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert absolute("a.mp4") == str(gone / "a.mp4")
    gone.rmdir()
    assert absolute("/b/../a.mp4") == "/b/../a.mp4"
    with pytest.raises(Ending, match="the working folder is gone"):
        absolute("a.mp4")
    os.chdir(tmp_path)


def test_a_batch_whose_folder_goes_away_hears_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    pair, outcomes = Pair(), list[Outcome]()
    failure = m.Failure("MediaError", f"{gone}/a.mp4: no film", "", 3)
    pair.say(mm.Began(DecodePlan()), mm.Ended(0, None, None, None, failure), mm.Summed(Summary(1, 0, 1, 0, 0.0, 0.0)))
    request = mm.AskMany((Task("a.mp4", "What?"),), manner(1), False, False)
    ask_many(pair.server, request, None, lambda plan: gone.rmdir(), outcomes.append, nothing, lambda: False, nothing)
    os.chdir(tmp_path)
    assert str(outcomes[0].error) == "a.mp4: no film"


class Welcomed:
    """A welcome from a model that is no demonstration."""

    class model:
        demonstration = False


def nothing(what: object) -> None:
    """Take it."""
