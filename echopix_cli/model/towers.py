"""The family's towers, with their many small kernels joined: the same numbers in fewer calls.

transformers runs attention window by window and the patch embedding as a convolution whose kernel is the
whole patch. Windows of equal length go through one call here, and the convolution is the matrix product
that it amounts to. Parameters and their names stay transformers' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5OmniAudioAttention,
    Qwen2_5OmniAudioEncoder,
    Qwen2_5OmniVisionAttention,
    Qwen2_5OmniVisionEncoder,
    apply_rotary_pos_emb_vision,
)

from echopix_cli.model.attention import chosen_kernels


@dataclass(frozen=True)
class _Windows:
    """Windows sorted by length.

    Attributes:
        groups: how many windows there are of each length, as (length, count).
        order: (n,) rows so that windows of a length follow one another; None where they do already.
        back: (n,) where each row stands in ``order``.
    """

    groups: list[tuple[int, int]]
    order: Tensor | None = None
    back: Tensor | None = None


def attend_windows(query: Tensor, key: Tensor, value: Tensor, borders: Tensor) -> Tensor:
    """Unmasked attention within windows, one call for all windows of a length.

    Args:
        query, key, value: (n, heads, head_dim).
        borders: (windows + 1,) ascending row numbers, 0 first and n last.

    Returns:
        (n, heads * head_dim).
    """
    windows = _windows(borders)
    if windows.order is not None:
        query, key, value = (part[windows.order] for part in (query, key, value))
    pieces: list[Tensor] = []
    row = 0
    with chosen_kernels(query.device):
        for length, count in windows.groups:
            rows = slice(row, row + count * length)
            q, k, v = (x[rows].reshape(count, length, *x.shape[1:]).transpose(1, 2) for x in (query, key, value))
            pieces.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1))
            row = rows.stop
    mixed = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return (mixed if windows.back is None else mixed[windows.back]).flatten(1)


_KNOWN: Any = WeakTensorKeyDictionary()


def _windows(borders: Tensor) -> _Windows:
    """Every layer of a tower asks for the same windows, and reading them off a GPU waits for it."""
    if borders not in _KNOWN:
        edges = borders.tolist()
        lengths = np.diff(edges)
        sizes, counts = np.unique(lengths, return_counts=True)
        groups = [(int(size), int(count)) for size, count in zip(sizes, counts, strict=True) if size]
        if (np.diff(lengths) >= 0).all():
            _KNOWN[borders] = _Windows(groups)
        else:
            of_row = np.repeat(lengths, lengths)
            order = torch.from_numpy(np.argsort(of_row, kind="stable"))
            _KNOWN[borders] = _Windows(groups, order.to(borders.device), order.argsort().to(borders.device))
    return cast(_Windows, _KNOWN[borders])


class VisionAttention(Qwen2_5OmniVisionAttention):
    """Self-attention of patches, a frame or a part of one at a time."""

    def forward(self, hidden_states: Tensor, cu_seqlens: Tensor, **kwargs: Any) -> Tensor:
        """(n, d) → (n, d); ``cu_seqlens`` are the windows' borders."""
        query, key, value = (
            layer(hidden_states).unflatten(1, (self.num_heads, -1)) for layer in (self.q, self.k, self.v)
        )
        query, key = apply_rotary_pos_emb_vision(query, key, *kwargs["position_embeddings"])
        return cast(Tensor, self.proj(attend_windows(query, key, value, cu_seqlens)))


class AudioAttention(Qwen2_5OmniAudioAttention):
    """Self-attention of sound rows, two seconds at a time."""

    def forward(self, hidden_states: Tensor, cu_seqlens: Tensor, **kwargs: Any) -> Tensor:
        """(n, d) → (n, d); ``cu_seqlens`` are the windows' borders."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (layer(hidden_states).unflatten(1, (self.num_heads, -1)) for layer in layers)
        return cast(Tensor, self.out_proj(attend_windows(query, key, value, cu_seqlens)))


class PatchEmbed(Qwen2_5_VisionPatchEmbed):
    """Patches to vectors; the convolution's kernel is a whole patch, so one matrix product does it."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(n, channels · frames · height · width) → (n, d)."""
        weight = self.proj.weight
        return F.linear(hidden_states.to(weight.dtype), weight.flatten(1))


def build_visual(config: Any) -> Qwen2_5OmniVisionEncoder:
    """The vision tower of a configuration."""
    tower = Qwen2_5OmniVisionEncoder._from_config(config)
    tower.patch_embed = _replaced(
        tower.patch_embed,
        PatchEmbed(config.patch_size, config.temporal_patch_size, config.in_channels, config.hidden_size),
    )
    for block in tower.blocks:
        block.attn = _replaced(block.attn, VisionAttention(config))
    return cast(Qwen2_5OmniVisionEncoder, tower)


def build_audio(config: Any) -> Qwen2_5OmniAudioEncoder:
    """The audio tower of a configuration."""
    tower = Qwen2_5OmniAudioEncoder._from_config(config)
    for layer in tower.layers:
        layer.self_attn = _replaced(layer.self_attn, AudioAttention(config))
    return cast(Qwen2_5OmniAudioEncoder, tower)


def _replaced(old: torch.nn.Module, new: torch.nn.Module) -> torch.nn.Module:
    """``new`` with the parameters of ``old``."""
    for name, child in old.named_children():
        setattr(new, name, child)
    return new
