"""Decoding in processes of their own: a file that crashes or hangs its decoder takes nothing else with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import SimpleQueue
from typing import Any, TypeVar

from echopix_cli.errors import EchopixError, MediaError
from echopix_cli.files import sha256_of
from echopix_cli.media import Clip, DecodePlan, load_clip
from echopix_cli.media.source import open_regular, shown

T = TypeVar("T")
_LIFETIME = 500  # files after which a worker is replaced, whatever FFmpeg may have leaked


@dataclass(frozen=True)
class Decoded:
    """A clip, and the seconds that decoding it took in its worker."""

    clip: Clip
    seconds: float


class Worker:
    """One process that reads files, started when it is first needed and again when it has died.

    Args:
        timeout: seconds that one request may take.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._served = 0
        self._closed = False

    def fingerprint(self, path: str) -> str:
        """SHA-256 of a file.

        Raises:
            MediaError: it cannot be read, or not in time.
        """
        return str(self._ask("fingerprint", path))

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
        self._closed = True
        self._kill()

    def _ask(self, what: str, path: str, *arguments: Any) -> Any:
        pipe = self._started()
        try:
            pipe.send((what, path, *arguments))
            if not pipe.poll(self.timeout):
                self._kill()
                raise MediaError(
                    f"{shown(path)}: reading it took longer than {self.timeout:g} s",
                    "give it more with --timeout, or less to do with --start and --end",
                )
            good, value = pipe.recv()
        except (EOFError, OSError):  # the process is gone
            raise MediaError(
                f"{shown(path)}: the decoder crashed{self._cause()}", "copy or download it again"
            ) from None
        self._served += 1
        if self._served >= _LIFETIME:
            self._kill()
        if good:
            return value
        raise value

    def _started(self) -> Connection[Any, Any]:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self._kill()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()
        self._served = 0
        if self._closed:
            self._kill()
        return self._pipe

    def _cause(self) -> str:
        """How the process ended, as far as the system tells."""
        if self._process is None:
            return ""
        self._process.join(5.0)
        code = self._process.exitcode
        return f" ({signal.Signals(-code).name})" if code is not None and code < 0 else ""

    def _kill(self) -> None:
        process, pipe = self._process, self._pipe
        if process is not None:
            process.kill()
            process.join()
        if pipe is not None and not self._closed:
            pipe.close()
            self._process = self._pipe = None


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


def _serve(pipe: Connection[Any, Any], parent: int) -> None:
    """The worker process: answer requests until the other side closes, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the batch's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    while True:
        try:
            what, path, *arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            reply: tuple[bool, Any] = (True, _fingerprint(path) if what == "fingerprint" else _decode(path, *arguments))
        except EchopixError as error:
            reply = (False, error)
        except MemoryError:
            reply = (False, MediaError(f"{shown(path)}: decoding it ran out of memory", "ask about a part of it"))
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            reply = (False, MediaError(f"{shown(path)} cannot be decoded: {what}", "please report this"))
        try:
            pipe.send(reply)
        except (BrokenPipeError, ConnectionError):
            return
        del reply  # a clip is large, and the next request may be long in coming


def _follow(parent: int) -> None:
    """Die with the parent, even where it was killed and this process is stuck inside a decoder."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _fingerprint(path: str) -> str:
    open_regular(path).close()  # a pipe would never end
    try:
        return sha256_of(path)
    except OSError as error:
        raise MediaError(f"{shown(path)} cannot be read: {error.strerror or error}", "check the path") from None


def _decode(path: str, plan: DecodePlan) -> Decoded:
    began = time.perf_counter()
    clip = load_clip(path, plan)
    return Decoded(clip, time.perf_counter() - began)
