"""What repeats itself, found on tower features alone: the training-free stage before a sieve.

A picture that stands still and a held note give the same rows again and again. Here those go first, before any
decoder layer runs, and without looking at the question.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from echopix_cli.model.positions import SpecialTokens, Timeline
from echopix_cli.model.sieve import keep_count, top_rows
from echopix_cli.model.values import Prompt

SHARE = 0.5  # of the pool, left by this stage unless the budget is larger
_GRAIN = 1e4  # cosines closer than one part in this many are the same: bfloat16 and rounding tell no more


@dataclass(frozen=True)
class Pool:
    """The audio-visual rows of one prompt and where they lie, all (n,), in the prompt's order.

    ``rows`` their indices; ``is_audio`` bool; ``block`` the run of media that a row is part of, ``window`` its
    two-second window, both numbered within the prompt; ``frame`` the grid step or still image of a picture row
    and 0 for sound; ``before`` the pool index of the row that a row is compared with in time (the same place one
    grid step before, or the previous sound row), −1 where its block has none.
    """

    rows: Tensor
    is_audio: Tensor
    block: Tensor
    window: Tensor
    frame: Tensor
    before: Tensor


def find_pool(ids: Tensor, positions: Tensor, valid: Tensor, special: SpecialTokens, timeline: Timeline) -> Pool:
    """Blocks, windows, frames and neighbours of a prompt's audio-visual rows, from its ids and positions alone.

    Args:
        ids: (L,) token ids.
        positions: (4, L) of every row.
        valid: (L,) bool, rows that are not padding.
        special: the checkpoint's special ids.
        timeline: positions per second and per window.
    """
    in_pool = special.in_pool(ids) & valid
    rows = in_pool.nonzero().squeeze(-1)
    is_audio = ids[rows] == special.audio
    # Between two blocks of media there is text, a border at least, and within one there is none.
    text_before = (valid & ~in_pool).cumsum(0)[rows]
    _, block, sizes = torch.unique_consecutive(text_before, return_inverse=True, return_counts=True)
    # A block's first row is at its start on the height axis, whatever its time.
    starts = positions[1, rows[sizes.cumsum(0) - sizes]]
    steps = (positions[0, rows] - starts[block]).clamp(min=0) // timeline.chunk
    _, window = torch.unique(torch.stack((block, steps)), dim=1, return_inverse=True)
    frame = torch.zeros_like(rows)
    before = torch.full_like(rows, -1)
    sound, picture = is_audio.nonzero().squeeze(-1), (~is_audio).nonzero().squeeze(-1)
    follows = _same_as_previous(block[sound])
    before[sound[follows]] = sound[:-1][follows[1:]]
    if len(picture):
        frame[picture] = numbers = _frames(block[picture], positions[1:3, rows[picture]])
        lengths = numbers.bincount()
        begins = lengths.cumsum(0) - lengths
        of_frame = block[picture][begins]
        # A block's frames are of one size, so the same place is as far from the frame's begin.
        place = torch.arange(len(picture), device=ids.device) - begins[numbers]
        follows = _same_as_previous(of_frame)[numbers]
        before[picture[follows]] = picture[begins[numbers[follows] - 1] + place[follows]]
    return Pool(rows, is_audio, block, window, frame, before)


def _same_as_previous(values: Tensor) -> Tensor:
    """(n,) bool: equal to the entry before; never true of the first."""
    same = torch.zeros_like(values, dtype=torch.bool)
    same[1:] = values[1:] == values[:-1]
    return same


def _frames(block: Tensor, cells: Tensor) -> Tensor:
    """Numbers (n,) of the frames that picture rows with these blocks and (2, n) rows and columns belong to.

    Times do not tell: two grid steps may share a position. A frame ends where the cells no longer ascend.
    """
    (down, across), begins = cells, torch.ones_like(block, dtype=torch.bool)
    ascends = (down[1:] > down[:-1]) | ((down[1:] == down[:-1]) & (across[1:] > across[:-1]))
    begins[1:] = ~(ascends & (block[1:] == block[:-1]))
    return begins.cumsum(0) - 1


def rank_normalise(values: Tensor) -> Tensor:
    """(n,) → ranks in (0, 1], the largest value highest; equal values share the mean of their ranks."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    return ((last - (counts - 1) / 2) / max(1, len(values)))[inverse]


def novelty(features: Tensor, pool: Pool) -> Tensor:
    """How new and distinct each row of a pool is, rank-normalised within picture and within sound.

    Temporal novelty is 1 − cosine to the row that :class:`Pool` names as ``before``, 1 where there is none. Of a
    picture row, its rank by temporal novelty counts as much as that by spatial distinctness: 1 − cosine to
    the mean direction of its frame.

    Args:
        features: (n, d) tower features.
        pool: of the same rows.

    Returns:
        (n,) float32 in (0, 1].
    """
    unit = F.normalize(features.float(), dim=-1)
    temporal = torch.ones(len(unit), device=unit.device)
    follows = pool.before >= 0
    temporal[follows] = 1 - (unit[follows] * unit[pool.before[follows]]).sum(-1)
    temporal = (temporal * _GRAIN).round()
    value = torch.empty_like(temporal)
    picture = ~pool.is_audio
    value[pool.is_audio] = rank_normalise(temporal[pool.is_audio])
    frame = pool.frame[picture]
    # A frame's rows follow one another and are summed in that order; index_add's differs from run to run on CUDA.
    lengths = frame.bincount()
    sums = torch.segment_reduce(unit[picture], "sum", lengths=lengths) if len(frame) else unit[:0]
    mean = F.normalize(sums, dim=-1)
    spatial = ((1 - (unit[picture] * mean[frame]).sum(-1)) * _GRAIN).round()
    value[picture] = rank_normalise(rank_normalise(temporal[picture]) + rank_normalise(spatial))
    return value


def prefilter(prompt: Prompt, valid: Tensor, special: SpecialTokens, timeline: Timeline, share: float) -> list[Tensor]:
    """The rows of each prompt that are left when what repeats itself goes: all text, and part of the pool.

    Pictures and sounds stand in one ranking by :func:`novelty`. The best picture row and the best sound row of
    every two-second window stay in any case.

    Args:
        prompt: a batch of prompts whose placeholder rows hold tower features.
        valid: (B, L) bool, rows that are not padding.
        special: the checkpoint's special ids.
        timeline: positions per second and per window.
        share: of the pool, in (0, 1]; ``keep_count(N, share)`` rows stay, or one of each modality and window
            where that is more.

    Returns:
        Per prompt the ascending indices of its rows.
    """
    kept = []
    for row, ids in enumerate(prompt.input_ids):
        if share >= 1.0:
            kept.append(valid[row].nonzero().squeeze(-1))
            continue
        pool = find_pool(ids, prompt.position_ids[:, row], valid[row], special, timeline)
        left = valid[row].clone()
        left[pool.rows] = False
        if len(pool.rows):
            value = novelty(prompt.embeds[row, pool.rows], pool)
            best = _best_of_each(value, pool.window * 2 + pool.is_audio)
            value[best] += 1.0  # above every row that no window needs
            count = max(keep_count(len(value), share), len(best))
            left[pool.rows[top_rows(value, count)]] = True
        kept.append(left.nonzero().squeeze(-1))
    return kept


def _best_of_each(value: Tensor, group: Tensor) -> Tensor:
    """Index of the highest value of every group; the earlier of equals."""
    order = value.argsort(descending=True, stable=True)
    ordered, by_group = group[order].sort(stable=True)
    return order[by_group[~_same_as_previous(ordered)]]
