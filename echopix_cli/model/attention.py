"""Attention through the kernels that are meant, and how much of it rows receive, without the L × L map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from echopix_cli.model.positions import Rotary, apply_rotary

# Not cuDNN's, which torch prefers on Hopper and Blackwell: it plans anew for every length of the keys.
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_GROUPED = (8, 0)  # compute capability from which a kernel other than the L × L one takes grouped keys
_WHOLE_MAP = 2048  # rows up to which a CPU that trains in bfloat16 holds the L × L map
_BLOCK = 32  # asking rows taken at a time: what bounds the memory when all of a long prompt asks


def takes_grouped_keys(device: torch.device, itemsize: int) -> bool:
    """Whether a device has a kernel, other than that which holds the L × L map, for fewer key than query heads.

    On CUDA that is the flash kernel, for numbers of half precision (``itemsize`` 2) from capability 8.0 on.
    """
    return device.type != "cuda" or (itemsize == 2 and torch.cuda.get_device_capability(device) >= _GROUPED)


def chosen_kernels(device: torch.device) -> AbstractContextManager[Any]:
    """While it is open, torch's attention on ``device`` takes one of :data:`BACKENDS`; the process's own choice is
    put back afterwards."""
    return sdpa_kernel(BACKENDS) if device.type == "cuda" else nullcontext()


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = True) -> Tensor:
    """Scaled dot product attention through the kernels that are meant.

    Args:
        query: (B, heads, n, head_dim).
        key, value: (B, key heads, m, head_dim); query heads are a multiple of key heads.
        mask: (B, 1, n or 1, m) bool, which keys a row sees; None hides nothing but what causality hides.
        causal: whether row i sees rows up to i only, where there is no mask.

    Returns:
        (B, n, heads, head_dim).
    """
    groups = query.shape[1] // key.shape[1]
    grouped = groups > 1 and mask is None and takes_grouped_keys(query.device, query.element_size())
    if groups > 1 and not grouped:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    mixed = mix(query, key, value, mask, causal=causal and mask is None and query.shape[2] > 1, grouped=grouped)
    return mixed.transpose(1, 2).contiguous()


def mix(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    grouped: bool = False,
) -> Tensor:
    """Scaled dot product attention, (B, heads, n, head_dim) and keys and values of m rows → (B, heads, n, head_dim).

    A CPU that trains in bfloat16 takes it as matrix products: with their gradients, torch's kernel needs two to five
    times as long for what training reads, 64 rows of 32 numbers to 600 of 64.
    """
    if _by_products(query, key):
        with torch.autocast("cpu", enabled=False):
            query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
            logits = query * query.shape[-1] ** -0.5 @ key.mT
            if causal:
                mask = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
            if mask is not None:  # added, for that has no gradient to be filled in turn
                logits += torch.zeros_like(mask, dtype=logits.dtype).masked_fill_(~mask, -torch.inf)
            return logits.softmax(dim=-1) @ value
    with chosen_kernels(query.device):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


def _by_products(query: Tensor, key: Tensor) -> bool:
    """Whether a CPU is to take attention as matrix products: in bfloat16, for gradients, of rows that are not many."""
    if query.device.type != "cpu" or not torch.is_grad_enabled() or max(query.shape[2], key.shape[2]) > _WHOLE_MAP:
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    return dtype == torch.bfloat16 and query.shape[1] == key.shape[1]


def attention_received(layer: nn.Module, hidden: Tensor, rotary: Rotary, asking: Tensor, valid: Tensor) -> Tensor:
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
        angles = (rotary[0][own], rotary[1][own])
        for _, weights in attention_of(layer, hidden[own], angles, rows[None], valid[own]):
            received[row] += weights[0].mean(dim=0).sum(dim=0)
        received[row] /= len(rows)
    return received


def attention_of(
    layer: nn.Module, hidden: Tensor, rotary: Rotary, rows: Tensor, visible: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Causal attention weights of some rows of each prompt: :func:`attention_logits` after softmax."""
    for block, logits in attention_logits(layer, hidden, rotary, rows, visible):
        yield block, logits.softmax(-1)


def attention_logits(
    layer: nn.Module, hidden: Tensor, rotary: Rotary, rows: Tensor, visible: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """What some rows of each prompt find in others, before softmax, a block of them at a time.

    Scaled before they are summed, and summed in single precision: the large key biases of the family's 7B would leave
    half precision's range.

    Args:
        layer: a decoder layer of the family.
        hidden: (B, L, d), the layer's input.
        rotary: cosine and sine (B, L, head_dim).
        rows: (B, n), which rows look.
        visible: (B, L) bool, rows that may be looked at; each of ``rows`` comes after one of them, or is one.

    Yields:
        The block's places in ``rows``, and its logits (B, heads, block, L), float32, -inf for what a row does not see.
    """
    parts = cast(Any, layer)  # whose module imports this one
    attention, normed = parts.self_attn, parts.input_layernorm(hidden)
    places = torch.arange(hidden.shape[1], device=hidden.device)
    prompts = torch.arange(len(hidden), device=hidden.device)[:, None]
    key = apply_rotary(attention.heads(attention.k_proj(normed)), rotary).transpose(1, 2).float()
    for begin in range(0, rows.shape[1], _BLOCK):
        block = slice(begin, begin + _BLOCK)
        own = rows[:, block]
        query = attention.heads(attention.q_proj(normed[prompts, own]))
        query = apply_rotary(query, (rotary[0][prompts, own], rotary[1][prompts, own])).transpose(1, 2)
        query = query.float() * attention.scaling
        with torch.autocast(query.device.type, enabled=False):
            # Query heads that share a key head, one below the other.
            scores = query.reshape(*key.shape[:2], -1, key.shape[3]) @ key.transpose(2, 3)
        scores = scores.view(*query.shape[:3], -1)
        seen = (places <= own[..., None]) & visible[:, None]
        yield block, scores.masked_fill(~seen[:, None], -torch.inf)
