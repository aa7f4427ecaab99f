"""Embeddings, CS2, score head and causal decoder: the part of the thinker that knows no media.

Decoder layers are transformers' own; the module tree is named after the authors' checkpoint, so that tensors
need no renaming on the way in or out.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import (
    Qwen2_5OmniDecoderLayer,
    Qwen2_5OmniPreTrainedModel,
    Qwen2_5OmniRMSNorm,
)

from echopix_cli.model.attention import IMPLEMENTATION, attend
from echopix_cli.model.configuration import EchoingPixelsTextConfig
from echopix_cli.model.layers import Rotary, completed, normalised, projected, turned, turned_together
from echopix_cli.model.positions import rotary_embedding

# What transformers calls a cache that is handed to it; 5.24 renamed it and warns of the older name.
_CACHE = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"


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
        self.ln = Qwen2_5OmniRMSNorm(hidden_size, eps=1e-6)
        self.score_head = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, d) → scores (B, L)."""
        spans = block_spans(hidden)
        scores = [self.score_head(normalised(self.ln, hidden[:, span])).squeeze(-1) for span in spans]
        return torch.cat(scores, dim=1)


class BidirectionalEncoder(nn.Module):
    """CS2: decoder-shaped layers in which every row of the prompt sees every other."""

    def __init__(self, config: EchoingPixelsTextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Qwen2_5OmniDecoderLayer(config, i) for i in range(config.av_refiner_layers))
        for layer in self.layers:
            # With no mask given, SDPA reads this flag: unmasked, and its flash kernel stays available.
            cast(Any, layer).self_attn.is_causal = False

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor], key_mask: Tensor | None) -> Tensor:
        """(B, L, d) → (B, L, d); ``key_mask`` (B, 1, 1 or L, L) bool hides keys, None hides nothing."""
        if torch.is_grad_enabled():  # what a layer computes on its way is kept then anyway
            for layer in self.layers:
                hidden = layer(hidden, attention_mask=key_mask, position_embeddings=rotary)
            return hidden
        hidden = hidden.clone()
        for layer in self.layers:
            run_in_blocks(layer, hidden, rotary, key_mask)
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


def run_in_blocks(
    layer: nn.Module, hidden: Tensor, rotary: tuple[Tensor, Tensor], key_mask: Tensor | None = None
) -> None:
    """Run an unmasked layer over all rows, in place, holding the inner activations of one block of rows at a time.

    The numbers are those of the layer called at once: only keys and values join rows with one another.

    Args:
        layer: of the decoder's kind.
        hidden: (B, L, d), overwritten.
        rotary: cosine and sine (B, L, head_dim).
        key_mask: as in :meth:`BidirectionalEncoder.forward`.
    """
    parts = cast(Any, layer)
    attention, size = parts.self_attn, (-1, parts.self_attn.head_dim)
    spans = block_spans(hidden)

    def turns(span: slice) -> Rotary:
        return rotary[0][:, span], rotary[1][:, span]

    keys, values = [], []
    for span in spans:
        normed = normalised(parts.input_layernorm, hidden[:, span])
        keys.append(turned(attention.k_proj(normed).unflatten(-1, size), turns(span)).transpose(1, 2))
        values.append(attention.v_proj(normed).unflatten(-1, size).transpose(1, 2))
    key, value = torch.cat(keys, dim=2), torch.cat(values, dim=2)
    del keys, values
    for span in spans:
        normed = normalised(parts.input_layernorm, hidden[:, span])
        query = turned(attention.q_proj(normed).unflatten(-1, size), turns(span)).transpose(1, 2)
        mask = key_mask if key_mask is None or key_mask.shape[2] == 1 else key_mask[:, :, span]
        mixed, _ = attend(attention, query, key, value, mask, scaling=attention.scaling, is_causal=False)
        hidden[:, span] = completed(parts, hidden[:, span], mixed.flatten(2))


def run_causal(
    layer: nn.Module, hidden: Tensor, rotary: Rotary, mask: Tensor | None, cache: Any, number: int
) -> Tensor:
    """Run a decoder layer over rows (B, K, d) that follow those in the cache.

    Args:
        layer: of the decoder.
        hidden: (B, K, d).
        rotary: cosine and sine (B, K, head_dim).
        mask: as :func:`attend` takes it; None where nothing is padded.
        cache: with ``update(key, value, number)``, which gives all keys and values; or None.
        number: of the layer in the cache.
    """
    parts = cast(Any, layer)
    attention = parts.self_attn
    query, key, value = projected(attention, normalised(parts.input_layernorm, hidden))
    query, key = turned_together(query, key, rotary)
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if cache is not None:
        key, value = cache.update(key, value, number)
    mixed, _ = attend(attention, query, key, value, mask, scaling=attention.scaling)
    return completed(parts, hidden, mixed.flatten(2))


class EchoingPixelsTextModel(Qwen2_5OmniPreTrainedModel):
    """Embeddings, CS2, score head and decoder; a checkpoint without a sieve has neither CS2 nor score head."""

    config: EchoingPixelsTextConfig
    config_class = EchoingPixelsTextConfig

    def __init__(self, config: EchoingPixelsTextConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        trained = config.sieve == "cs2"
        self.bidir_encoder = BidirectionalEncoder(config) if trained and config.av_refiner_layers > 0 else None
        self.compressor = TokenCompressor(config.hidden_size) if trained else None
        self.layers = nn.ModuleList(Qwen2_5OmniDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = Qwen2_5OmniRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def rotary(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine for (4, B, L) positions; CS2 and decoder share them.

        Sync-RoPE reads all four axes. The family's own three sections leave the fourth unread.
        """
        theta = float(self.config.rope_parameters["rope_theta"])
        return rotary_embedding(positions, self.config.sync_rope_section, theta, dtype)

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
        if not torch.is_grad_enabled():
            # Gaps in time are no sequence borders; rows see themselves and what comes before them.
            mask = attention_mask
            if mask is not None and mask.ndim == 2:
                mask = causal_mask(mask.bool())[:, :, -hidden.shape[1] :]
            for number, layer in enumerate(self.layers[begin:end], start=begin):
                hidden = run_causal(layer, hidden, rotary, mask, cache, number)
            return hidden
        kept: dict[str, Any] = {_CACHE: cache}
        if (
            attention_mask is not None
            and cache is None
            and self.config._attn_implementation in ("sdpa", IMPLEMENTATION)
        ):
            attention_mask = causal_mask(attention_mask.bool())
        mask = create_causal_mask(
            config=self.config, inputs_embeds=hidden, attention_mask=attention_mask, position_ids=None, **kept
        )
        for layer in self.layers[begin:end]:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary, use_cache=cache is not None, **kept)
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
        return normalised(self.norm, self.run_layers(hidden, positions, attention_mask, cache, start))
