"""How much attention rows receive from chosen rows, without the L × L map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import apply_rotary_pos_emb

_BLOCK = 32  # asking rows taken at a time: what bounds the memory when all of a long prompt asks


def attention_received(
    layer: nn.Module, hidden: Tensor, rotary: tuple[Tensor, Tensor], asking: Tensor, valid: Tensor
) -> Tensor:
    """Causal attention of a decoder layer that each row receives from the asking rows.

    Queries are taken of the asking rows only, a block of them at a time, so memory grows with L, not with its
    square, and no attention implementation is asked for its weights.

    Args:
        layer: a decoder layer of the family.
        hidden: (B, L, d), the layer's input.
        rotary: cosine and sine (B, L, head_dim).
        asking: (B, L) bool, rows whose attention is measured.
        valid: (B, L) bool, rows that may be looked at (no padding).

    Returns:
        (B, L) float32: mean over heads and asking rows; a prompt's row sums to 1, or to 0 where nothing asks.
    """
    batch, length, _ = hidden.shape
    received = torch.zeros(batch, length, dtype=torch.float32, device=hidden.device)
    for row in range(batch):
        rows = asking[row].nonzero().squeeze(-1)
        if len(rows) == 0:
            continue
        own = slice(row, row + 1)
        turns = (rotary[0][own], rotary[1][own])
        for _, weights in attention_of(layer, hidden[own], turns, rows[None], valid[own]):
            received[row] += weights[0].mean(dim=0).sum(dim=0)
        received[row] /= len(rows)
    return received


def attention_of(
    layer: nn.Module, hidden: Tensor, rotary: tuple[Tensor, Tensor], rows: Tensor, visible: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Causal attention weights of some rows of each prompt, a block of them at a time.

    Args:
        layer: a decoder layer of the family.
        hidden: (B, L, d), the layer's input.
        rotary: cosine and sine (B, L, head_dim).
        rows: (B, n), which rows look.
        visible: (B, L) bool, rows that may be looked at; each of ``rows`` comes after one of them, or is one.

    Yields:
        The block's places in ``rows``, and its weights (B, heads, block, L), float32.
    """
    attention = cast(Any, layer).self_attn
    normed = cast(Any, layer).input_layernorm(hidden)
    places = torch.arange(hidden.shape[1], device=hidden.device)
    prompts = torch.arange(len(hidden), device=hidden.device)[:, None]
    key = turned(split_heads(attention.k_proj(normed), attention.head_dim), rotary)
    key = key.repeat_interleave(attention.num_key_value_groups, dim=1)
    for begin in range(0, rows.shape[1], _BLOCK):
        block = slice(begin, begin + _BLOCK)
        own = rows[:, block]
        query = split_heads(attention.q_proj(normed[prompts, own]), attention.head_dim)
        query = turned(query, (rotary[0][prompts, own], rotary[1][prompts, own]))
        scores = (query @ key.transpose(2, 3)).float() * attention.scaling
        seen = (places <= own[..., None]) & visible[:, None]
        yield block, scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1)


def split_heads(projected: Tensor, head_dim: int) -> Tensor:
    """(B, n, heads · head_dim) → (B, heads, n, head_dim)."""
    return projected.view(*projected.shape[:2], -1, head_dim).transpose(1, 2)


def turned(heads: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys (B, heads, n, head_dim) turned to their rows' positions, cosine and sine (B, n, head_dim)."""
    # The library turns a pair of tensors; the other one has no heads.
    return cast(Tensor, cast(Any, apply_rotary_pos_emb)(heads, heads[:, :0], *rotary)[0])
