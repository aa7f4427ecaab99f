"""The thinker: towers, sieve and decoder.

The module tree is named after the authors' checkpoint (``visual``, ``model.bidir_encoder`` …), so that tensors need no
renaming on the way in or out. Each stage is a method, so that an engine can time them one by one.

Source: the paper's sections on CS2 and Sync-RoPE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy.typing as npt
import torch
from torch import Tensor, nn

from echopix_cli.model.configuration import EchoingPixelsThinkerConfig
from echopix_cli.model.positions import SpecialTokens, Timeline, position_ids
from echopix_cli.model.question_attention import score_by_question
from echopix_cli.model.sieve import keep_count, packing, select, spread_order, straight_through
from echopix_cli.model.text import EchoingPixelsTextModel
from echopix_cli.model.towers import AudioTower, VisionTower
from echopix_cli.model.values import (
    CONTROLS,
    IGNORE,
    FirstLayers,
    Prompt,
    Scored,
    Selection,
    Sieved,
)


class EchoingPixelsThinker(nn.Module):
    """Towers, sieve and decoder: everything between model inputs and logits."""

    def __init__(self, config: EchoingPixelsThinkerConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_tower = AudioTower(config.audio_config)
        self.visual = VisionTower(config.vision_config)
        self.model = EchoingPixelsTextModel(config.text_config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.special, self.timeline = SpecialTokens.of(config), Timeline.of(config)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.lm_head.weight.device

    # 1. Towers.

    def encode_pixels(self, pixel_values: Tensor, grid_thw: Tensor) -> Tensor:
        """Patches (n, 1176) with grids (videos, 3) → features (n / 4, d), one row per merged 2×2 patch."""
        rows: Tensor = self.visual(pixel_values, grid_thw.tolist())
        return rows

    def encode_mel(self, input_features: Tensor, mel_frames: Tensor) -> Tensor:
        """Log-mel (sounds, 128, frames), of which ``mel_frames`` (sounds,) are real → features (rows, d)."""
        rows: Tensor = self.audio_tower(input_features, mel_frames.tolist())
        return rows

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
        positions: tuple[Tensor, Tensor] | None = None,
    ) -> Prompt:
        """Put tower features at their placeholders and give every row its positions.

        ``positions`` are those of :func:`position_ids` where a caller has them already; then grids, times and
        rows of the media are not needed.

        Raises:
            ValueError: features and placeholders do not match in number.
        """
        if attention_mask is not None and bool(attention_mask.all()):
            attention_mask = None
        embeds = self.model.embed_tokens(input_ids)
        rows, width = embeds.flatten(0, 1), embeds.shape[-1]
        flat = input_ids.cpu().flatten()  # looked at on the host: each look at a GPU's would wait for it
        for token, features in (
            (self.special.video, video_features),
            (self.special.image, image_features),
            (self.special.audio, audio_features),
        ):
            where = (flat == token).nonzero().squeeze(-1)
            count = 0 if features is None else features.shape[0]
            if len(where) != count:
                raise ValueError(f"{len(where)} placeholders with id {token} for {count} feature rows")
            if features is not None:
                rows = rows.index_copy(0, where.to(rows.device), features.to(rows.dtype).view(-1, width))
        embeds = rows.view_as(embeds)
        if positions is None:
            positions = position_ids(
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
        return Prompt(embeds, input_ids, *positions, attention_mask)

    # 3. Sieve.

    @property
    def selections(self) -> tuple[Selection, ...]:
        """What can choose rows in this checkpoint: its own sieve first, then the controls."""
        own: Selection = "question-attention" if self.model.compressor is None else "cs2"
        return (own, *CONTROLS)

    def sieve(
        self,
        prompt: Prompt,
        budget: float,
        *,
        labels: Tensor | None = None,
        selection: Selection | None = None,
        generator: torch.Generator | None = None,
        first_layers: FirstLayers = FirstLayers(),  # noqa: B008 - frozen
    ) -> Sieved:
        """Scores, and the rows that a budget keeps: :meth:`score`, then :meth:`keep`."""
        scored = self.score(prompt, labels, first_layers)
        return self.keep(prompt, scored, budget, labels=labels, selection=selection, generator=generator)

    def score(
        self,
        prompt: Prompt,
        labels: Tensor | None = None,
        first_layers: FirstLayers = FirstLayers(),  # noqa: B008 - frozen
    ) -> Scored:
        """Scores of every row, by CS2 or by the decoder's own first layers; one pass serves any number of budgets.

        Args:
            prompt: from :meth:`place`.
            labels: (B, L), ``-100`` except at answer tokens. Answer rows are hidden from CS2 and keep their
                raw embeddings, so that an answer cannot leak.
            first_layers: of a checkpoint without CS2, how its first layers sieve.

        Raises:
            ValueError: labels without a CS2 that could learn from them, or no such first layer.
        """
        compressor = self.model.compressor
        if compressor is None:
            if labels is not None:
                raise ValueError("a checkpoint without CS2 has no sieve to train")
            return score_by_question(self.model, prompt, self.special, self.timeline, first_layers)
        ids = prompt.input_ids
        valid = (
            torch.ones_like(ids, dtype=torch.bool) if prompt.attention_mask is None else prompt.attention_mask.bool()
        )
        in_pool = self.special.in_pool(ids) & valid
        encoded = self._encode(prompt, valid, in_pool, labels)
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        # Where sound is never kept, its scores mean nothing.
        candidates = in_pool & (ids != self.special.audio) if self.config.text_config.retain_token == "v" else in_pool
        return Scored(encoded, places, compressor(encoded).float(), valid, in_pool, candidates)

    def keep(
        self,
        prompt: Prompt,
        scored: Scored,
        budget: float,
        *,
        labels: Tensor | None = None,
        selection: Selection | None = None,
        generator: torch.Generator | None = None,
    ) -> Sieved:
        """The rows that a budget keeps, gathered for the decoder.

        Args:
            prompt: from :meth:`place`.
            scored: of the same prompt.
            budget: fraction of audio-visual rows kept, in (0, 1].
            labels: as in :meth:`score`; kept rows then carry the straight-through gradient.
            selection: None and the first of :attr:`selections` rank by score in one pool. Controls:
                ``per-modality`` ranks by score and gives video and audio the budget each; ``uniform`` and
                ``random`` ignore the score; ``none`` keeps no audio-visual row. Controls differ in the choice
                alone: rows come from CS2, or from the first layers, whoever chooses them.
            generator: of the ``random`` control.

        Raises:
            ValueError: this checkpoint has no such selection.
        """
        chosen = self.selections[0] if selection is None else selection
        if chosen not in self.selections:
            raise ValueError(f"this checkpoint has no sieve {chosen!r}; it has {', '.join(self.selections)}")
        ids, in_pool, candidates = prompt.input_ids, scored.in_pool, scored.candidates
        ranking = self.ranking(scored.scores, candidates, chosen, generator)
        is_audio = ids == self.special.audio
        shares = [in_pool & ~is_audio, in_pool & is_audio] if chosen == "per-modality" else [in_pool]
        kept = scored.valid & ~in_pool
        for share, sizes in zip(shares, torch.stack([share.sum(dim=1) for share in shares]).tolist(), strict=True):
            counts = [keep_count(size, budget) if size and chosen != "none" else 0 for size in sizes]
            kept = kept | select(ranking, candidates & share, torch.tensor(counts, device=ids.device))
        lengths: list[int] = kept.sum(dim=1).tolist()
        index, real = packing(kept, max(lengths))
        places = scored.places.gather(1, index)
        hidden = scored.encoded.gather(1, places[..., None].expand(-1, -1, scored.encoded.shape[2]))
        if labels is not None:
            weights = straight_through(ranking, candidates, kept).gather(1, index)
            hidden = hidden * weights.to(hidden.dtype)[..., None]
        every = index.expand_as(prompt.position_ids[..., : index.shape[1]])
        return Sieved(
            hidden=hidden.masked_fill(~real[..., None], 0.0),
            position_ids=prompt.position_ids.gather(2, every).masked_fill(~real, 0),
            attention_mask=None if len(set(lengths)) == 1 else real.long(),
            kept=torch.split(kept.nonzero()[:, 1], lengths),
            scores=scored.scores,
            encoded=scored.encoded,
            labels=None if labels is None else labels.gather(1, index).masked_fill(~real, IGNORE),
            next_position=prompt.rope_deltas + scored.valid.sum(dim=1, keepdim=True),
            start=scored.start,
            first=tuple(
                (_gathered(keys, places, real), _gathered(values, places, real)) for keys, values in scored.first
            ),
        )

    def _encode(self, prompt: Prompt, valid: Tensor, in_pool: Tensor, labels: Tensor | None) -> Tensor:
        """CS2 output (B, L, d); rows that are padding, answer, or in a prompt without media stay as embedded.

        So do all text rows where the configuration says so (``sieve_output``).
        """
        encoder = self.model.bidir_encoder
        if encoder is None or not bool(in_pool.any()):
            return prompt.embeds
        visible = valid if labels is None else valid & (labels == IGNORE)
        key_mask = None if bool(visible.all()) else visible[:, None, None, :]
        view = self.config.text_config.sieve_view
        if view != "whole":
            alone = torch.eye(in_pool.shape[1], dtype=torch.bool, device=in_pool.device)  # as in causal_mask
            key_mask = (visible[:, None, None, :] & _narrowed(view, in_pool)[:, None]) | alone
        rotary = self.model.rotary(prompt.position_ids, prompt.embeds.dtype)
        encoded = encoder(prompt.embeds, rotary, key_mask)
        media_alone = self.config.text_config.sieve_output == "media"
        rereads = visible & (in_pool if media_alone else in_pool.any(dim=1, keepdim=True))
        return encoded if bool(rereads.all()) else torch.where(rereads.unsqueeze(-1), encoded, prompt.embeds)

    def ranking(
        self, scores: Tensor, candidates: Tensor, selection: Selection, generator: torch.Generator | None
    ) -> Tensor:
        """The values (B, L) whose highest among the candidates are kept."""
        if selection == "random":
            return torch.rand(scores.shape, generator=generator).to(scores)
        if selection == "uniform":
            return -spread_order(candidates).to(scores)
        if self.config.text_config.sieve_softmax == "gumbel" and self.training:
            noise = -torch.empty_like(scores).exponential_().log()
            return scores + noise
        return scores

    def log_shares(self, scored: Scored) -> Tensor:
        """Logarithm (B, L), double, of each candidate's part of all that its prompt scores; -inf for other rows.

        Scores of CS2 are logits; those of a decoder's first layers are parts of attention.
        """
        scores = scored.scores.double()
        if self.model.compressor is None:
            scores = scores.clamp(min=torch.finfo(torch.float32).tiny).log()
        return scores.masked_fill(~scored.candidates, -torch.inf).log_softmax(-1)

    # 4. Decoder.

    def prefill(self, sieved: Sieved, cache: Any) -> Tensor:
        """Kept rows through the decoder's layers from ``start`` on → logits (B, V) of each prompt's last row.

        ``cache`` is filled to the same length in every layer: a :class:`~.stepping.FixedCache`, or anything with
        ``update(keys, values, layer)``.
        """
        hidden = self.model.decode(sieved.hidden, sieved.position_ids, sieved.attention_mask, cache, sieved.start)
        # Only now: were the first layers filled before, their rows would count as ones that came earlier.
        for layer, (keys, values) in enumerate(sieved.first):
            cache.update(keys, values, layer)
        return cast(Tensor, self.lm_head(hidden[:, -1])).float()


def _narrowed(view: str, in_pool: Tensor) -> Tensor:
    """Which keys (B, L, L) each row may see in a CS2 that sees less than the whole prompt."""
    places = torch.arange(in_pool.shape[1], device=in_pool.device)
    if view == "causal":
        return (places[None, :] <= places[:, None]).expand(in_pool.shape[0], -1, -1)
    # no-question: rows up to the last audio-visual one do not see what comes after it.
    after = places > (in_pool * places).amax(dim=1, keepdim=True)
    return ~(~after[:, :, None] & after[:, None, :])


def _gathered(states: Tensor, places: Tensor, real: Tensor) -> Tensor:
    """Keys or values (B, heads, R, head_dim) of kept rows at ``places`` (B, K): (B, heads, K, head_dim)."""
    taken = states.gather(2, places[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]))
    return taken.masked_fill(~real[:, None, :, None], 0.0)
