"""The thinker: towers, CS2, score head and decoder over transformers' Qwen2.5-Omni parts.

Only the delta lives here. Towers and decoder layers are transformers' own; the module tree is named after
the authors' checkpoint (``visual``, ``model.bidir_encoder`` …), so that tensors need no renaming on the way
in or out. Each stage is a method, so that an engine can time them one by one.

Source: paper sections on CS2 and Sync-RoPE; ``forward pass`` of the reference README, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import (
    Qwen2_5OmniDecoderLayer,
    Qwen2_5OmniPreTrainedModel,
    Qwen2_5OmniRMSNorm,
)

from echopix_cli.model.configuration import EchoingPixelsTextConfig, EchoingPixelsThinkerConfig
from echopix_cli.model.positions import SpecialTokens, Timeline, position_ids, rotary_embedding
from echopix_cli.model.sieve import keep_count, pack_left, select, straight_through
from echopix_cli.model.towers import build_audio, build_visual
from echopix_cli.model.values import IGNORE, Prompt, Scored, Selection, Sieved, TrainingOutput


class TokenCompressor(nn.Module):
    """The score head: one scalar for every CS2 row."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.ln = Qwen2_5OmniRMSNorm(hidden_size, eps=1e-6)
        self.score_head = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, d) → scores (B, L)."""
        return cast(Tensor, self.score_head(self.ln(hidden))).squeeze(-1)


class BidirectionalEncoder(nn.Module):
    """CS2: decoder-shaped layers in which every row of the prompt sees every other."""

    def __init__(self, config: EchoingPixelsTextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Qwen2_5OmniDecoderLayer(config, i) for i in range(config.av_refiner_layers))
        for layer in self.layers:
            # With no mask given, SDPA reads this flag: unmasked, and its flash kernel stays available.
            cast(Any, layer).self_attn.is_causal = False

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor], key_mask: Tensor | None) -> Tensor:
        """(B, L, d) → (B, L, d); ``key_mask`` (B, 1, 1, L) bool hides keys, None hides nothing."""
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=key_mask, position_embeddings=rotary)
        return hidden


class EchoingPixelsTextModel(Qwen2_5OmniPreTrainedModel):
    """Embeddings, CS2, score head and decoder."""

    config: EchoingPixelsTextConfig
    config_class = EchoingPixelsTextConfig

    def __init__(self, config: EchoingPixelsTextConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.bidir_encoder = BidirectionalEncoder(config) if config.av_refiner_layers > 0 else None
        self.compressor = TokenCompressor(config.hidden_size)
        self.layers = nn.ModuleList(Qwen2_5OmniDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = Qwen2_5OmniRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def rotary(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Sync-RoPE's cosine and sine for (4, B, L) positions; CS2 and decoder share them."""
        theta = float(self.config.rope_parameters["rope_theta"])
        return rotary_embedding(positions, self.config.sync_rope_section, theta, dtype)

    def decode(
        self,
        hidden: Tensor,
        positions: Tensor,
        attention_mask: Tensor | None = None,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Causal layers and final norm: (B, K, d) rows at (4, B, K) positions → (B, K, d).

        ``attention_mask`` covers cached and new rows; None when nothing is padded.
        """
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=cache,
            position_ids=None,  # gaps in time are no sequence borders
        )
        rotary = self.rotary(positions, hidden.dtype)
        for layer in self.layers:
            hidden = layer(
                hidden,
                attention_mask=mask,
                position_embeddings=rotary,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return cast(Tensor, self.norm(hidden))


class EchoingPixelsThinker(Qwen2_5OmniPreTrainedModel):
    """Towers, sieve and decoder: everything between model inputs and logits."""

    config: EchoingPixelsThinkerConfig
    config_class = EchoingPixelsThinkerConfig

    def __init__(self, config: EchoingPixelsThinkerConfig) -> None:
        super().__init__(config)
        self.audio_tower = build_audio(config.audio_config)
        self.visual = build_visual(config.vision_config)
        self.model = EchoingPixelsTextModel._from_config(config.text_config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.special = SpecialTokens(
            audio=config.audio_token_id,
            image=config.image_token_id,
            video=config.video_token_id,
            vision_start=config.vision_start_token_id,
            audio_start=config.audio_start_token_id,
        )
        self.timeline = Timeline(config.position_id_per_seconds, config.seconds_per_chunk)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    # 1. Towers.

    def encode_pixels(self, pixel_values: Tensor, grid_thw: Tensor) -> Tensor:
        """Patches (n, 1176) with grids (videos, 3) → features (n / 4, d), one row per merged 2×2 patch."""
        output = self.visual(pixel_values.to(self.visual.dtype), grid_thw=grid_thw)
        return cast(Tensor, output.pooler_output)

    def encode_mel(self, input_features: Tensor, mel_frames: Tensor) -> Tensor:
        """Log-mel (sounds, 128, frames), of which ``mel_frames`` (sounds,) are real → features (rows, d)."""
        real = torch.arange(input_features.shape[2], device=input_features.device) < mel_frames[:, None]
        joined = input_features.permute(0, 2, 1)[real].T.to(self.audio_tower.dtype)
        lengths = (mel_frames - 1) // 2 + 1
        output = self.audio_tower(joined, feature_lens=mel_frames, aftercnn_lens=lengths)
        return cast(Tensor, output.last_hidden_state)

    # 2. Embeddings and positions.

    def place(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        video_features: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        video_grid_times: Sequence[npt.ArrayLike] | None = None,
        image_features: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        audio_features: Tensor | None = None,
        audio_rows: Sequence[int] = (),
    ) -> Prompt:
        """Put tower features at their placeholders and give every row its positions.

        Raises:
            ValueError: features and placeholders do not match in number.
        """
        if attention_mask is not None and bool(attention_mask.all()):
            attention_mask = None
        embeds = self.model.embed_tokens(input_ids)
        for token, features in (
            (self.special.video, video_features),
            (self.special.image, image_features),
            (self.special.audio, audio_features),
        ):
            where = input_ids == token
            rows = 0 if features is None else features.shape[0]
            if int(where.sum()) != rows:
                raise ValueError(f"{int(where.sum())} placeholders with id {token} for {rows} feature rows")
            if features is not None:
                embeds = embeds.masked_scatter(where.unsqueeze(-1), features.to(embeds.dtype))
        positions, deltas = position_ids(
            input_ids,
            self.special,
            attention_mask=attention_mask,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            video_grid_times=video_grid_times,
            audio_rows=audio_rows,
            spatial_merge_size=self.config.vision_config.spatial_merge_size,
            timeline=self.timeline,
        )
        return Prompt(embeds, input_ids, positions, deltas, attention_mask)

    # 3. Sieve.

    def sieve(
        self,
        prompt: Prompt,
        budget: float,
        *,
        labels: Tensor | None = None,
        selection: Selection = "cs2",
        generator: torch.Generator | None = None,
    ) -> Sieved:
        """CS2, scores, and the rows that a budget keeps: :meth:`score`, then :meth:`keep`."""
        scored = self.score(prompt, labels)
        return self.keep(prompt, scored, budget, labels=labels, selection=selection, generator=generator)

    def score(self, prompt: Prompt, labels: Tensor | None = None) -> Scored:
        """CS2 and scores of every row; one pass serves any number of budgets.

        Args:
            prompt: from :meth:`place`.
            labels: (B, L), ``-100`` except at answer tokens. Answer rows are hidden from CS2 and keep their
                raw embeddings, so that an answer cannot leak.
        """
        ids = prompt.input_ids
        valid = (
            torch.ones_like(ids, dtype=torch.bool) if prompt.attention_mask is None else prompt.attention_mask.bool()
        )
        in_pool = torch.isin(ids, torch.tensor(self.special.placeholders, device=ids.device)) & valid
        encoded = self._encode(prompt, valid, in_pool, labels)
        return Scored(encoded, self.model.compressor(encoded).float(), valid, in_pool)

    def keep(
        self,
        prompt: Prompt,
        scored: Scored,
        budget: float,
        *,
        labels: Tensor | None = None,
        selection: Selection = "cs2",
        generator: torch.Generator | None = None,
    ) -> Sieved:
        """The rows that a budget keeps, gathered for the decoder.

        Args:
            prompt: from :meth:`place`.
            scored: of the same prompt.
            budget: fraction of audio-visual rows kept, in (0, 1].
            labels: as in :meth:`score`; kept rows then carry the straight-through gradient.
            selection: ``cs2`` ranks by score in one pool. Controls: ``per-modality`` ranks by score and gives
                video and audio the budget each; ``uniform`` and ``random`` ignore the score; ``none`` keeps no
                audio-visual row.
            generator: of the ``random`` control.
        """
        ids, encoded, in_pool = prompt.input_ids, scored.encoded, scored.in_pool
        ranking = self._ranking(scored.scores, in_pool, selection, generator)
        is_audio = ids == self.special.audio
        drops_audio = self.config.text_config.retain_token == "v"
        candidates = in_pool & ~is_audio if drops_audio else in_pool
        kept, hidden = [], []
        for row in range(ids.shape[0]):
            pool = int(in_pool[row].sum())
            shares = [~is_audio[row], is_audio[row]] if selection == "per-modality" else [in_pool[row]]
            picked = []
            for share in shares:
                size = int((share & in_pool[row]).sum())
                count = keep_count(size, budget) if size and selection != "none" else 0
                picked.append(select(ranking[row], candidates[row] & share, count))
            index = torch.cat([*picked, (scored.valid[row] & ~in_pool[row]).nonzero().squeeze(-1)]).sort().values
            rows = encoded[row]
            if labels is not None and pool:
                rows = rows * straight_through(ranking[row], candidates[row], index).to(rows.dtype).unsqueeze(-1)
            kept.append(index)
            hidden.append(rows[index])
        positions = pack_left([prompt.position_ids[:, row, index].T for row, index in enumerate(kept)], 0)
        return Sieved(
            hidden=pack_left(hidden),
            position_ids=positions.permute(2, 0, 1),
            attention_mask=_kept_mask(kept),
            kept=tuple(kept),
            scores=scored.scores,
            encoded=encoded,
            labels=None if labels is None else pack_left([labels[r, i] for r, i in enumerate(kept)], IGNORE),
            next_position=prompt.rope_deltas + scored.valid.sum(dim=1, keepdim=True),
        )

    def _encode(self, prompt: Prompt, valid: Tensor, in_pool: Tensor, labels: Tensor | None) -> Tensor:
        """CS2 output (B, L, d); rows that are padding, answer, or in a prompt without media stay as embedded."""
        encoder = self.model.bidir_encoder
        if encoder is None or not bool(in_pool.any()):
            return prompt.embeds
        visible = valid if labels is None else valid & (labels == IGNORE)
        key_mask = None if bool(visible.all()) else visible[:, None, None, :]
        view = self.config.text_config.sieve_view
        if view != "whole":
            key_mask = visible[:, None, None, :] & _narrowed(view, in_pool)[:, None]
        rotary = self.model.rotary(prompt.position_ids, prompt.embeds.dtype)
        encoded = encoder(prompt.embeds, rotary, key_mask)
        has_media = in_pool.any(dim=1, keepdim=True)
        return torch.where((visible & has_media).unsqueeze(-1), encoded, prompt.embeds)

    def _ranking(
        self, scores: Tensor, in_pool: Tensor, selection: Selection, generator: torch.Generator | None
    ) -> Tensor:
        """The values (B, L) whose highest in the pool are kept."""
        if selection == "random":
            return torch.rand(scores.shape, generator=generator).to(scores)
        if selection == "uniform":
            # Van der Corput order of the pool's ranks: its first k are evenly spread for every k.
            return -_spread_order(in_pool).to(scores)
        if self.config.text_config.sieve_softmax == "gumbel" and self.training:
            noise = -torch.empty_like(scores).exponential_().log()
            return scores + noise
        return scores

    # 4. Decoder.

    def prefill(self, sieved: Sieved, cache: DynamicCache) -> Tensor:
        """Kept rows through the decoder → logits (B, V) of each prompt's last row; fills ``cache``."""
        hidden = self.model.decode(sieved.hidden, sieved.position_ids, sieved.attention_mask, cache)
        return cast(Tensor, self.lm_head(hidden[:, -1])).float()

    def step(self, tokens: Tensor, positions: Tensor, attention_mask: Tensor | None, cache: DynamicCache) -> Tensor:
        """One generated token each, (B,) at (B, 1) positions → logits (B, V)."""
        embeds = self.model.embed_tokens(tokens[:, None])
        hidden = self.model.decode(embeds, positions.expand(4, -1, -1), attention_mask, cache)
        return cast(Tensor, self.lm_head(hidden[:, -1])).float()

    def forward(self, prompt: Prompt, labels: Tensor, budget: float) -> TrainingOutput:
        """One training pass (paper; reference README steps 4–8 with labels)."""
        sieved = self.sieve(prompt, budget, labels=labels)
        assert sieved.labels is not None
        hidden = self.model.decode(sieved.hidden, sieved.position_ids, sieved.attention_mask)
        logits = self.lm_head(hidden).float()
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), sieved.labels[:, 1:].flatten(), ignore_index=IGNORE)
        return TrainingOutput(loss, logits, sieved)


def _narrowed(view: str, in_pool: Tensor) -> Tensor:
    """Which keys (B, L, L) each row may see in a CS2 that sees less than the whole prompt."""
    places = torch.arange(in_pool.shape[1], device=in_pool.device)
    if view == "causal":
        return (places[None, :] <= places[:, None]).expand(in_pool.shape[0], -1, -1)
    # no-question: rows up to the last audio-visual one do not see what comes after it.
    after = places > (in_pool * places).amax(dim=1, keepdim=True)
    return ~(~after[:, :, None] & after[:, None, :])


def _kept_mask(kept: Sequence[Tensor]) -> Tensor | None:
    """(B, K) of ones where a left-padded batch is real, None when all prompts kept equally many rows."""
    if len({len(index) for index in kept}) == 1:
        return None
    return pack_left([torch.ones_like(index) for index in kept], 0)


def _spread_order(in_pool: Tensor) -> Tensor:
    """For each pool row, its place in an order whose every prefix is evenly spread over the pool (B, L)."""
    order = torch.zeros(in_pool.shape, dtype=torch.float64)
    for row, mask in enumerate(in_pool.cpu()):
        count = int(mask.sum())
        bits = max(1, (count - 1).bit_length())
        reversed_bits = [int(f"{rank:0{bits}b}"[::-1], 2) for rank in range(count)]
        order[row, mask] = torch.tensor(reversed_bits, dtype=torch.float64)
    return order.to(in_pool.device)
