"""Write scripts of the wide splits: other compositions than today's scenes have, more drawings, cameras, company.

What is composed is who plays and is seen when; :mod:`wide_draws` chooses recordings, drawings and the camera.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from echopix_cli.scenes.backgrounds import draw_background
from echopix_cli.scenes.clip_times import sample_times
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
from echopix_cli.scenes.layout import PlannedNote, place_in_cells, place_in_lanes, spread
from echopix_cli.scenes.questions import sight, word
from echopix_cli.scenes.script import (
    DURATION,
    INSTRUMENTS,
    PICTURES,
    WIDE_FAMILIES,
    Background,
    Item,
    Script,
    Span,
    Sprite,
)
from echopix_cli.scenes.wide_draws import accompany, dress, film, play_wide
from echopix_cli.scenes.wide_questions import ask_wide
from echopix_cli.scenes.wordings import WIDE
from echopix_cli.scenes.worlds import WORLDS, World

_COUNTS = (1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9)
_TRIES = 40
_GALLERY = 1000  # so that galleries are drawn apart from attempts at scenes
# Every instrument beside one that it is easily taken for, or that is struck as it is.
_ALIKE = (("violin", "trumpet"), ("organ", "flute"), ("harp", "guitar"), ("bell", "xylophone"), ("drum", "piano"))

Rng = np.random.Generator


@dataclass(frozen=True)
class _Composition:
    """Plans of notes, sprites, and what else may not be done with them.

    ``calm``: the camera keeps still. ``plain``: no specks. ``alone``: neither music nor speech.
    """

    plans: list[PlannedNote]
    sprites: list[Sprite]
    calm: bool = False
    plain: bool = False
    alone: bool = False
    dark: bool = False


def make_wide(split: str, seed: int, family: str | None) -> Script:
    """The script of a scene of a wide split; a pure function of its arguments.

    Compositions are drawn until one answers a question of the family: a camera may take a thing off its side.
    """
    world = WORLDS[split]
    key = (world.number, seed)
    drawn = WIDE_FAMILIES[int(np.random.default_rng(key).integers(len(WIDE_FAMILIES)))]
    family = family or drawn
    for attempt in range(_TRIES):
        script = _attempt(split, seed, family, (*key, attempt), world)
        items = ask_wide(script, np.random.default_rng((*key, attempt, 8)))
        if items and items[0].family == family:
            return replace(script, items=items)
    raise AssertionError(f"no scene of {split} {seed} answers a question of {family}")


def make_gallery(split: str, seed: int) -> Script:
    """A silent scene full of pictures, others in each half of it: what towers learn to see from."""
    world = WORLDS[split]
    rng = np.random.default_rng((world.number, seed, _GALLERY))
    names, sprites, middle = pick_several(rng, PICTURES, len(PICTURES)), list[Sprite](), DURATION / 2
    for show in ((0.0, middle), (middle, DURATION)):
        edge = 2 if rng.random() < 0.3 else 3
        placed = place_in_cells(rng, names[: edge * edge], edge, edge)
        sprites += [replace(sprite, show=show) for sprite in placed]
        names = names[edge * edge :] + names[: edge * edge]
    script = _script(split, seed, "exists", (world.number, seed * _TRIES), rng, _Composition([], sprites), world)
    first = script.sprites[0]
    asked = word(rng, WIDE[world.words], "exists-seen", name=first.name)
    return replace(script, items=(Item("exists", asked, "yes", (sight(first),)),))


def _attempt(split: str, seed: int, family: str, key: tuple[int, int, int], world: World) -> Script:
    rng = np.random.default_rng((*key, WIDE_FAMILIES.index(family)))
    entropy = (key[0], key[1] * _TRIES + key[2])
    return _script(split, seed, family, entropy, rng, _COMPOSERS[family](rng, world), world)


def _script(
    split: str, seed: int, family: str, entropy: tuple[int, int], rng: Rng, scene: _Composition, world: World
) -> Script:
    """A composition played, drawn, filmed and accompanied."""
    background = _background(rng, world, scene)
    sound = tilted_spectrum(draw_sound(rng, bool(scene.plans)), entropy, not world.strong)
    bed = accompany(rng, world)
    sprites = dress(rng, entropy, scene.sprites, world)
    filming = film(rng, world, background, sprites, scene.calm)
    return Script(
        split=split,
        seed=seed,
        family=family,
        key=entropy,
        duration=DURATION,
        notes=play_wide(rng, entropy, scene.plans, world),
        sprites=sprites,
        background=background,
        sound=sound,
        items=(),
        filming=filming,
        bed=None if scene.alone or not scene.plans else bed,
    )


def _background(rng: Rng, world: World, scene: _Composition) -> Background:
    background = draw_background(rng, world.held_out, specks=not scene.plain and rng.random() < 0.3)
    level = float(rng.uniform(0, 0.05)) if rng.random() < 0.6 else float(rng.random())
    if not scene.dark:
        return background
    return replace(background, kind="plain", colours=((level,) * 3, (level,) * 3), noise=background.noise // 2)


def _instrument(rng: Rng, world: World) -> _Composition:
    instrument = pick(rng, INSTRUMENTS)
    plans = phrase(rng, [instrument] * int(rng.integers(1, 7)), (0.2, 1.5), 0.05)
    if rng.random() < 0.25:  # chords
        plans = sorted([*plans, *(p for p in plans if rng.random() < 0.7)], key=lambda p: p.start)
    return _Composition(plans, distractor_sprites(rng, False))


def _object(rng: Rng, world: World) -> _Composition:
    n, horizontal = int(rng.integers(1, 4)), bool(rng.random() < 0.6)
    places = [(0.0, 0.42), (0.58, 1.0)] if n == 1 else lanes(n)
    if n == 1:
        places = [places[int(rng.integers(2))]]
    sprites = place_in_lanes(rng, pictures(rng, n), places, horizontal, False)
    return _Composition(distractor_notes(rng), [come_and_go(rng, s) for s in sprites])


def _count(rng: Rng, world: World) -> _Composition:
    n = pick(rng, _COUNTS)
    if rng.random() < 0.45:
        names = pick_several(rng, PICTURES, n)
        if n > 3:
            sprites = place_in_cells(rng, names, 3, 3 if n > 6 else 2)
        else:
            sprites = place_in_lanes(rng, names, lanes(n), rng.random() < 0.6, False)
        return _Composition(distractor_notes(rng), sprites, plain=True)
    first, *others = _players(rng, 3)
    instruments = [first] * n
    if n < 8 and rng.random() < 0.5:  # others, whose notes must not be counted
        instruments += [pick(rng, others) for _ in range(int(rng.integers(1, min(5, 10 - n))))]
        instruments = shuffled(rng, instruments)
    return _Composition(phrase(rng, instruments, (0.15, 0.8), 0.26), distractor_sprites(rng, False))


def _players(rng: Rng, n: int) -> list[str]:
    """Distinct instruments; often two of them are alike, so that telling these apart is learned and measured."""
    names = shuffled(rng, INSTRUMENTS)
    if rng.random() < 0.4:
        pair = pick(rng, _ALIKE)
        names = [*pair, *(name for name in names if name not in pair)]
    return shuffled(rng, names[:n])


def _sync(rng: Rng, world: World) -> _Composition:
    """Something hops with the notes; another hops at other times, or with another instrument's notes."""
    fewest, most = world.hops
    hits = int(rng.integers(fewest, most + 1))
    misses = int(rng.integers(1, max(2, min(5, 8 - hits))))
    n = int(rng.integers(2, 5))
    across = n == 2 and rng.random() < 0.4
    step = float(rng.uniform(0.12, 0.2)) * (1 if rng.random() < 0.5 else -1)
    hop = (0.75 * step, 0.0) if across else (0.0, step)
    sprites = place_in_lanes(rng, pictures(rng, n), lanes(n), True, False, still=True, hop=hop)
    mover, decoy = (int(i) for i in rng.permutation(n)[:2])
    sounding = [True] * hits + [False] * misses
    while True:  # sampling takes a frame about every half second, and must take some of what matters
        order = shuffled(rng, sounding)
        spans = spread(rng, [float(rng.uniform(*world.hop)) for _ in order], (EDGE, DURATION - EDGE), 0.15)
        own = {True: list[Span](), False: list[Span]()}
        for span, kind in zip(spans, order, strict=True):
            own[kind].append(span)
        if all(2 * sum(map(_is_sampled, taken)) >= len(taken) for taken in own.values()):
            break
    named = rng.random() < 0.35  # the decoy's hops sound too, of another instrument
    players = _players(rng, 2)
    for place, kind in ((mover, True), (decoy, False)):
        sprites[place] = replace(sprites[place], hops=tuple(own[kind]))
    sprites = [s if s.hops else replace(s, hop=(0.0, 0.0)) for s in sprites]
    plans = [_rung(rng, players[0], span) for span in own[True]]
    if named:
        plans += [_rung(rng, players[1], span) for span in own[False]]
    return _Composition(sorted(plans, key=lambda p: p.start), sprites, plain=True)


def _is_sampled(hop: Span) -> bool:
    """Whether a frame is taken while a sprite is well away from its place."""
    times = sample_times(DURATION)
    return bool(((times > hop[0] + 0.08) & (times < hop[1] - 0.08)).any())


def _rung(rng: Rng, instrument: str, hop: Span) -> PlannedNote:
    """A note that begins with a hop, and is cut short or rings on."""
    seconds = rng.uniform(0.12, hop[1] - hop[0]) if rng.random() < 0.5 else rng.uniform(0.5, 1.6)
    return PlannedNote(instrument, hop[0], min(hop[0] + float(seconds), DURATION - EDGE))


def _order(rng: Rng, world: World) -> _Composition:
    instruments = _players(rng, int(rng.integers(2, 5)))
    each = once_or_twice(rng, instruments)
    return _Composition(phrase(rng, each, (0.3, 1.2), 0.1), distractor_sprites(rng, False))


def _segments(rng: Rng, world: World) -> _Composition:
    n = int(rng.integers(2, 5))
    players = _players(rng, n)
    plans, sprites = list[PlannedNote](), list[Sprite]()
    for name, player, show in zip(pictures(rng, n), players, _parts(rng, n), strict=True):
        sprites.append(replace(alone(rng, name, False), show=show))
        durations = [float(rng.uniform(0.3, 1.0)) for _ in range(int(rng.integers(1, 4 if n < 4 else 3)))]
        plans += [PlannedNote(player, *span) for span in spread(rng, durations, (show[0] + 0.2, show[1] - 0.2), 0.08)]
    return _Composition(plans, sprites)


def _parts(rng: Rng, n: int) -> list[Span]:
    """The clip in so many parts, about as long as each other, with a little between them."""
    cuts = np.linspace(0, DURATION, n + 1) + np.array([0, *rng.uniform(-0.2, 0.2, n - 1), 0])
    return [(float(a + rng.uniform(0, 0.1)), float(b - rng.uniform(0.02, 0.1))) for a, b in pairwise(cuts)]


def _exists(rng: Rng, world: World) -> _Composition:
    instruments = _players(rng, int(rng.integers(1, 4)))
    each = shuffled(rng, once_or_twice(rng, instruments))
    sprites = distractor_sprites(rng, False) or [come_and_go(rng, s) for s in one_sprite(rng, False)]
    return _Composition(phrase(rng, each, (0.25, 1.2), 0.1), sprites)


def _list(rng: Rng, world: World) -> _Composition:
    n = int(rng.integers(2, 6))
    if rng.random() < 0.6:
        instruments = once_or_twice(rng, _players(rng, n))
        return _Composition(phrase(rng, instruments, (0.35, 1.0), 0.1), distractor_sprites(rng, False))
    sprites = []
    for name, show in zip(pictures(rng, n), _parts(rng, n), strict=True):
        sprites.append(replace(alone(rng, name, False), show=show))
    return _Composition(distractor_notes(rng), sprites)


def _corner(rng: Rng, world: World) -> _Composition:
    """Things appear in corners, each at a whole second or so."""
    n = int(rng.integers(2, 5))
    seconds = sorted((rng.permutation(6) + 1)[:n].tolist())
    sprites = place_in_cells(rng, pictures(rng, n), 2, 2)
    shown = []
    for sprite, second in zip(sprites, seconds, strict=True):
        begin = second + float(rng.uniform(-0.15, 0.15))
        stays = DURATION if rng.random() < 0.6 else min(DURATION, begin + float(rng.uniform(1.2, 4.0)))
        shown.append(replace(sprite, show=(begin, stays)))
    return _Composition(distractor_notes(rng), shown)


def _each(rng: Rng, world: World) -> _Composition:
    """In each of four or five parts pictures are shown and somebody plays; one pair always comes together."""
    n = int(rng.integers(4, 6))
    target, *others = pictures(rng, 3)
    player, *bystanders = _players(rng, 3)
    both = rng.permutation(n)[: int(rng.integers(2, 4))]
    left, right = lanes(2)
    places = pick(rng, ((left, right, right), (right, left, left)))
    sides = dict(zip((target, *others), places, strict=True))
    looks = {name: place_in_lanes(rng, [name], [side], True, False, still=True)[0] for name, side in sides.items()}
    plans, sprites = list[PlannedNote](), list[Sprite]()
    company = [str(name) for name in rng.permutation([*others, ""])]
    for number, show in enumerate(_parts(rng, n)):
        together = number in both
        beside = company[number % len(company)]
        names = ([target] if together else []) + ([beside] if beside else [])
        sprites += [replace(looks[name], show=show) for name in names or others[:1]]
        play = [player] if together else [pick(rng, bystanders)] if rng.random() < 0.8 else []
        if together and rng.random() < 0.4:
            play.append(pick(rng, bystanders))
        spans = spread(rng, [float(rng.uniform(0.25, 0.7)) for _ in play], (show[0] + 0.2, show[1] - 0.2), 0.08)
        plans += [PlannedNote(name, *span) for name, span in zip(play, spans, strict=True)]
    return _Composition(plans, sprites)


def _silent(rng: Rng, world: World) -> _Composition:
    if rng.random() < 0.3:  # things that move, but with no sound
        return replace(_sync(rng, world), plans=[])
    return _Composition([], distractor_sprites(rng, False) or one_sprite(rng, False))


def _dark(rng: Rng, world: World) -> _Composition:
    composer = pick(rng, (_instrument, _order, _exists))
    return _Composition(composer(rng, world).plans, [], calm=True, plain=True, dark=True)


_COMPOSERS: dict[str, Callable[[Rng, World], _Composition]] = {
    "instrument": _instrument,
    "object": _object,
    "count": _count,
    "sync": _sync,
    "order": _order,
    "when": _segments,
    "heard": _segments,
    "exists": _exists,
    "list": _list,
    "corner": _corner,
    "each": _each,
    "silent": _silent,
    "dark": _dark,
}
