"""Real servers for tests, each a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from places import ROOT
from waiting import PATIENCE, wait_until

from echopix_cli.media.plan import DecodePlan
from echopix_cli.serving import messages as m
from echopix_cli.serving.client import find_server, greet_all, wish_of
from echopix_cli.serving.place import connected, opened_folder, sockets
from echopix_cli.serving.wire import packed, received

DTYPE = "float32"  # of servers, as ECHOPIX_DTYPE has it in the tests' own process


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        process: of it.
        model: folder or name.
        runtime: the folder ``XDG_RUNTIME_DIR``.
    """

    process: subprocess.Popen[str]
    model: str
    runtime: Path

    @property
    def wish(self) -> m.Wish:
        return wish_of(self.model, "cpu", DTYPE, "auto")

    def welcome(self) -> m.Welcome:
        """What it says of itself now."""
        (greeted,) = greet_all(lambda: self.wish)
        greeted.connection.close()
        assert greeted.welcome is not None
        return greeted.welcome

    def ended(self) -> tuple[int, str]:
        """Its exit code and stderr, once it has ended."""
        return self.process.wait(PATIENCE), self.process.communicate()[1]


def environment(runtime: Path, **more: str) -> dict[str, str]:
    """Of a process that looks for servers in a folder of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ECHOPIX_")}
    own = {"ECHOPIX_CONFIG": os.devnull, "ECHOPIX_CACHE": "false", "ECHOPIX_DTYPE": DTYPE, "PYTHONPATH": str(ROOT)}
    return {**inherited, **own, "XDG_RUNTIME_DIR": str(runtime), "HF_HUB_OFFLINE": "1", **more}


def started(runtime: Path, model: str, *options: str) -> subprocess.Popen[str]:
    """A server's process, before it has loaded anything."""
    command = [sys.executable, "-m", "echopix_cli", "serve", "--model", model, "--device", "cpu", *options]
    return subprocess.Popen(
        command, env=environment(runtime), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextmanager
def serving(runtime: Path, model: str, *options: str) -> Iterator[Running]:
    """A server that listens, ended with the context."""
    process = started(runtime, model, *options)
    try:
        running = Running(process, model, runtime)
        wait_until(lambda: any((runtime / "echopix").glob("*.sock")), process=process)
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.communicate()


def listens(running: Running) -> bool:
    """Whether it does; for whoever has set ``XDG_RUNTIME_DIR`` to its folder."""
    if (server := find_server(lambda: running.wish)) is None:
        return False
    server.close()
    return True


class Raw:
    """A client that says what it likes."""

    def __init__(self, hello: m.Hello) -> None:
        with opened_folder() as folder:
            assert folder is not None
            found = connected(folder, sockets(folder)[0], PATIENCE)
        assert found is not None
        self.connection = found[0]
        self.connection.sendall(packed(hello))
        self.welcome = received(self.connection)

    def say(self, message: object) -> None:
        self.connection.sendall(packed(message))

    def hear(self, kind: type) -> list[object]:
        """All that comes up to the first message of a kind."""
        found = [received(self.connection)]
        while not isinstance(found[-1], kind):
            found.append(received(self.connection))
        return found


def manner(tokens: int) -> m.Manner:
    """As settings say it, with answers of so many tokens."""
    return m.Manner(
        plan=DecodePlan(),
        max_pixels=None,
        budget=None,
        max_new_tokens=tokens,
        temperature=0.0,
        system=None,
        sieve="auto",
        question_layer=None,
        prefilter=None,
        window=None,
        look=4,
        list_kept=False,
        cache_dir=None,
        cache_size=0,
        timeout=600.0,
        verbose=False,
    )
