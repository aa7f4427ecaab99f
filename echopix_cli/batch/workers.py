"""Some decoding processes at once, and what waits for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from echopix_cli.decoding.worker import Worker

T = TypeVar("T")


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
            worker.kill()
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.close()
