"""How much a clip has to do with a question, comparable between clips: the decoder's attention before its softmax.

The sieve's scores tell rows of one prompt apart; which of two prompts holds what was asked for they need not tell.
Attention is what the decoder finds by, and within one prompt all rows compete in one softmax, so their logits compare.
The row from which the answer is read asks the same of every prompt that ends in the same question.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from echopix_cli.model.attention import attention_logits
from echopix_cli.model.layers import DecoderLayer
from echopix_cli.model.text import EchoingPixelsTextModel
from echopix_cli.model.values import Sieved


def relevance(model: EchoingPixelsTextModel, sieved: Sieved, in_pool: Tensor) -> float:
    """The highest attention logit that a prompt's last row gives to an audio-visual row; mean over layers and heads.

    Args:
        model: with the decoder's layers; those from ``sieved.start`` on run.
        sieved: one prompt's kept rows.
        in_pool: (K,) bool, which of them are audio-visual.

    Returns:
        -inf where none is.
    """
    if not bool(in_pool.any()):
        return -torch.inf
    hidden, positions = sieved.hidden, sieved.position_ids
    rotary = model.rotary(positions, hidden.dtype)
    last = torch.tensor([[hidden.shape[1] - 1]], device=hidden.device)
    visible = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    peaks = []
    for number in range(sieved.start, len(model.layers)):
        layer = cast(DecoderLayer, model.layers[number])
        ((_, logits),) = attention_logits(layer, hidden, rotary, last, visible)
        peaks.append(logits[0, :, 0, in_pool].amax(dim=-1).mean())
        if number + 1 < len(model.layers):
            hidden = layer(hidden, rotary)
    return float(torch.stack(peaks).mean())
