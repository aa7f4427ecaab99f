"""A decoder layer of the family as inference runs it: transformers' parameters, half of its kernels.

On a GPU a pass over few rows costs what its launches cost the host, and a sieve leaves few rows. Numbers are rounded
where transformers rounds them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Rotary = tuple[Tensor, Tensor]


def normalised(norm: nn.Module, hidden: Tensor) -> Tensor:
    """A layer's RMS norm in two kernels instead of six; rounded where transformers rounds."""
    weight, eps = cast(Tensor, norm.weight), float(cast(Any, norm).variance_epsilon)
    return weight * F.rms_norm(hidden, weight.shape, eps=eps)


def projected(attention: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (…, heads, head_dim) of rows (…, d), not turned yet."""
    query, key, value = (part(normed) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
    size = (-1, attention.head_dim)
    return query.unflatten(-1, size), key.unflatten(-1, size), value.unflatten(-1, size)


def turned(heads: Tensor, rotary: Rotary) -> Tensor:
    """Queries or keys (…, heads, head_dim) turned to their rows' positions, cosine and sine (…, head_dim)."""
    cosine, sine = (part.unsqueeze(-2) for part in rotary)
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-second, first), dim=-1) * sine


def turned_together(query: Tensor, key: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
    """As :func:`turned`, of queries and keys in one go."""
    both = turned(torch.cat((query, key), dim=-2), rotary)
    first, second = both.tensor_split((query.shape[-2],), dim=-2)
    return first, second


def completed(layer: Any, hidden: Tensor, mixed: Tensor) -> Tensor:
    """The rest of a layer after its attention: rows (…, d) and what attention mixed for them, (…, heads · head_dim)."""
    hidden = hidden + layer.self_attn.o_proj(mixed)
    return hidden + cast(Tensor, layer.mlp(normalised(layer.post_attention_layernorm, hidden)))
