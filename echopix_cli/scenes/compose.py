"""Write scripts: who plays and who is seen when, for each family of questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from echopix_cli.errors import UsageError
from echopix_cli.scenes.backgrounds import draw_background
from echopix_cli.scenes.draws import (
    EDGE,
    alone,
    come_and_go,
    distractor_notes,
    distractor_sprites,
    draw_sound,
    lanes,
    once_or_twice,
    one_sprite,
    phrase,
    pick,
    pick_several,
    pictures,
    shuffled,
    tilted_spectrum,
)
from echopix_cli.scenes.layout import PlannedNote, place_in_cells, place_in_lanes, play, spread
from echopix_cli.scenes.questions import ASKERS, ask, ask_everything_by
from echopix_cli.scenes.script import (
    DURATION,
    FAMILIES,
    INSTRUMENTS,
    SPLITS,
    WIDE_FAMILIES,
    Background,
    Item,
    Script,
    Sprite,
)
from echopix_cli.scenes.wide import make_wide
from echopix_cli.scenes.wide_questions import ask_everything_wide
from echopix_cli.scenes.wordings import WORDINGS
from echopix_cli.scenes.worlds import WORLDS

# unseen-font shares the number of test on purpose: it is the same scenes on another soundfont, so that the
# two accuracies differ by the font alone. Neither is ever trained on.
_SPLIT_NUMBER = {"train": 1, "val": 2, "test": 3, "unseen-font": 3}
# Small numbers also come up by the way (one bystander, say): large ones are drawn more often.
_COUNTS = (1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5)

Rng = np.random.Generator


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
        family: one of :func:`families_of` the split, or None to draw one.

    Returns:
        A script whose first item is of the family; the other items are true of the same scene.

    Raises:
        UsageError: an unknown split or family, or a negative seed.
        EchopixError: the split is "unseen-font" and its note bank has not been built.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", f"choose one of: {', '.join(SPLITS)}")
    if family is not None and family not in families_of(split):
        raise UsageError(f"unknown question family {family!r}", f"choose one of: {', '.join(families_of(split))}")
    if seed < 0:
        raise UsageError(f"seed {seed} is negative", "use 0 or more")
    if split in WORLDS:
        return make_wide(split, seed, family)
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
        sound=tilted_spectrum(draw_sound(rng, bool(scene.plans)), key, testing),
        items=(),
    )
    return replace(script, items=ask(script, rng))


def families_of(split: str) -> tuple[str, ...]:
    """The question families that a split has."""
    return WIDE_FAMILIES if split in WORLDS else FAMILIES


def ask_everything(script: Script, rng: Rng) -> tuple[Item, ...]:
    """Every question that a script answers, each once, in random order; of yes and no a few."""
    if script.split in WORLDS:
        return ask_everything_wide(script, rng)
    return ask_everything_by(ASKERS, WORDINGS, script, rng)


def _compose_instrument(rng: Rng, testing: bool) -> _Composition:
    instrument = pick(rng, INSTRUMENTS)
    plans = phrase(rng, [instrument] * int(rng.integers(2, 6)), (0.4, 1.5), 0.1)
    if rng.random() < 0.2:  # chords
        plans = sorted([*plans, *(p for p in plans if rng.random() < 0.7)], key=lambda p: p.start)
    return _Composition(plans, distractor_sprites(rng, testing))


def _compose_object(rng: Rng, testing: bool) -> _Composition:
    horizontal, n = rng.random() < 0.6, int(rng.integers(1, 4))
    names = pictures(rng, n)
    if n == 1 and rng.random() < 0.75:  # alone, but on one side
        lane = int(rng.integers(2))
        sprites = place_in_lanes(rng, names, [(lane / 2, (lane + 1) / 2)], horizontal, testing)
    else:
        sprites = place_in_lanes(rng, names, lanes(n), horizontal, testing)
    return _Composition(distractor_notes(rng), [come_and_go(rng, s) for s in sprites])


def _compose_count(rng: Rng, testing: bool) -> _Composition:
    n = pick(rng, _COUNTS)
    if rng.random() < 0.4:
        names = pictures(rng, n)
        if n > 3:
            sprites = place_in_cells(rng, names, 3, 2, testing)
        else:
            sprites = place_in_lanes(rng, names, lanes(n), rng.random() < 0.6, testing)
        return _Composition(distractor_notes(rng), sprites, plain=True)
    first, second = pick_several(rng, INSTRUMENTS, 2)
    instruments = [first] * n
    if n < 4 and rng.random() < 0.3:  # another instrument, whose notes must not be counted
        instruments += [second] * int(rng.integers(1, 3))
        instruments = shuffled(rng, instruments)
    plans = phrase(rng, instruments, (0.35, 1.0), 0.3)
    return _Composition(plans, distractor_sprites(rng, testing), plain=True)


def _compose_sync(rng: Rng, testing: bool) -> _Composition:
    hits, misses = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    with_sound = rng.permutation([True] * hits + [False] * misses)
    spans = spread(rng, [float(rng.uniform(0.6, 0.9)) for _ in with_sound], (EDGE, DURATION - EDGE), 0.2)
    n = 3 if rng.random() < 0.25 else 2
    hop = pick(rng, ((0.0, -0.16), (0.0, 0.16), (0.0, -0.2), (0.12, 0.0), (-0.12, 0.0)))
    if n == 3:
        hop = (0.0, hop[1] or 0.16)
    sprites = place_in_lanes(rng, pictures(rng, n), lanes(n), True, testing, still=True, hop=hop)
    mover, decoy = rng.permutation(n)[:2]
    hops = {int(mover): True, int(decoy): False}
    for i, wanted in hops.items():
        own = tuple(span for span, sounding in zip(spans, with_sound, strict=True) if sounding == wanted)
        sprites[i] = replace(sprites[i], hops=own)
    sprites = [s if s.hops else replace(s, hop=(0.0, 0.0)) for s in sprites]
    players = pick_several(rng, INSTRUMENTS, 2 if rng.random() < 0.2 else 1)
    struck = [span for span, sounding in zip(spans, with_sound, strict=True) if sounding]
    return _Composition([PlannedNote(pick(rng, players), *span) for span in struck], sprites, plain=True)


def _compose_order(rng: Rng, testing: bool) -> _Composition:
    instruments = pick_several(rng, INSTRUMENTS, int(rng.integers(2, 4)))
    each = once_or_twice(rng, instruments)
    return _Composition(phrase(rng, each, (0.5, 1.2), 0.15), distractor_sprites(rng, testing))


def _compose_segments(rng: Rng, testing: bool) -> _Composition:
    n = int(rng.integers(2, 4))
    instruments = pick_several(rng, INSTRUMENTS, n)
    cuts = np.linspace(0, DURATION, n + 1) + np.array([0, *rng.uniform(-0.25, 0.25, n - 1), 0])
    plans, sprites = [], []
    for i, name in enumerate(pictures(rng, n)):
        show = (float(cuts[i] + rng.uniform(0, 0.1)), float(cuts[i + 1] - rng.uniform(0, 0.1)))
        sprites.append(replace(alone(rng, name, testing), show=show))
        durations = [float(rng.uniform(0.5, 1.2)) for _ in range(int(rng.integers(1, 3)))]
        room = (show[0] + 0.25, show[1] - 0.25)
        plans += [PlannedNote(instruments[i], *span) for span in spread(rng, durations, room, 0.1)]
    return _Composition(plans, sprites)


def _compose_exists(rng: Rng, testing: bool) -> _Composition:
    instruments = pick_several(rng, INSTRUMENTS, int(rng.integers(1, 4)))
    each = shuffled(rng, once_or_twice(rng, instruments))
    plans = phrase(rng, each, (0.4, 1.2), 0.1)
    sprites = distractor_sprites(rng, testing) or [come_and_go(rng, s) for s in one_sprite(rng, testing)]
    return _Composition(plans, sprites)


def _compose_silent(rng: Rng, testing: bool) -> _Composition:
    if rng.random() < 0.3:  # things that move, but with no sound
        return replace(_compose_sync(rng, testing), plans=[])
    return _Composition([], distractor_sprites(rng, testing) or one_sprite(rng, testing))


def _compose_dark(rng: Rng, testing: bool) -> _Composition:
    composer = pick(rng, (_compose_instrument, _compose_order, _compose_exists, _compose_count))
    plans = composer(rng, testing).plans or distractor_notes(rng, at_least=1)
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


def _draw_background(rng: Rng, testing: bool, scene: _Composition) -> Background:
    background = draw_background(rng, testing, specks=not scene.plain and rng.random() < 0.4)
    if not scene.dark:
        return background
    level = float(rng.uniform(0, 0.05)) if rng.random() < 0.6 else float(rng.random())
    grey = (level, level, level)
    return replace(background, kind="plain", colours=(grey, grey), noise=int(rng.integers(0, 9)))
