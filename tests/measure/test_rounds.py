"""Comparing in rounds: exact on recorded passes, where what disturbs them is known. No test looks at durations."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.measure import rounds
from echopix_cli.measure.rounds import Disturbance, Ratio, Spread, disagreement, interleave, ratio_of, spread_of

SECONDS = st.floats(1e-4, 1e3)


def test_a_spread_ends_at_the_quartiles() -> None:
    assert spread_of([1.0, 2.0, 3.0, 4.0, 100.0]) == Spread(3.0, 2.0, 4.0)
    assert spread_of([2.0]) == Spread(2.0, None, None), "one run has none"


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([3.0], Ratio(3.0)),
        ([3.0, 1.0], Ratio(2.0, 1.0, 3.0, 0.5)),
        ([5.0, 1.0, 3.0], Ratio(3.0, 1.0, 5.0, 0.75)),
        (range(1, 7), Ratio(3.5, 1, 6, 1 - 2 / 64)),  # the first number from which the outermost give 95 %
        (range(1, 9), Ratio(4.5, 1, 8, 1 - 2 / 256)),
        (range(1, 10), Ratio(5, 2, 8, 1 - 2 * (1 + 9) / 512)),  # and the first where the next ones do
        (range(1, 21), Ratio(10.5, 6, 15, 1 - 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 2**20)),
    ],
)
def test_the_interval_of_a_ratio_is_by_ranks(pairs: Sequence[float], expected: Ratio) -> None:
    found = ratio_of(list(pairs))
    assert (found.median, found.low, found.high) == (expected.median, expected.low, expected.high)
    assert found.confidence == pytest.approx(expected.confidence)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    """Of all ways in which five pairs can lie below or above the true median, counted out."""
    missed = sum(
        not (min(signs) < 0 < max(signs)) for signs in itertools.product((-1, 1), repeat=5)
    )  # the interval of five ends at their outermost
    assert ratio_of([1.0, 2.0, 3.0, 4.0, 5.0]).confidence == 1 - missed / 2**5


@given(st.lists(st.tuples(SECONDS, st.floats(0.5, 20.0)), min_size=1, max_size=12), st.floats(1.2, 50.0))
def test_what_slows_whole_rounds_leaves_ratios_alone(runs: list[tuple[float, float]], slower: float) -> None:
    """Every second round takes several times as long: medians of each way would be torn apart, pairs are not."""
    whole = [seconds * ratio for seconds, ratio in runs]
    own = [seconds for seconds, _ in runs]
    busy = [slower if number % 2 else 1.0 for number in range(len(runs))]
    calm = ratio_of([a / b for a, b in zip(whole, own, strict=True)])
    found = ratio_of([a * s / (b * s) for a, b, s in zip(whole, own, busy, strict=True)])
    assert found.median == pytest.approx(calm.median)
    assert found.low == (None if calm.low is None else pytest.approx(calm.low))
    assert found.low is None or found.high is None or found.low <= median([r for _, r in runs]) * (1 + 1e-9)


def test_pairs_that_are_far_apart_disagree() -> None:
    assert disagreement([3.0]) is None
    assert disagreement([2.9, 3.0, 3.1, 3.2]) is None
    assert disagreement([1.1, 1.1, 16.0, 16.0]) == "half of the rounds' speed-ups lie outside 1.10–16.00×"
    assert disagreement([3.0, 3.0, 3.0, 3.0, 3.0, 16.0]) is None, "one that is off is what a median is for"


class Recorded(Disturbance):
    """What a scheduler would have been seen to do in pass after pass."""

    def __init__(self, noticed: Sequence[bool]) -> None:
        super().__init__()
        self.left = iter(noticed)

    def __call__(self) -> Disturbance:
        self.seen = next(self.left, False)
        return self

    @property
    def noticed(self) -> bool:
        return self.seen


def measured(
    disturbed_rounds: Sequence[int], trials: int = 3, warmup: int = 1, doubted: int = 0, repeats: int | None = None
) -> tuple[rounds.Rounds[str, str], list[tuple[int, int]], list[str]]:
    """Two ways, of which the second pass is disturbed in given rounds, and whose results are doubted so many times."""
    told: list[tuple[int, int]] = []
    ran: list[str] = []
    settings = iter("abcdefghijkl")
    doubts = iter(["they disagree"] * doubted)

    def run(setting: str, way: str) -> str:
        ran.append(setting + way)
        return setting + way

    result = interleave(
        ["x", "y"],
        lambda: next(settings),
        run,
        trials=trials,
        warmup=warmup,
        repeats=repeats,
        doubt=lambda passes: next(doubts, None),
        disturbance=Recorded([number % 2 == 1 and number // 2 in disturbed_rounds for number in range(24)]),
        watch=lambda done, total: told.append((done, total)),
    )
    return result, told, ran


def test_rounds_begin_with_another_way_each_time() -> None:
    result, told, ran = measured([])
    assert ran == ["ax", "ay", "by", "bx", "cx", "cy", "dy", "dx"]
    assert result.passes == {"x": ("bx", "cx", "dx"), "y": ("by", "cy", "dy")}
    assert (result.counted, result.disturbed, result.doubt) == (3, 0, None)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_disturbed_rounds_are_repeated_and_do_not_count() -> None:
    result, told, _ = measured([0, 2])  # the warming one counts neither way
    assert result.passes == {"x": ("bx", "dx", "ex"), "y": ("by", "dy", "ey")}
    assert (result.counted, result.disturbed, result.doubt) == (3, 1, None)
    assert told[2:] == [(3, 5), (4, 5), (5, 5)]


def test_where_repeating_does_not_help_all_rounds_are_shown_with_a_doubt() -> None:
    result, told, _ = measured([1, 2, 4, 5])
    assert result.passes["x"] == ("bx", "cx", "dx", "ex", "fx"), "a sixth could not have helped any more"
    assert (result.counted, result.disturbed) == (5, 4)
    assert result.doubt == "other work took the processor in 4 of 5 rounds"
    assert told[-1] == (6, 6)


def test_as_many_rounds_as_asked_for_are_run_on_the_busiest_machine() -> None:
    result, _, _ = measured([1, 2, 3], repeats=0)
    assert (result.counted, result.disturbed) == (3, 3)


def test_more_rounds_are_run_while_they_are_doubted() -> None:
    result, _, _ = measured([], doubted=2)
    assert (result.counted, result.doubt) == (5, None)
    result, _, _ = measured([], doubted=9)
    assert (result.counted, result.doubt) == (6, "they disagree")
    result, _, _ = measured([], doubted=9, repeats=0)
    assert (result.counted, result.doubt) == (3, "they disagree")


def test_switches_beyond_what_a_quiet_machine_has() -> None:
    assert not rounds.too_often(5, 0.01), "a few fall into any pass"
    assert not rounds.too_often(35, 1.0)
    assert rounds.too_often(36, 1.0)
    assert rounds.too_often(250, 4.0)


@pytest.fixture
def one_core() -> Iterator[None]:
    """This process and what it starts meanwhile stay on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.slow
def test_another_process_on_the_same_core_is_noticed(one_core: None) -> None:
    """A real one, which spins until it is ended, or for ten seconds."""
    spinning = "import time; print(flush=True); end = time.monotonic() + 10\nwhile time.monotonic() < end: pass"
    other = subprocess.Popen([sys.executable, "-c", spinning], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline()
        watching, began = Disturbance(), time.monotonic()
        until = time.process_time() + 0.5
        while time.process_time() < until:
            pass
        if not 0.7 < time.monotonic() - began < 5:
            pytest.skip("this machine's scheduler does not let two processes take turns on a core")
        assert watching.noticed
    finally:
        other.kill()
        other.communicate()
