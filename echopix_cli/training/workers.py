"""The processes that prepare batches."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

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
    """
    loader = DataLoader(
        data,
        batch_size=None,
        sampler=order,
        num_workers=min(workers, max(1, len(order))),
        prefetch_factor=4,
        pin_memory=pinned,
        worker_init_fn=_heed_parent,
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heed_parent(number: int) -> None:
    """In a worker: end at once where the command itself sends the signal, as to one that is long at an item."""
    parent = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo(_ENDING).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
