"""Options of a multiple-choice question: as people write them, cleaned, and as models read them, behind letters."""

from __future__ import annotations

import re
from collections.abc import Sequence

from echopix_cli.errors import UsageError
from echopix_cli.parsers import is_whole

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# "B", "b)", "(B)", "B.", and "B. violin", "B: violin", "(B) violin".
LETTERED = re.compile(r"\s*(?:\(([A-Za-z])\)|([A-Za-z])(?:[.):]|(?=\s*$)))\s*(.*)", re.DOTALL)
_HINT = '--choices "a dog|a cat|neither"'


def clean_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """Options as they will be shown, on one line each.

    Raises:
        UsageError: fewer than two or more than there are letters, an empty one, one twice, or one that is not UTF-8.
    """
    texts = without_letters([" ".join(choice.split()) for choice in choices])
    require_choices(texts)
    return texts


def require_choices(texts: Sequence[str]) -> None:
    """Check that one of some options can be chosen.

    Raises:
        UsageError: as :func:`clean_choices`.
    """
    if not 2 <= len(texts) <= len(LETTERS):
        raise UsageError(f"{len(texts)} choices; between 2 and {len(LETTERS)} are possible", _HINT)
    if not all(text.strip() for text in texts):
        raise UsageError("a choice is empty", _HINT)
    if len(set(texts)) < len(texts):
        raise UsageError("two choices are the same", _HINT)
    if not all(map(is_whole, texts)):
        raise UsageError("a choice is not valid UTF-8", "check the encoding of the terminal or file")


def without_letters(choices: Sequence[str]) -> tuple[str, ...]:
    """Choices without the letters of their own that some data sets write before them ("A. piano", "B. violin")."""
    found = [LETTERED.fullmatch(choice) for choice in choices]
    own = all(
        match is not None and (match[1] or match[2]).upper() == letter and match[3]
        for match, letter in zip(found, LETTERS, strict=False)
    )
    return tuple(match[3].strip() for match in found if match is not None) if own else tuple(choices)


def posed(question: str, choices: Sequence[str]) -> str:
    """The question as the model reads it: choices follow, one on a line, behind their letters."""
    return "\n".join([question, *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))])
