"""What stands before the HTTP server: who may ask, how much, and how slowly."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from echopix_cli.serving.chat_request import Refused

MOST_BYTES = 2**20  # of a body
SECONDS_TO_ASK = 30.0  # that a client may take to send a request: its head, and its body
SECONDS_TO_READ = 60.0  # for which a client may leave what was sent unread
_OPEN = ("/health",)  # which anybody may ask

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Door:
    """Lets requests through to an application.

    Attributes:
        app: behind it.
        host: address that is listened on.
        token: that a client must bear; None where none is needed.
        seconds: that answering one request may take altogether.
    """

    app: App
    host: str
    token: str | None
    seconds: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return
        try:
            self._check(scope)
        except Refused as refused:
            await refusal(refused)(scope, receive, send)
            return
        with suppress(TimeoutError):  # a reader that stands still is cut off
            async with asyncio.timeout(self.seconds):
                await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if is_loopback(self.host):  # a page of the web may reach it under a name of its own: DNS rebinding
            name = _host_in(headers.get(b"host", b"").decode("latin-1"))
            if name != "localhost" and not is_loopback(name):
                raise Refused(403, f"this server is not called {name!r}", "wrong_host")
        if self.token is not None and scope["path"] not in _OPEN:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.token.encode()):
                raise Refused(401, "a bearer token is needed", "invalid_api_key")


class Impatient(H11Protocol):
    """HTTP/1.1 with clients that have to send the head of a request in time, and to read what is sent."""

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # writing pauses with the first byte that the kernel does not take
        self._late = self.loop.call_later(SECONDS_TO_ASK, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Wait anew, once an answer was given and the next request begins."""
        if self._late is None and self.cycle is not None and self.cycle.response_complete:
            self._late = self.loop.call_later(SECONDS_TO_ASK, self._give_up)
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before and self._late is not None:
            self._late.cancel()
            self._late = None

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._unread = self.loop.call_later(SECONDS_TO_READ, self._cut_off)

    def resume_writing(self) -> None:
        """It has read all."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        for waiting in (self._late, self._unread):
            if waiting is not None:
                waiting.cancel()
        super().connection_lost(exc)

    def _cut_off(self) -> None:
        own = self.transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # or the kernel would go on trying
        self.transport.abort()

    def _give_up(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.abort()


async def body_of(scope: Scope, receive: Receive) -> Any:
    """The JSON of a request.

    Raises:
        Refused: it is too large, too slow or none.
    """
    headers = {name.lower(): value for name, value in scope["headers"]}
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
        raise Refused(415, "expected Content-Type: application/json")  # which no page sends unasked
    stated = headers.get(b"content-length", b"0")
    if not stated.isdigit() or int(stated) > MOST_BYTES:
        raise _too_large()
    content = bytearray()
    try:
        async with asyncio.timeout(SECONDS_TO_ASK):
            more = True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise Refused(400, "the client went away")
                content += message.get("body", b"")
                more = message.get("more_body", False)
                if len(content) > MOST_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise Refused(408, f"the body did not come within {SECONDS_TO_ASK:.0f} s", "timeout") from None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON") from None


def _too_large() -> Refused:
    return Refused(413, f"the body is larger than {MOST_BYTES} bytes", "too_large")


def error_body(refused: Refused) -> dict[str, Any]:
    """An error as clients of this interface expect it."""
    kind = "invalid_request_error" if refused.status < 500 else "server_error"
    return {"error": {"message": refused.message, "type": kind, "param": None, "code": refused.code}}


def refusal(refused: Refused) -> Response:
    """An error as a whole response, in ASCII: a message may quote half a character. Unless it only asks for patience,
    the connection is closed, whatever else would come on it."""
    headers = {"connection": "close"} if refused.status != 429 else {"retry-after": "1"}
    if refused.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = json.dumps(error_body(refused)).encode("ascii")
    return Response(body, refused.status, headers, media_type="application/json")


def is_loopback(host: str) -> bool:
    """Whether an address is one of this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host_in(header: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""
