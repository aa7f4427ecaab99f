"""The questions that a scene of the wide splits answers beyond doubt.

As for today's scenes, whatever an asker returns is true of the finished script, whichever family it was made for.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from echopix_cli.scenes.geometry import MOMENT, filmed, placed
from echopix_cli.scenes.questions import (
    ASKERS,
    SIDES,
    Asker,
    ask_by,
    ask_everything_by,
    count_items,
    meets,
    object_items,
    sight,
    sounding,
    sounds,
    word,
)
from echopix_cli.scenes.script import COUNTED, INSTRUMENTS, Item, PlayedNote, Script, Sprite
from echopix_cli.scenes.wordings import Wordings, words_of

CORNERS: tuple[str, ...] = ("top left", "top right", "bottom left", "bottom right")
MOST_LISTED = 5
_TOGETHER = 0.06  # seconds within which a hop and a note begin at once
_APART = 0.15  # and outside which they do not

Rng = np.random.Generator


def ask_wide(script: Script, rng: Rng) -> tuple[Item, ...]:
    """The items of a script: up to three of its own family first, then one of every other that it answers."""
    return _filmed(script, ask_by(WIDE_ASKERS, words_of(script.split), script, rng))


def ask_everything_wide(script: Script, rng: Rng) -> tuple[Item, ...]:
    """Every question that a script answers, each once, in random order; of yes and no a few."""
    return _filmed(script, ask_everything_by(WIDE_ASKERS, words_of(script.split), script, rng))


def _filmed(script: Script, items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Askers give boxes in the scene's own frame; here they become the picture's."""
    return tuple(
        Item(item.family, item.question, item.answer, tuple(filmed(script, piece) for piece in item.evidence))
        for item in items
    )


def _once(asker: Asker) -> Asker:
    """An asker of scenes that show every picture once only."""

    def ask(script: Script, rng: Rng, words: Wordings) -> list[Item]:
        names = [sprite.name for sprite in script.sprites]
        return asker(script, rng, words) if len(set(names)) == len(names) else []

    return ask


def _ask_object(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    places = [_places(script, sprite) for sprite in script.sprites]
    return object_items(script, rng, words, lambda side: _alone_on(script, places, side))


def _alone_on(script: Script, places: list[np.ndarray], side: str) -> Sprite | None:
    """The only sprite that the picture ever has on a side, and always has there while it is visible."""
    axis, flipped = SIDES.index(side) // 2, SIDES.index(side) % 2
    inside, outside = list[Sprite](), 1.0
    for sprite, place in zip(script.sprites, places, strict=True):
        along = 1 - place[:, axis] if flipped else place[:, axis]
        if along.max() <= 0.4:
            inside.append(sprite)
        else:
            outside = min(outside, float(along.min()))
    return inside[0] if len(inside) == 1 and outside >= 0.46 else None


def _places(script: Script, sprite: Sprite) -> np.ndarray:
    """The sprite's centres in the picture, a few times a second while it is visible: (n, 2)."""
    begin, end = max(sprite.show[0], 0.0), min(sprite.show[1], script.duration)
    shots = script.filming.shots if script.filming is not None else ()
    cuts = [at for shot in shots for at in (shot.start - MOMENT, shot.start) if begin < at < end]
    return placed(script, sprite, np.concatenate([np.linspace(begin, end - MOMENT, 20), cuts]))[0]


def _ask_count(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    return count_items(script, rng, words, COUNTED, 0.22, len(INSTRUMENTS))


def _ask_sync(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    """What hops whenever a note begins, and only then; the same of each instrument's notes where there are more."""
    if any(s.path[:2] != s.path[2:] for s in script.sprites) or len(script.sprites) < 2:
        return []
    groups: list[tuple[str, tuple[PlayedNote, ...]]] = [("sync", script.notes)]
    if len(names := sounding(script)) > 1:
        groups += [(name, tuple(n for n in script.notes if n.instrument == name)) for name in names]
    items = []
    for name, notes in groups:
        onsets = [note.start for note in notes]
        movers = [s for s in script.sprites if _begins_with(s, onsets)]
        others = [s for s in script.sprites if s not in movers]
        if len(movers) != 1 or any(_near(s, onsets, _APART) for s in others):
            continue
        sights = tuple(sight(sprite, hop) for sprite in script.sprites for hop in sprite.hops)
        asked = word(rng, words, "sync") if name == "sync" else word(rng, words, "sync-name", name=name)
        items.append(Item("sync", asked, movers[0].name, sounds(notes) + sights))
    return items


def _begins_with(sprite: Sprite, onsets: list[float]) -> bool:
    """Every hop begins with a note, and every note with a hop."""
    hops = [hop[0] for hop in sprite.hops]
    if not hops or not onsets:
        return False
    gaps = np.abs(np.subtract.outer(hops, onsets))
    return bool((gaps.min(axis=0) <= _TOGETHER).all() and (gaps.min(axis=1) <= _TOGETHER).all())


def _near(sprite: Sprite, onsets: list[float], within: float) -> bool:
    return any(abs(hop[0] - onset) < within for hop in sprite.hops for onset in onsets)


def _ask_list(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    items = []
    if len(names := sounding(script)) > 1 and len(names) <= MOST_LISTED:
        groups = [[n for n in script.notes if n.instrument == name] for name in names]
        if all(max(n.end for n in a) <= min(n.start for n in b) for a, b in pairwise(groups)):
            items.append(Item("list", word(rng, words, "list-heard"), ", ".join(names), sounds(script.notes)))
    shown = sorted(script.sprites, key=lambda sprite: sprite.show)
    if 1 < len(shown) <= MOST_LISTED and all(a.show[1] <= b.show[0] for a, b in pairwise(shown)):
        question = word(rng, words, "list-seen")
        items.append(Item("list", question, ", ".join(s.name for s in shown), tuple(sight(s) for s in shown)))
    return items


def _ask_corner(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    items = []
    found = {sprite.name: corner for sprite in script.sprites if (corner := _corner_of(script, sprite)) is not None}
    for sprite in script.sprites:
        if (corner := found.get(sprite.name)) is None:
            continue
        asked = word(rng, words, "corner-where", name=sprite.name)
        items.append(Item("corner", asked, corner, (sight(sprite),)))
        others = [s for s in script.sprites if s is not sprite]
        if all(found.get(s.name, corner) != corner for s in others):
            asked = word(rng, words, "corner-what", corner=corner)
            items.append(Item("corner", asked, sprite.name, (sight(sprite),)))
    for sprite in script.sprites:
        second = round(sprite.show[0])
        if 1 <= second <= 7 and abs(sprite.show[0] - second) <= 0.2:
            asked = word(rng, words, "corner-when", name=sprite.name)
            about = (max(0.0, sprite.show[0] - 0.5), min(sprite.show[0] + 1.0, sprite.show[1]))
            items.append(Item("corner", asked, COUNTED[second - 1], (sight(sprite, about),)))
    return items


def _corner_of(script: Script, sprite: Sprite) -> str | None:
    """The corner that a sprite is in all the while; None where it is nearer to the middle."""
    places = _places(script, sprite)
    low, high = places <= 0.4, places >= 0.6
    if not (low.all(axis=0) | high.all(axis=0)).all():
        return None
    right, bottom = bool(high[0, 0]), bool(high[0, 1])
    return CORNERS[2 * bottom + right]


def _ask_each(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    """What is there every time that an instrument plays, where each other picture is missing at least once."""
    items = []
    names = list(dict.fromkeys(sprite.name for sprite in script.sprites))
    if len(names) < 2:
        return []
    for instrument in sounding(script):
        notes = tuple(n for n in script.notes if n.instrument == instrument)
        if len(notes) < 2:
            continue
        times = {name: [_beside(script, name, note) for note in notes] for name in names}
        always = [name for name in names if all(whole for whole, _ in times[name])]
        if len(always) != 1 or any(all(some for _, some in times[name]) for name in names if name not in always):
            continue
        sights = tuple(
            sight(sprite, (max(n.start, sprite.show[0]), min(n.end, sprite.show[1])))
            for sprite in script.sprites
            for n in notes
            if sprite.name == always[0] and meets(sprite.show, (n.start, n.end))
        )
        asked = word(rng, words, "each-seen", name=instrument)
        items.append(Item("each", asked, always[0], sounds(notes) + sights))
    return items + _ask_each_heard(script, rng, words, names)


def _beside(script: Script, name: str, note: PlayedNote) -> tuple[bool, bool]:
    """Whether a picture is shown all through a note (and a little beyond), and whether it is shown near it at all."""
    shows = [s.show for s in script.sprites if s.name == name]
    around = (note.start - 0.15, note.end + 0.15)
    return any(a <= note.start and note.end <= b for a, b in shows), any(meets(show, around) for show in shows)


def _ask_each_heard(script: Script, rng: Rng, words: Wordings, names: list[str]) -> list[Item]:
    items = []
    for name in names:
        shows = [s for s in script.sprites if s.name == name]
        if len(shows) < 2:
            continue
        heard = [_heard_in(script, sprite) for sprite in shows]
        if any(cut for _, cut in heard):
            continue
        always = set.intersection(*(own for own, _ in heard))
        if len(always) == 1 and len(set.union(*(own for own, _ in heard))) > 1:
            (instrument,) = always
            notes = tuple(
                n
                for n in script.notes
                if n.instrument == instrument and any(meets(s.show, (n.start, n.end)) for s in shows)
            )
            evidence = tuple(sight(s) for s in shows) + sounds(notes)
            items.append(Item("each", word(rng, words, "each-heard", name=name), instrument, evidence))
    return items


def _heard_in(script: Script, sprite: Sprite) -> tuple[set[str], bool]:
    """Instruments that play while a sprite is shown, and whether one of their notes lies on the edge of that."""
    begin, end = sprite.show
    near = [n for n in script.notes if meets((begin - 0.1, end + 0.1), (n.start, n.end))]
    return {n.instrument for n in near}, any(n.start < begin or n.end > end for n in near)


WIDE_ASKERS: dict[str, Asker] = {
    "instrument": ASKERS["instrument"],
    "object": _once(_ask_object),
    "count": _once(_ask_count),
    "sync": _once(_ask_sync),
    "order": ASKERS["order"],
    "when": _once(ASKERS["when"]),
    "heard": _once(ASKERS["heard"]),
    "exists": ASKERS["exists"],
    "list": _once(_ask_list),
    "corner": _once(_ask_corner),
    "each": _ask_each,
    "silent": ASKERS["silent"],
    "dark": ASKERS["dark"],
}
