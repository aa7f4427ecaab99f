"""The processes that prepare batches, and signals that are meant for the command."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from echopix_cli.decoding import worker
from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.media import DecodePlan
from echopix_cli.training.workers import prepared

ENDING = (signal.SIGINT, signal.SIGTERM)


class Pids(Dataset[tuple[int, int]]):
    """Who prepares an item, and who has decoded a file for it."""

    def __init__(self, clip: Path) -> None:
        self.clip = clip

    def __getitem__(self, index: int) -> tuple[int, int]:
        worker.decode(str(self.clip), DecodePlan(max_frames=2))
        decoder = worker._idle[0]._pid
        assert decoder is not None
        return os.getpid(), decoder


class Long(Dataset[int]):
    """Items of which the second one takes a minute."""

    def __getitem__(self, index: int) -> int:
        time.sleep(60 * index)
        return os.getpid()


def test_signals_to_all_processes_reach_neither_workers_nor_their_decoders(clips: dict[str, Path]) -> None:
    items = prepared(Pids(clips["both"]), range(12), 1, pinned=False)
    first = next(items)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(ENDING) == set()  # here they are taken again
    for number in ENDING:  # sent by another process: a worker heeds this one
        subprocess.run(["kill", f"-{number.name[3:]}", *map(str, first)], check=True)
    assert [decoder for _, decoder in items] == [first[1]] * 11


class Failing(Dataset[int]):
    """Items of which the second one cannot be, and the third one ends its process."""

    def __getitem__(self, index: int) -> int:
        if index == 1:
            raise UsageError("there is no such soundfont", "install it")
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_what_fails_in_a_worker_is_said_as_it_would_be_here() -> None:
    items = prepared(Failing(), range(2), 1, pinned=False)
    assert next(items) == 0
    with pytest.raises(UsageError) as failed:
        next(items)
    assert (str(failed.value), failed.value.hint) == ("there is no such soundfont", "install it")


def test_a_worker_that_is_killed_is_one_clear_line() -> None:
    with pytest.raises(EchopixError, match="ended from outside") as failed:
        next(prepared(Failing(), range(2, 3), 1, pinned=False))
    assert "run again to go on" in failed.value.hint


def test_a_worker_that_is_long_at_an_item_ends_with_the_run() -> None:
    items = prepared(Long(), range(2), 1, pinned=False)
    pid = next(items)
    began = time.monotonic()
    del items
    assert time.monotonic() - began < 20  # torch waits for 5 seconds before it ends it
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
