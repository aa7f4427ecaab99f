"""What a full-token decoder attends to, as a target of the sieve's scores."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from echopix_cli.model.attention import attend
from echopix_cli.model.layers import DecoderLayer
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.text import causal_mask
from echopix_cli.model.values import Prompt

_BLOCK = 32  # asking rows taken at a time, which bounds the memory of their attention


class AttentionTeacher:
    """Attention of a full-token decoder as a target of the scores.

    A frozen copy of the decoder that the run starts from reads all tokens with the right answer, causally. Prompts in a
    row that are alike up to their last audio-visual row, as several questions about one clip are, share what the
    decoder makes of it: nothing after it changes that.
    """

    def __init__(self, model: EchoingPixelsForConditionalGeneration) -> None:
        text = model.thinker.model
        self.layers = cast(list[DecoderLayer], copy.deepcopy(text.layers).requires_grad_(False).eval())
        self.rotary = text.rotary

    @torch.no_grad()
    def target(self, prompt: Prompt, pool: Tensor) -> Tensor:
        """(B, L) attention that each row receives from all rows after the prompt's last audio-visual one.

        Averaged over heads and asking rows, summed over layers; 0 for rows that ask.

        Args:
            prompt: padded on the left.
            pool: (B, L) bool, audio-visual rows.
        """
        embeds, length = prompt.embeds, pool.shape[1]
        places = torch.arange(length, device=pool.device)
        valid = torch.ones_like(pool) if prompt.attention_mask is None else prompt.attention_mask.bool()
        ends = (pool * places).amax(dim=1) + 1
        parts = list(zip(valid.int().argmax(dim=1).tolist(), ends.tolist(), strict=True))
        firsts, of = _alike(prompt, parts)
        before = max(parts[row][1] - parts[row][0] for row in firsts)
        after = slice(min(end for _, end in parts), length)

        def padded(tensor: Tensor) -> Tensor:
            """The shared parts, (B, L, …) → (groups, before, …), padded on the left."""
            cut = [tensor[row, slice(*parts[row])] for row in firsts]
            return torch.stack([F.pad(part, (0, 0) * (part.ndim - 1) + (before - len(part), 0)) for part in cut])

        shared, own = padded(embeds), embeds[:, after]
        known, asking = padded(valid), valid[:, after] & (places[after] >= ends[:, None])
        positions = prompt.position_ids
        turns = self.rotary(padded(positions.permute(1, 2, 0)).permute(2, 0, 1), embeds.dtype)
        own_turns = self.rotary(positions[:, :, after], embeds.dtype)
        mask = causal_mask(known)
        seen = torch.cat((known[of, None, None].expand(-1, -1, own.shape[1], -1), causal_mask(asking)), dim=-1)
        weight = asking / asking.sum(dim=1, keepdim=True).clamp(min=1)
        received = torch.zeros(seen[:, 0, 0].shape, device=pool.device)
        for layer in self.layers:
            query, key, value = (
                part.transpose(1, 2) for part in layer.self_attn.project(layer.input_layernorm(shared), turns)
            )
            asked, own_key, own_value = (
                part.transpose(1, 2) for part in layer.self_attn.project(layer.input_layernorm(own), own_turns)
            )
            shared = layer.finish(shared, attend(query, key, value, mask).flatten(2))
            keys, values = torch.cat((key[of], own_key), dim=2), torch.cat((value[of], own_value), dim=2)
            mixed, found = _attention(asked * layer.self_attn.scaling, keys, values, seen, weight)
            own = layer.finish(own, mixed.flatten(2))
            received += found
        target = torch.zeros(pool.shape, device=pool.device)
        for row, (begin, end) in enumerate(parts):
            target[row, begin:end] = received[row, before - (end - begin) : before]
        return target


def _alike(prompt: Prompt, parts: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Which prompts come first of those in a row that are alike in their ``parts``, and for each prompt, of which."""
    firsts: list[int] = []
    of: list[int] = []
    for row, part in enumerate(parts):
        here = slice(*part)
        there = slice(*parts[firsts[-1]]) if firsts else here
        if not (
            firsts
            and torch.equal(prompt.embeds[row, here], prompt.embeds[firsts[-1], there])
            and torch.equal(prompt.position_ids[:, row, here], prompt.position_ids[:, firsts[-1], there])
        ):
            firsts.append(row)
        of.append(len(firsts) - 1)
    return firsts, of


def _attention(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What rows take from others, and what these give.

    Args:
        query: (B, heads, n, head_dim), scaled.
        key, value: (B, key heads, m, head_dim).
        seen: (B, 1, n, m) bool.
        weight: (B, n) of each asking row.

    Returns:
        what attention mixes, (B, n, heads, head_dim); and the attention that each of m rows receives, (B, m) float32,
        averaged over heads, weighted over asking rows.
    """
    groups = query.shape[1] // key.shape[1]
    with torch.autocast(query.device.type, enabled=False):  # large key biases would leave half precision's range
        keys, values = (part.float().repeat_interleave(groups, dim=1) for part in (key, value))
        mixed, received = [], torch.zeros(key.shape[0], key.shape[2], device=key.device)
        for begin in range(0, query.shape[2], _BLOCK):
            block = slice(begin, begin + _BLOCK)
            logits = query[:, :, block].float() @ keys.mT
            attention = logits.masked_fill(~seen[:, :, block], -torch.inf).softmax(dim=-1)
            mixed.append(attention @ values)
            received += (attention.mean(dim=1) * weight[:, block, None]).sum(dim=1)
    return torch.cat(mixed, dim=2).transpose(1, 2).contiguous().to(value.dtype), received
