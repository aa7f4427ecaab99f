"""The command's side of decoding elsewhere: a file that crashes or hangs its decoder takes nothing else with it."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from echopix_cli.decoding.channel import Array, Channel, mapped
from echopix_cli.decoding.nursery import bury, fork_worker
from echopix_cli.errors import EchopixError, FileLost, MediaError

if TYPE_CHECKING:
    from echopix_cli.media import Clip, DecodePlan, Limits, MediaInfo

T = TypeVar("T")
_PATIENCE = 120.0  # seconds without a packet, a frame or a byte: a decoder that hangs, or a drive that is gone
_SLICE = 1.0  # seconds of a wait: while the command is stopped, as by Ctrl-Z, no more of them pass
_UNHURRIED = ("fingerprint", "identity")  # requests that take as long as a file has bytes, and tell that they go on
_LIFETIME = 500  # files after which a worker is replaced, whatever FFmpeg may have leaked


@dataclass(frozen=True)
class Heard:
    """The whole sound of a clip that is being decoded: 16 kHz ``(n,)``."""

    waveform: Array


@dataclass(frozen=True)
class Ready:
    """So many frames of a clip, from the first one on, are final: uint8 ``(T, 3, H, W)``, always the same array."""

    frames: Array
    count: int


@dataclass(frozen=True)
class Decoded:
    """A clip, and the seconds that decoding it took in its worker.

    Where nothing was lost, its arrays are those that :class:`Heard` and :class:`Ready` held.
    """

    clip: Clip
    seconds: float


class _Killed(FileLost):
    """Somebody, or the system for want of memory, ended the process that read a file: no fault of what is in it."""


class _StoodStill(TimeoutError):
    """Nothing came of a request for too long."""


@dataclass
class _Deadline:
    """Until when a request has to be done, in seconds of the monotonic clock."""

    end: float


class Worker:
    """One process that reads files, started when it is first needed and again when it has died. For one thread a time.
    What it is at when it is killed is tried once more, but for a stream.

    Args:
        timeout: seconds that one request may take, from asking to the last byte of the reply; reading all bytes of a
            file to tell it from others may take as long as its length asks for.
        patience: seconds for which reading a file may stand still while it is waited for.
    """

    def __init__(self, timeout: float = math.inf, patience: float = _PATIENCE) -> None:
        self.timeout, self.patience = timeout, patience
        self._pid: int | None = None
        self._channel: Channel | None = None
        self._exit: int | None = None  # how the last process ended
        self._lock = threading.Lock()  # of the three above
        self._served = 0
        self._closed = False

    def fingerprint(self, path: str) -> str:
        """SHA-256 of a file.

        Raises:
            MediaError: it cannot be read, or reading it comes no further.
        """
        return str(self._ask("fingerprint", path))

    def identity(self, path: str) -> str:
        """As :func:`echopix_cli.files.identity_of`, elsewhere.

        Raises:
            MediaError: it cannot be read, or reading it comes no further.
        """
        return str(self._ask("identity", path))

    def probe(self, path: str, limits: Limits) -> MediaInfo:
        """As :func:`echopix_cli.media.probe`, elsewhere.

        Raises:
            MediaError: as there; or the decoder crashed, or took longer than the timeout.
        """
        found: MediaInfo = self._ask("probe", path, limits)
        return found

    def decode(self, path: str, plan: DecodePlan) -> Decoded:
        """As :func:`echopix_cli.media.load_clip`, elsewhere; once more where the process that does it is killed.

        Raises:
            MediaError: as there; or the decoder crashed, or took longer than the timeout.
            FileLost: it took longer, came no further, or the process was killed twice.
        """
        found = self._last(lambda: self.stream(path, plan))
        assert isinstance(found, Decoded)
        return found

    def stream(self, path: str, plan: DecodePlan) -> Generator[Heard | Ready | Decoded]:
        """As :meth:`decode`, with what is ready meanwhile. Whoever stops listening ends the process.

        Raises:
            MediaError: as :meth:`decode`; after some of it was handed out, perhaps.
        """
        arrays: dict[str, Array] = {}
        with closing(self._talk("decode", path, plan)) as messages:
            for (what, value), descriptors in messages:
                match what:
                    case "array":
                        try:
                            arrays[value[0]] = mapped(descriptors[0], *value[1:])
                        finally:
                            os.close(descriptors[0])
                    case "none":
                        arrays.pop(value, None)
                    case "heard":
                        yield Heard(arrays["waveform"])
                    case "ready":
                        yield Ready(arrays["frames"], value)
                    case _:
                        clip, seconds = value
                        whole = replace(clip, frames=arrays.get("frames"), waveform=arrays.get("waveform"))
                        yield Decoded(whole, seconds)

    def kill(self) -> None:
        """End the process at once, from any thread; a request under way fails, and so do all to come."""
        self._closed = True
        with self._lock:
            if self._pid is not None:
                _kill(self._pid)

    def close(self) -> None:
        """End the process, while no request is under way."""
        self._closed = True
        self._end()

    def _ask(self, what: str, path: str, *arguments: Any) -> Any:
        (_, value), _ = self._last(lambda: self._talk(what, path, *arguments))
        return value

    def _last(self, request: Callable[[], Iterator[T]]) -> T:
        """The last that comes of a request; where the process is killed meanwhile, of the same one once more."""
        try:
            return deque(request(), maxlen=1).pop()
        except _Killed:
            if self._closed:
                raise
        return deque(request(), maxlen=1).pop()

    def _talk(self, what: str, path: str, *arguments: Any) -> Generator[tuple[tuple[str, Any], list[int]]]:
        """A request, and the messages about it up to ``done``.

        Raises:
            MediaError: what came in place of that.
        """
        whole = False
        try:
            channel, deadline = self._begin((what, path, *arguments))
            while not whole:
                message, descriptors = self._next(channel, deadline)
                whole = message[0] in ("done", "failed")
                if message[0] == "failed":
                    raise message[1]
                yield message, descriptors
        except _StoodStill:
            raise self._stuck(path) from None
        except TimeoutError:
            raise self._overdue(path) from None
        except (EOFError, OSError):
            raise self._crashed(path) from None
        finally:
            self._served += 1
            if not whole or self._served >= _LIFETIME:
                self._end()

    def _begin(self, request: tuple[Any, ...]) -> tuple[Channel, _Deadline]:
        """A worker that has taken a request, and until when it has to be done.

        Raises:
            MediaError: its path starts where this process cannot look.
            TimeoutError, EOFError, OSError: as of :meth:`_next`.
        """
        for again in (True, False):
            channel = self._started()
            deadline = _Deadline(time.monotonic() + (math.inf if request[0] in _UNHURRIED else self.timeout))
            here = _start_of(request[1])
            try:
                channel.send(request, here)
                self._next(channel, deadline)
                return channel, deadline
            except TimeoutError:
                raise
            except (EOFError, OSError):  # it died while it had nothing to do: no fault of this file
                if not again:
                    raise
                self._end()
            finally:
                os.close(here)
        raise AssertionError("one of the two has returned or raised")

    def _next(self, channel: Channel, deadline: _Deadline) -> tuple[Any, list[int]]:
        """The next message, but for those that only tell that reading goes on.

        Raises:
            TimeoutError: it was not there by the deadline.
            _StoodStill: nothing came for as long as this worker has patience.
            EOFError, OSError: the process is gone.
        """
        while True:
            waited = 0.0
            while True:
                begun = time.monotonic()
                step = min(_SLICE, deadline.end - begun, self.patience - waited)
                if channel.arrives(step):
                    break
                waited += step
                deadline.end += max(0.0, time.monotonic() - begun - step - _SLICE)  # this process was stopped meanwhile
                if time.monotonic() >= deadline.end:
                    raise TimeoutError
                if waited >= self.patience:
                    raise _StoodStill
            try:
                message, descriptors = channel.receive(min(deadline.end, time.monotonic() + self.patience))
            except TimeoutError:
                raise TimeoutError if time.monotonic() >= deadline.end else _StoodStill from None
            if message[0] != "alive":
                return message, descriptors

    def _started(self) -> Channel:
        with self._lock:
            if self._closed:
                raise EchopixError("decoding was ended")
            if self._channel is None:
                ours, theirs = Channel.pair()
                try:
                    self._pid = fork_worker(theirs.fileno())
                except BaseException:
                    ours.close()
                    raise
                finally:
                    theirs.close()
                self._channel, self._exit, self._served = ours, None, 0
            return self._channel

    def _end(self) -> int | None:
        """End the process, if there is one; the next request starts another. How it ended, where that is known."""
        with self._lock:
            pid, channel = self._pid, self._channel
            if pid is not None and channel is not None:
                self._pid = self._channel = self._exit = None
                _kill(pid)
                channel.close()
                self._exit = bury(pid)
            return self._exit

    def _overdue(self, path: str) -> FileLost:
        from echopix_cli.media.source import shown

        return FileLost(
            f"{shown(path)}: reading it took longer than {self.timeout:g} s",
            "give it more with --timeout, or less to do with --start and --end",
        )

    def _stuck(self, path: str) -> FileLost:
        from echopix_cli.media.source import shown

        return FileLost(
            f"{shown(path)}: reading it has come no further for {self.patience:g} s",
            "copy or download it again, and see whether the drive that it is on answers",
        )

    def _crashed(self, path: str) -> MediaError:
        from echopix_cli.media.source import shown

        code = self._end()
        if code == -signal.SIGKILL:
            return _Killed(
                f"{shown(path)}: the decoder crashed (SIGKILL): something ended it, as a system without memory does",
                "run again, beside less that takes memory",
            )
        cause = f" ({signal.Signals(-code).name})" if code is not None and code < 0 else ""
        return MediaError(f"{shown(path)}: the decoder crashed{cause}", "copy or download it again")


def _start_of(path: str) -> int:
    """A descriptor of the folder that a path starts from: relative ones from where this process is now, not from where
    a worker was forked; and wherever that is, the others from the root.

    Raises:
        MediaError: there is none to be had.
    """
    from echopix_cli.media.source import shown

    try:
        return os.open("/" if os.path.isabs(path) else ".", getattr(os, "O_PATH", os.O_RDONLY))
    except OSError as error:
        raise MediaError(
            f"{shown(path)}: the folder that it starts from cannot be entered: {error.strerror or error}",
            "give a whole path, or go to another folder",
        ) from None


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # gone, and buried by init, where the process it came from has ended too
        os.kill(pid, signal.SIGKILL)


# --- workers that whoever reads a file in between may take

_idle: list[Worker] = []


@contextmanager
def borrowed() -> Iterator[Worker]:
    """A worker for one thread at a time, which gives a file as long as it takes, while reading it goes on.

    It waits for the next file afterwards.
    """
    try:
        worker = _idle.pop()
    except IndexError:
        worker = Worker()
    try:
        yield worker
    finally:
        _idle.append(worker)


def identity(path: str) -> str:
    """As :func:`echopix_cli.files.identity_of`, elsewhere: where a drive does not answer, that can be given up.

    Raises:
        MediaError: it cannot be read, or reading it came no further.
    """
    with borrowed() as worker:
        return worker.identity(path)


def probe(path: str, limits: Limits) -> MediaInfo:
    """As :func:`echopix_cli.media.probe`, elsewhere.

    Raises:
        MediaError: as there; or the decoder crashed, or came no further.
    """
    with borrowed() as worker:
        return worker.probe(path, limits)


def decode(path: str, plan: DecodePlan) -> Clip:
    """As :func:`echopix_cli.media.load_clip`, elsewhere.

    Raises:
        MediaError: as there; or the decoder crashed, or came no further.
    """
    with borrowed() as worker:
        return worker.decode(path, plan).clip


def _forget() -> None:
    """In a process that was forked from this one: workers are the other one's."""
    _idle.clear()


os.register_at_fork(after_in_child=_forget)
