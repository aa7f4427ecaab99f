"""``echopix serve --http``: its options, checked before a model is loaded, and its socket, bound before that."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from echopix_cli.errors import UsageError

if TYPE_CHECKING:
    from echopix_cli.serving.desk import Desk
    from echopix_cli.serving.http import HttpServer
    from echopix_cli.serving.messages import Manner

_MOST_QUEUED = 128
_SHORTEST = 16  # characters of a token


@dataclass(frozen=True)
class AskedHttp:
    """What ``--http`` and its options ask for.

    Attributes:
        listener: bound to the address.
        root: a real path.
        token: that clients must bear; None for none.
        queue: requests that may be answered or wait.
    """

    listener: socket.socket
    root: Path
    token: str | None
    queue: int

    def serve(self, desk: Desk, manner: Manner) -> HttpServer:
        """Begin to serve a model; ``manner`` is that of answers whose requests say nothing else."""
        from echopix_cli.serving.http import HttpOptions, HttpServer

        server = HttpServer(desk, self.listener, HttpOptions(self.root, manner, self.token, self.queue, manner.timeout))
        server.start()
        return server

    def close(self) -> None:
        """Give the address back."""
        self.listener.close()


def asked_for(address: str, root: Path | None, token: Path | None, queue: int) -> AskedHttp:
    """The options of a command line.

    Raises:
        UsageError: one of them does not fit, or the packages are missing.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise UsageError("HTTP needs packages that are not installed", "pip install 'echopix[serve]'") from None
    if root is None:
        raise UsageError("--http needs a folder whose files may be asked about", "add --root DIR")
    if not root.is_dir():
        raise UsageError(f"--root {root} is no folder", "name one")
    if not 1 <= queue <= _MOST_QUEUED:
        raise UsageError(f"--queue {queue}: expected a number from 1 to {_MOST_QUEUED}", "--queue 16")
    host, port = _address(address)
    secret = None if token is None else _token(token)
    try:
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=kind, backlog=128)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UsageError(f"cannot listen on {address}: {error}", "--http 127.0.0.1:0 takes any free port") from None
    from echopix_cli.serving.door import is_loopback

    if secret is None and not is_loopback(listener.getsockname()[0]):
        listener.close()
        raise UsageError(
            f"{address} can be reached from other machines, and anybody there could ask",
            "add --token-file FILE, or listen on 127.0.0.1",
        )
    return AskedHttp(listener, root.resolve(), secret, queue)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise UsageError(f"--http {text!r} is no address", "--http 127.0.0.1:8080")
    return host, int(port)


def _token(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the token in {path}: {error}", "write one line of ASCII into it") from None
    if len(text) < _SHORTEST or not text.isprintable() or " " in text:
        raise UsageError(
            f"the token in {path} is no line of at least {_SHORTEST} characters", f"openssl rand -hex 32 > {path}"
        )
    return text
