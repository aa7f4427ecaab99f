"""Multiple choice: how likely the model finds each of the letters that options stand behind."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from echopix_cli.choices import LETTERS
from echopix_cli.errors import ModelError
from echopix_cli.model.finite import require_finite
from echopix_cli.model.processing import Processor
from echopix_cli.model.stepping import FixedCache
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.model.values import Sieved


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
def letter_shares(
    thinker: EchoingPixelsThinker, sieved: Sieved, letters: Sequence[int], cache: FixedCache | None = None
) -> list[float]:
    """Probabilities of the letters' tokens as the first of an answer, among themselves: they sum to 1.

    Args:
        thinker: that the rows are for.
        sieved: the kept rows of one prompt.
        letters: from :func:`letter_ids`.
        cache: an empty one, for a caller who reads it afterwards.

    Raises:
        ModelError: logits that are no numbers.
    """
    cache = cache or FixedCache(thinker.model, sieved, 0)
    logits = require_finite(thinker, thinker.prefill(sieved, cache), "logits")[0]
    shares: list[float] = logits[list(letters)].double().softmax(dim=-1).tolist()
    return shares
