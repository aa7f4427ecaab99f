"""What a person waited for, by the clock on the wall, from the start of the interpreter on."""

from __future__ import annotations

import time
from dataclasses import dataclass

import echopix_cli


@dataclass(frozen=True)
class Waited:
    """Seconds from the start of the interpreter, or in a conversation from the question, to the answer.

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
    """Seconds since the interpreter began."""
    return time.monotonic() - echopix_cli._BEGAN
