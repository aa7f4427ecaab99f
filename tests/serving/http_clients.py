"""Clients of the HTTP interface that say what no library would."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echopix_cli.serving.http import HttpServer


class Plain:
    """A connection on which anything can be said."""

    def __init__(self, server: HttpServer, unread: int | None = None) -> None:
        """``unread`` bytes that the kernel keeps until they are read."""
        host, _, port = server.address.removeprefix("http://").rpartition(":")
        self.host, self.socket = f"{host}:{port}", socket.create_connection((host, int(port)), timeout=60)
        if unread is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, unread)

    def rest(self, pause: float = 0.0) -> bytes:
        """All that still comes, until the server hangs up, read in small pieces."""
        parts = []
        while part := self.socket.recv(2048):
            parts.append(part)
            time.sleep(pause)
        return b"".join(parts)

    def head(self, length: int | str, *lines: str) -> None:
        own = (f"Host: {self.host}", "Content-Type: application/json", f"Content-Length: {length}", *lines)
        self.socket.sendall("\r\n".join(["POST /v1/chat/completions HTTP/1.1", *own, "", ""]).encode())

    def post(self, body: dict[str, Any], *lines: str) -> None:
        text = json.dumps(body).encode()
        self.head(len(text), *lines)
        self.socket.sendall(text)

    def status(self) -> int:
        """Of the answer; 0 where the connection is closed without one."""
        with self.socket.makefile("rb") as file:
            line = file.readline()
        return int(line.split()[1]) if line else 0
