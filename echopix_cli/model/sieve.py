"""The sieve's arithmetic: which audio-visual rows stay, and how gradients reach the ones that went.

Pure tensor functions over one pool of video, image and audio rows (paper, CS2).
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


def select(scores: Tensor, candidates: Tensor, counts: Tensor) -> Tensor:
    """The highest-scored candidates of each prompt; earlier rows win ties.

    Args:
        scores: (B, L) of every row.
        candidates: (B, L) bool, rows that compete.
        counts: (B,) candidates to keep; more than there are keeps all of them.

    Returns:
        (B, L) bool.
    """
    order = scores.masked_fill(~candidates, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, places)
    return (ranks < counts[:, None]) & candidates


def straight_through(scores: Tensor, candidates: Tensor, kept: Tensor) -> Tensor:
    """Weights (B, L) that are 1 at kept rows and carry the gradient of a softmax over each pool.

    ``hard − soft.detach() + soft`` at candidates, 1 elsewhere; temperature 1 (paper, CS2).

    Args:
        scores: (B, L) of every row.
        candidates: (B, L) bool, rows that competed.
        kept: (B, L) bool.
    """
    # Not -inf: a prompt without candidates has a softmax too, and none of its gradient is NaN.
    soft = scores.masked_fill(~candidates, torch.finfo(scores.dtype).min).softmax(-1)
    return torch.where(candidates, kept.to(soft) - soft.detach() + soft, 1.0)


def packing(kept: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Where the kept rows of each prompt are, padded on the left so that every last row is real.

    Args:
        kept: (B, L) bool.
        width: of the widest prompt.

    Returns:
        (B, width) row indices, ascending where real, and (B, width) bool, which of them are.
    """
    index = kept.to(torch.uint8).argsort(dim=1, stable=True)[:, kept.shape[1] - width :]
    return index, kept.gather(1, index)


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

    Van der Corput order of the candidates' ranks, as fractions from 0 to 1: the first k are evenly spread for every k,
    and so are the first of several prompts together, whatever their lengths.
    """
    order = torch.zeros(candidates.shape, dtype=torch.float64)
    for row, mask in enumerate(candidates.cpu()):
        count = int(mask.sum())
        bits = max(1, (count - 1).bit_length())
        reversed_bits = [int(f"{rank:0{bits}b}"[::-1], 2) for rank in range(count)]
        order[row, mask] = torch.tensor(reversed_bits, dtype=torch.float64) / 2**bits
    return order.to(candidates.device)
