"""Embeddings, CS2, score head and causal decoder: the part of the thinker that knows no media.

The module tree is named after the authors' checkpoint, so that tensors need no renaming on the way in or out.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from echopix_cli.model.configuration import EchoingPixelsTextConfig
from echopix_cli.model.layers import DecoderLayer, RMSNorm
from echopix_cli.model.positions import Rotary, rotary_embedding


def causal_mask(valid: Tensor) -> Tensor:
    """(B, L) bool, false at padding → causal mask (B, 1, L, L) in which a row of padding sees itself.

    A row that sees nothing has no softmax, and one of a GPU's attention kernels then gives every weight a gradient of
    NaN, though the loss is none of that row's.
    """
    length = valid.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    alone = torch.eye(length, dtype=torch.bool, device=valid.device)
    return (lower & valid[:, None, None, :]) | alone


class TokenCompressor(nn.Module):
    """The score head: one scalar for every CS2 row."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.ln = RMSNorm(hidden_size)
        self.score_head = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, d) → scores (B, L)."""
        spans = block_spans(hidden)
        scores = [self.score_head(self.ln(hidden[:, span])).squeeze(-1) for span in spans]
        return torch.cat(scores, dim=1)


class BidirectionalEncoder(nn.Module):
    """CS2: decoder-shaped layers in which every row of the prompt sees every other."""

    def __init__(self, config: EchoingPixelsTextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.av_refiner_layers))

    def forward(self, hidden: Tensor, rotary: Rotary, key_mask: Tensor | None) -> Tensor:
        """(B, L, d) → (B, L, d); ``key_mask`` (B, 1, 1 or L, L) bool hides keys, None hides nothing."""
        if torch.is_grad_enabled():  # what a layer computes on its way is kept then anyway
            for layer in self.layers:
                hidden = layer(hidden, rotary, key_mask, False)
            return hidden
        hidden = hidden.clone()
        for layer in self.layers:
            cast(DecoderLayer, layer).run_in_blocks(hidden, rotary, key_mask, block_spans(hidden))
        return hidden


def block_rows(device: torch.device) -> int:
    """Rows that CS2 takes at a time: what bounds its memory on a long prompt.

    Few enough that a block's inner activations stay small, enough that launching kernels and unpacking a quantized
    layer, once for each block, cost little.
    """
    return 512 if device.type == "cpu" else 2048


def block_spans(hidden: Tensor) -> list[slice]:
    """The blocks of (B, L, d)."""
    rows = block_rows(hidden.device)
    return [slice(begin, begin + rows) for begin in range(0, hidden.shape[1], rows)]


class EchoingPixelsTextModel(nn.Module):
    """Embeddings, CS2, score head and decoder; a checkpoint without a sieve has neither CS2 nor score head."""

    def __init__(self, config: EchoingPixelsTextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        trained = config.sieve == "cs2"
        self.bidir_encoder = BidirectionalEncoder(config) if trained and config.av_refiner_layers > 0 else None
        self.compressor = TokenCompressor(config.hidden_size) if trained else None
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def rotary(self, positions: Tensor, dtype: torch.dtype) -> Rotary:
        """Cosine and sine for (4, B, L) positions; CS2 and decoder share them.

        Sync-RoPE reads all four axes. The family's own three sections leave the fourth unread.
        """
        return rotary_embedding(positions, self.config.sync_rope_section, self.config.rope_theta, dtype)

    def run_layers(
        self,
        hidden: Tensor,
        positions: Tensor,
        attention_mask: Tensor | None = None,
        cache: Any = None,
        begin: int = 0,
        end: int | None = None,
    ) -> Tensor:
        """Causal layers ``begin`` up to ``end`` (all of them): (B, K, d) rows at (4, B, K) positions → (B, K, d).

        ``attention_mask`` (B, cached + K) covers cached and new rows; None when nothing is padded; (B, 1, K, K) says
        for each row what it sees. ``cache`` is filled by the layers that run.
        """
        rotary = self.rotary(positions, hidden.dtype)
        # Gaps in time are no sequence borders; rows see themselves and what comes before them.
        mask = attention_mask
        if mask is not None and mask.ndim == 2:
            mask = causal_mask(mask.bool())[:, :, -hidden.shape[1] :]
        for number, layer in enumerate(self.layers[begin:end], start=begin):
            hidden = layer(hidden, rotary, mask, True, cache, number)
        return hidden

    def decode(
        self,
        hidden: Tensor,
        positions: Tensor,
        attention_mask: Tensor | None = None,
        cache: Any = None,
        start: int = 0,
    ) -> Tensor:
        """As :meth:`run_layers` from layer ``start`` to the last, with the final norm."""
        normed: Tensor = self.norm(self.run_layers(hidden, positions, attention_mask, cache, start))
        return normed
