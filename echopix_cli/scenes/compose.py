"""Write scripts: who plays and who is seen when, for each family of questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from echopix_cli.errors import UsageError
from echopix_cli.scenes.audio import EQ_HZ, ROOMS, SILENCE_DB
from echopix_cli.scenes.backgrounds import draw_background
from echopix_cli.scenes.layout import PlannedNote, favour_instruments, place_in_grid, place_in_lanes, play, spread
from echopix_cli.scenes.questions import ask
from echopix_cli.scenes.script import (
    DURATION,
    FAMILIES,
    INSTRUMENT_PICTURES,
    INSTRUMENTS,
    OBJECTS,
    SPLITS,
    Background,
    Script,
    Sound,
    Span,
    Sprite,
)

# unseen-font shares the number of test on purpose: it is the same scenes on another soundfont, so that the
# two accuracies differ by the font alone. Neither is ever trained on.
_SPLIT_NUMBER = {"train": 1, "val": 2, "test": 3, "unseen-font": 3}
_CODECS: tuple[Literal["none", "mulaw", "bits"], ...] = ("none", "none", "none", "mulaw", "bits")
# Small numbers also come up by the way (one bystander, say): large ones are drawn more often.
_COUNTS = (1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5)
_EDGE = 0.2  # seconds kept free of notes at both ends

Rng = np.random.Generator
T = TypeVar("T")


@dataclass(frozen=True)
class _Composition:
    """What a composer returns: plans of notes, sprites, and whether anything is to be seen or heard."""

    plans: list[PlannedNote]
    sprites: list[Sprite]
    dark: bool = False
    plain: bool = False  # no specks: things are counted or their movement is judged


def make_script(split: str, seed: int, family: str | None = None) -> Script:
    """Write the script of one scene.

    Args:
        split: one of SPLITS.
        seed: any number from 0; the same (split, seed, family) always gives the same script.
        family: one of FAMILIES, or None to draw one.

    Returns:
        A script whose first item is of the family; the other items are true of the same scene.

    Raises:
        UsageError: an unknown split or family, or a negative seed.
        EchopixError: the split is "unseen-font" and its note bank has not been built.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", f"choose one of: {', '.join(SPLITS)}")
    if family is not None and family not in FAMILIES:
        raise UsageError(f"unknown question family {family!r}", f"choose one of: {', '.join(FAMILIES)}")
    if seed < 0:
        raise UsageError(f"seed {seed} is negative", "use 0 or more")
    key = (_SPLIT_NUMBER[split], seed)
    rng = np.random.default_rng(key)
    drawn = FAMILIES[int(rng.integers(len(FAMILIES)))]
    family = family or drawn
    testing = split in ("test", "unseen-font")
    scene = _COMPOSERS[family](rng, testing)
    script = Script(
        split=split,
        seed=seed,
        family=family,
        key=key,
        duration=DURATION,
        notes=play(rng, scene.plans, split),
        sprites=tuple(scene.sprites),
        background=_draw_background(rng, testing, scene),
        sound=_tilted_spectrum(_draw_sound(rng, bool(scene.plans)), key, testing),
        items=(),
    )
    return replace(script, items=ask(script, rng))


def _compose_instrument(rng: Rng, testing: bool) -> _Composition:
    instrument = _pick(rng, INSTRUMENTS)
    plans = _phrase(rng, [instrument] * int(rng.integers(2, 6)), (0.4, 1.5), 0.1)
    if rng.random() < 0.2:  # chords
        plans = sorted([*plans, *(p for p in plans if rng.random() < 0.7)], key=lambda p: p.start)
    return _Composition(plans, _distractor_sprites(rng, testing))


def _compose_object(rng: Rng, testing: bool) -> _Composition:
    horizontal, n = rng.random() < 0.6, int(rng.integers(1, 4))
    lanes = [0, 1] if n == 1 else list(range(n))
    names = _pictures(rng, n)
    if n == 1 and rng.random() < 0.75:  # alone, but on one side
        lane = lanes[int(rng.integers(2))]
        sprites = place_in_lanes(rng, names, [(lane / 2, (lane + 1) / 2)], horizontal, testing)
    else:
        sprites = place_in_lanes(rng, names, _lanes(n), horizontal, testing)
    return _Composition(_distractor_notes(rng), [_come_and_go(rng, s) for s in sprites])


def _compose_count(rng: Rng, testing: bool) -> _Composition:
    n = _pick(rng, _COUNTS)
    if rng.random() < 0.4:
        names = _pictures(rng, n)
        if n > 3:
            sprites = place_in_grid(rng, names, testing)
        else:
            sprites = place_in_lanes(rng, names, _lanes(n), rng.random() < 0.6, testing)
        return _Composition(_distractor_notes(rng), sprites, plain=True)
    first, second = _pick_several(rng, INSTRUMENTS, 2)
    instruments = [first] * n
    if n < 4 and rng.random() < 0.3:  # another instrument, whose notes must not be counted
        instruments += [second] * int(rng.integers(1, 3))
        instruments = [instruments[i] for i in rng.permutation(len(instruments))]
    plans = _phrase(rng, instruments, (0.35, 1.0), 0.3)
    return _Composition(plans, _distractor_sprites(rng, testing), plain=True)


def _compose_sync(rng: Rng, testing: bool) -> _Composition:
    hits, misses = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    with_sound = rng.permutation([True] * hits + [False] * misses)
    spans = spread(rng, [float(rng.uniform(0.6, 0.9)) for _ in with_sound], (_EDGE, DURATION - _EDGE), 0.2)
    n = 3 if rng.random() < 0.25 else 2
    hop = _pick(rng, ((0.0, -0.16), (0.0, 0.16), (0.0, -0.2), (0.12, 0.0), (-0.12, 0.0)))
    if n == 3:
        hop = (0.0, hop[1] or 0.16)
    sprites = place_in_lanes(rng, _pictures(rng, n), _lanes(n), True, testing, still=True, hop=hop)
    mover, decoy = rng.permutation(n)[:2]
    hops = {int(mover): True, int(decoy): False}
    for i, wanted in hops.items():
        own = tuple(span for span, sounding in zip(spans, with_sound, strict=True) if sounding == wanted)
        sprites[i] = replace(sprites[i], hops=own)
    sprites = [s if s.hops else replace(s, hop=(0.0, 0.0)) for s in sprites]
    players = _pick_several(rng, INSTRUMENTS, 2 if rng.random() < 0.2 else 1)
    struck = [span for span, sounding in zip(spans, with_sound, strict=True) if sounding]
    return _Composition([PlannedNote(_pick(rng, players), *span) for span in struck], sprites, plain=True)


def _compose_order(rng: Rng, testing: bool) -> _Composition:
    instruments = _pick_several(rng, INSTRUMENTS, int(rng.integers(2, 4)))
    each = [name for name in instruments for _ in range(int(rng.integers(1, 3)))]
    return _Composition(_phrase(rng, each, (0.5, 1.2), 0.15), _distractor_sprites(rng, testing))


def _compose_segments(rng: Rng, testing: bool) -> _Composition:
    n = int(rng.integers(2, 4))
    instruments = _pick_several(rng, INSTRUMENTS, n)
    cuts = np.linspace(0, DURATION, n + 1) + np.array([0, *rng.uniform(-0.25, 0.25, n - 1), 0])
    plans, sprites = [], []
    for i, name in enumerate(_pictures(rng, n)):
        show = (float(cuts[i] + rng.uniform(0, 0.1)), float(cuts[i + 1] - rng.uniform(0, 0.1)))
        (sprite,) = place_in_lanes(rng, [name], _lanes(1), rng.random() < 0.5, testing)
        sprites.append(replace(sprite, show=show))
        durations = [float(rng.uniform(0.5, 1.2)) for _ in range(int(rng.integers(1, 3)))]
        room = (show[0] + 0.25, show[1] - 0.25)
        plans += [PlannedNote(instruments[i], *span) for span in spread(rng, durations, room, 0.1)]
    return _Composition(plans, sprites)


def _compose_exists(rng: Rng, testing: bool) -> _Composition:
    instruments = _pick_several(rng, INSTRUMENTS, int(rng.integers(1, 4)))
    each = [name for name in instruments for _ in range(int(rng.integers(1, 3)))]
    each = [each[i] for i in rng.permutation(len(each))]
    plans = _phrase(rng, each, (0.4, 1.2), 0.1)
    sprites = _distractor_sprites(rng, testing) or [_come_and_go(rng, s) for s in _one_sprite(rng, testing)]
    return _Composition(plans, sprites)


def _compose_silent(rng: Rng, testing: bool) -> _Composition:
    if rng.random() < 0.3:  # things that move, but with no sound
        return replace(_compose_sync(rng, testing), plans=[])
    return _Composition([], _distractor_sprites(rng, testing) or _one_sprite(rng, testing))


def _compose_dark(rng: Rng, testing: bool) -> _Composition:
    composer = _pick(rng, (_compose_instrument, _compose_order, _compose_exists, _compose_count))
    plans = composer(rng, testing).plans or _distractor_notes(rng, at_least=1)
    return _Composition(plans, [], dark=True, plain=True)


_COMPOSERS: dict[str, Callable[[Rng, bool], _Composition]] = {
    "instrument": _compose_instrument,
    "object": _compose_object,
    "count": _compose_count,
    "sync": _compose_sync,
    "order": _compose_order,
    "when": _compose_segments,
    "heard": _compose_segments,
    "exists": _compose_exists,
    "silent": _compose_silent,
    "dark": _compose_dark,
}


def _pick(rng: Rng, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _pick_several(rng: Rng, options: tuple[str, ...], n: int) -> list[str]:
    return [options[i] for i in rng.permutation(len(options))[:n]]


def _pictures(rng: Rng, n: int) -> list[str]:
    """Distinct pictures, each with a chance of a quarter that of an instrument, which need not sound."""
    objects, players = _pick_several(rng, OBJECTS, n), _pick_several(rng, INSTRUMENT_PICTURES, n)
    return [a if rng.random() < 0.75 else b for a, b in zip(objects, players, strict=True)]


def _lanes(n: int) -> list[Span]:
    return [(i / n, (i + 1) / n) for i in range(n)]


def _phrase(rng: Rng, instruments: list[str], seconds: Span, gap: float) -> list[PlannedNote]:
    """Notes one after another somewhere in the clip."""
    spans = spread(rng, [float(rng.uniform(*seconds)) for _ in instruments], (_EDGE, DURATION - _EDGE), gap)
    return [PlannedNote(name, *span) for name, span in zip(instruments, spans, strict=True)]


def _distractor_notes(rng: Rng, at_least: int = 0) -> list[PlannedNote]:
    """Notes as distractors for questions about the picture: of one or two instruments, up to four."""
    players = _pick_several(rng, INSTRUMENTS, int(rng.integers(1, 3)))
    return _phrase(rng, [_pick(rng, players) for _ in range(int(rng.integers(at_least, 5)))], (0.4, 1.4), 0.1)


def _distractor_sprites(rng: Rng, testing: bool) -> list[Sprite]:
    """Up to three pictures as distractors for questions about the sound."""
    n = int(rng.integers(0, 4))
    names = favour_instruments(rng, _pictures(rng, n))
    sprites = place_in_lanes(rng, names, _lanes(n), rng.random() < 0.6, testing)
    return [_come_and_go(rng, s) for s in sprites]


def _one_sprite(rng: Rng, testing: bool) -> list[Sprite]:
    return place_in_lanes(rng, _pictures(rng, 1), _lanes(1), rng.random() < 0.5, testing)


def _come_and_go(rng: Rng, sprite: Sprite) -> Sprite:
    if rng.random() < 0.6:
        return sprite
    length = rng.uniform(3.0, 6.5)
    start = float(rng.uniform(0, DURATION - length))
    return replace(sprite, show=(start, float(start + length)))


def _draw_background(rng: Rng, testing: bool, scene: _Composition) -> Background:
    background = draw_background(rng, testing, specks=not scene.plain and rng.random() < 0.4)
    if not scene.dark:
        return background
    level = float(rng.uniform(0, 0.05)) if rng.random() < 0.6 else float(rng.random())
    grey = (level, level, level)
    return replace(background, kind="plain", colours=(grey, grey), noise=int(rng.integers(0, 9)))


def _tilted_spectrum(sound: Sound, key: tuple[int, int], testing: bool) -> Sound:
    """The sound with its spectrum tilted by up to 2 dB a band either way, for training only.

    The slope has a random generator of its own, so that it changes no other draw of the scene.
    """
    if testing:
        return sound
    slope = float(np.random.default_rng((*key, 2)).uniform(-2, 2))  # decibels a band, and 0.6 octaves a band
    middle = (len(sound.eq_db) - 1) / 2
    return replace(sound, eq_db=tuple(gain + slope * (band - middle) for band, gain in enumerate(sound.eq_db)))


def _draw_sound(rng: Rng, notes: bool) -> Sound:
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
        codec=_pick(rng, _CODECS),
    )
