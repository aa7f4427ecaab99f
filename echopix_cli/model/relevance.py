"""What the decoder's attention finds: how much a clip has to do with a question, and where an answer is read from.

The sieve's scores tell rows of one prompt apart; which of two prompts holds what was asked for they need not tell.
Attention is what the decoder finds by, and within one prompt all rows compete in one softmax, so their logits compare.
The row from which the answer is read asks the same of every prompt that ends in the same question. And among the rows
that the sieve kept, scores say which were worth keeping; what the answer was read from, attention says.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from echopix_cli.model.attention import attention_logits
from echopix_cli.model.layers import DecoderLayer
from echopix_cli.model.positions import apply_rotary
from echopix_cli.model.stepping import FixedCache
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


def last_attention(model: EchoingPixelsTextModel, sieved: Sieved, cache: FixedCache) -> Tensor:
    """How the row from which the answer's first token is read divides its attention: one step over what prefill left.

    Args:
        model: with the decoder's layers.
        sieved: one prompt's kept rows.
        cache: filled by their prefill; tokens that were made since are not looked at.

    Returns:
        (K,) float32, the mean over heads and the later half of the layers; it sums to 1.
    """
    layers = [cast(DecoderLayer, layer) for layer in model.layers]
    hidden, prompt = sieved.hidden[:, -1:], _Prompt(cache)
    rotary = model.rotary(sieved.position_ids[..., -1:], hidden.dtype)
    first = max(sieved.start, len(layers) // 2)
    found = hidden.new_zeros(cache.rows, dtype=torch.float32)
    for number in range(sieved.start, len(layers)):
        layer = layers[number]
        if number >= first:
            attention, key = layer.self_attn, prompt.of(number)[0][0].float()
            query = apply_rotary(attention.heads(attention.q_proj(layer.input_layernorm(hidden))), rotary)[0, 0]
            # Query heads that share a key head, one below the other.
            query = (query.float() * attention.scaling).view(len(key), -1, key.shape[2])
            found += (query @ key.mT).softmax(-1).mean(dim=(0, 1))
        if number + 1 < len(layers):
            hidden = layer(hidden, rotary, None, True, prompt, number)
    return found / (len(layers) - first)


class _Prompt:
    """A prompt's part of a cache, as what a step over its last row reads: that row is in it already."""

    def __init__(self, cache: FixedCache) -> None:
        self._cache = cache

    def of(self, number: int) -> tuple[Tensor, Tensor]:
        """Keys and values (B, key heads, K, head_dim) of a layer."""
        keys, values = self._cache.layers[number]
        return keys[:, :, : self._cache.rows], values[:, :, : self._cache.rows]

    def update(self, keys: Tensor, values: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """The same, whatever keys and values the row has anew."""
        return self.of(number)
