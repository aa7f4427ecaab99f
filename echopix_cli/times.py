"""Times as people write and read them."""

from __future__ import annotations

import math
import re

_CLOCK = re.compile(r"(?:(?:(?P<hours>[0-9]+):)?(?P<minutes>[0-9]+):)?(?P<seconds>[0-9]+(?:\.[0-9]+)?(?:e-[0-9]+)?)")
_UNITS = re.compile(
    r"(?=[0-9])(?:(?P<hours>[0-9]+) ?h)? ?(?:(?P<minutes>[0-9]+) ?m(?:in)?)? ?(?:(?P<seconds>[0-9]+(?:\.[0-9]+)?) ?s)?"
)
_LONGEST = 1e9  # seconds
TIME_HELP = "80, 1:20, 1m20s or 0:01:20"


def parse_time(text: str) -> float:
    """Read ``12.5``, ``1e-05``, ``01:02``, ``1:02:03.5``, ``1m20s`` or ``1h 5min`` as seconds.

    Raises:
        ValueError: anything else, including negative times and minutes or seconds above 59
            where a larger unit stands before them.
    """
    match = _CLOCK.fullmatch(text.strip()) or _UNITS.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"not a time: {text!r} (use {TIME_HELP})")
    hours, minutes, seconds = match["hours"], match["minutes"], float(match["seconds"] or 0)
    if ((hours or minutes) is not None and seconds >= 60) or (hours is not None and int(minutes or 0) >= 60):
        raise ValueError(f"not a time: {text!r} (minutes and seconds go up to 59)")
    if (total := int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds) > _LONGEST:
        raise ValueError(f"not a time: {text!r} (longer than any file)")
    return total


def clock(seconds: float) -> str:
    """A place in a film or a length of it: ``0:05``, ``0:05.25``, ``12:05``, ``3:02:05``.

    Hundredths of a second are shown below a minute, where they are not zero.
    """
    hundredths = round(seconds * 100) if seconds < 59.995 else round(seconds) * 100
    whole, fraction = divmod(hundredths, 100)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return f"{shown}.{fraction:02d}" if fraction else shown


def stretch(start: float, end: float, length: float = 0.0) -> str:
    """From where to where in a film, as :func:`clock` writes it: ``0:03.76–0:05``, ``42:10–42:13``.

    From a minute on in whole seconds, which the stretch then lies within. Where the end, or the film's ``length``,
    reaches an hour, both are written as ``0:42:10``.
    """
    if max(end, length) < 3600:
        first = start if start < 59.995 else math.floor(start)
        last = end if end < 59.995 else math.ceil(end)
        return f"{clock(first)}–{clock(last)}"
    seconds = math.floor(start), math.ceil(end)
    return "–".join(f"{each // 3600}:{each // 60 % 60:02d}:{each % 60:02d}" for each in seconds)
