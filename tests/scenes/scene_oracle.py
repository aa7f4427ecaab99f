"""Answer a question by watching and listening to a finely sampled timeline, not by reading the script's plan.

It shares no code with ``echopix_cli.scenes.questions``: where is everything, every 10 ms?
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from echopix_cli.scenes import INSTRUMENTS, Script
from echopix_cli.scenes.script import NUMBERS

STEP = 0.01


@dataclass
class Timeline:
    sounds: dict[str, np.ndarray]  # instrument -> bool (T,)
    shows: dict[str, np.ndarray]  # picture -> bool (T,)
    places: dict[str, np.ndarray]  # picture -> float (T, 2)


def watch(script: Script) -> Timeline:
    times = np.arange(0, script.duration, STEP)
    sounds = {}
    for name in INSTRUMENTS:
        row = np.zeros(len(times), dtype=bool)
        for note in script.notes:
            if note.instrument == name:
                row |= (note.start <= times) & (times < note.end)
        if row.any():
            sounds[name] = row
    shows, places = {}, {}
    for sprite in script.sprites:
        assert sprite.name not in shows, "a picture is shown twice"
        begin, end = sprite.show
        shows[sprite.name] = (begin <= times) & (times < end)
        share = np.clip((times - begin) / (end - begin), 0, 1)
        moved = np.zeros(len(times))
        for a, b in sprite.hops:
            moved[(times > a + 0.1) & (times < b - 0.1)] = 1
        x = sprite.path[0] + share * (sprite.path[2] - sprite.path[0]) + moved * sprite.hop[0]
        y = sprite.path[1] + share * (sprite.path[3] - sprite.path[1]) + moved * sprite.hop[1]
        places[sprite.name] = np.stack([x, y], axis=1)
    return Timeline(sounds, shows, places)


def answer(script: Script, question: str) -> str:
    """The one true answer; AssertionError when the scene leaves it open."""
    seen = watch(script)
    for pattern, rule in RULES:
        if match := re.fullmatch(pattern, question):
            return rule(script, seen, *match.groups())
    raise AssertionError(f"no rule for {question!r}")


def only(options: list[str] | set[str]) -> str:
    options = list(options)
    assert len(options) == 1, f"ambiguous: {options}"
    return options[0]


def instrument(script: Script, seen: Timeline) -> str:
    return only(list(seen.sounds)) if seen.sounds else "nothing"


def _side(script: Script, seen: Timeline, side: str) -> str:
    if not seen.shows:
        return "nothing"
    axis, sign = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}[side.split()[-1]]
    depth = {n: (0.5 - p[:, axis][seen.shows[n]]) * sign for n, p in seen.places.items()}
    on = [n for n, d in depth.items() if d.max() > 0.07]
    name = only(on)
    assert depth[name].min() > 0.07, "wanders off its side"
    assert seen.shows[name].sum() * STEP >= 2
    return name


def screen(script: Script, seen: Timeline) -> str:
    return only(list(seen.shows)) if seen.shows else "nothing"


def bursts(rows: list[np.ndarray]) -> int:
    """Sounds that are a fifth of a second or more apart."""
    row = np.any(rows, axis=0)
    edges = np.nonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))[0]
    starts, ends = edges[::2], edges[1::2]
    assert all((starts[1:] - ends[:-1]) * STEP >= 0.2), "two notes run together"
    return len(starts)


def _notes(script: Script, seen: Timeline) -> str:
    return NUMBERS[bursts(list(seen.sounds.values())) - 1]


def _times(script: Script, seen: Timeline, name: str) -> str:
    return NUMBERS[bursts([seen.sounds[name]]) - 1]


def _things(script: Script, seen: Timeline) -> str:
    assert all(row.all() for row in seen.shows.values())
    return NUMBERS[len(seen.shows) - 1]


def _sync(script: Script, seen: Timeline) -> str:
    if not seen.sounds or not seen.shows:
        return "nothing"
    sound = np.any(list(seen.sounds.values()), axis=0)
    struck = np.nonzero(np.diff(sound.astype(int), prepend=0) > 0)[0]
    for onset in struck:  # a short note still begins something that can be seen
        sound[onset : onset + round(0.45 / STEP)] = True
    shares = {}
    for name, place in seen.places.items():
        still = np.median(place, axis=0)
        moving = np.abs(place - still).sum(axis=1) > 0.05
        shares[name] = moving[sound].mean()
    ranked = sorted(shares, key=lambda n: shares[n])
    assert shares[ranked[-1]] > 0.5, "does not move with the sound"
    assert all(shares[n] == 0 for n in ranked[:-1]), "another one moves with the sound too"
    return ranked[-1]


def _first(script: Script, seen: Timeline) -> str:
    if not seen.sounds:
        return "nothing"
    begins = {n: int(np.argmax(row)) for n, row in seen.sounds.items()}
    name = min(begins, key=lambda n: begins[n])
    ends = len(seen.sounds[name]) - int(np.argmax(seen.sounds[name][::-1]))
    assert len(begins) > 1 and all(ends <= b for n, b in begins.items() if n != name)
    return name


def _last(script: Script, seen: Timeline) -> str:
    turned = Timeline({n: row[::-1] for n, row in seen.sounds.items()}, seen.shows, seen.places)
    return _first(script, turned)


def when(script: Script, seen: Timeline, name: str) -> str:
    if not seen.shows:
        return "nothing"
    sound = seen.sounds[name]
    return only([n for n, row in seen.shows.items() if (row & sound).any()])


def heard(script: Script, seen: Timeline, name: str) -> str:
    if not seen.sounds:
        return "nothing"
    return only([n for n, row in seen.sounds.items() if (row & seen.shows[name]).any()])


def seen_yes(script: Script, seen: Timeline, name: str) -> str:
    return "yes" if name in seen.shows else "no"


def heard_yes(script: Script, seen: Timeline, name: str) -> str:
    return "yes" if name in seen.sounds else "no"


RULES = [
    (r"(?:What|Which) instrument is playing\?|What instrument do you hear\?", instrument),
    (r"What do you hear\?|What is being played\?", instrument),
    (r"(?:What is|What do you see|Which thing is) ((?:on|at) the (?:left|right|top|bottom))\?", _side),
    (r"What is on the screen\?|What do you see\?|What is shown\?", screen),
    (r"How many notes (?:are played|do you hear|are there)\?", _notes),
    (r"How many (?:times|notes) does the (\w+) play\?", _times),
    (r"How many (?:things are on the screen|things do you see|pictures are there)\?", _things),
    (r"(?:Which one|What) moves with the sound\?|Which thing moves when a note plays\?", _sync),
    (r"Which instrument plays first\?|What do you hear first\?|Which instrument starts\?", _first),
    (r"Which instrument plays last\?|What do you hear last\?|Which instrument comes last\?", _last),
    (r"What (?:is on the screen when|do you see when|is shown while) the (\w+) plays\?", when),
    (r"(?:What plays|What do you hear) while the (\w+) is on the screen\?", heard),
    (r"Which instrument plays while the (\w+) is shown\?", heard),
    (r"(?:Do you see|Is there|Is) an? (\w+)(?: on the screen| shown|)\?", seen_yes),
    (r"(?:Do you hear|Does|Is) an? (\w+)(?: play| playing|)\?", heard_yes),
]
