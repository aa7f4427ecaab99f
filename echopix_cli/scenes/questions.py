"""Find the questions that a script answers beyond doubt, with their answers and evidence.

Every asker looks at the finished script only, never at how it was composed: whatever it returns is true of
the scene, whichever family the scene was made for.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from echopix_cli.scenes.draws import pick, shuffled
from echopix_cli.scenes.geometry import box_over
from echopix_cli.scenes.script import (
    INSTRUMENT_PICTURES,
    INSTRUMENTS,
    NOTHING,
    NUMBERS,
    OBJECTS,
    PICTURES,
    Evidence,
    Item,
    PlayedNote,
    Script,
    Span,
    Sprite,
)
from echopix_cli.scenes.wordings import WORDINGS, Wordings

Rng = np.random.Generator
_MOST_OF_FAMILY = 3
_ROUNDS = {"exists": 2}  # of asking everything: there are more things that could be there than are

SIDES: tuple[str, ...] = ("on the left", "on the right", "at the top", "at the bottom")


def ask(script: Script, rng: Rng) -> tuple[Item, ...]:
    """The items of a script: up to three of its own family first, then one of every other that it answers."""
    return ask_by(ASKERS, WORDINGS, script, rng)


def ask_by(askers: dict[str, Asker], words: Wordings, script: Script, rng: Rng) -> tuple[Item, ...]:
    """As :func:`ask`, with other askers and wordings."""
    own = shuffled(rng, askers[script.family](script, rng, words))[:_MOST_OF_FAMILY]
    others = [
        pick(rng, items)
        for family, asker in askers.items()
        if family != script.family and (items := asker(script, rng, words))
    ]
    return (*own, *others)


def ask_everything_by(askers: dict[str, Asker], words: Wordings, script: Script, rng: Rng) -> tuple[Item, ...]:
    """Every question that a script answers, each once, in random order; of yes and no a few."""
    items = [
        item
        for family, asker in askers.items()
        for _ in range(_ROUNDS.get(family, 1))
        for item in asker(script, rng, words)
    ]
    return tuple(shuffled(rng, list({item.question: item for item in items}.values())))


def _ask_instrument(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    names = {note.instrument for note in script.notes}
    if len(names) != 1:
        return []
    return [Item("instrument", word(rng, words, "instrument"), names.pop(), sounds(script.notes))]


def _ask_object(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    return object_items(script, rng, words, lambda side: _alone_on(script, side))


def object_items(script: Script, rng: Rng, words: Wordings, alone_on: Callable[[str], Sprite | None]) -> list[Item]:
    """What is on each side that one sprite has to itself, and what is seen where there is one sprite only."""
    items = []
    for side in SIDES:
        if (sprite := alone_on(side)) is not None:
            items.append(Item("object", word(rng, words, "object-side", side=side), sprite.name, (sight(sprite),)))
    if len(script.sprites) == 1:
        (sprite,) = script.sprites
        items.append(Item("object", word(rng, words, "object-only"), sprite.name, (sight(sprite),)))
    return items


def _alone_on(script: Script, side: str) -> Sprite | None:
    """The only sprite that is ever on a side, and always is while it is visible."""
    axis, flipped = SIDES.index(side) // 2, SIDES.index(side) % 2
    inside: list[Sprite] = []
    nearest_outside = 1.0
    for sprite in script.sprites:
        if any(h != 0 for h in sprite.hop):
            return None
        ends = [1 - p if flipped else p for p in (sprite.path[axis], sprite.path[axis + 2])]
        if max(ends) <= 0.4:
            inside.append(sprite)
        else:
            nearest_outside = min(nearest_outside, *ends)
    return inside[0] if len(inside) == 1 and nearest_outside >= 0.44 else None


def _ask_count(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    return count_items(script, rng, words, NUMBERS, 0.25, 2)


def count_items(
    script: Script, rng: Rng, words: Wordings, numbers: tuple[str, ...], gap: float, players: int
) -> list[Item]:
    """How many notes, in all and of each instrument, and how many things; as far as ``numbers`` go.

    Notes are counted where they are at least ``gap`` seconds apart, each instrument's where there are two or more
    instruments and at most so many ``players``.
    """
    items = []
    notes, most = script.notes, len(numbers)
    apart = all(b.start - a.end >= gap for a, b in pairwise(notes))
    names = sorted({note.instrument for note in notes})
    if apart and 1 <= len(notes) <= most:
        items.append(Item("count", word(rng, words, "count-notes"), numbers[len(notes) - 1], sounds(notes)))
    if apart and 2 <= len(names) <= players:
        for name in names:
            own = tuple(note for note in notes if note.instrument == name)
            if len(own) <= most:
                question = word(rng, words, "count-times", name=name)
                items.append(Item("count", question, numbers[len(own) - 1], sounds(own)))
    sprites = script.sprites
    whole = all(s.show[0] <= 0 and s.show[1] >= script.duration for s in sprites)
    if 1 <= len(sprites) <= most and whole and script.background.specks == 0:
        evidence = tuple(sight(s) for s in sprites)
        items.append(Item("count", word(rng, words, "count-things"), numbers[len(sprites) - 1], evidence))
    return items


def _ask_sync(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    movers = [s for s in script.sprites if _moves_with(s, script.notes)]
    others = [s for s in script.sprites if s not in movers]
    disturbed = any(meets(hop, (n.start, n.end)) for s in others for hop in s.hops for n in script.notes)
    gliding = any(s.path[:2] != s.path[2:] for s in script.sprites)
    if len(movers) != 1 or not others or disturbed or gliding:
        return []
    (mover,) = movers
    # Whoever sees the one without the other that moves has nothing to tell them apart by.
    sights = tuple(sight(sprite, hop) for sprite in script.sprites for hop in sprite.hops)
    return [Item("sync", word(rng, words, "sync"), mover.name, sounds(script.notes) + sights)]


def _moves_with(sprite: Sprite, notes: tuple[PlayedNote, ...]) -> bool:
    """Every note lies in a hop, and every hop begins with a note."""
    if not sprite.hops or not notes:
        return False
    covered = all(any(a <= n.start and n.end <= b + 1e-6 for a, b in sprite.hops) for n in notes)
    return covered and all(any(abs(n.start - a) < 0.05 for n in notes) for a, _ in sprite.hops)


def _ask_order(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    names = list(dict.fromkeys(note.instrument for note in script.notes))
    if len(names) < 2:
        return []
    items = []
    for kind, name in (("order-first", names[0]), ("order-last", script.notes[-1].instrument)):
        own = [n for n in script.notes if n.instrument == name]
        rest = [n for n in script.notes if n.instrument != name]
        if kind == "order-first":
            clear = max(n.end for n in own) <= min(n.start for n in rest)
        else:
            clear = min(n.start for n in own) >= max(n.end for n in rest)
        if clear:
            items.append(Item("order", word(rng, words, kind), name, sounds(tuple(own))))
    return items


def _ask_when(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    items = []
    names = dict.fromkeys(note.instrument for note in script.notes)
    if len(names) < 2 or len(script.sprites) < 2:
        return []
    for name in names:
        notes = tuple(note for note in script.notes if note.instrument == name)
        spans = [(n.start - 0.1, n.end + 0.1) for n in notes]
        near = [s for s in script.sprites if any(meets(s.show, span) for span in spans)]
        if len(near) == 1 and all(near[0].show[0] <= a and b <= near[0].show[1] for a, b in spans):
            sights = tuple(sight(near[0], (n.start, n.end)) for n in notes)
            question = word(rng, words, "when", name=name)
            items.append(Item("when", question, near[0].name, sounds(notes) + sights))
    return items


def _ask_heard(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    items = []
    if len({n.instrument for n in script.notes}) < 2 or len(script.sprites) < 2:
        return []
    for sprite in script.sprites:
        shown = (sprite.show[0] - 0.1, sprite.show[1] + 0.1)
        notes = tuple(n for n in script.notes if meets(shown, (n.start, n.end)))
        names = {n.instrument for n in notes}
        inside = all(sprite.show[0] <= n.start and n.end <= sprite.show[1] for n in notes)
        if len(names) == 1 and inside:
            question = word(rng, words, "heard", name=sprite.name)
            items.append(Item("heard", question, names.pop(), (sight(sprite), *sounds(notes))))
    return items


def _ask_exists(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    """One question about the picture and one about the sound, each as often with "yes" as with "no"."""
    return [
        item
        for item in (_ask_exists_seen(script, rng, words), _ask_exists_heard(script, rng, words))
        if item is not None
    ]


def _ask_exists_seen(script: Script, rng: Rng, words: Wordings) -> Item | None:
    present = {s.name: s for s in script.sprites}
    if not present:
        return None
    if rng.random() < 0.5:
        name = pick(rng, list(present))
        answer, evidence = "yes", (sight(present[name]),)
    else:
        # Half the time an instrument that sounds but is not shown: the question is about the eye only.
        tempting = [n for n in INSTRUMENT_PICTURES if n not in present and n in sounding(script)]
        absent = [n for n in PICTURES if n not in present]
        name = pick(rng, tempting if tempting and rng.random() < 0.5 else absent)
        answer, evidence = "no", (Evidence("video", 0.0, script.duration),)
    kind = "exists-object" if name in OBJECTS and rng.random() < 0.3 else "exists-seen"
    return Item("exists", word(rng, words, kind, name=name), answer, evidence)


def _ask_exists_heard(script: Script, rng: Rng, words: Wordings) -> Item | None:
    present = sounding(script)
    if not present:
        return None
    if rng.random() < 0.5:
        name = pick(rng, present)
        answer = "yes"
        evidence = sounds(tuple(n for n in script.notes if n.instrument == name))
    else:
        shown = {s.name for s in script.sprites}
        tempting = [n for n in INSTRUMENTS if n not in present and n in shown]
        absent = [n for n in INSTRUMENTS if n not in present]
        name = pick(rng, tempting if tempting and rng.random() < 0.5 else absent)
        answer, evidence = "no", (Evidence("audio", 0.0, script.duration),)
    return Item("exists", word(rng, words, "exists-heard", name=name), answer, evidence)


def _ask_silent(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    if script.notes:
        return []
    kinds = ["instrument", "order-first", "order-last"]
    questions = [(word(rng, words, kind), NOTHING) for kind in kinds]
    questions.append((word(rng, words, "exists-heard", name=pick(rng, INSTRUMENTS)), "no"))
    if len(script.sprites) > 1:
        questions.append((word(rng, words, "sync"), NOTHING))
    if script.sprites:
        name = pick(rng, script.sprites).name
        questions.append((word(rng, words, "heard", name=name), NOTHING))
    evidence = (Evidence("audio", 0.0, script.duration),)
    return [Item("silent", question, answer, evidence) for question, answer in questions]


def _ask_dark(script: Script, rng: Rng, words: Wordings) -> list[Item]:
    if script.sprites or script.background.specks or script.background.kind != "plain":
        return []
    questions = [(word(rng, words, "object-side", side=side), NOTHING) for side in SIDES[:2]]
    questions.append((word(rng, words, "object-only"), NOTHING))
    questions.append((word(rng, words, "exists-seen", name=pick(rng, PICTURES)), "no"))
    questions.append((word(rng, words, "sync"), NOTHING))
    if present := sounding(script):
        questions.append((word(rng, words, "when", name=pick(rng, present)), NOTHING))
    evidence = (Evidence("video", 0.0, script.duration),)
    return [Item("dark", question, answer, evidence) for question, answer in questions]


Asker = Callable[[Script, Rng, Wordings], list[Item]]
ASKERS: dict[str, Asker] = {
    "instrument": _ask_instrument,
    "object": _ask_object,
    "count": _ask_count,
    "sync": _ask_sync,
    "order": _ask_order,
    "when": _ask_when,
    "heard": _ask_heard,
    "exists": _ask_exists,
    "silent": _ask_silent,
    "dark": _ask_dark,
}


def word(rng: Rng, words: Wordings, kind: str, **slots: str) -> str:
    """A question of a kind in one of its wordings."""
    article = "an" if slots.get("name", "")[:1] in tuple("aeiou") else "a"
    return pick(rng, words[kind]).format(a=article, **slots)


def sounding(script: Script) -> list[str]:
    return list(dict.fromkeys(note.instrument for note in script.notes))


def sounds(notes: tuple[PlayedNote, ...]) -> tuple[Evidence, ...]:
    return tuple(Evidence("audio", note.start, note.end) for note in notes)


def sight(sprite: Sprite, span: Span | None = None) -> Evidence:
    span = span or sprite.show
    return Evidence("video", span[0], span[1], box_over(sprite, span))


def meets(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]
