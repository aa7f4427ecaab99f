"""Questions about scenes with options behind letters, as ``--choices`` puts them: the letter is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from echopix_cli.choices import LETTERS, posed
from echopix_cli.scenes import CORNERS, COUNTED, INSTRUMENTS, NOTHING, NUMBERS, PICTURES, Item
from echopix_cli.training.rows import NAMES

_MOST = 5  # options
_NOTHING = 0.15  # how often "nothing" is among the wrong options of a question that could be answered so
_YES_NO = ("yes", "no")
_KINDS = (_YES_NO, CORNERS, COUNTED, INSTRUMENTS, PICTURES)  # names of instruments first: pictures have some of them

Rng = np.random.Generator


def lettered(item: Item, rng: Rng) -> Item:
    """The same question with two to five options of its answer's kind, in random order, one of them right."""
    wrong = _wrong(item, rng)
    count = min(int(rng.integers(2, _MOST + 1)), len(wrong) + 1)
    options = [str(text) for text in rng.permutation([item.answer, *wrong[: count - 1]])]
    return replace(item, question=posed(item.question, options), answer=LETTERS[options.index(item.answer)])


def is_lettered(item: Item) -> bool:
    """Whether options stand below the question."""
    return "\n" in item.question


def _wrong(item: Item, rng: Rng) -> list[str]:
    """What else could have been the answer, in random order; where two names are to choose from, the other first."""
    answer = item.answer
    if ", " in answer:
        return _other_lists(answer.split(", "), rng)
    kind: Sequence[str] = next((kind for kind in _KINDS if answer in kind), (*INSTRUMENTS, *PICTURES))
    if "fifth" in item.question:
        kind = NUMBERS
    others = [text for text in dict.fromkeys(kind) if text != answer]
    wrong = [others[int(i)] for i in rng.permutation(len(others))]
    if kind in (INSTRUMENTS, PICTURES) and rng.random() < _NOTHING:
        wrong.insert(0, NOTHING)
    if " or " in item.question:
        wrong = list(dict.fromkeys([*(name for name in NAMES.findall(item.question) if name != answer), *wrong]))
    return wrong


def _other_lists(names: Sequence[str], rng: Rng) -> list[str]:
    """Lists of as many names: the same ones in another order, and some with another one among them."""
    kind = INSTRUMENTS if set(names) <= set(INSTRUMENTS) else PICTURES
    others = [name for name in kind if name not in names]
    found = dict.fromkeys([", ".join(names)])
    while len(found) < _MOST:
        made = list(names)
        if rng.random() < 0.5:
            made[int(rng.integers(len(made)))] = others[int(rng.integers(len(others)))]
        else:
            made = [made[int(i)] for i in rng.permutation(len(made))]
        found[", ".join(made)] = None
    return list(found)[1:]
