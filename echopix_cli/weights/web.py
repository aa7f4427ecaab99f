"""Requests to a hub: no reply is longer than was stated, and none takes for ever.

huggingface_hub's client carries them, so that proxies, certificates and the token are what its users have set.
Its own functions take any number of bytes, unpack any compressed reply and wait as long as a server says; here all
that is bounded. On a redirect to another host the client leaves the token out.
"""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, urlsplit

from echopix_cli.documents import parse_object
from echopix_cli.errors import EchopixError, ModelError
from echopix_cli.weights.environment import hub_constants, require_connection

METADATA = 8 * 2**20  # bytes of a reply about a repository, unpacked; one with a hundred files has 30 kB
LONGEST_PAUSE = 10.0  # seconds that a server may make this program wait between two tries
_REDIRECTS = 5
_WINDOW = 3.0  # of the library's timeouts: in each such stretch of time
_LEAST = 32 * 2**10  # so many bytes have to come, or the rest
_BLOCK = 2**20  # bytes unpacked at a time


class Lost(ModelError):
    """A connection that failed, or a server that is busy: another try may help.

    Args:
        message: what happened.
        hint: what to type.
        pause: seconds to wait before it, as the server said; 0 when it did not.
    """

    def __init__(self, message: str, hint: str, pause: float = 0.0) -> None:
        super().__init__(message, hint)
        self.pause = pause


class NoRevision(ModelError):
    """A repository that does not have a revision."""


class TooLong(ModelError):
    """A reply of more bytes than were stated."""


class Reply:
    """A body on its way.

    Args:
        response: the client's.
        watch: is told of the bytes that came.
        where: the server, for messages.
    """

    def __init__(self, response: Any, watch: _Watch, where: str) -> None:
        self._response, self._watch, self._where = response, watch, where
        stated = str(response.headers.get("Content-Range", "")).partition("/")[0].removeprefix("bytes ")
        first = stated.partition("-")[0]
        # Where in the file the body begins.
        self.begin = int(first) if response.status_code == 206 and first.isdecimal() else 0
        self.is_page = str(response.headers.get("Content-Type", "")).strip().lower().startswith("text/html")
        length, packed = response.headers.get("Content-Length"), response.headers.get("Content-Encoding")
        # How many bytes it has, where that is stated.
        self.length = int(length) if not packed and length and length.isdecimal() and len(length) < 20 else None

    def pieces(self, most: int) -> Iterator[bytes]:
        """The body, unpacked.

        Args:
            most: bytes that were stated.

        Raises:
            TooLong: more came.
            ModelError: it is packed in a way that is not read, or damaged.
        """
        total = 0
        for piece in self._unpacked():
            total += len(piece)
            if total > most:
                raise TooLong(f"{self._where} sends more than the {most} bytes that were to come")
            yield piece

    def _unpacked(self) -> Iterator[bytes]:
        packed = str(self._response.headers.get("Content-Encoding", "")).strip().lower()
        if packed not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise ModelError(f"{self._where} packs its reply as {packed[:40]!r}, which was not asked for")
        unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # finds out which of the two it is
        for raw in self._response.iter_raw():
            self._watch.count += len(raw)
            if packed in ("", "identity"):
                yield raw
                continue
            try:
                while raw and not unpack.eof:
                    yield unpack.decompress(raw, _BLOCK)
                    raw = unpack.unconsumed_tail
            except zlib.error:
                raise ModelError(f"{self._where} sends a packed reply that is damaged") from None


class Web:
    """One repository of a hub.

    Args:
        name: what the user calls the model, for hints.
        repository: ``OWNER/NAME``.
        revision: as the user gave it.

    Raises:
        UsageError: the environment says something impossible about the hub.
    """

    def __init__(self, name: str, repository: str, revision: str | None) -> None:
        constants = hub_constants()
        self.name, self.repository, self.revision = name, repository, revision
        self._address: str = constants.ENDPOINT
        self.endpoint = _without_user(self._address)  # for messages
        self._patience = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
        self._again = f"type it again, what is there is kept: echopix models pull {name}"

    def metadata(self) -> dict[str, Any]:
        """What the hub says about the revision: its commit, its card, its files with sizes and checksums.

        Raises:
            ModelError: it cannot be reached, refuses, or answers something else.
        """
        revision = "" if self.revision is None else f"/revision/{quote(self.revision, safe='')}"
        with self._ask(f"{self._address}/api/models/{self.repository}{revision}?blobs=true", {}) as reply:
            try:
                body = b"".join(reply.pieces(METADATA))
            except TooLong:
                raise ModelError(
                    f"{self.endpoint} says more than {METADATA / 1e6:.0f} MB about {self.repository}: no model hub does"
                ) from None
        try:
            return parse_object(body, f"the answer of {self.endpoint}")
        except ModelError as error:
            raise ModelError(
                f"{error.message}: that is no model hub",
                "check HF_ENDPOINT; or the network wants a login first: open a page in a browser",
            ) from None

    @contextmanager
    def body(self, path: str, commit: str, begin: int) -> Iterator[Reply]:
        """A file's bytes from ``begin`` on; from 0 where the server takes no notice of that.

        Raises:
            Lost: the connection failed, or the server is busy.
            ModelError: the server refuses.
        """
        from huggingface_hub.file_download import hf_hub_url

        url = hf_hub_url(self.repository, path, revision=commit, endpoint=self._address)
        with self._ask(url, {"Range": f"bytes={begin}-"} if begin else {}) as reply:
            yield reply

    @contextmanager
    def _ask(self, url: str, headers: dict[str, str]) -> Iterator[Reply]:
        from huggingface_hub.utils import build_hf_headers, get_session

        require_connection()
        client = get_session()
        watch = _Watch(self._patience * _WINDOW)
        # A packed answer could not be resumed. A connection of its own, because that is what the watch can cut.
        headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Connection": "close", **headers}
        response = None
        try:
            with watch:
                request = client.build_request(
                    "GET", url, headers=headers, timeout=self._patience, extensions={"trace": watch.trace}
                )
                for _ in range(_REDIRECTS + 1):
                    response = client.send(request, stream=True, follow_redirects=False)
                    if response.next_request is None:
                        break
                    response.close()  # unread, whatever is in it
                    request = response.next_request
                else:
                    raise ModelError(f"{self.endpoint} sends from one address to the next without end")
                if response.status_code not in (200, 206):
                    raise self._refusal(response)
                yield Reply(response, watch, self.endpoint)
        except Exception as error:
            if (said := self._explain(error, watch)) is None:
                raise
            raise said from error
        finally:
            if response is not None:
                with suppress(Exception):  # it may be broken already
                    response.close()

    def _explain(self, error: Exception, watch: _Watch) -> ModelError | None:
        from huggingface_hub.errors import OfflineModeIsEnabled

        if isinstance(error, OfflineModeIsEnabled):  # an OSError
            return not_here(self.name)
        if isinstance(error, (EchopixError, OSError)):  # of our own, or of the disk
            return None
        if watch.cut:
            return Lost(f"{self.endpoint} sends next to nothing", self._again)
        if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "h11"):
            what = " ".join(str(error).split())[:200] or type(error).__name__
            return Lost(f"the connection to {self.endpoint} failed: {what}", self._again)
        if isinstance(error, ValueError):  # an address that is none
            return ModelError(f"{self.endpoint} sends to an address that is none: {str(error)[:200]}")
        return None

    def _refusal(self, response: Any) -> ModelError:
        """What a status other than success means."""
        status, code = response.status_code, response.headers.get("X-Error-Code")
        if response.url.host != urlsplit(self._address).hostname and status in (401, 403, 404):
            # Where files lie is told anew with each try, and holds for a while.
            said = f"{response.url.host}, to which {self.endpoint} sends, answers with error {status}"
            return Lost(said, self._again)
        where = f"{self.repository} at {self.endpoint}"
        if code == "GatedRepo":
            return ModelError(
                f"{where} is gated: its owner has to let you in",
                f"accept its terms at {self.endpoint}/{self.repository}, then set HF_TOKEN, or: hf auth login",
            )
        if "Invalid credentials" in response.headers.get("X-Error-Message", ""):
            return ModelError(f"{self.endpoint} refuses your token", "renew or unset HF_TOKEN, or: hf auth login")
        if code == "RevisionNotFound":
            return NoRevision(f"{where} has no revision {self.revision!r}", "give a branch, tag or commit it has")
        if code == "EntryNotFound":
            return ModelError(f"{where} no longer holds a file that it lists", self._again)
        # The hub answers 401 about a repository that is not there, to whoever gave no token.
        if code == "RepoNotFound" or status == 404 or (status == 401 and self.endpoint.startswith("https:")):
            return ModelError(
                f"there is no {where}, or it is private", "check the name; for a private one set HF_TOKEN"
            )
        if status in (401, 403):
            return ModelError(f"{where} refuses access ({status})", "set HF_TOKEN to a token that may read it")
        if status == 429:
            pause = _seconds(response.headers.get("Retry-After"))
            later = "wait some minutes" if pause <= LONGEST_PAUSE else f"wait {min(pause, 86_400):.0f} s"
            said = f"{self.endpoint} asks to slow down (429)"
            if pause > LONGEST_PAUSE:
                return ModelError(said, f"{later}, then {self._again}")
            return Lost(said, f"{later}, then {self._again}", pause)
        said = f"{self.endpoint} answers with error {status}"
        return Lost(said, self._again) if status in (408, 416) or status >= 500 else ModelError(said, self._again)


class _Watch:
    """Cuts connections that bring next to nothing: a timeout of each read would let one byte at a time pass.

    Args:
        window: seconds in which some bytes have to come.

    Attributes:
        count: bytes that came, set by whoever reads.
        cut: whether that happened.
    """

    def __init__(self, window: float) -> None:
        self.count, self.cut = 0, False
        self._window, self._over = window, threading.Event()
        self._connections: list[Any] = []

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """The client's report of what it does; new connections are kept in mind."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._connections.append(info["return_value"])

    def __enter__(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self) -> None:
        before = 0
        while not self._over.wait(self._window):
            if self.count - before < _LEAST:
                self.cut = True
                for connection in self._connections:
                    with suppress(OSError):
                        connection.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
                return
            before = self.count


def not_here(name: str) -> ModelError:
    """What there is to say offline, when something is missing."""
    return ModelError(
        f"{name} is not on this machine, and HF_HUB_OFFLINE forbids fetching it",
        f"HF_HUB_OFFLINE=0 echopix models pull {name}",
    )


def _without_user(address: str) -> str:
    """An address without the name and password that may stand in it."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _seconds(stated: str | None) -> float:
    """Of a Retry-After; 0 where it states a date, or nothing."""
    return float(stated) if stated and stated.strip().isdecimal() and len(stated) < 20 else 0.0
