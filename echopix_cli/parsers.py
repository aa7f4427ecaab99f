"""Text to values: what flags, variables and files may say. Each raises ValueError with what was expected."""

from __future__ import annotations

import os
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from echopix_cli.times import TIME_HELP, parse_time

POSITIVE = "expected a whole number of at least 1"
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


def is_whole(text: str) -> bool:
    """Whether every character is one. A lone surrogate is none: half of a character, or a byte that is not UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def parse_text(text: str) -> str:
    """Any text of whole characters."""
    if not is_whole(text):
        raise ValueError("expected valid UTF-8")
    return text


def parse_switch(text: str) -> bool:
    """``true``, ``yes``, ``on`` and ``1``, or their opposites."""
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError("expected true or false")


def bounded(kind: Callable[[str], Any], low: float, what: str, high: float | None = None) -> Callable[[str], Any]:
    """A parser of finite numbers from ``low`` to ``high``, both allowed; ``what`` is the error for all else."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(what) from None
        if not low <= value < float("inf") or (high is not None and value > high):
            raise ValueError(what)
        return value

    return parse


EVERY_WINDOW = 2**31 - 1  # of a film


def parse_look(text: str) -> int:
    """A number of windows from 0, or ``all``."""
    return EVERY_WINDOW if text == "all" else int(bounded(int, 0, "expected a number from 0, or all")(text))


def write_look(count: int) -> int | str:
    """What :func:`parse_look` reads as this number."""
    return "all" if count == EVERY_WINDOW else count


def one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    """A parser of a closed list; the error for any other word names the nearest."""

    def parse(text: str) -> str:
        if text not in words:
            near = get_close_matches(text, words, 1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"expected one of {', '.join(words)}{meant}")
        return text

    return parse


def parse_budget(text: str) -> float:
    """A fraction in (0, 1], or a percentage such as ``10%``."""
    stripped = text.strip()
    try:
        value = float(stripped.removesuffix("%")) / (100 if stripped.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise ValueError(f"not a budget: {text!r} (a fraction of tokens kept: 0.1 or 10%, above 0 and at most 1)")
    return value


def parse_duration(text: str) -> float:
    """Seconds above 0, as a number or a time."""
    seconds = parse_time(text)
    if seconds <= 0:
        raise ValueError(f"expected a time above 0: {TIME_HELP}")
    return seconds


def parse_folder(text: str) -> str:
    """An absolute path; ``~`` is the home folder."""
    if not text:
        raise ValueError("expected a folder")
    return os.path.abspath(os.path.expanduser(text))


def parse_device(text: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    if text in ("auto", "cpu", "cuda") or (text.startswith("cuda:") and text[5:].isascii() and text[5:].isdecimal()):
        return text
    raise ValueError("expected auto, cpu, cuda or cuda:N")
