"""A worker that has read many files holds no more than one that has read few."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from echopix_cli.decoding.worker import Worker
from echopix_cli.errors import MediaError
from echopix_cli.media import DecodePlan, Limits

FILES = int(os.environ.get("ECHOPIX_SOAK", "24"))
PLAN = DecodePlan(max_frames=4)


def held(pid: int) -> tuple[int, int, int]:
    """Threads, descriptors and resident kB of a process that has tidied up."""
    time.sleep(0.2)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["Threads"]), len(os.listdir(f"/proc/{pid}/fd")), int(status["VmRSS"].split()[0])


def test_threads_descriptors_and_memory_stay_as_they_are(clips: dict[str, Path], tmp_path: Path) -> None:
    """Also over files that are refused in the middle; and here, where the clips come in."""
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(clips["both"].read_bytes()[:-2000])
    worker, here = Worker(), list[int]()
    seen = list[tuple[int, int, int]]()
    try:
        for turn in range(FILES):
            worker.decode(str(clips[("both", "silent", "dark")[turn % 3]]), PLAN)
            worker.probe(str(clips["both"]), Limits())
            with pytest.raises(MediaError):
                worker.decode(str(damaged), PLAN)
            if turn in (5, FILES - 1):
                assert worker._pid is not None
                seen.append(held(worker._pid))
                here.append(len(os.listdir("/proc/self/fd")))
        (threads, descriptors, memory), last = seen
        assert last[:2] == (threads, descriptors)
        assert last[2] < 1.1 * memory
        assert here[0] == here[1]
    finally:
        worker.close()
