"""How much attention rows receive from chosen rows, without the L × L map."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import apply_rotary_pos_emb


def attention_received(
    layer: nn.Module, hidden: Tensor, rotary: tuple[Tensor, Tensor], asking: Tensor, valid: Tensor
) -> Tensor:
    """Causal attention of a decoder layer that each row receives from the asking rows.

    Queries are taken of the asking rows only, so memory grows with L, not with its square.

    Args:
        layer: a decoder layer of the family.
        hidden: (B, L, d), the layer's input.
        rotary: cosine and sine (B, L, head_dim).
        asking: (B, L) bool, rows whose attention is measured.
        valid: (B, L) bool, rows that may be looked at (no padding).

    Returns:
        (B, L) float32: mean over heads and asking rows; a prompt's row sums to 1, or to 0 where nothing asks.
    """
    attention = cast(Any, layer).self_attn
    normed = cast(Any, layer).input_layernorm(hidden)
    batch, length, _ = hidden.shape
    shape = (batch, length, -1, attention.head_dim)
    query = attention.q_proj(normed).view(shape).transpose(1, 2)
    key = attention.k_proj(normed).view(shape).transpose(1, 2)
    query, key = apply_rotary_pos_emb(query, key, *rotary)
    key = key.repeat_interleave(attention.num_key_value_groups, dim=1)
    received = torch.zeros(batch, length, dtype=torch.float32, device=hidden.device)
    places = torch.arange(length, device=hidden.device)
    for row in range(batch):
        rows = asking[row].nonzero().squeeze(-1)
        if len(rows) == 0:
            continue
        scores = (query[row, :, rows] @ key[row].transpose(1, 2)).float() * attention.scaling  # (heads, asking, L)
        seen = (places <= rows[:, None]) & valid[row]
        received[row] = scores.masked_fill(~seen, -torch.inf).softmax(-1).mean(dim=(0, 1))
    return received
