"""Movies: scenes one after another, with questions that hang on what only one of the scenes holds.

Of every movie a few names are reserved. The haystack, drawn from the split's scenes, neither shows nor sounds them;
a needle is a scene that holds one of them, once, and takes a place in the haystack.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from echopix_cli.errors import UsageError
from echopix_cli.scenes.compose import make_script
from echopix_cli.scenes.movie_questions import MOVIE_FAMILIES, Modality, Needle, Reserved, ask_movie
from echopix_cli.scenes.script import DURATION, INSTRUMENT_PICTURES, INSTRUMENTS, OBJECTS, Item, Script, Span

LONGEST_MOVIE = 4 * 3600  # seconds
_RESERVED = 3  # instruments, and as many pictures
# Seeds of a movie's scenes lie beyond those that anybody types.
_SEEDS = (2**31, 2**48)
_HAYSTACK, _NEEDLES = 1, 2  # so that the two are drawn apart

Rng = np.random.Generator


@dataclass(frozen=True)
class Movie:
    """Scenes of eight seconds one after another; a pure function of (split, seed, duration, family, take).

    Attributes:
        split, seed: of the haystack.
        duration: whole seconds; the last scene may be cut short.
        family: what the first question is about; None where needles of every kind were put in.
        take: which needles were put into the haystack.
        haystack: one scene a window, the same for every family and take; needles take the place of some.
        reserved: names that the haystack neither shows nor sounds.
        needles: in order of time; two are in one window where a movie has no more.
        items: questions with evidence in seconds of the movie; the first is of the family.
    """

    split: str
    seed: int
    duration: float
    family: str | None
    take: int
    haystack: tuple[Script, ...]
    reserved: Reserved
    needles: tuple[Needle, ...]
    items: tuple[Item, ...]

    @property
    def windows(self) -> int:
        """How many scenes there are."""
        return len(self.haystack)

    @property
    def name(self) -> str:
        """Of the haystack: all takes of it share the name."""
        return f"movie:{self.split}:{self.seed}:{self.duration:g}s"

    def script(self, window: int) -> Script:
        """The scene of a window, counted from 0: a needle's, or the haystack's."""
        return next((needle.script for needle in self.needles if needle.window == window), self.haystack[window])

    def span(self, window: int) -> Span:
        """Seconds of the movie in which a window begins and ends."""
        return window * DURATION, min((window + 1) * DURATION, self.duration)


def make_movie(split: str, seed: int, duration: float, family: str | None = None, take: int = 0) -> Movie:
    """Write the scripts of a movie.

    Args:
        split: of the scenes, one of SPLITS.
        seed: any number from 0; the same arguments always give the same movie.
        duration: seconds, whole, from 8 to 14,400.
        family: one of MOVIE_FAMILIES, or None for needles and questions of every kind that there is room for.
        take: other needles in the same haystack, from 0.

    Raises:
        UsageError: an unknown split or family, a negative number, or a length that no movie has.
        EchopixError: the split plays the unseen font, and its note bank has not been built.
    """
    if family is not None and family not in MOVIE_FAMILIES:
        raise UsageError(f"movies have no question family {family!r}", f"choose one of: {', '.join(MOVIE_FAMILIES)}")
    if seed < 0 or take < 0:
        raise UsageError(f"seed {min(seed, take)} is negative", "use 0 or more")
    if not DURATION <= duration <= LONGEST_MOVIE or duration != int(duration):
        message = f"a movie of {duration:g} s is not possible"
        raise UsageError(message, "whole seconds, from 8 s to 4:00:00, such as 10:00")
    duration = float(duration)
    reserved, windows = _reserve(seed), int(duration // DURATION)  # whole ones: no other is sure to hold a needle
    rng = np.random.default_rng((seed, _NEEDLES, take, 0 if family is None else 1 + MOVIE_FAMILIES.index(family)))
    wanted = _wanted(rng, family, windows, duration)
    needles = _plant(rng, split, wanted, windows, duration if family == "when" else None, reserved)
    items = ask_movie(rng, split, needles, reserved, duration)
    if family is not None:
        items = tuple(sorted(items, key=lambda item: item.family != family))
    haystack = _haystack(split, seed, -int(-duration // DURATION))
    return Movie(split, seed, duration, family, take, haystack, reserved, needles, items)


def _reserve(seed: int) -> Reserved:
    rng = np.random.default_rng((seed, _HAYSTACK))
    heard = _drawn(rng, INSTRUMENTS)
    players = tuple(name for name in INSTRUMENT_PICTURES if name not in heard)
    both = zip(_drawn(rng, OBJECTS), _drawn(rng, players), strict=True)
    return Reserved(heard, tuple(a if rng.random() < 0.75 else b for a, b in both))  # as often as scenes show them


def _drawn(rng: Rng, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(names[i] for i in rng.permutation(len(names))[:_RESERVED])


@lru_cache(maxsize=2)
def _haystack(split: str, seed: int, windows: int) -> tuple[Script, ...]:
    """Scenes without a reserved name. A longer haystack begins as a shorter one does."""
    reserved = _reserve(seed).names
    scripts = []
    for window in range(windows):
        rng = np.random.default_rng((seed, _HAYSTACK, window))
        script = _scene(rng, split)
        while not all(map(reserved.isdisjoint, present(script).values())):
            script = _scene(rng, split)
        scripts.append(script)
    return tuple(scripts)


def _scene(rng: Rng, split: str, family: str | None = None) -> Script:
    return make_script(split, int(rng.integers(*_SEEDS)), family)


def present(script: Script) -> dict[Modality, set[str]]:
    """Names that sound in a scene, and names that are shown."""
    return {
        "audio": {note.instrument for note in script.notes},
        "video": {sprite.name for sprite in script.sprites},
    }


def _wanted(rng: Rng, family: str | None, windows: int, duration: float) -> list[Modality]:
    """Modalities of the needles that a family's questions need."""
    either: Modality = "audio" if rng.random() < 0.5 else "video"
    if family is None:
        everything: list[Modality] = ["audio", "video", "audio", "video"]
        return everything[:windows]
    if family == "order":
        return [either, either]
    if family == "when":  # pictures stay too long for a part of a short movie
        return [either if duration >= 10 * DURATION else "audio"]
    if family in ("heard", "exists") and rng.random() < 0.5:
        return []  # the answer is no
    return ["audio" if family in ("object", "heard") else "video"]


def _plant(
    rng: Rng, split: str, wanted: list[Modality], windows: int, in_one_part: float | None, reserved: Reserved
) -> tuple[Needle, ...]:
    """Needles in windows of their own, in order of time; in one scene where there are fewer windows than needles.

    ``in_one_part`` is the movie's length where a needle has to lie in one part of it.
    """
    if len(wanted) > windows:
        return _needles(rng, split, 0, wanted[0], len(wanted), set(reserved.of(wanted[0])), reserved.names)
    free, found = list(rng.permutation(windows)[: len(wanted)]), list[Needle]()
    while len(found) < len(wanted):
        modality = wanted[len(found)]
        names = set(reserved.of(modality)) - {needle.name for needle in found}
        (needle,) = _needles(rng, split, int(free[len(found)]), modality, 1, names, reserved.names)
        if in_one_part is None or needle.part(in_one_part) is not None:
            found.append(needle)
        else:
            free[len(found)] = rng.integers(windows)  # the window itself may lie in two parts
    return tuple(sorted(found, key=lambda needle: needle.window))


def _needles(
    rng: Rng, split: str, window: int, modality: Modality, count: int, names: set[str], reserved: frozenset[str]
) -> tuple[Needle, ...]:
    """A scene with so many of the names, in the modality, and no other reserved name at all."""
    while True:
        script = _scene(rng, split, "when" if modality == "audio" else "heard")
        held = present(script)
        found = reserved & held.pop(modality)
        if len(found) == count and found <= names and all(map(reserved.isdisjoint, held.values())):
            needles = [Needle(window, name, modality, script) for name in found]
            if all(needle.within is not None for needle in needles):
                return tuple(sorted(needles, key=lambda needle: needle.evidence[0].start))
