"""How servers begin, who they answer, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from servers import Raw, Running, listens, manner, serving, started
from waiting import PATIENCE, wait_until

from echopix_cli import __version__
from echopix_cli.cli.serve import _wait_for
from echopix_cli.errors import EchopixError
from echopix_cli.serving import messages as m
from echopix_cli.serving.client import find_server
from echopix_cli.serving.desk import Desk
from echopix_cli.serving.place import (
    Holder,
    address,
    holder_of,
    listening,
    locked,
    locks,
    name_of,
    opened_folder,
    sign,
    sockets,
)
from echopix_cli.serving.server import _MOST
from echopix_cli.weights.opening import folder_revision

LONG = 400  # tokens of an answer that takes seconds
ENDLESS = 100_000  # of one that nobody waits for


def greeted(server: Running) -> Raw:
    raw = Raw(m.Hello(__version__, server.wish))
    assert raw.welcome.refusal == ""
    return raw


def ask(path: Path, tokens: int) -> m.Ask:
    return m.Ask(str(path), ("What?",), (), manner(tokens))


@pytest.mark.parametrize("what", ["model", "device", "dtype", "quantize"])
def test_what_does_not_fit_is_not_used(near: Running, what: str) -> None:
    other = {"model": "/elsewhere", "device": "cuda", "dtype": "bfloat16", "quantize": "nf4"}
    assert find_server(lambda: replace(near.wish, **{what: other[what]})) is None
    assert what in Raw(m.Hello(__version__, replace(near.wish, **{what: other[what]}))).welcome.refusal


def test_what_it_was_asked_for_and_what_that_came_to_both_fit(near: Running) -> None:
    for wish in (near.wish, replace(near.wish, dtype="float32", quantize="none")):
        server = find_server(lambda wish=wish: wish)  # type: ignore[misc]
        assert server is not None
        server.close()


def test_another_version_is_refused(near: Running) -> None:
    assert Raw(m.Hello("0.0.1", near.wish)).welcome.refusal == f"it is echopix {__version__}"


def test_a_socket_is_its_users_alone(near: Running) -> None:
    with opened_folder() as folder:
        assert folder is not None
        (name,) = sockets(folder)
        assert os.stat(name, dir_fd=folder).st_mode & 0o777 == 0o600
        assert os.fstat(folder).st_mode & 0o777 == 0o700


@pytest.mark.parametrize("how", ["open", "link", "foreign"])
def test_a_folder_that_others_reach_is_refused(runtime: Path, how: str, command, clips: dict[str, Path]) -> None:
    place = runtime / "echopix"
    if how == "link":
        (runtime / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(runtime / "elsewhere")
    else:
        place.mkdir(mode=0o755 if how == "open" else 0o700)
    if how == "foreign":
        if os.geteuid() != 0:
            pytest.skip("only root gives a folder away")
        os.chown(place, 65534, 65534)
    with pytest.raises(EchopixError, match="no safe place"), opened_folder():
        pass
    ran = command("serve", "--model", "tiny")
    assert (ran.code, "no safe place for a socket" in ran.err) == (1, True)
    assert command("serve", "--status").code == 1


def test_without_a_runtime_folder_there_is_one_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with opened_folder(make=True) as folder:
        assert folder is not None
        assert os.stat(folder).st_ino == (tmp_path / f"echopix-{os.geteuid()}").stat().st_ino
        assert os.fstat(folder).st_mode & 0o777 == 0o700


def test_a_client_that_goes_away_cancels_its_answer(near: Running, long_clip: Path) -> None:
    answers = near.welcome().answers
    raw = greeted(near)
    raw.say(ask(long_clip, ENDLESS))
    raw.hear(m.Piece)
    assert near.welcome().running == 1
    raw.connection.close()
    wait_until(lambda: near.welcome().running == 0)
    assert near.welcome().answers == answers


def test_one_waits_for_the_other(near: Running, clips: dict[str, Path]) -> None:
    """Until the other has its answer, or wants none any more."""
    first, second = greeted(near), greeted(near)
    first.say(ask(clips["both"], ENDLESS))
    first.hear(m.Piece)
    second.say(ask(clips["silent"], 2))
    second.hear(m.Found)
    assert near.welcome().running == 2
    first.connection.close()
    heard = second.hear(m.Done)
    assert [type(event) for event in heard] == [
        m.Loaded,
        m.Opened,
        m.Asked,
        *[m.Piece] * (len(heard) - 5),
        m.Answered,
        m.Done,
    ]


def test_a_client_that_reads_nothing_holds_nobody_up(near: Running, clips: dict[str, Path]) -> None:
    asleep = greeted(near)
    for _ in range(3):
        asleep.say(ask(clips["both"], LONG))
    awake = greeted(near)
    awake.say(ask(clips["silent"], 2))
    awake.hear(m.Done)
    asleep.connection.close()


def test_garbage_ends_a_connection_and_nothing_else(near: Running) -> None:
    raw = greeted(near)
    raw.connection.sendall(b"\xff\xff\xff\xff" + b"GET / HTTP/1.1\r\n\r\n")
    with suppress(ConnectionResetError):
        assert raw.connection.recv(1) == b""
    wait_until(lambda: near.welcome().running == 0)


def test_status_says_what_runs(near: Running, command) -> None:
    ran = command("serve", "--status", "--json")
    ((record,), code) = ran.records[0]["servers"], ran.code
    assert (code, record["pid"], record["device"]) == (0, near.process.pid, "cpu")
    assert f"process {near.process.pid}" in command("serve", "--status").out


def silent(folder: Path, said: bytes) -> subprocess.Popen[bytes]:
    """A process that listens as a server does, and says something else."""
    code = (
        "import socket, sys\n"
        "own = socket.socket(socket.AF_UNIX)\n"
        "own.bind(sys.argv[1])\n"
        "own.listen()\n"
        "print(flush=True)\n"
        "while True:\n"
        "    other, _ = own.accept()\n"
        "    other.recv(65536)\n"
        "    other.sendall(bytes.fromhex(sys.argv[2]))\n"
        "    other.close()\n"
    )
    place = folder / "echopix"
    place.mkdir(mode=0o700)
    command = [sys.executable, "-c", code, str(place / "other.sock"), said.hex()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it listens
    return process


@pytest.mark.parametrize("said", [b"", b'\0\0\0\x1c{"is":"Welcome","version":1}'], ids=["nothing", "less"])
def test_a_server_of_another_version_is_seen_and_ended(runtime: Path, command, said: bytes) -> None:
    process = silent(runtime, said)
    try:
        ran = command("serve", "--status", "--json")
        (record,) = ran.records[0]["servers"]
        assert (ran.code, record["pid"], record["model"], record["state"]) == (0, process.pid, None, None)
        shown = command("serve", "--status").out
        assert f"process {process.pid}" in shown and "does not say what it holds" in shown
        assert find_server(lambda: m.Wish("auto", "auto", "auto", "auto")) is None
        assert command("serve", "--stop", "--model", "tiny").code == 1, "nobody knows that it holds this"
        assert process.poll() is None
        ran = command("serve", "--stop")
        assert (ran.code, f"process {process.pid}) has ended" in ran.err) == (0, True)
        assert process.wait(PATIENCE) == -signal.SIGTERM
    finally:
        process.kill()


def test_a_server_that_loads_is_seen_and_ended(runtime: Path, command) -> None:
    process = started(runtime, "tiny")
    try:
        wait_until(lambda: any(path.stat().st_size for path in (runtime / "echopix").glob("*.lock")), process=process)
        (record,) = command("serve", "--status", "--json").records[0]["servers"]
        assert (record["pid"], record["model"], record["state"]) == (process.pid, "tiny", "loading")
        assert "is loading" in command("serve", "--status").out
        assert command("serve", "--stop", "--model", "auto").code == 1
        assert command("serve", "--stop", "--model", "tiny").code == 0
        assert process.wait(PATIENCE) == 143
        assert command("serve", "--status").code == 1
    finally:
        process.kill()
        process.communicate()


def test_a_server_without_room_for_another_client_is_seen(near: Running, command) -> None:
    clients = [greeted(near) for _ in range(_MOST)]
    try:
        assert find_server(lambda: near.wish) is None
        (record,) = command("serve", "--status", "--json").records[0]["servers"]
        assert (record["pid"], record["model"], record["version"]) == (near.process.pid, near.wish.model, None)
    finally:
        for client in clients:
            client.connection.close()
    wait_until(lambda: listens(near))


def test_a_lock_is_its_holders_and_nobody_else_is_believed_to_hold_it(runtime: Path) -> None:
    """A process's number is another's after its end; what a dead server wrote stays."""
    with opened_folder(make=True) as folder:
        assert folder is not None
        lock = locked(folder, "own")
        assert lock is not None and holder_of(folder, "own") is None, "unsigned"
        sign(lock, "tiny" * 9, "loading")
        sign(lock, "tiny")
        assert holder_of(folder, "own") == Holder(os.getpid(), "tiny", "")
        assert locks(folder) == ["own"]
        file = runtime / "echopix" / "own.lock"
        signed = file.read_text()
        other = subprocess.Popen(["sleep", "60"])
        try:
            for pid in (other.pid, 1, 0, -1, True, "1", None, 2**40):
                file.write_text(json.dumps(json.loads(signed) | {"pid": pid}))
                assert holder_of(folder, "own") is None
        finally:
            other.kill()
            other.wait()
        for text in ("", "[]", "{}", "nonsense", '{"pid": 1}', signed[:-1]):
            file.write_text(text)
            assert holder_of(folder, "own") is None
        file.write_text(signed)
        os.close(lock)
        with file.open():  # which holds nothing
            assert holder_of(folder, "own") is None
        assert holder_of(folder, "none") is None


def test_servers_are_found_whatever_model_is_set(near: Running, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPIX_MODEL", "nonsense")
    assert command("serve", "--status").code == 0


def test_a_server_that_ends_by_itself_was_ended(near: Running, command, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr("echopix_cli.cli.serve.os.kill", gone)
    monkeypatch.setattr("echopix_cli.cli.serve._wait_for", lambda name, process: None)
    assert command("serve", "--stop").code == 0


def test_a_server_that_another_has_replaced_is_gone() -> None:
    """A supervisor begins the next one at once, and it holds the lock of that name."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    with opened_folder(make=True) as folder:
        assert folder is not None
        lock = locked(folder, "replaced")
        assert lock is not None
        _wait_for("replaced", ended.pid)
        os.close(lock)


def test_a_copy_of_a_folder_that_changed_is_not_used(random_checkpoint: Path, tmp_path: Path) -> None:
    named = tmp_path / "named"
    shutil.copytree(random_checkpoint, named)
    source = SimpleNamespace(folder=random_checkpoint, revision=None)
    facts = SimpleNamespace(name="named", device="cpu", dtype="float32", quantization="int8")
    engine: Any = SimpleNamespace(facts=facts, source=source, loaded_from=folder_revision(random_checkpoint))
    wish = m.Wish(str(named), "cpu", "auto", "int8")
    desk = Desk(engine, wish, folder_revision(named))
    assert desk.refusal(wish) == ""
    with (named / "config.json").open("a") as file:
        file.write(" ")
    assert desk.refusal(wish) == "the model's files have changed since it was loaded"


@pytest.mark.slow
def test_there_is_one_server_for_a_model(near: Running) -> None:
    second = started(near.runtime, near.model)
    assert second.wait(PATIENCE) == 2
    assert "a server for this model runs already" in second.communicate()[1]
    assert listens(near)


@pytest.mark.slow
def test_sigterm_lets_the_running_answer_end_and_no_other(
    runtime: Path, random_checkpoint: Path, clips, command
) -> None:
    with serving(runtime, str(random_checkpoint)) as server:
        first, second = greeted(server), greeted(server)
        first.say(ask(clips["both"], 5 * LONG))
        first.hear(m.Piece)
        second.say(ask(clips["both"], 2))
        second.hear(m.Found)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not listens(server))
        (record,) = command("serve", "--status", "--json").records[0]["servers"]
        assert (record["pid"], record["state"]) == (server.process.pid, "ending")
        heard = list[object]()
        reading = threading.Thread(target=lambda: heard.extend(first.hear(m.Done)))
        reading.start()
        assert command("serve", "--stop").code == 0, "it waits, and cuts nothing off"
        reading.join()
        assert isinstance(heard[-2], m.Answered)
        (failure,) = second.hear(m.Failure)
        assert isinstance(failure, m.Failure)
        assert (failure.kind, failure.message) == ("Ending", "the server is ending")
        code, said = server.ended()
        assert (code, "Traceback" in said) == (0, False)
        with opened_folder() as folder:
            assert folder is not None and sockets(folder) == []


@pytest.mark.slow
def test_what_a_killed_server_left_is_in_nobodys_way(
    runtime: Path, random_checkpoint: Path, run, clips: dict[str, Path], command
) -> None:
    with serving(runtime, str(random_checkpoint)) as server:
        server.process.kill()
        server.process.wait()
    assert run("ask", clips["silent"], "What?", "--device", "cpu", "-q").code == 0
    with serving(runtime, str(random_checkpoint), "--idle", "1h") as server:
        wait_until(lambda: listens(server))  # the old socket is there all the time
        assert command("serve", "--stop", "--model", "tiny").code == 1, "not this one"
        ran = command("serve", "--stop", "--model", server.model, "--json")
        assert (ran.code, ran.records[0]["servers"][0]["pid"]) == (0, server.process.pid)
        assert server.ended()[0] == 0
    assert command("serve", "--stop").code == 1
    with serving(runtime, "auto") as server:
        assert server.welcome().held.model == "tiny"
        assert command("serve", "--stop", "--model", "auto").code == 0
        assert server.ended()[0] == 0


@pytest.mark.slow
def test_a_server_without_questions_ends(runtime: Path, random_checkpoint: Path) -> None:
    with serving(runtime, str(random_checkpoint), "--idle", "2") as server:
        code, said = server.ended()
        assert (code, "nothing was asked for 0:02" in said) == (0, True)


def test_a_lock_outlives_nobody(runtime: Path) -> None:
    wish = m.Wish("tiny", "cpu", "auto", "auto")
    with opened_folder(make=True) as folder:
        assert folder is not None
        lock = locked(folder, name_of(wish))
        assert lock is not None
        assert locked(folder, name_of(wish)) is None
        listening(folder, name_of(wish)).close()  # and what is left of it
        os.close(lock)
        again = locked(folder, name_of(wish))
        assert again is not None
        with listening(folder, name_of(wish)) as listener:
            assert listener.getsockname() == address(folder, name_of(wish) + ".sock")
        os.close(again)
