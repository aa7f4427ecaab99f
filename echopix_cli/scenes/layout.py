"""Put notes into time and sprites into space so that nothing becomes ambiguous."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from echopix_cli.scenes.notes import FONTS, UNSEEN_FONT, find, is_held_out, sources
from echopix_cli.scenes.script import DURATION, INSTRUMENT_PICTURES, PlayedNote, Span, Sprite

Rng = np.random.Generator

# Sizes in hundredths of the frame. The held-out ones keep their distance from the trained ones even after
# rounding to pixels of a 112-pixel frame.
SIZES = tuple(range(22, 46))
HELD_OUT_SIZES: tuple[int, ...] = (24, 25, 30, 31, 38, 39)
TRAINED_SIZES: tuple[int, ...] = tuple(s for s in SIZES if s not in HELD_OUT_SIZES)
SUSTAINED = ("organ", "violin", "trumpet", "flute")
_SHIFTS = tuple(range(-4, 5))
_TILTS = (-16, -8, 0, 0, 8, 16)


@dataclass(frozen=True)
class PlannedNote:
    """A note that is wanted; the recording may die away before ``end``."""

    instrument: str
    start: float
    end: float


def spread(rng: Rng, durations: list[float], room: Span, gap: float) -> list[Span]:
    """Lay spans of the given durations one after another into ``room``, at least ``gap`` apart.

    The spare time is divided at random. Durations shrink together when they do not fit.
    """
    if not durations:
        return []
    time = room[1] - room[0] - gap * (len(durations) - 1)
    shrink = min(1.0, 0.98 * time / sum(durations))
    durations = [d * shrink for d in durations]
    shares = rng.dirichlet(np.ones(len(durations) + 1)) * (time - sum(durations))
    spans, at = [], room[0]
    for i, length in enumerate(durations):
        at += float(shares[i]) + (gap if i else 0)
        spans.append((at, at + length))
        at += length
    return spans


def play(rng: Rng, plans: list[PlannedNote], split: str) -> tuple[PlayedNote, ...]:
    """Choose a recording for every planned note.

    The training splits never sound a held-out pitch, the test splits sound nothing else. Every split draws
    the same amount of randomness, so that "unseen-font" repeats "test" note by note.
    """
    testing = split in ("test", "unseen-font")
    drawn_fonts = {plan.instrument: FONTS[int(rng.integers(len(FONTS)))] for plan in plans}
    notes = []
    for plan in plans:
        font = UNSEEN_FONT if split == "unseen-font" else drawn_fonts[plan.instrument]
        usable = _usable(font, plan.instrument, testing)
        source, velocity = usable[int(rng.integers(len(usable)))]
        shift = _SHIFTS[int(rng.integers(len(_SHIFTS)))]
        cents = float(rng.uniform(-25, 25))
        if testing or plan.instrument == "drum" or is_held_out(plan.instrument, source + shift):
            shift = 0  # a drum key is a kind of drum, not a pitch
        if plan.instrument == "drum" and not testing:
            cents *= 8
        skip = float(rng.uniform(0, 0.15)) if plan.instrument in SUSTAINED and rng.random() < 0.5 else 0.0
        swell = int(rng.integers(-6, 9)) if rng.random() < 0.7 else 0
        if testing:
            skip, swell = 0.0, 0
        gain = float(rng.uniform(0.4, 1.0))
        made = (font, source, velocity, source + shift, cents, gain, skip, swell)
        notes.append(within_recording(PlayedNote(plan.instrument, plan.start, plan.end, *made)))
    return tuple(sorted(notes, key=lambda note: note.start))


def within_recording(note: PlayedNote) -> PlayedNote:
    """A note that ends no later than its recording can be heard."""
    recording = find(note.font, note.instrument, note.source, note.velocity)
    # A hundredth less than the recording, so that the resampled note never runs out early.
    lasts = (recording.audible - note.skip) / 2 ** ((note.pitch - note.source + note.cents / 100) / 12) - 0.01
    return replace(note, end=min(note.end, note.start + lasts))


@cache
def _usable(font: str, instrument: str, testing: bool) -> tuple[tuple[int, int], ...]:
    return tuple(s for s in sources(font, instrument) if is_held_out(instrument, s[0]) == testing)


def place_in_lanes(
    rng: Rng,
    names: list[str],
    lanes: list[Span],
    horizontal: bool,
    testing: bool,
    still: bool = False,
    hop: tuple[float, float] = (0.0, 0.0),
) -> list[Sprite]:
    """Give every sprite a lane of its own, in which it stays or along which it glides.

    Args:
        rng: source of all choices.
        names: the pictures.
        lanes: as many spans across the frame.
        horizontal: lanes are side by side (gliding is up and down) rather than on top of each other.
        testing: use the held-out sizes.
        still: no gliding.
        hop: room kept free for this displacement.
    """
    across, along = (0, 1) if horizontal else (1, 0)
    sprites = []
    for name, lane in zip(names, lanes, strict=True):
        size = _draw_size(rng, lane[1] - lane[0] - abs(hop[across]), testing)
        side = _draw_place(rng, lane, size, hop[across])
        begin = _draw_place(rng, (0.0, 1.0), size, hop[along])
        finish = _draw_place(rng, (0.0, 1.0), size, hop[along])
        if still or rng.random() < 0.4:
            finish = begin
        path = (side, begin, side, finish) if horizontal else (begin, side, finish, side)
        sprites.append(_sprite(rng, name, size, path, hop))
    return sprites


def place_in_cells(rng: Rng, names: list[str], columns: int, rows: int, testing: bool = False) -> list[Sprite]:
    """Sprites that stay, each in its own cell of a grid; as many as it has cells at most."""
    sprites = []
    for name, cell in zip(names, rng.permutation(columns * rows), strict=False):
        column, row = int(cell) % columns, int(cell) // columns
        size = _draw_size(rng, 1 / max(columns, rows), testing)
        x = _draw_place(rng, (column / columns, (column + 1) / columns), size, 0.0)
        y = _draw_place(rng, (row / rows, (row + 1) / rows), size, 0.0)
        sprites.append(_sprite(rng, name, size, (x, y, x, y), (0.0, 0.0)))
    return sprites


def favour_instruments(rng: Rng, names: list[str]) -> list[str]:
    """Put a picture of an instrument among the distractors in half of the cases that have none.

    It tempts a model to answer by what is seen where the question is about what is heard.
    """
    if not names or any(n in INSTRUMENT_PICTURES for n in names) or rng.random() < 0.5:
        return names
    return [INSTRUMENT_PICTURES[int(rng.integers(len(INSTRUMENT_PICTURES)))], *names[1:]]


def _draw_size(rng: Rng, room: float, testing: bool) -> float:
    sizes = HELD_OUT_SIZES if testing else TRAINED_SIZES
    fitting = [s for s in sizes if s / 100 <= room - 0.01]
    return fitting[int(rng.integers(len(fitting)))] / 100


def _draw_place(rng: Rng, lane: Span, size: float, hop: float) -> float:
    low, high = lane[0] + size / 2 - min(hop, 0.0), lane[1] - size / 2 - max(hop, 0.0)
    return float(rng.uniform(low, max(low, high)))


def _sprite(
    rng: Rng, name: str, size: float, path: tuple[float, float, float, float], hop: tuple[float, float]
) -> Sprite:
    return Sprite(
        name=name,
        size=size,
        show=(0.0, DURATION),
        path=path,
        hop=hop,
        angle=_TILTS[int(rng.integers(len(_TILTS)))],
        flip=bool(rng.random() < 0.5),
        tint=(float(rng.uniform(0.85, 1.1)), float(rng.uniform(0.85, 1.1)), float(rng.uniform(0.85, 1.1))),
    )
