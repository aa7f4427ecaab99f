"""What is said of a film's windows: what became of the sound, and each notice once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.reading import TOO_SHORT
from echopix_cli.errors import MediaError, Nothing
from echopix_cli.media.source import shown
from echopix_cli.results import AudioStatus
from echopix_cli.times import clock

_MOST_SAID = 3  # notices of one kind about a film
_TIMES = re.compile(r"\d+(?::\d\d)+(?:\.\d\d)?")  # as they stand in notices
_NUMBERS = re.compile(r"\d[\d:.]*")


def told(
    path: str,
    spans: Sequence[tuple[float, float]],
    windows: Mapping[int, Encoded],
    unread: Mapping[int, MediaError],
    unlooked: Mapping[int, MediaError],
) -> tuple[AudioStatus, tuple[str, ...]]:
    """What became of the sound of all windows, and what is to be said.

    Args:
        path: of the film.
        spans: of all windows, in seconds.
        windows: those that were read.
        unread: those that could not be, and why.
        unlooked: those of which only a glance could be read, and why. They are heard whole in a glance.
    """
    seen = [windows[number] for number in sorted(windows)]
    found = {one.audio_status for one in seen if TOO_SHORT not in one.notices}
    if AudioStatus.USED not in found:
        found = {one.audio_status for one in seen}
    else:  # sound may end a moment after a window's border
        seen = [replace(one, notices=tuple(n for n in one.notices if n != TOO_SHORT)) for one in seen]
    said = merged(
        [(number, notice) for number, one in zip(sorted(windows), seen, strict=True) for notice in one.notices]
    )
    for span, error, words in _runs(path, spans, unread):
        fault = f"{span} could not be read: {words}"
        said.append(f"nothing is shown or played, {span}" if isinstance(error, Nothing) else fault)
    said += [
        f"{span} could not be read again at the full rate: {words}" for span, _, words in _runs(path, spans, unlooked)
    ]
    notices = tuple(shortened(said))
    partly = {AudioStatus.UNDECODABLE, AudioStatus.TRUNCATED} & found or unreadable(unread)
    if AudioStatus.USED in found:
        return AudioStatus.TRUNCATED if partly else AudioStatus.USED, notices
    ranked = (AudioStatus.TRUNCATED, AudioStatus.UNDECODABLE, AudioStatus.DISABLED, AudioStatus.ABSENT)
    return next(status for status in ranked if status in found), notices


def unreadable(unread: Mapping[int, MediaError]) -> int:
    """How many windows hold something, as far as one can know, and could not be read."""
    return sum(not isinstance(error, Nothing) for error in unread.values())


def _runs(
    path: str, spans: Sequence[tuple[float, float]], errors: Mapping[int, MediaError]
) -> list[tuple[str, MediaError, str]]:
    """Windows in a row with one fault: from when to when they last, the first one's error, and all of it in words."""
    runs: list[tuple[int, int, MediaError, MediaError]] = []  # first, last, theirs
    for number, error in sorted(errors.items()):
        kind = _TIMES.sub("", error.message)
        if runs and runs[-1][1] == number - 1 and _TIMES.sub("", runs[-1][3].message) == kind:
            runs[-1] = (runs[-1][0], number, runs[-1][2], error)
        else:
            runs.append((number, number, error, error))
    return [
        (
            f"{clock(spans[begin][0])} to {clock(spans[last][1])}",
            error,
            _from_to(error.message, final.message).removeprefix(f"{shown(path)}: "),
        )
        for begin, last, error, final in runs
    ]


def merged(said: Sequence[tuple[int, str]]) -> list[str]:
    """What is said of windows, each thing once; what is said of neighbours, but for its times, as one thing.

    Args:
        said: window and notice, in order of windows.
    """
    runs: dict[str, list[tuple[int, str, str]]] = {}  # by kind: last window, first notice, last notice
    for window, notice in said:
        kind = notice if notice[:1].isdigit() else _TIMES.sub("", notice)  # how many were lost is of one window
        own = runs.setdefault(kind, [])
        if own and (own[-1][0] >= window - 1 or own[-1][2] == notice):
            own[-1] = (window, own[-1][1], notice)
        else:
            own.append((window, notice, notice))
    return [_from_to(first, last) for own in runs.values() for _, first, last in own]


def _from_to(first: str, last: str) -> str:
    """Of two notices that name times, one from the first one's first to the last one's last."""
    times, later = _TIMES.findall(first), _TIMES.findall(last)
    if len(times) < 2:
        return first
    head, _, tail = first.rpartition(times[-1])
    return f"{head}{later[-1]}{tail}"


def shortened(said: Sequence[str]) -> list[str]:
    """At most so many notices of a kind, which is what they are but for their numbers."""
    kinds: dict[str, list[str]] = {}
    for notice in said:
        kinds.setdefault(_NUMBERS.sub("", notice), []).append(notice)
    short = []
    for own in kinds.values():
        more = len(own) - _MOST_SAID
        short += own if more <= 1 else [*own[:_MOST_SAID], f"and {more} more of this kind"]
    return short
