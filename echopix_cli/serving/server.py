"""The answering side of the socket: greet who connects, answer who fits, end when it is time."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from echopix_cli import __version__
from echopix_cli.serving import messages as m
from echopix_cli.serving.connection import Connection
from echopix_cli.serving.desk import Desk
from echopix_cli.serving.place import peer_of, unlisten
from echopix_cli.serving.wire import Garbled, packed, received

_GREETING = 5.0  # seconds for a client's first message
_LOOK = 0.2  # seconds between looks at whether to end
_MOST = 64  # clients at once


class Listener:
    """Takes clients from a socket, each into a thread of its own.

    Args:
        listener: listens.
        desk: with the model.
        idle: seconds without a request after which :meth:`serve` returns; None never.
        http: address that is served beside, for those who ask what is there.
    """

    def __init__(self, listener: socket.socket, desk: Desk, idle: float | None, http: str = "") -> None:
        self._listener, self._desk, self._idle, self._http = listener, desk, idle, http
        self._clients = threading.Semaphore(_MOST)

    def serve(self, stop: Callable[[], bool]) -> str:
        """Serve until told to end, or idle for too long; then let what is being answered be answered.

        Args:
            stop: asked often.

        Returns:
            why it ended: ``told`` or ``idle``.
        """
        why = "told"
        while not stop():
            if self._idle is not None and self._desk.idle_seconds >= self._idle:
                why = "idle"
                break
            if select.select([self._listener], [], [], _LOOK)[0]:
                with suppress(OSError):
                    self._take(self._listener.accept()[0])
        self._desk.ending.set()
        unlisten(self._listener)  # or clients would wait to be greeted by nobody
        while self._desk.running:
            time.sleep(_LOOK / 4)
        return why

    def _take(self, connection: socket.socket) -> None:
        try:
            welcome = peer_of(connection).uid == os.geteuid() and self._clients.acquire(blocking=False)
        except OSError:
            welcome = False
        if not welcome:
            connection.close()
            return
        threading.Thread(target=self._client, args=(connection,), daemon=True).start()

    def _client(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(_GREETING)
            hello = received(connection)
            if not isinstance(hello, m.Hello):
                return
            fits = hello.version == __version__
            refusal = self._desk.refusal(hello.wish) if fits else f"it is echopix {__version__}"
            connection.sendall(packed(self._welcome(refusal)))
            if not refusal:
                connection.settimeout(None)
                Connection(connection, self._desk).serve()
        except (OSError, EOFError, Garbled):
            pass
        finally:
            connection.close()
            self._clients.release()

    def _welcome(self, refusal: str) -> m.Welcome:
        desk = self._desk
        return m.Welcome(
            version=__version__,
            refusal=refusal,
            model=desk.engine.facts,
            held=desk.held,
            asked=desk.wish.model,
            since=desk.since,
            answers=desk.answers,
            running=desk.running,
            idle=self._idle,
            http=self._http,
        )
