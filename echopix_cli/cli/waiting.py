"""What a person waited for, by the clock on the wall, from the start of the process on."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

_BEGAN = time.monotonic()  # where the machine does not say when the process began
_START_TIME = 19  # place of the start, in clock ticks since boot, behind the process's name in /proc/self/stat


@dataclass(frozen=True)
class Waited:
    """Seconds from the start of the process to the answer.

    Args:
        start_up: until the model could be loaded: the interpreter, libraries, looking at the file; the first time also
            a download or the making of a quantized copy.
        load: reading the model.
        read: decoding the file and encoding it, or finding its features.
        answer: from the sieve to the last token of the last question.
    """

    start_up: float
    load: float
    read: float
    answer: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.start_up + self.load + self.read + self.answer


def since_start() -> float:
    """Seconds since this process began."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[_START_TIME])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _BEGAN
