"""Options of benchmark files whose letters are missing, out of order, or there twice."""

from __future__ import annotations

from typing import Any

import pytest

from echopix_cli.evaluation.readers.fields import gold_of, lettered, options


@pytest.mark.parametrize(
    ("value", "choices", "gold"),  # the place of what A, B, C and D stand for
    [
        (["A. hat", None, "C. dog"], ("hat", "", "dog"), (0, 1, 2, None)),
        (["hat", None, "dog", None], ("hat", "", "dog"), (0, 1, 2, None)),
        ({"A": 3, "B": "none", "C": 4.5, "D": None}, ("3", "none", "4.5"), (0, 1, 2, None)),
        ({"A": "hat", "C": "dog"}, ("hat", "dog"), (0, None, 1, None)),
        (["B. hat", "A. dog"], ("hat", "dog"), (1, 0, None, None)),
        (["(B) hat", "(C) dog", "(D) cat"], ("hat", "dog", "cat"), (None, 0, 1, 2)),
        (["A. hat", "B. dog", "B. cat"], ("A. hat", "B. dog", "B. cat"), (None, None, None, None)),
        (["J. Smith", "B. Jones"], ("J. Smith", "B. Jones"), (0, 1, None, None)),
        ('["A. hat", null, "C. dog"]', ("hat", "", "dog"), (0, 1, 2, None)),
    ],
)
def test_a_gold_letter_is_the_option_s_own(value: Any, choices: tuple[str, ...], gold: tuple[int | None, ...]) -> None:
    found = options(value)
    bare, shown = lettered(found)
    assert bare == choices
    assert tuple(gold_of(letter, found) for letter in "ABCD") == gold
    assert [one[0] for one in shown] == list("ABCD"[: len(shown)])


@pytest.mark.parametrize("letters", ["CABD", "ABCD", "BCDE", "XY"])
def test_letters_that_nothing_follows_are_options_themselves(letters: str) -> None:
    choices, shown = lettered(tuple(letters))
    assert choices == tuple(letters)
    assert shown == tuple(f"{place}. {letter}" for place, letter in zip("ABCD", letters, strict=False))


def test_letters_that_a_text_follows_are_the_options_own() -> None:
    assert lettered(("A. a dog", "B.", "C. a cat"))[0] == ("a dog", "", "a cat")
    assert lettered(("a dog", "", "B"))[0] == ("a dog", "", "B")
