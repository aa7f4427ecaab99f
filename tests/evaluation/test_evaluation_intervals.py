"""Intervals: published values, and what must hold for any counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.evaluation.intervals import Interval, mean_of, paired_difference, wilson

counts = st.integers(1, 3000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (8, 10, 0.4901625, 0.9433178),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_of_known_counts(right: int, total: int, low: float, high: float) -> None:
    found = wilson(right, total)
    assert found.value == right / total
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@given(counts)
def test_wilson_holds_the_share_and_mirrors(counted: tuple[int, int]) -> None:
    right, total = counted
    found, mirrored = wilson(right, total), wilson(total - right, total)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert found.half > 0.0
    assert mirrored.low == pytest.approx(1 - found.high, abs=1e-12)


@given(counts)
def test_wilson_ends_are_where_the_score_test_just_accepts(counted: tuple[int, int]) -> None:
    right, total = counted
    for end in (wilson(right, total).low, wilson(right, total).high):
        if 0.0 < end < 1.0:
            distance = abs(right / total - end) / math.sqrt(end * (1 - end) / total)
            assert distance == pytest.approx(1.959963984540054, rel=1e-6)


@pytest.mark.parametrize(("right", "total"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_share(right: int, total: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        wilson(right, total)


@given(counts)
def test_the_mean_of_one_share_is_that_share(counted: tuple[int, int]) -> None:
    assert mean_of([counted]) == wilson(*counted)


def test_the_mean_of_known_counts() -> None:
    """9 of 10 and 4 of 10, one right and one wrong added to each: (10/12 + 5/12) / 2 ± z/2 √(Σ p (1 − p) / 12)."""
    found = mean_of([(9, 10), (4, 10)])
    assert found.value == pytest.approx(0.65)
    assert (found.low, found.high) == pytest.approx((0.625 - 0.174835, 0.625 + 0.174835), abs=2e-6)


@given(st.lists(counts, min_size=1, max_size=12))
def test_the_mean_weighs_families_alike_and_stays_a_share(counted: list[tuple[int, int]]) -> None:
    mean = mean_of(counted)
    assert mean.value == pytest.approx(sum(right / total for right, total in counted) / len(counted))
    assert 0.0 <= mean.low <= mean.value <= mean.high <= 1.0
    assert mean.half > 0.0


@pytest.mark.parametrize("items", [2, 20])
@pytest.mark.parametrize("truth", [[0.5] * 10, [0.05, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95, 0.99], [0.95] * 10])
def test_the_interval_of_the_mean_holds_the_truth_as_often_as_it_says(items: int, truth: list[float]) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.binomial(items, truth, size=(1500, len(truth)))
    found = [mean_of([(int(right), items) for right in row]) for row in drawn]
    held = np.mean([mean.low <= np.mean(truth) <= mean.high for mean in found])
    assert (0.89 if items == 2 else 0.93) < held < 0.985


def test_the_mean_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        mean_of([])


def test_paired_difference_of_known_counts() -> None:
    """10 gained, 2 lost, 28 alike: (11 − 3) / 42 ± z √((14/42 − (8/42)²) / 42), worked by hand."""
    found = paired_difference([True] * 10 + [False] * 2 + [True] * 28, [False] * 10 + [True] * 2 + [True] * 28)
    assert found.value == 0.2
    assert (found.low, found.high) == pytest.approx((0.025645, 0.355307), abs=2e-6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_paired_difference_mirrors_and_holds_the_difference(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    found, mirrored = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert found.value == pytest.approx((sum(ours) - sum(theirs)) / len(pairs))
    assert -1.0 <= found.low <= found.value <= found.high <= 1.0
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert found.half > 0.0


def test_paired_items_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="paired"):
        paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="paired"):
        paired_difference([], [])


def test_half_of_an_interval() -> None:
    assert Interval(0.5, 0.25, 1.0).half == 0.375
