"""What happens in the clips of ``outside.py``, and what is asked of them: composed by rules of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from outside_drawings import DRAWINGS
from outside_sounds import SOUNDS

SECONDS = 8.0
INSTRUMENTS, PICTURES = tuple(SOUNDS), tuple(DRAWINGS)
SEEN_ONLY = tuple(name for name in PICTURES if name not in INSTRUMENTS)
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOTHING = "nothing"
Rng = np.random.Generator
Span = tuple[float, float]
CORNERS = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True)
class Note:
    """One note, from when to when it sounds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Picture:
    """A picture around (x, y), fractions of the frame, ``size`` of its shorter side, shown and lifted in spans."""

    name: str
    x: float
    y: float
    size: float
    show: Span = (0.0, SECONDS)
    hops: tuple[Span, ...] = ()


@dataclass
class Composed:
    """What happens in a clip, and what is asked of it: (kind of wording, name in it, answer)."""

    notes: list[Note] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    dark: bool = False


def some(rng: Rng, names: Sequence[str], count: int) -> list[str]:
    """As many different ones."""
    return [names[place] for place in rng.permutation(len(names))[:count]]


def spans(rng: Rng, count: int, begin: float, end: float, shortest: float, longest: float) -> list[Span]:
    """Spans in order, each alone in its share of the time, at least an eighth of a second apart."""
    share = (end - begin) / max(1, count)
    made = []
    for number in range(count):
        length = min(float(rng.uniform(shortest, longest)), share - 0.15)
        start = begin + number * share + float(rng.uniform(0, share - 0.13 - length))
        made.append((start, start + length))
    return made


def notes_of(rng: Rng, names: Sequence[str], begin: float = 0.1, end: float = SECONDS - 0.1) -> list[Note]:
    return [Note(name, *span) for name, span in zip(names, spans(rng, len(names), begin, end, 0.3, 1.4), strict=True)]


def beside(rng: Rng, names: Sequence[str], upright: bool = True) -> list[Picture]:
    """Pictures side by side, or one above the other."""
    made = []
    for number, name in enumerate(names):
        along, across = (number + 0.5) / len(names), float(rng.uniform(0.35, 0.65))
        size = float(rng.uniform(0.28, 0.42)) * (0.75 if len(names) > 2 else 1.0)
        made.append(Picture(name, *((along, across) if upright else (across, along)), size))
    return made


def bystanders(rng: Rng) -> list[Picture]:
    """What is seen where the question is about what is heard: often an instrument that may well be silent."""
    count = int(rng.integers(0, 3))
    return beside(rng, [some(rng, PICTURES if rng.random() < 0.5 else SEEN_ONLY, 1)[0] for _ in range(count)])


def instrument(rng: Rng) -> Composed:
    (name,) = some(rng, INSTRUMENTS, 1)
    notes = notes_of(rng, [name] * int(rng.integers(2, 7)))
    return Composed(notes, bystanders(rng), [("instrument", "", name)])


def object(rng: Rng) -> Composed:
    notes = notes_of(rng, some(rng, INSTRUMENTS, int(rng.integers(0, 3))))
    if rng.random() < 0.3:
        (name,) = some(rng, PICTURES, 1)
        alone = Picture(name, *rng.uniform(0.3, 0.7, 2).tolist(), float(rng.uniform(0.3, 0.5)))
        return Composed(notes, [alone], [("shown", "", name)])
    upright, pair = bool(rng.random() < 0.6), some(rng, PICTURES, 2)
    sides = ("on the left", "on the right") if upright else ("at the top", "at the bottom")
    asked = [("side", side, name) for side, name in zip(sides, pair, strict=True)]
    return Composed(notes, beside(rng, pair, upright), asked)


def count(rng: Rng, most: int = len(NUMBERS)) -> Composed:
    how_many, kind = int(rng.integers(1, most + 1)), rng.random()
    if kind < 0.35:
        rows = 2 if how_many <= 6 else 3
        places = rng.permutation(3 * rows)[:how_many]
        names = [some(rng, PICTURES, 1)[0] for _ in places]
        pictures = [
            Picture(name, (place % 3 + 0.5) / 3, (place // 3 + 0.5) / rows, float(rng.uniform(0.2, 0.26)))
            for name, place in zip(names, places, strict=True)
        ]
        return Composed(notes_of(rng, some(rng, INSTRUMENTS, 1)), pictures, [("things", "", NUMBERS[how_many - 1])])
    if kind < 0.7 or how_many == 1:
        notes = notes_of(rng, some(rng, INSTRUMENTS, 1) * how_many)
        return Composed(notes, bystanders(rng), [("notes", "", NUMBERS[how_many - 1])])
    first, second = some(rng, INSTRUMENTS, 2)
    own = int(rng.integers(1, how_many))
    names = [first] * own + [second] * (how_many - own)
    notes = notes_of(rng, [names[place] for place in rng.permutation(how_many)])
    asked = [("own notes", first, NUMBERS[own - 1]), ("own notes", second, NUMBERS[how_many - own - 1])]
    return Composed(notes, bystanders(rng), asked)


def sync(rng: Rng) -> Composed:
    """One leaves its place at every note, another in between, and a third may stand by."""
    hops = spans(rng, int(rng.integers(2, 9)), 0.2, SECONDS - 0.2, 0.3, 1.0)
    with_note = rng.permutation([place % 2 == 0 for place in range(len(hops))])
    pictures = beside(rng, some(rng, PICTURES, 3 if rng.random() < 0.3 else 2))
    mover, decoy = rng.permutation(len(pictures))[:2]
    for place, wanted in ((mover, True), (decoy, False)):
        own = tuple(hop for hop, sounds in zip(hops, with_note, strict=True) if bool(sounds) == wanted)
        old = pictures[place]
        pictures[place] = Picture(old.name, old.x, 0.6, old.size, hops=own)
    (name,) = some(rng, INSTRUMENTS, 1)
    rings = float(rng.uniform(0, 0.25)) if rng.random() < 0.3 else 0.0  # beyond the hop
    notes = [Note(name, a, b + rings) for (a, b), sounds in zip(hops, with_note, strict=True) if sounds]
    return Composed(notes, pictures, [("sync", "", pictures[mover].name)])


def order(rng: Rng) -> Composed:
    names = some(rng, INSTRUMENTS, int(rng.integers(2, 4)))
    notes = notes_of(rng, [name for name in names for _ in range(int(rng.integers(1, 3)))])
    return Composed(notes, bystanders(rng), [("first", "", names[0]), ("last", "", names[-1])])


def _scenes(rng: Rng) -> tuple[Composed, list[tuple[str, str]]]:
    """Pictures one after another, each with an instrument of its own; and (picture, instrument) of each."""
    parts = int(rng.integers(2, 4))
    pairs = list(zip(some(rng, PICTURES, parts), some(rng, INSTRUMENTS, parts), strict=True))
    made = Composed()
    for number, (picture, name) in enumerate(pairs):
        begin, end = SECONDS * number / parts, SECONDS * (number + 1) / parts
        x, y, size = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.32, 0.5))
        made.pictures.append(Picture(picture, x, y, size, (begin + 0.05, end - 0.05)))
        made.notes += notes_of(rng, [name] * int(rng.integers(1, 3)), begin + 0.25, end - 0.25)
    return made, [pairs[place] for place in rng.permutation(parts)[:2]]


def when(rng: Rng) -> Composed:
    made, pairs = _scenes(rng)
    made.asked = [("when", name, picture) for picture, name in pairs]
    return made


def heard(rng: Rng) -> Composed:
    made, pairs = _scenes(rng)
    made.asked = [("heard", picture, name) for picture, name in pairs]
    return made


def exists(rng: Rng) -> Composed:
    names = some(rng, INSTRUMENTS, int(rng.integers(1, 4)))
    shown = some(rng, PICTURES, int(rng.integers(1, 3)))
    made = Composed(notes_of(rng, names), beside(rng, shown))
    for kind, all_names, there, elsewhere in (
        ("seen", PICTURES, shown, names),
        ("sounding", INSTRUMENTS, names, shown),
    ):
        tempting = [name for name in all_names if name in elsewhere and name not in there]
        absent = tempting or [name for name in all_names if name not in there]
        yes = bool(rng.random() < 0.5)
        made.asked.append((kind, some(rng, there if yes else absent, 1)[0], "yes" if yes else "no"))
    return made


def silent(rng: Rng) -> Composed:
    made = Composed(pictures=beside(rng, some(rng, PICTURES, int(rng.integers(1, 3)))))
    (name,) = some(rng, INSTRUMENTS, 1)
    choices = [("instrument", "", NOTHING), ("first", "", NOTHING), ("sounding", name, "no"),
               ("heard", made.pictures[0].name, NOTHING)]  # fmt: skip
    made.asked = [choices[place] for place in rng.permutation(len(choices))[:2]]
    return made


def dark(rng: Rng) -> Composed:
    names = some(rng, INSTRUMENTS, int(rng.integers(1, 3)))
    (name,) = some(rng, PICTURES, 1)
    choices = [
        ("shown", "", NOTHING),
        ("side", "on the left", NOTHING),
        ("seen", name, "no"),
        ("when", names[0], NOTHING),
    ]
    asked = [choices[place] for place in rng.permutation(len(choices))[:2]]
    return Composed(notes_of(rng, names), [], asked, dark=True)


def listed(rng: Rng) -> Composed:
    """Instruments, or things, one after another."""
    parts = int(rng.integers(2, 6))
    if rng.random() < 0.6:
        names = some(rng, INSTRUMENTS, parts)
        notes = notes_of(rng, [name for name in names for _ in range(int(rng.integers(1, 3)))])
        return Composed(notes, bystanders(rng), [("list heard", "", ", ".join(names))])
    names = some(rng, PICTURES, parts)
    shown = []
    for number, name in enumerate(names):
        x, y, size = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.32, 0.5))
        shown.append(Picture(name, x, y, size, _part(number, parts)))
    notes = notes_of(rng, some(rng, INSTRUMENTS, int(rng.integers(1, 4))))
    return Composed(notes, shown, [("list seen", "", ", ".join(names))])


def _part(number: int, parts: int) -> Span:
    """One of so many parts of a clip, a little kept free at its ends."""
    return SECONDS * number / parts + 0.05, SECONDS * (number + 1) / parts - 0.05


def corner(rng: Rng) -> Composed:
    """Things appear in corners, each about a whole second, and stay or go."""
    how_many = int(rng.integers(2, 5))
    seconds = sorted((rng.permutation(6)[:how_many] + 1).tolist())
    shown, choices = [], []
    for name, second, place in zip(some(rng, PICTURES, how_many), seconds, rng.permutation(4), strict=False):
        begin = second + float(rng.uniform(-0.1, 0.1))
        end = SECONDS if rng.random() < 0.5 else min(SECONDS, begin + float(rng.uniform(1.0, 3.5)))
        x, y = (0.25 + float(rng.uniform(-0.03, 0.03)) + 0.5 * side for side in (place % 2, place // 2))
        shown.append(Picture(name, x, y, float(rng.uniform(0.26, 0.38)), (begin, end)))
        choices += [("corner what", CORNERS[place], name), ("corner where", name, CORNERS[place]),
                    ("corner when", name, NUMBERS[second - 1])]  # fmt: skip
    notes = notes_of(rng, some(rng, INSTRUMENTS, int(rng.integers(1, 4))))
    return Composed(notes, shown, [choices[place] for place in rng.permutation(len(choices))[:2]])


def each(rng: Rng) -> Composed:
    """In four or five parts something is seen and somebody may play; one pair always comes together."""
    parts = int(rng.integers(4, 6))
    target, *others = some(rng, PICTURES, 3)
    player, *bystanding = some(rng, INSTRUMENTS, 3)
    together = rng.permutation(parts)[: int(rng.integers(2, 4))].tolist()
    made, size = Composed(), float(rng.uniform(0.28, 0.4))
    for number in range(parts):
        begin, end = show = _part(number, parts)
        left, right, names = others[number % 2], "", [bystanding[number % 2]] if rng.random() < 0.8 else []
        if number in together:
            crowded = number == together[0]  # others are there, too, and for once only
            left, right, names = target, others[0] if crowded else "", [player, *bystanding[:crowded]]
        made.pictures += [Picture(name, x, 0.5, size, show) for name, x in ((left, 0.27), (right, 0.73)) if name]
        made.notes += notes_of(rng, some(rng, names, len(names)), begin + 0.15, end - 0.15)
    made.asked = [("each seen", player, target), ("each heard", target, player)]
    return made


Families = dict[str, Callable[[Rng], Composed]]
FAMILIES: Families = {
    "instrument": instrument, "object": object, "count": count, "sync": sync, "order": order, "when": when,
    "heard": heard, "exists": exists, "list": listed, "corner": corner, "each": each, "silent": silent, "dark": dark,
}  # fmt: skip
# Those of scenes that are not wide, which count to five.
NARROW: Families = {
    name: partial(count, most=5) if name == "count" else compose
    for name, compose in FAMILIES.items()
    if name not in ("list", "corner", "each")
}
