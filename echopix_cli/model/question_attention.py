"""The training-free sieve: a stock decoder's own first layers, and what the question attends to in them.

The first m layers run over the whole prompt. Layer m's queries and keys then tell how much attention each
audio-visual row would receive from the question, and only what is kept goes through the layers from m on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from echopix_cli.model.attention import attention_received
from echopix_cli.model.positions import SpecialTokens, Timeline
from echopix_cli.model.redundancy import prefilter
from echopix_cli.model.sieve import left_mask, pack_left
from echopix_cli.model.text import EchoingPixelsTextModel
from echopix_cli.model.values import FirstLayers, Prompt, Scored


class LayerStates:
    """Keys and values (B, key heads, R, head_dim) of the layers that ran, in their order."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Take a layer's keys and values, and give them back."""
        self.layers.append((keys, values))
        return keys, values


def scoring_layer(layers: int, wanted: int | None) -> int:
    """The layer m at which rows are scored: ``wanted``, or a third of the layers, rounded up.

    Measured on a stock-like model of four layers, the second is clearly better than the first.

    Raises:
        ValueError: there is no such layer.
    """
    layer = min(-(-layers // 3), layers - 1) if wanted is None else wanted
    if not 0 <= layer < layers:
        raise ValueError(f"there is no decoder layer {layer}: they are numbered 0 to {layers - 1}")
    return layer


def asking_rows(ids: Tensor, valid: Tensor, special: SpecialTokens) -> Tensor:
    """Rows (B, L) bool whose attention counts: those after the last audio-visual row, and the last row.

    That is the question and the turn's end. The borders that close the media have read no word of the question
    and do not count. A prompt without audio-visual rows has nothing to ask about.
    """
    in_pool = special.in_pool(ids) & valid
    closing = torch.isin(ids, torch.tensor(special.ends, dtype=ids.dtype, device=ids.device))
    places = torch.arange(ids.shape[1], device=ids.device)
    after = places > (in_pool * places).amax(dim=1, keepdim=True)
    last = places == (valid * places).amax(dim=1, keepdim=True)
    return ((after & ~closing & valid) | last) & in_pool.any(dim=1, keepdim=True)


def score_by_question(
    model: EchoingPixelsTextModel, prompt: Prompt, special: SpecialTokens, timeline: Timeline, how: FirstLayers
) -> Scored:
    """The redundancy stage, the first layers over what it left, and each row's attention from the question.

    Memory grows with the prompt's length: no attention is asked for its weights.

    Args:
        model: embeddings and decoder of a checkpoint without a sieve.
        prompt: from ``place``.
        special: the checkpoint's special ids.
        timeline: positions per second and per window.
        how: at which layer, after which redundancy stage.

    Raises:
        ValueError: the decoder has no such layer.
    """
    start = scoring_layer(len(model.layers), how.layer)
    ids = prompt.input_ids
    valid = torch.ones_like(ids, dtype=torch.bool) if prompt.attention_mask is None else prompt.attention_mask.bool()
    in_pool = special.in_pool(ids) & valid

    # 1. What is left of each prompt, packed to the left like everything that the decoder gets.
    left = prefilter(prompt, valid, special, timeline, how.share)
    hidden = pack_left([prompt.embeds[row, index] for row, index in enumerate(left)])
    packed_ids = pack_left([ids[row, index] for row, index in enumerate(left)], 0)
    positions = pack_left([prompt.position_ids[:, row, index].T for row, index in enumerate(left)], 0).permute(2, 0, 1)
    mask = left_mask([len(index) for index in left], ids.device)
    real = torch.ones_like(packed_ids, dtype=torch.bool) if mask is None else mask.bool()

    # 2. The first layers; their keys and values of kept rows will be needed by every generated token.
    cache = LayerStates()
    hidden = model.run_layers(hidden, positions, mask, cache, 0, start)
    first = tuple(cache.layers)

    # 3. Attention received at layer ``start``, and where each prompt row stands.
    rotary = model.rotary(positions, hidden.dtype)
    asking = asking_rows(packed_ids, real, special)
    received = attention_received(model.layers[start], hidden, rotary, asking, real)
    scores = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
    places, candidates = torch.zeros_like(ids), torch.zeros_like(in_pool)
    for row, index in enumerate(left):
        packed = torch.arange(hidden.shape[1] - len(index), hidden.shape[1], device=ids.device)
        places[row, index] = packed
        scores[row, index] = received[row, packed]
        candidates[row, index] = True
    return Scored(hidden, places, scores, valid, in_pool, candidates & in_pool, start, first)
