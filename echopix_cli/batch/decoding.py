"""Decoding in processes of their own: a file that crashes or hangs its decoder takes nothing else with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from queue import SimpleQueue
from typing import Any, TypeVar

from echopix_cli.errors import EchopixError, MediaError, described
from echopix_cli.files import identity_of, sha256_of
from echopix_cli.media import Clip, DecodePlan, load_clip
from echopix_cli.media.source import open_regular, shown

T = TypeVar("T")
_LIFETIME = 500  # files after which a worker is replaced, whatever FFmpeg may have leaked
_PATIENCE = 300.0  # seconds for a worker to start, which is not the file's time
_STARTING = threading.Lock()  # multiprocessing reaps all of a process's children whenever one is started


@dataclass(frozen=True)
class Decoded:
    """A clip, and the seconds that decoding it took in its worker."""

    clip: Clip
    seconds: float


class Worker:
    """One process that reads files, started when it is first needed and again when it has died.

    Args:
        timeout: seconds that one request may take, from asking to the last byte of the reply.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = min(timeout, threading.TIMEOUT_MAX)
        self._process: ForkServerProcess | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._lock = threading.Lock()  # of the two above
        self._served = 0
        self._closed = False

    def fingerprint(self, path: str) -> str:
        """SHA-256 of a file.

        Raises:
            MediaError: it cannot be read, or not in time.
        """
        return str(self._ask("fingerprint", path))

    def identity(self, path: str) -> str:
        """As :func:`echopix_cli.files.identity_of`, elsewhere.

        Raises:
            MediaError: it cannot be read, or not in time.
        """
        return str(self._ask("identity", path))

    def decode(self, path: str, plan: DecodePlan) -> Decoded:
        """As :func:`echopix_cli.media.load_clip`, elsewhere.

        Raises:
            MediaError: as there; or the decoder crashed, or took longer than the timeout.
        """
        found = self._ask("decode", path, plan)
        assert isinstance(found, Decoded)
        return found

    def close(self) -> None:
        """End the process at once; a request under way in another thread fails."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                _end(self._process)

    def _ask(self, what: str, path: str, *arguments: Any) -> Any:
        for _ in range(2):
            process, pipe = self._started()
            taken, reply, late = self._exchange(process, pipe, (what, path, *arguments))
            if taken or late:
                break
            self._discard()  # it died while it had nothing to do: no fault of this file
        self._served += 1
        if reply is None or late or self._served >= _LIFETIME:
            self._discard()
        if reply is None:
            raise self._overdue(path) if late else self._crashed(path, process)
        good, value = reply
        if good:
            return value
        raise value

    def _exchange(
        self, process: ForkServerProcess, pipe: Connection[Any, Any], request: tuple[Any, ...]
    ) -> tuple[bool, tuple[bool, Any] | None, bool]:
        """A request and its reply: whether the worker took it, what it replied if it did, and whether it was late."""
        late = threading.Event()

        def expire() -> None:
            late.set()
            process.kill()  # which ends the wait for its reply

        timer = threading.Timer(self.timeout, expire)
        timer.start()
        taken, reply = False, None
        with suppress(EOFError, OSError):  # the process is gone
            pipe.send(request)
            taken = bool(pipe.recv())
            reply = pipe.recv()
        timer.cancel()
        timer.join()
        return taken, reply, late.is_set()

    def _overdue(self, path: str) -> MediaError:
        return MediaError(
            f"{shown(path)}: reading it took longer than {self.timeout:g} s",
            "give it more with --timeout, or less to do with --start and --end",
        )

    def _crashed(self, path: str, process: ForkServerProcess) -> MediaError:
        code = process.exitcode
        cause = f" ({signal.Signals(-code).name})" if code is not None and code < 0 else ""
        return MediaError(f"{shown(path)}: the decoder crashed{cause}", "copy or download it again")

    def _started(self) -> tuple[ForkServerProcess, Connection[Any, Any]]:
        with self._lock:
            if self._process is not None and self._pipe is not None and self._process.is_alive():
                return self._process, self._pipe
        self._discard()
        try:
            with self._lock:
                if self._closed:
                    raise EOFError
                self._process, self._pipe = _start()
                process, pipe = self._process, self._pipe
            if not pipe.poll(_PATIENCE):
                raise EOFError
            pipe.recv()  # it is ready
        except (EOFError, OSError):
            self._discard()
            raise EchopixError(
                "the process that decodes files does not start", "free some memory, and run again"
            ) from None
        self._served = 0
        return process, pipe

    def _discard(self) -> None:
        """End the process, if there is one; the next request starts another."""
        with self._lock:
            if self._process is not None:
                _end(self._process)
            if self._pipe is not None:
                self._pipe.close()
            self._process = self._pipe = None


def warm_up() -> None:
    """Begin to make ready for workers; returns at once.

    They are forked from a small process that has imported what decoding needs. That takes it a second or two, in
    which a model can be loaded; the workers, and those that take the place of crashed ones, then cost next to nothing.
    """
    with _STARTING:
        multiprocessing.set_forkserver_preload(["echopix_cli.media.load", "torch", __name__])
        # Ctrl-C reaches all processes of a terminal, and is the batch's to handle: they start with it blocked.
        resource_tracker.ensure_running()  # here, because it unblocks it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start() -> tuple[ForkServerProcess, Connection[Any, Any]]:
    """A new worker and our end of its pipe."""
    warm_up()
    context = multiprocessing.get_context("forkserver")
    with _STARTING:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        return process, ours


def _end(process: ForkServerProcess) -> None:
    process.kill()
    with _STARTING:
        process.join(5.0)  # not for ever: a dead network drive holds on to whoever reads it


class Workers:
    """Some workers, and what waits for them.

    Args:
        count: of processes.
        timeout: seconds that one request may take.
    """

    def __init__(self, count: int, timeout: float) -> None:
        self._workers = [Worker(timeout) for _ in range(count)]
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decoder")

    def submit(self, job: Callable[[Worker], T]) -> Future[T]:
        """Run a job with a worker as soon as one is free, in order of submission."""

        def run() -> T:
            worker = self._idle.get()
            try:
                return job(worker)
            finally:
                self._idle.put(worker)

        return self._threads.submit(run)

    def close(self) -> None:
        """End all processes at once and drop what waits."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(wait=True)


def _serve(pipe: Connection[Any, Any]) -> None:
    """The worker process: answer requests until the other side closes, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the batch's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_follow, daemon=True).start()
    pipe.send("ready")
    while True:
        try:
            what, path, *arguments = pipe.recv()
            pipe.send("taken")
        except (EOFError, OSError):
            return
        try:
            reply: tuple[bool, Any] = (True, _SERVED[what](path, *arguments))
        except EchopixError as error:
            reply = (False, error)
        except MemoryError:
            reply = (False, MediaError(f"{shown(path)}: decoding it ran out of memory", "ask about a part of it"))
        except Exception as error:
            what = described(error)
            reply = (False, MediaError(f"{shown(path)} cannot be decoded: {what}", "please report this"))
        try:
            pipe.send(reply)
        except (BrokenPipeError, ConnectionError):
            return
        del reply  # a clip is large, and the next request may be long in coming


def _follow() -> None:
    """Die with the batch, even where it was killed and this process is stuck inside a decoder."""
    batch = multiprocessing.parent_process()
    assert batch is not None
    batch.join()
    os._exit(1)


def _fingerprint(path: str, take: Callable[[str], str] = sha256_of) -> str:
    open_regular(path).close()  # a pipe would never end
    try:
        return take(path)
    except OSError as error:
        raise MediaError(f"{shown(path)} cannot be read: {error.strerror or error}", "check the path") from None


def _decode(path: str, plan: DecodePlan) -> Decoded:
    began = time.perf_counter()
    clip = load_clip(path, plan)
    return Decoded(clip, time.perf_counter() - began)


_SERVED: dict[str, Callable[..., Any]] = {
    "fingerprint": _fingerprint,
    "identity": partial(_fingerprint, take=identity_of),
    "decode": _decode,
}
