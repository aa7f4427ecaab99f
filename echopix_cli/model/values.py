"""What passes between the model's stages: embedded prompts, scores, sieved rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

# ``cs2`` (trained) and ``question-attention`` (of stock weights) rank by score in one pool; the others are what
# these are compared with.
Selection = Literal["cs2", "question-attention", "per-modality", "uniform", "random", "none"]
CONTROLS: tuple[Selection, ...] = ("per-modality", "uniform", "random", "none")
UNSCORED: tuple[Selection, ...] = ("uniform", "random", "none")  # what takes no heed of scores
IGNORE = -100  # label of rows that carry no answer token


def audio_row_counts(mel_frames: Tensor) -> Tensor:
    """Tower rows (25 a second) of sounds with these numbers of log-mel frames (100 a second)."""
    return ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1


@dataclass(frozen=True)
class Prompt:
    """A batch of prompts embedded and placed, ready for the sieve.

    ``embeds`` (B, L, d); ``input_ids`` (B, L); ``position_ids`` (4, B, L); ``rope_deltas`` (B, 1);
    ``attention_mask`` (B, L) or None when nothing is padded.
    """

    embeds: Tensor
    input_ids: Tensor
    position_ids: Tensor
    rope_deltas: Tensor
    attention_mask: Tensor | None


@dataclass(frozen=True)
class FirstLayers:
    """How a decoder's own first layers sieve.

    ``layer`` at which rows are scored and left out, counted from 0; None takes a third of the layers. ``share``
    of the audio-visual rows that the redundancy stage leaves before; 1 leaves that stage out.
    """

    layer: int | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Scored:
    """Scores of a batch of prompts, before a budget is applied, and the rows as the decoder is to get them.

    ``encoded`` (B, R, d) rows as they enter decoder layer ``start``: of CS2 all prompt rows (R = L) before layer
    0, of a decoder's own first layers those that the redundancy stage left. ``places`` (B, L) where each prompt
    row stands in them. ``scores`` (B, L) of every row, 0 where none was given; ``valid`` (B, L) bool, not
    padding; ``in_pool`` (B, L) bool, audio-visual rows; ``candidates`` (B, L) bool, those that may be kept.
    ``first`` keys and values (B, heads, R, head_dim) of the layers before ``start``.
    """

    encoded: Tensor
    places: Tensor
    scores: Tensor
    valid: Tensor
    in_pool: Tensor
    candidates: Tensor
    start: int = 0
    first: tuple[tuple[Tensor, Tensor], ...] = ()


@dataclass(frozen=True)
class Sieved:
    """What the sieve hands to the decoder.

    ``hidden`` (B, K, d) kept rows as they enter decoder layer ``start``, padded on the left; ``position_ids``
    (4, B, K) the rows' original positions; ``attention_mask`` (B, K) or None when nothing is padded; ``kept``
    per prompt the ascending indices of its kept rows; ``scores`` (B, L) of every row, also where a control
    ignored them; ``encoded`` (B, R, d) all rows that there were to keep; ``labels`` (B, K) or None;
    ``next_position`` (B, 1) of the first generated token; ``first`` the kept rows' keys and values
    (B, heads, K, head_dim) of the layers before ``start``.
    """

    hidden: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    kept: tuple[Tensor, ...]
    scores: Tensor
    encoded: Tensor
    labels: Tensor | None
    next_position: Tensor
    start: int = 0
    first: tuple[tuple[Tensor, Tensor], ...] = ()
