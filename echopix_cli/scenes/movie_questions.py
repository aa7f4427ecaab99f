"""Questions about a movie that hang on its needles, with evidence in seconds of the movie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from echopix_cli.scenes.draws import pick
from echopix_cli.scenes.geometry import filmed
from echopix_cli.scenes.questions import sight, sounding, sounds, word
from echopix_cli.scenes.script import DURATION, NUMBERS, OBJECTS, Evidence, Item, Script
from echopix_cli.scenes.wordings import Wordings, words_of

MOVIE_FAMILIES: tuple[str, ...] = ("instrument", "object", "when", "heard", "order", "exists")
PARTS = len(NUMBERS)

Rng = np.random.Generator
Modality = Literal["audio", "video"]
_SENSES: dict[Modality, str] = {"audio": "heard", "video": "seen"}  # as kinds of wordings end
_CLEARLY = 0.5  # seconds by which one thing comes before another in one scene


@dataclass(frozen=True)
class Reserved:
    """Names that a movie's haystack does without, both as sounds and as pictures.

    Attributes:
        heard: instruments that needles let sound.
        seen: pictures that needles show.
    """

    heard: tuple[str, ...]
    seen: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return frozenset((*self.heard, *self.seen))

    def of(self, modality: Modality) -> tuple[str, ...]:
        """Those that are to be heard, or to be seen."""
        return self.heard if modality == "audio" else self.seen


@dataclass(frozen=True)
class Needle:
    """A scene in a window of a movie, with the one reserved name that it lets sound or shows."""

    window: int
    name: str
    modality: Modality
    script: Script

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Where the name sounds or is shown, in seconds of the movie."""
        if self.modality == "audio":
            own = sounds(tuple(note for note in self.script.notes if note.instrument == self.name))
        else:
            shown = (sight(sprite) for sprite in self.script.sprites if sprite.name == self.name)
            own = tuple(filmed(self.script, piece) for piece in shown)
        return moved(own, self.window)

    @property
    def within(self) -> Item | None:
        """The question of what else goes on meanwhile; None where the scene leaves it open."""
        family = "when" if self.modality == "audio" else "heard"  # as scenes call it
        about = (item for item in self.script.items if item.family == family and f" the {self.name} " in item.question)
        return next((replace(item, evidence=moved(item.evidence, self.window)) for item in about), None)

    def part(self, duration: float) -> int | None:
        """Which of five equal parts of a movie it lies in, from 0; None where it lies in two."""
        ends = {int(PARTS * at / duration) for piece in self.evidence for at in (piece.start, piece.end)}
        return ends.pop() if len(ends) == 1 else None


def ask_movie(
    rng: Rng, split: str, needles: tuple[Needle, ...], reserved: Reserved, duration: float
) -> tuple[Item, ...]:
    """Every question that needles answer, and what is never heard or seen, families in their order."""
    words = words_of(split)
    items = [item for needle in needles for item in _ask_needle(rng, words, needle, duration)]
    for modality in _SENSES:
        items += ask_order(rng, [needle for needle in needles if needle.modality == modality])
        absent = [name for name in reserved.of(modality) if name not in {needle.name for needle in needles}]
        items.append(_yes_or_no(rng, words, pick(rng, absent), "no", (Evidence(modality, 0.0, duration),)))
    return tuple(sorted(items, key=lambda item: MOVIE_FAMILIES.index(item.family)))


def ask_as_movie(rng: Rng, script: Script) -> tuple[Item, ...]:
    """What only movies are asked, of one scene as if it were a whole movie: in which fifth, and which of two first."""
    items: list[Item] = []
    names: dict[Modality, list[str]] = {
        "audio": sounding(script),
        "video": list(dict.fromkeys(sprite.name for sprite in script.sprites)),
    }
    for modality in _SENSES:
        needles = [Needle(0, name, modality, script) for name in names[modality]]
        items += [item for needle in needles for item in ask_part(rng, needle, script.duration)]
        pair = sorted((needles[i] for i in rng.permutation(len(needles))[:2]), key=_begin)
        if len(pair) == 2 and _begin(pair[1]) - _begin(pair[0]) >= _CLEARLY:
            items += ask_order(rng, pair)
    return tuple(items)


def _begin(needle: Needle) -> float:
    return min(piece.start for piece in needle.evidence)


def _ask_needle(rng: Rng, words: Wordings, needle: Needle, duration: float) -> list[Item]:
    items = [_yes_or_no(rng, words, needle.name, "yes", needle.evidence)]
    if (item := needle.within) is not None:
        items.append(replace(item, family="object" if needle.modality == "audio" else "instrument"))
    return items + ask_part(rng, needle, duration)


def ask_part(rng: Rng, needle: Needle, duration: float) -> list[Item]:
    """In which fifth of a movie a needle lies; nothing where that is in two."""
    if (part := needle.part(duration)) is None:
        return []
    question = word(rng, words_of(needle.script.split), f"part-{_SENSES[needle.modality]}", name=needle.name)
    return [Item("when", question, NUMBERS[part], needle.evidence)]


def ask_order(rng: Rng, needles: Sequence[Needle]) -> list[Item]:
    """Which of two needles comes first, which are given in order of time; nothing where there are not two."""
    if len(needles) != 2:
        return []
    one, other = (needles[i].name for i in rng.permutation(2))
    first, second = needles
    words = words_of(first.script.split)
    question = word(rng, words, f"earlier-{_SENSES[first.modality]}", name=one, other=other)
    return [Item("order", question, first.name, first.evidence + second.evidence)]


def _yes_or_no(rng: Rng, words: Wordings, name: str, answer: str, evidence: tuple[Evidence, ...]) -> Item:
    if evidence[0].modality == "audio":
        return Item("heard", word(rng, words, "exists-heard", name=name), answer, evidence)
    kind = "exists-object" if name in OBJECTS and rng.random() < 0.3 else "exists-seen"
    return Item("exists", word(rng, words, kind, name=name), answer, evidence)


def moved(evidence: tuple[Evidence, ...], window: int) -> tuple[Evidence, ...]:
    """Evidence of a scene, in seconds of the movie whose window it fills."""
    begin = window * DURATION
    return tuple(replace(piece, start=piece.start + begin, end=piece.end + begin) for piece in evidence)
