"""The sieve's arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.model.sieve import keep_count, pack_left, select, straight_through, top_rows


@given(st.integers(1, 100_000), st.floats(0.0001, 1.0))
def test_keep_count(pool: int, budget: float) -> None:
    count = keep_count(pool, budget)
    assert 1 <= count <= pool
    assert count == min(pool, max(1, math.ceil(pool * budget)))


@pytest.mark.parametrize("budget", [0.0, -0.1, 1.01, float("nan")])
def test_budgets_outside_the_range(budget: float) -> None:
    with pytest.raises(ValueError, match="fraction kept"):
        keep_count(10, budget)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(1, 40))
def test_top_rows_keeps_the_best_and_prefers_the_earlier_of_equals(values: list[int], count: int) -> None:
    rows = top_rows(torch.tensor(values, dtype=torch.float32), count).tolist()
    best = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert rows == sorted(best)


@given(st.data())
def test_select_keeps_the_best_candidates_in_order(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 60))
    candidates = torch.tensor(data.draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    count = data.draw(st.integers(0, length))
    scores = torch.rand(length)
    kept = select(scores, candidates, count)
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert bool(candidates[kept].all())
    assert len(kept) == min(count, int(candidates.sum()))
    left = scores[candidates & ~torch.isin(torch.arange(length), kept)]
    if len(kept) and len(left):
        assert scores[kept].min() >= left.max()


def test_straight_through_is_one_forwards_and_softmax_backwards() -> None:
    scores = torch.tensor([5.0, 0.3, -0.2, 1.1, 9.0], requires_grad=True)
    candidates = torch.tensor([False, True, True, True, False])
    kept = torch.tensor([0, 3, 4])
    weights = straight_through(scores, candidates, kept)
    assert torch.allclose(weights[kept], torch.ones(3))
    weights[3].backward()
    soft = scores.detach()[candidates].softmax(-1)
    expected = torch.tensor([0.0, -soft[2] * soft[0], -soft[2] * soft[1], soft[2] * (1 - soft[2]), 0.0])
    assert torch.allclose(scores.grad, expected, atol=1e-6)


def test_pack_left() -> None:
    packed = pack_left([torch.tensor([1, 2]), torch.tensor([3, 4, 5]), torch.tensor([], dtype=torch.long)], 0)
    assert packed.tolist() == [[0, 1, 2], [3, 4, 5], [0, 0, 0]]
