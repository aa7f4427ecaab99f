"""Draws that composers share: names, lanes, phrases of notes, distractors and how a scene is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np

from echopix_cli.scenes.audio import EQ_HZ, ROOMS, SILENCE_DB
from echopix_cli.scenes.layout import PlannedNote, favour_instruments, place_in_lanes, spread
from echopix_cli.scenes.script import DURATION, INSTRUMENT_PICTURES, INSTRUMENTS, OBJECTS, Sound, Span, Sprite

EDGE = 0.2  # seconds kept free of notes at both ends
_CODECS: tuple[Literal["none", "mulaw", "bits"], ...] = ("none", "none", "none", "mulaw", "bits")

Rng = np.random.Generator
T = TypeVar("T")


def pick(rng: Rng, options: Sequence[T]) -> T:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def shuffled(rng: Rng, items: Sequence[T]) -> list[T]:
    """The items in random order."""
    return [items[i] for i in rng.permutation(len(items))]


def pick_several(rng: Rng, options: tuple[str, ...], n: int) -> list[str]:
    """Distinct ones of the options, in random order."""
    return shuffled(rng, options)[:n]


def once_or_twice(rng: Rng, names: list[str]) -> list[str]:
    """Every name, once or twice in a row."""
    return [name for name in names for _ in range(int(rng.integers(1, 3)))]


def pictures(rng: Rng, n: int) -> list[str]:
    """Distinct pictures, each with a chance of a quarter that of an instrument, which need not sound."""
    objects, players = pick_several(rng, OBJECTS, n), pick_several(rng, INSTRUMENT_PICTURES, n)
    return [a if rng.random() < 0.75 else b for a, b in zip(objects, players, strict=True)]


def lanes(n: int) -> list[Span]:
    """As many equal parts of the frame side by side."""
    return [(i / n, (i + 1) / n) for i in range(n)]


def phrase(rng: Rng, instruments: list[str], seconds: Span, gap: float) -> list[PlannedNote]:
    """Notes one after another somewhere in the clip."""
    spans = spread(rng, [float(rng.uniform(*seconds)) for _ in instruments], (EDGE, DURATION - EDGE), gap)
    return [PlannedNote(name, *span) for name, span in zip(instruments, spans, strict=True)]


def distractor_notes(rng: Rng, at_least: int = 0) -> list[PlannedNote]:
    """Notes as distractors for questions about the picture: of one or two instruments, up to four."""
    players = pick_several(rng, INSTRUMENTS, int(rng.integers(1, 3)))
    return phrase(rng, [pick(rng, players) for _ in range(int(rng.integers(at_least, 5)))], (0.4, 1.4), 0.1)


def distractor_sprites(rng: Rng, testing: bool) -> list[Sprite]:
    """Up to three pictures as distractors for questions about the sound."""
    n = int(rng.integers(0, 4))
    names = favour_instruments(rng, pictures(rng, n))
    sprites = place_in_lanes(rng, names, lanes(n), rng.random() < 0.6, testing)
    return [come_and_go(rng, s) for s in sprites]


def one_sprite(rng: Rng, testing: bool) -> list[Sprite]:
    return [alone(rng, name, testing) for name in pictures(rng, 1)]


def alone(rng: Rng, name: str, testing: bool) -> Sprite:
    """A picture that has the whole frame to itself."""
    (sprite,) = place_in_lanes(rng, [name], lanes(1), rng.random() < 0.5, testing)
    return sprite


def come_and_go(rng: Rng, sprite: Sprite) -> Sprite:
    if rng.random() < 0.6:
        return sprite
    length = rng.uniform(3.0, 6.5)
    start = float(rng.uniform(0, DURATION - length))
    return replace(sprite, show=(start, float(start + length)))


def tilted_spectrum(sound: Sound, key: tuple[int, int], testing: bool) -> Sound:
    """The sound with its spectrum tilted by up to 2 dB a band either way, for training only.

    The slope has a random generator of its own, so that it changes no other draw of the scene.
    """
    if testing:
        return sound
    slope = float(np.random.default_rng((*key, 2)).uniform(-2, 2))  # decibels a band, and 0.6 octaves a band
    middle = (len(sound.eq_db) - 1) / 2
    return replace(sound, eq_db=tuple(gain + slope * (band - middle) for band, gain in enumerate(sound.eq_db)))


def draw_sound(rng: Rng, notes: bool) -> Sound:
    kind = rng.random()  # of silence: no track, a track of zeros, or faint noise
    faint = float(rng.uniform(-75, -50)) if kind > 0.5 else SILENCE_DB
    reverberant, band, hum, clip = rng.random(4)
    return Sound(
        track=notes or kind > 0.25,
        level_db=float(rng.uniform(-25, -0.5)),
        eq_db=tuple(float(g) for g in np.clip(rng.normal(0, 5, len(EQ_HZ)), -12, 12)),
        lowpass_hz=float(np.exp(rng.uniform(np.log(3000), np.log(7900)))) if band < 0.5 else 8000.0,
        room=int(rng.integers(ROOMS)),
        room_mix=float(rng.uniform(0.1, 0.9)) if reverberant < 0.7 else 0.0,
        noise_db=float(rng.uniform(-45, -10)) if notes else faint,
        noise_tilt=float(rng.integers(-8, 1)) / 10,
        hum_hz=float(50 + 10 * rng.integers(2)) if notes and hum < 0.2 else 0.0,
        hum_db=float(rng.uniform(-35, -12)),
        drive=float(rng.uniform(1, 4)) if clip < 0.25 else 1.0,
        codec=pick(rng, _CODECS),
    )
