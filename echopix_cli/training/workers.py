"""The processes that prepare batches."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from echopix_cli.errors import EchopixError, bare

_ENDING = (signal.SIGINT, signal.SIGTERM)


def prepared(data: Any, order: range, workers: int, pinned: bool) -> Iterator[Any]:
    """Items of a data set in order, prepared by other processes.

    Ctrl-C and SIGTERM are the command's to handle, which ends after the step that is being taken and needs its batch
    for that. A terminal, ``timeout``, systemd and Slurm send them to all its processes: so these, and the decoders
    that they start, inherit both signals blocked.

    Args:
        data: a map-style data set.
        order: of its indices.
        workers: how many processes.
        pinned: hand out memory that a GPU reads by itself.

    Raises:
        EchopixError: while iterating: what an item raised, or a process was killed.
    """
    loader = DataLoader(
        _Guarded(data),
        batch_size=None,
        sampler=order,
        num_workers=min(workers, max(1, len(order))),
        prefetch_factor=4,
        pin_memory=pinned,
        worker_init_fn=_heed_parent,
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        return _taken(iter(loader))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Guarded(Dataset[Any]):
    """A data set whose own errors are items: across processes torch would make their tracebacks part of their words."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __getitem__(self, index: int) -> Any:
        try:
            return self._data[index]
        except EchopixError as error:
            return bare(error)


def _taken(items: Iterator[Any]) -> Iterator[Any]:
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise EchopixError(
                "a process that prepares batches was ended from outside, perhaps for its memory",
                "run again to go on from the last checkpoint, with fewer --workers",
            ) from error
        if isinstance(item, EchopixError):
            raise item
        yield item


def _heed_parent(number: int) -> None:
    """In a worker: end at once where the command itself sends the signal, as to one that is long at an item."""
    parent = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo(_ENDING).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
