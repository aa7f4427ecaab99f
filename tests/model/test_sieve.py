"""The sieve's arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.model.sieve import keep_count, pack_left, packing, select, straight_through, top_rows


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
def test_select_keeps_the_best_candidates_of_each_prompt(data: st.DataObject) -> None:
    """Against choosing prompt by prompt; scores of few values, so that there are ties."""
    length, prompts = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 4))
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    candidates = torch.tensor([data.draw(flags) for _ in range(prompts)])
    values = st.lists(st.integers(-2, 2), min_size=length, max_size=length)
    scores = torch.tensor([data.draw(values) for _ in range(prompts)], dtype=torch.float32)
    counts = [data.draw(st.integers(0, length)) for _ in range(prompts)]
    kept = select(scores, candidates, torch.tensor(counts))
    for row, count in enumerate(counts):
        pool = candidates[row].nonzero().squeeze(1)
        assert kept[row].nonzero().squeeze(1).tolist() == pool[top_rows(scores[row, pool], count)].tolist()


@given(st.data())
def test_packing_keeps_the_order_and_ends_on_real_rows(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 20))
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    kept = torch.tensor([data.draw(flags) for _ in range(3)])
    width = int(kept.sum(dim=1).max())
    index, real = packing(kept, width)
    assert index.shape == real.shape == (3, width)
    for row in range(3):
        assert index[row, real[row]].tolist() == kept[row].nonzero().squeeze(1).tolist()
        assert real[row].tolist() == sorted(real[row].tolist())


def test_straight_through_is_one_forwards_and_softmax_backwards() -> None:
    scores = torch.tensor([[5.0, 0.3, -0.2, 1.1, 9.0], [1.0, 2.0, 3.0, 4.0, 5.0]], requires_grad=True)
    candidates = torch.tensor([[False, True, True, True, False], [False] * 5])
    kept = torch.tensor([[True, False, False, True, True], [True] * 5])
    weights = straight_through(scores, candidates, kept)
    assert torch.allclose(weights[kept], torch.ones(8))
    assert torch.allclose(weights[0, 1:3], torch.zeros(2), atol=1e-7)
    weights[0, 3].backward()
    soft = scores.detach()[0, 1:4].softmax(-1)
    expected = torch.tensor([0.0, -soft[2] * soft[0], -soft[2] * soft[1], soft[2] * (1 - soft[2]), 0.0])
    assert torch.allclose(scores.grad[0], expected, atol=1e-6)
    assert scores.grad[1].tolist() == [0.0] * 5  # a prompt without candidates learns nothing, and no NaN


def test_pack_left() -> None:
    packed = pack_left([torch.tensor([1, 2]), torch.tensor([3, 4, 5]), torch.tensor([], dtype=torch.long)], 0)
    assert packed.tolist() == [[0, 1, 2], [3, 4, 5], [0, 0, 0]]
