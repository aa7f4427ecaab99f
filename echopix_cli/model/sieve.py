"""The sieve's arithmetic: which audio-visual rows stay, and how gradients reach the ones that went.

Pure tensor functions over one pool of video, image and audio rows (paper, CS2; reference README steps 5–7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def keep_count(pool: int, budget: float) -> int:
    """How many of ``pool`` audio-visual rows a budget keeps: ``min(N, max(1, ceil(N · budget)))``.

    Raises:
        ValueError: the budget is outside (0, 1].
    """
    if not 0.0 < budget <= 1.0:
        raise ValueError(f"a budget is a fraction kept, above 0 and at most 1; got {budget}")
    return min(pool, max(1, math.ceil(pool * budget)))


def top_rows(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` highest of (N,) scores, ascending; earlier rows win ties."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def select(scores: Tensor, candidates: Tensor, count: int) -> Tensor:
    """The ``count`` highest-scored candidates of one prompt, in their original order.

    Args:
        scores: (L,) of every row.
        candidates: (L,) bool, rows that compete.
        count: candidates to keep; more than there are keeps all of them.

    Returns:
        (kept,) ascending row indices.
    """
    pool = candidates.nonzero().squeeze(-1)
    return pool[top_rows(scores[pool], count)]


def straight_through(scores: Tensor, candidates: Tensor, kept: Tensor) -> Tensor:
    """Weights (L,) that are 1 at kept rows and carry the gradient of a softmax over the pool.

    ``hard − soft.detach() + soft`` at candidates, 1 elsewhere; temperature 1 (reference README step 7).
    """
    soft = scores[candidates].softmax(-1)
    hard = torch.zeros_like(scores)
    hard[kept] = 1.0
    weights = torch.ones_like(scores)
    weights[candidates] = hard[candidates] - soft.detach() + soft
    return weights


def pack_left(rows: Sequence[Tensor], fill: float = 0.0) -> Tensor:
    """Stack (n_i, …) tensors into (B, max n, …), padded on the left so that every last row is real."""
    width = max(row.shape[0] for row in rows)
    packed = rows[0].new_full((len(rows), width, *rows[0].shape[1:]), fill)
    for index, row in enumerate(rows):
        if row.shape[0]:
            packed[index, width - row.shape[0] :] = row
    return packed


def left_mask(lengths: Sequence[int], device: torch.device) -> Tensor | None:
    """(B, K) of ones where a batch that :func:`pack_left` made is real, None when all prompts are as long."""
    if len(set(lengths)) == 1:
        return None
    return pack_left([torch.ones(length, dtype=torch.long, device=device) for length in lengths], 0)


def spread_order(candidates: Tensor) -> Tensor:
    """For each candidate, its place in an order whose every prefix is evenly spread over them (B, L).

    Van der Corput order of the candidates' ranks: its first k are evenly spread for every k.
    """
    order = torch.zeros(candidates.shape, dtype=torch.float64)
    for row, mask in enumerate(candidates.cpu()):
        count = int(mask.sum())
        bits = max(1, (count - 1).bit_length())
        reversed_bits = [int(f"{rank:0{bits}b}"[::-1], 2) for rank in range(count)]
        order[row, mask] = torch.tensor(reversed_bits, dtype=torch.float64)
    return order.to(candidates.device)
