"""What passes between the model's stages: embedded prompts, sieved rows, a training pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

# ``cs2`` ranks by score in one pool; the others are what it is compared with.
Selection = Literal["cs2", "per-modality", "uniform", "random", "none"]
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
class Scored:
    """CS2 output and scores of a batch of prompts, before a budget is applied.

    ``encoded`` (B, L, d) CS2 rows; ``scores`` (B, L) of every row; ``valid`` (B, L) bool, not padding;
    ``in_pool`` (B, L) bool, audio-visual rows.
    """

    encoded: Tensor
    scores: Tensor
    valid: Tensor
    in_pool: Tensor


@dataclass(frozen=True)
class Sieved:
    """What the sieve hands to the decoder.

    ``hidden`` (B, K, d) kept CS2 rows, padded on the left; ``position_ids`` (4, B, K) the rows' original
    positions; ``attention_mask`` (B, K) or None when nothing is padded; ``kept`` per prompt the ascending
    indices of its kept rows; ``scores`` (B, L) of every row, also where a control ignored them;
    ``encoded`` (B, L, d) all CS2 rows; ``labels`` (B, K) or None; ``next_position`` (B, 1) of the first
    generated token.
    """

    hidden: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    kept: tuple[Tensor, ...]
    scores: Tensor
    encoded: Tensor
    labels: Tensor | None
    next_position: Tensor


@dataclass(frozen=True)
class TrainingOutput:
    """Result of a pass with labels: mean ``loss`` over answer tokens, ``logits`` (B, K, V) and the sieve's part."""

    loss: Tensor
    logits: Tensor
    sieved: Sieved
