"""Honest clocks and memory peaks: the device is synchronised around every reading."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from echopix_cli.files import stated_bytes
from echopix_cli.results import PeakMemory

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Clock:
    """Seconds by stage on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        """Time in seconds after all work queued on the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to ``name``, also where that ends by an exception."""
        began = self.now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - began

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """As :meth:`stage`, but what the device still has to do is not waited for: for what waits by itself."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def reset_peaks(device: torch.device) -> None:
    """Start new peaks, so that one run does not inherit another's.

    Linux lets a process reset its own resident peak; elsewhere the host figure is that of the whole process. What the
    allocator keeps for coming work stays with it and counts as reserved: giving it back would make each question pay
    for asking the driver again.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def read_peaks(device: torch.device) -> PeakMemory:
    """Peaks in bytes since :func:`reset_peaks`."""
    allocated = reserved = None
    if device.type == "cuda":
        allocated = torch.cuda.max_memory_allocated(device)
        reserved = torch.cuda.max_memory_reserved(device)
    return PeakMemory(allocated, reserved, _host_peak())


def _host_peak() -> int | None:
    stated = stated_bytes(_STATUS, "VmHWM")
    if stated is not None:
        return stated
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def larger(first: PeakMemory, second: PeakMemory) -> PeakMemory:
    """Peaks of two parts of one run taken together."""

    def most(a: int | None, b: int | None) -> int | None:
        return max((value for value in (a, b) if value is not None), default=None)

    return PeakMemory(
        most(first.device_allocated, second.device_allocated),
        most(first.device_reserved, second.device_reserved),
        most(first.host_resident, second.host_resident),
    )
