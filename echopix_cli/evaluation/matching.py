"""Whether an answer is the gold answer: exact match after normalisation, with choices also by their letters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from echopix_cli.choices import LETTERED, LETTERS

_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)}
_ARTICLES = {"a", "an", "the"}
_APOSTROPHES = "'’"


def normalise(text: str) -> str:
    """What two answers must share to count as the same.

    Compatibility forms and case are folded (NFKC, casefold); apostrophes go and other punctuation separates
    words, save a point or comma inside a number and a minus before one; number words up to twenty become digits;
    the articles a, an and the go, unless nothing else is there; words are joined by single spaces.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    shown = [_kept(folded, place) for place in range(len(folded))]
    words = [_DIGITS.get(word, word) for word in "".join(shown).split()]
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def _kept(text: str, place: int) -> str:
    """A character of folded text, or what stands for it."""
    character = text[place]
    if character in _APOSTROPHES:
        return ""
    if not unicodedata.category(character).startswith("P"):
        return character
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    inside_number = character in ".," and before.isdigit() and after.isdigit()
    of_number = character == "-" and after.isdigit() and (not before or before.isspace())
    return character if inside_number or of_number else " "


def chosen(answer: str, choices: Sequence[str]) -> int | None:
    """Which of the choices an answer names: by its text, by its letter, or by both where they agree."""
    texts = [normalise(choice) for choice in choices]
    said, match = normalise(answer), LETTERED.fullmatch(answer)
    index, text = (len(texts), "") if match is None else (LETTERS.index((match[1] or match[2]).upper()), match[3])
    # A letter with its text comes before whole texts: "B. A major" is the second of "B major" and "A major", though it
    # reads as the first without its articles. A letter alone comes after them: it may be an option's text.
    if text and index < len(texts) and normalise(text) == texts[index]:
        return index
    if said and texts.count(said) == 1:
        return texts.index(said)
    return index if not text and index < len(texts) else None


def is_right(answer: str, gold: str, choices: Sequence[str] = ()) -> bool:
    """Whether an answer matches the gold answer, which with ``choices`` is the text of one of them."""
    if choices:
        index = chosen(answer, choices)
        return index is not None and normalise(choices[index]) == normalise(gold)
    return normalise(answer) == normalise(gold)
