"""When an answer counts as the gold answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.choices import without_letters
from echopix_cli.evaluation.matching import chosen, is_right, normalise


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Violin.", "violin"),
        ("  the   VIOLIN\n", "violin"),
        ("A violin and an apple", "violin and apple"),
        ("three", "3"),
        ("Twenty dogs", "20 dogs"),
        ("zero", "0"),
        ("someone", "someone"),
        ("the", "the"),
        ("A", "a"),
        ("“Yes!”", "yes"),
        ("it's", "its"),
        ("it’s", "its"),  # NFKC leaves the typographic apostrophe
        ("well-known", "well known"),
        ("3.5 s", "3.5 s"),
        ("3,500", "3,500"),
        ("3. 5", "3 5"),
        ("-5 °C", "-5 °c"),
        ("5-6", "5 6"),
        ("C++", "c++"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("ﬁddle ２", "fiddle 2"),  # compatibility forms
        ("Åse", "åse"),
        ("…", ""),
        ("", ""),
        ("小提琴。", "小提琴"),
    ],
)
def test_normalise(text: str, same: str) -> None:
    assert normalise(text) == same


@given(st.text(st.characters(max_codepoint=0x17F), max_size=40))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(st.text(max_size=40))
def test_case_and_surrounding_punctuation_do_not_matter(text: str) -> None:
    assert normalise(f" «{text}»! ") == normalise(f"({text})")


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("Piano.", "piano", True),
        ("three", "3", True),
        ("a piano", "the piano", True),
        ("piano and violin", "piano", False),
        ("", "piano", False),
        ("pianos", "piano", False),
    ],
)
def test_free_answers(answer: str, gold: str, right: bool) -> None:
    assert is_right(answer, gold) is right


CHOICES = ("piano", "violin", "the drum")


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("violin", 1),
        ("Violin!", 1),
        ("B", 1),
        ("b)", 1),
        ("(b)", 1),
        (" B. ", 1),
        ("B. violin", 1),
        ("B: The violin.", 1),
        ("(B) violin", 1),
        ("C", 2),
        ("drum", 2),
        ("A", 0),
        ("B. piano", None),  # letter and text disagree
        ("B violin", None),  # "a violin" would otherwise be the first choice
        ("A violin", 1),
        ("D", None),
        ("D. violin", None),
        ("It is the violin", None),
        ("", None),
        ("AB", None),
    ],
)
def test_which_choice_an_answer_names(answer: str, index: int | None) -> None:
    assert chosen(answer, CHOICES) == index
    assert is_right(answer, "violin", CHOICES) is (index == 1)


def test_a_letter_with_the_text_of_its_choice_comes_before_what_the_whole_reads_as() -> None:
    """Without its article "B. A major" is "b major", the text of the other choice."""
    keys = ("B major", "A major")
    assert [chosen(answer, keys) for answer in ("B. A major", "A. B major", "A major", "B major")] == [1, 0, 1, 0]
    assert is_right("B. A major", "A major", keys) and not is_right("B. A major", "B major", keys)


def test_choices_that_are_letters_themselves_go_by_their_text() -> None:
    assert chosen("A", ("B", "A")) == 1


@pytest.mark.parametrize(
    ("choices", "bare"),
    [
        (("A. piano", "B. violin"), ("piano", "violin")),
        (("(A) piano", "(B) violin"), ("piano", "violin")),
        (("a) piano", "b) violin"), ("piano", "violin")),
        (("B. piano", "A. violin"), ("B. piano", "A. violin")),
        (("A. piano", "violin"), ("A. piano", "violin")),
        (("A", "B"), ("A", "B")),
        (("piano", "violin"), ("piano", "violin")),
    ],
)
def test_letters_that_a_data_set_wrote_itself(choices: tuple[str, ...], bare: tuple[str, ...]) -> None:
    assert without_letters(choices) == bare
