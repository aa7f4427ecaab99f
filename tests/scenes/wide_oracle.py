"""Answer a question about a wide scene by watching the picture that its camera makes, every 10 ms.

It shares no code with ``echopix_cli.scenes``' askers, nor with its geometry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scene_oracle import (
    STEP,
    Timeline,
    bursts,
    heard,
    heard_yes,
    instrument,
    only,
    screen,
    seen_yes,
    when,
)

from echopix_cli.scenes import INSTRUMENTS, Script
from echopix_cli.scenes.script import COUNTED
from echopix_cli.scenes.wordings import WIDE


@dataclass
class Watched(Timeline):
    """A timeline whose places are those in the picture, nan where a picture is not shown."""

    times: np.ndarray
    onsets: dict[str, list[float]]
    moved: dict[str, np.ndarray]  # picture -> bool (T,): away from its place in the scene


def camera(script: Script, time: float) -> tuple[float, float, float, float]:
    """Where the scene's frame lies in the picture."""
    filming = script.filming
    assert filming is not None
    shot, end = filming.shots[0], script.duration
    for number, other in enumerate(filming.shots):
        if other.start <= time:
            shot = other
            end = filming.shots[number + 1].start if number + 1 < len(filming.shots) else script.duration
    share = (time - shot.start) / (end - shot.start)
    left, top, right, bottom = (a + (b - a) * share for a, b in zip(shot.begin, shot.finish, strict=True))
    x, y = filming.viewport[:2]
    width, height = filming.viewport[2] - x, filming.viewport[3] - y
    return x + left * width, y + top * height, x + right * width, y + bottom * height


@lru_cache(maxsize=1)  # many questions about one scene
def watch(script: Script) -> Watched:
    times = np.arange(0, script.duration, STEP)
    sounds = {name: np.zeros(len(times), dtype=bool) for name in INSTRUMENTS}
    onsets: dict[str, list[float]] = {}
    for note in script.notes:
        sounds[note.instrument] |= (note.start <= times) & (times < note.end)
        onsets.setdefault(note.instrument, []).append(note.start)
    boxes = np.array([camera(script, time) for time in times])
    shows: dict[str, np.ndarray] = {}
    places: dict[str, np.ndarray] = {}
    moved: dict[str, np.ndarray] = {}
    for sprite in script.sprites:
        begin, end = sprite.show
        shown = (begin <= times) & (times < end)
        share = np.clip((times - begin) / (end - begin), 0, 1)
        away = np.zeros(len(times), dtype=bool)
        for a, b in sprite.hops:
            away |= (times >= a) & (times < b)
        x = sprite.path[0] + share * (sprite.path[2] - sprite.path[0]) + away * sprite.hop[0]
        y = sprite.path[1] + share * (sprite.path[3] - sprite.path[1]) + away * sprite.hop[1]
        place = boxes[:, :2] + np.stack([x, y], axis=1) * (boxes[:, 2:] - boxes[:, :2])
        place[~shown] = np.nan
        if sprite.name in shows:
            assert not (shows[sprite.name] & shown).any(), "two of a kind at once"
            place = np.where(np.isnan(place), places[sprite.name], place)
            shown |= shows[sprite.name]
        shows[sprite.name], places[sprite.name], moved[sprite.name] = shown, place, away
    sounding = {name: row for name, row in sounds.items() if row.any()}
    return Watched(sounding, shows, places, times, onsets, moved)


def answer(script: Script, question: str) -> str:
    """The one true answer; AssertionError when the scene leaves it open."""
    seen = watch(script)
    for pattern, rule in RULES:
        if match := re.fullmatch(pattern, question):
            return rule(script, seen, *match.groups())
    raise AssertionError(f"no rule for {question!r}")


def _side(script: Script, seen: Watched, side: str) -> str:
    if not seen.shows:
        return "nothing"
    axis, sign = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}[side.split()[-1]]
    depth = {name: ((0.5 - place[:, axis]) * sign)[seen.shows[name]] for name, place in seen.places.items()}
    name = only([name for name, own in depth.items() if own.max() > 0.05])
    assert depth[name].min() > 0.09, "wanders off its side"
    return name


def _notes(script: Script, seen: Watched) -> str:
    return COUNTED[bursts(list(seen.sounds.values())) - 1]


def _times(script: Script, seen: Watched, name: str) -> str:
    return COUNTED[bursts([seen.sounds[name]]) - 1]


def _things(script: Script, seen: Watched) -> str:
    assert all(row.all() for row in seen.shows.values())
    return COUNTED[len(seen.shows) - 1]


def _sync(script: Script, seen: Watched, name: str | None = None) -> str:
    if not seen.sounds or not seen.shows:
        return "nothing"
    onsets = np.array(sorted(at for of, own in seen.onsets.items() if name in (None, of) for at in own))
    movers = []
    for thing, away in seen.moved.items():
        starts = seen.times[np.nonzero(np.diff(away.astype(int), prepend=0) > 0)[0]]
        if not len(starts):
            continue
        gaps = np.abs(np.subtract.outer(starts, onsets))
        if gaps.min(axis=0).max() < 0.08 and gaps.min(axis=1).max() < 0.08:
            movers.append(thing)
        else:
            assert gaps.min() > 0.1, "another one moves at the same time"
    return only(movers)


def _first(script: Script, seen: Watched, last: bool = False) -> str:
    if not seen.sounds:
        return "nothing"
    assert len(seen.sounds) > 1
    rows = {name: row[::-1] if last else row for name, row in seen.sounds.items()}
    begins = {name: int(np.argmax(row)) for name, row in rows.items()}
    first = min(begins, key=lambda name: begins[name])
    ends = len(rows[first]) - int(np.argmax(rows[first][::-1]))
    assert all(ends <= begin for name, begin in begins.items() if name != first)
    return first


def _last(script: Script, seen: Watched) -> str:
    return _first(script, seen, last=True)


def _in_order(rows: dict[str, np.ndarray]) -> str:
    spans = sorted((int(np.argmax(row)), len(row) - int(np.argmax(row[::-1])), name) for name, row in rows.items())
    assert 2 <= len(spans) <= 5
    assert all(a[1] <= b[0] for a, b in pairwise(spans)), "one begins before another ends"
    return ", ".join(name for _, _, name in spans)


def _list_heard(script: Script, seen: Watched) -> str:
    return _in_order(seen.sounds)


def _list_seen(script: Script, seen: Watched) -> str:
    return _in_order(seen.shows)


def _corner_of(place: np.ndarray) -> str:
    inside = place[~np.isnan(place[:, 0])]
    words = []
    for axis, (low, high) in ((1, ("top", "bottom")), (0, ("left", "right"))):
        along = inside[:, axis]
        assert along.max() < 0.42 or along.min() > 0.58, "not in a corner"
        words.append(low if along.max() < 0.42 else high)
    return " ".join(words)


def _corner_where(script: Script, seen: Watched, name: str) -> str:
    return _corner_of(seen.places[name])


def _corner_what(script: Script, seen: Watched, corner: str) -> str:
    inside = []
    for name, place in seen.places.items():
        side = {"left": place[:, 0] < 0.5, "right": place[:, 0] > 0.5}[corner.split()[1]]
        inside += [name] * bool(
            (side & {"top": place[:, 1] < 0.5, "bottom": place[:, 1] > 0.5}[corner.split()[0]]).any()
        )
    name = only(inside)
    assert _corner_of(seen.places[name]) == corner
    return name


def _corner_when(script: Script, seen: Watched, name: str) -> str:
    begin = float(seen.times[int(np.argmax(seen.shows[name]))])
    assert abs(begin - round(begin)) < 0.25
    return COUNTED[round(begin) - 1]


def _each_seen(script: Script, seen: Watched, name: str) -> str:
    row = seen.sounds[name]
    edges = np.nonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))[0]
    spans = list(zip(edges[::2], edges[1::2], strict=True))
    assert len(spans) >= 2 or len(seen.onsets[name]) >= 2
    every = [t for t, shown in seen.shows.items() if all(shown[a:b].all() for a, b in spans)]
    there = [t for t, shown in seen.shows.items() if all(shown[a:b].any() for a, b in spans)]
    assert every == there
    return only(every)


def _each_heard(script: Script, seen: Watched, name: str) -> str:
    shows = [sprite.show for sprite in script.sprites if sprite.name == name]
    assert len(shows) >= 2
    inside = [(begin <= seen.times) & (seen.times < end) for begin, end in shows]
    return only([player for player, row in seen.sounds.items() if all((row & own).any() for own in inside)])


_KINDS = {
    "instrument": instrument, "object-side": _side, "object-only": screen, "count-notes": _notes,
    "count-times": _times, "count-things": _things, "sync": _sync, "sync-name": _sync, "order-first": _first,
    "order-last": _last, "when": when, "heard": heard, "exists-seen": seen_yes, "exists-object": seen_yes,
    "exists-heard": heard_yes, "list-heard": _list_heard, "list-seen": _list_seen, "corner-what": _corner_what,
    "corner-where": _corner_where, "corner-when": _corner_when, "each-seen": _each_seen, "each-heard": _each_heard,
}  # fmt: skip
_SLOTS = {
    r"\{name\}": r"(\w+)",
    r"\{a\}": "an?",
    r"\{side\}": r"((?:on|at) the (?:left|right|top|bottom))",
    r"\{corner\}": r"(\w+ \w+)",
}


def _pattern(wording: str) -> str:
    pattern = re.escape(wording)
    for slot, stands_for in _SLOTS.items():
        pattern = pattern.replace(slot, stands_for)
    return pattern


RULES = [(_pattern(text), _KINDS[kind]) for words in WIDE.values() for kind, texts in words.items() for text in texts]
