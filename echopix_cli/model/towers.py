"""The family's towers: frames and sound into rows of the decoder's width.

Parameters are named as transformers names them. Windows of attention that are of equal length go through one call, and
the patch embedding, a convolution whose kernel is a whole patch, is the matrix product that it amounts to. Where a row
stands is known on the host, so nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echopix_cli.model.attention import mix
from echopix_cli.model.configuration import AudioConfig, VisionConfig
from echopix_cli.model.layers import GatedMLP, Recomputing, RMSNorm
from echopix_cli.model.positions import Rotary, apply_rotary, frequencies

IntArray = npt.NDArray[np.int64]
_HALF_RANGE = 1000.0  # how far sound rows in half precision are kept from its largest number
_LONGEST_PERIOD = 10_000  # of the audio tower's position embeddings


@dataclass(frozen=True)
class Windows:
    """Windows of attention, sorted by length.

    Attributes:
        groups: how many windows there are of each length, as (length, count).
        order: (n,) rows so that windows of a length follow one another; None where they do already.
        back: (n,) where each row is in ``order``.
    """

    groups: tuple[tuple[int, int], ...]
    order: Tensor | None = None
    back: Tensor | None = None

    @classmethod
    def of(cls, lengths: IntArray, device: torch.device) -> Windows:
        """Windows of these lengths, one after another."""
        sizes, counts = np.unique(lengths, return_counts=True)
        groups = tuple((int(size), int(count)) for size, count in zip(sizes, counts, strict=True) if size)
        if (np.diff(lengths) >= 0).all():
            return cls(groups)
        order = torch.from_numpy(np.argsort(np.repeat(lengths, lengths), kind="stable"))
        return cls(groups, order.to(device), order.argsort().to(device))


def attend_windows(query: Tensor, key: Tensor, value: Tensor, windows: Windows) -> Tensor:
    """Unmasked attention within windows, one call for all windows of a length: (n, heads, head_dim) → (n, d)."""
    if windows.order is not None:
        query, key, value = (part[windows.order] for part in (query, key, value))
    pieces: list[Tensor] = []
    row = 0
    for length, count in windows.groups:
        rows = slice(row, row + count * length)
        q, k, v = (x[rows].reshape(count, length, *x.shape[1:]).transpose(1, 2) for x in (query, key, value))
        pieces.append(mix(q, k, v).transpose(1, 2).flatten(0, 1))
        row = rows.stop
    mixed = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return (mixed if windows.back is None else mixed[windows.back]).flatten(1)


# 1. Vision.


@dataclass(frozen=True)
class GridOrder:
    """Patches of grids (t, h, w) in the order in which windows of attention follow one another.

    Attributes:
        cells: (n / merge²,) merged cells in that order, of all there are in reading order.
        positions: (n, 2) row and column of each patch in its grid, in that order.
        frames, windows: (…,) lengths in patches of whole grid steps, and of windows.
    """

    cells: IntArray
    positions: IntArray
    frames: IntArray
    windows: IntArray

    @classmethod
    @lru_cache(maxsize=16)  # all slices of a clip but the last have one grid
    def of(cls, grids: tuple[tuple[int, int, int], ...], merge: int, window: int) -> GridOrder:
        """Of grids whose windows are ``window`` merged cells wide and high, ``merge`` patches each way to a cell."""
        cells, positions, frames, windows = [], [], [], []
        before = 0
        for t, h, w in grids:
            high, wide = h // merge, w // merge
            step, row, column = (part.ravel() for part in np.indices((t, high, wide)))
            number = (step * (-(-high // window)) + row // window) * (-(-wide // window)) + column // window
            order = np.argsort(number, kind="stable")
            inside = np.stack([part.ravel() for part in np.indices((merge, merge))], axis=1)
            corner = np.stack([row, column], axis=1)[order] * merge
            positions.append((corner[:, None] + inside).reshape(-1, 2))
            cells.append(order + before)
            frames.append(np.full(t, h * w))
            windows.append(np.unique(number, return_counts=True)[1] * merge**2)
            before += t * high * wide
        return cls(*(np.concatenate(parts).astype(np.int64) for parts in (cells, positions, frames, windows)))


class PatchEmbed(nn.Module):
    """Patches to vectors."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        size = (config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.in_channels, config.hidden_size, size, stride=size, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """(n, channels · frames · height · width) → (n, d)."""
        weight = self.proj.weight
        return F.linear(patches.to(weight.dtype), weight.flatten(1))


class VisionAttention(nn.Module):
    """Self-attention of patches, a frame or a window of one at a time."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor, windows: Windows, rotary: Rotary) -> Tensor:
        """(n, d) → (n, d); the rotation is in single precision."""
        query, key, value = (layer(hidden).unflatten(1, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        query, key = (apply_rotary(part.float(), rotary).to(value.dtype) for part in (query, key))
        output: Tensor = self.proj(attend_windows(query, key, value, windows))
        return output


class VisionBlock(Recomputing):
    """Attention and MLP, each after a norm and added to what came in."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(config.hidden_size), RMSNorm(config.hidden_size)
        self.attn = VisionAttention(config.hidden_size, config.num_heads)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, bias=True)

    def forward(self, hidden: Tensor, windows: Windows, rotary: Rotary) -> Tensor:
        """(n, d) → (n, d)."""
        hidden = hidden + self.attn(self.norm1(hidden), windows, rotary)
        output: Tensor = hidden + self.mlp(self.norm2(hidden))
        return output


class PatchMerger(nn.Module):
    """The patches of a merged cell, side by side, to one row of the decoder's width."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.joined = config.hidden_size * config.spatial_merge_size**2
        self.ln_q = RMSNorm(config.hidden_size)
        self.mlp = nn.Sequential(
            nn.Linear(self.joined, self.joined), nn.GELU(), nn.Linear(self.joined, config.out_hidden_size)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, d) → (n / merge², decoder width)."""
        rows: Tensor = self.mlp(self.ln_q(hidden).view(-1, self.joined))
        return rows


class VisionTower(nn.Module):
    """Patches of frames to rows of the decoder's width, one for each merged cell."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = PatchMerger(config)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return self.patch_embed.proj.weight.dtype

    def forward(self, patches: Tensor, grids: Sequence[Sequence[int]]) -> Tensor:
        """Patches (n, channels · frames · height · width) of grids (t, h, w) → (n / merge², decoder width)."""
        config, device = self.config, patches.device
        merge = config.spatial_merge_size
        sizes = tuple((int(t), int(h), int(w)) for t, h, w in grids)
        order = GridOrder.of(sizes, merge, config.window_size // merge // config.patch_size)
        cells = torch.from_numpy(order.cells).to(device)
        hidden = self.patch_embed(patches)
        hidden = hidden.view(len(cells), merge**2, -1)[cells].flatten(0, 1)
        rotary = self._rotary(torch.from_numpy(order.positions).to(device))
        frames, windows = Windows.of(order.frames, device), Windows.of(order.windows, device)
        for number, block in enumerate(self.blocks):
            hidden = block(hidden, frames if number in config.fullatt_block_indexes else windows, rotary)
        rows: Tensor = self.merger(hidden)[cells.argsort()]
        return rows

    def _rotary(self, positions: Tensor) -> Rotary:
        """Angles (n, head_dim) of patches at (n, 2): a quarter of a head by the row, the next by the column, twice."""
        count = self.config.hidden_size // self.config.num_heads // 4
        angles = positions[..., None].float() * frequencies(count, self.config.rope_theta, positions.device)
        angles = angles.flatten(1).repeat(1, 2)
        return angles.cos(), angles.sin()


# 2. Sound.


class AudioAttention(nn.Module):
    """Self-attention of sound rows, two seconds at a time."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj, self.q_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor, windows: Windows) -> Tensor:
        """(n, d) → (n, d)."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (layer(hidden).unflatten(1, (self.heads, -1)) for layer in layers)
        output: Tensor = self.out_proj(attend_windows(query, key, value, windows))
        return output


class AudioLayer(Recomputing):
    """Attention and MLP, each after a norm and added to what came in."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.self_attn = AudioAttention(config.d_model, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, hidden: Tensor, windows: Windows) -> Tensor:
        """(n, d) → (n, d); in half precision kept within its range."""
        hidden = hidden + self.self_attn(self.self_attn_layer_norm(hidden), windows)
        hidden = hidden + self.fc2(F.gelu(self.fc1(self.final_layer_norm(hidden))))
        if hidden.dtype == torch.float16:
            most = torch.finfo(torch.float16).max - _HALF_RANGE
            hidden = hidden.clamp(-most, most)
        return hidden


class AudioTower(nn.Module):
    """Log-mel to rows of the decoder's width, 25 a second."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.d_model, config.d_model, kernel_size=3, stride=2, padding=1)
        self.audio_bos_eos_token = nn.Embedding(2, config.output_dim)  # of the talker; never read here
        self.layers = nn.ModuleList(AudioLayer(config) for _ in range(config.encoder_layers))
        self.ln_post = nn.LayerNorm(config.d_model)
        self.proj = nn.Linear(config.d_model, config.output_dim)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return self.conv1.weight.dtype

    def forward(self, log_mel: Tensor, frames: Sequence[int]) -> Tensor:
        """Log-mel (sounds, bins, most frames), of which ``frames`` of each sound are real → (rows, decoder width)."""
        device, size = log_mel.device, 2 * self.config.n_window
        spans = [(sound, begin, min(begin + size, end)) for sound, end in enumerate(frames)
                 for begin in range(0, end, size)]  # fmt: skip
        lengths = np.array([end - begin for _, begin, end in spans], dtype=np.int64)
        if log_mel.shape[2] % size == 0 and all(end == log_mel.shape[2] for end in frames):
            # Whole windows alone, as many of each sound: one reshaping instead of a copy for each window.
            pieces = log_mel.reshape(*log_mel.shape[:2], -1, size).transpose(1, 2).flatten(0, 1)
        else:
            most = int(lengths.max())
            pieces = torch.stack([
                F.pad(log_mel[sound, :, begin:end], (0, most - (end - begin))) for sound, begin, end in spans
            ])  # fmt: skip
        first = F.gelu(self.conv1(pieces.to(self.dtype)))
        if bool((lengths != lengths.max()).any()):
            real = torch.arange(pieces.shape[2]) < torch.from_numpy(lengths)[:, None]
            first = first * real[:, None].to(device)
        joined = F.gelu(self.conv2(first)).transpose(1, 2)
        joined = joined + positions_table(joined.shape[1], joined.shape[2], device).to(joined.dtype)
        rows = (lengths - 1) // 2 + 1  # of each window, after the second convolution's stride
        hidden = joined.flatten(0, 1)
        if bool((rows != joined.shape[1]).any()):
            there = np.arange(joined.shape[1]) < rows[:, None]
            hidden = hidden[torch.from_numpy(there.ravel().nonzero()[0]).to(device)]
        windows = Windows.of(rows, device)
        for layer in self.layers:
            hidden = layer(hidden, windows)
        pairs = torch.from_numpy(_pairs([(end - 1) // 2 + 1 for end in frames])).to(device)
        output: Tensor = self.proj(self.ln_post((hidden[pairs] + hidden[pairs + 1]) / 2))
        return output


def _pairs(rows: Sequence[int]) -> IntArray:
    """The first row of each pair that is averaged: sounds one after another, an odd last row of a sound left out."""
    begins = np.cumsum([0, *rows])[:-1]
    return np.concatenate([begin + 2 * np.arange(count // 2) for begin, count in zip(begins, rows, strict=True)])


@lru_cache(maxsize=16)
def positions_table(rows: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal position embeddings (rows, width), single precision. Shared: not to be changed."""
    with torch.inference_mode(False):
        step = np.log(_LONGEST_PERIOD) / (width // 2 - 1)
        scales = torch.exp(-step * torch.arange(width // 2).float())
        angles = torch.arange(rows)[:, None] * scales[None]
        return torch.cat([angles.sin(), angles.cos()], dim=1).to(device)
