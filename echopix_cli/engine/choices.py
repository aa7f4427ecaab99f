"""Multiple choice: options behind letters, and how likely the model finds each of the letters."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from echopix_cli.errors import ModelError, UsageError
from echopix_cli.model.finite import require_finite
from echopix_cli.model.processing import Processor
from echopix_cli.model.stepping import FixedCache
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.model.values import Sieved

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# "B", "b)", "(B)", "B.", and "B. violin", "B: violin", "(B) violin".
LETTERED = re.compile(r"\s*(?:\(([A-Za-z])\)|([A-Za-z])(?:[.):]|(?=\s*$)))\s*(.*)", re.DOTALL)
_HINT = '--choices "a dog|a cat|neither"'


def clean_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """Options as they will be shown, on one line each.

    Raises:
        UsageError: fewer than two or more than there are letters, an empty one, or one twice.
    """
    texts = without_letters([" ".join(choice.split()) for choice in choices])
    if not 2 <= len(texts) <= len(LETTERS):
        raise UsageError(f"{len(texts)} choices; between 2 and {len(LETTERS)} are possible", _HINT)
    if not all(texts):
        raise UsageError("a choice is empty", _HINT)
    if len(set(texts)) < len(texts):
        raise UsageError("two choices are the same", _HINT)
    return texts


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


def letter_ids(processor: Processor, count: int) -> list[int]:
    """The token that each of the first letters is answered with.

    Raises:
        ModelError: the vocabulary has no token of its own for one of them.
    """
    answers = [processor.answer_ids(letter) for letter in LETTERS[:count]]
    firsts = [ids[0] for ids in answers]
    if len({len(ids) for ids in answers}) > 1 or len(answers[0]) != 2 or len(set(firsts)) < count:
        raise ModelError("this model's vocabulary has no tokens for the letters of choices", "ask without --choices")
    return firsts


@torch.inference_mode()
def letter_shares(thinker: EchoingPixelsThinker, sieved: Sieved, letters: Sequence[int]) -> list[float]:
    """Probabilities of the letters' tokens as the first of an answer, among themselves: they sum to 1.

    Args:
        thinker: that the rows are for.
        sieved: the kept rows of one prompt.
        letters: from :func:`letter_ids`.

    Raises:
        ModelError: logits that are no numbers.
    """
    logits = require_finite(thinker, thinker.prefill(sieved, FixedCache(thinker.model, sieved, 0)), "logits")[0]
    shares: list[float] = logits[list(letters)].double().softmax(dim=-1).tolist()
    return shares
