"""What is recovered, and intervals by clips: hand-made numbers, and what must hold for any answers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echopix_cli.evaluation.compare import compare, matched
from echopix_cli.evaluation.gaps import differences
from echopix_cli.evaluation.intervals import paired_difference
from echopix_cli.evaluation.marks import Marks
from echopix_cli.evaluation.recovered import BEFORE, best_full, by_clip, recovery, with_full
from echopix_cli.evaluation.resampling import OverFamilies, Resamples, interval_of, ratio_of

ALL = np.ones(4, bool)
R = 200  # sets of clips: enough to compare two ways of drawing them


def marks(families: str, clips: str | None = None, **right: str) -> Marks:
    """Questions by letters: ``marks("aab", cs2_1="110", none="010")``; without clips each question has its own."""
    places = [str(place) for place in range(len(families))]
    names = {name.replace("_0", "@0.").replace("_1", "@1"): text for name, text in right.items()}
    return Marks(
        tuple(places), tuple(clips or places), tuple(families), tuple(families),
        {name: np.array([mark == "1" for mark in text]) for name, text in names.items()},
    )  # fmt: skip


def test_what_a_budget_recovers_by_hand() -> None:
    """a: none 2, full 10, budget 6 of 10 → 4 of 8; b: none 0, full 8, budget 8 → all; c needs no token."""
    own = marks(
        "a" * 10 + "b" * 10 + "c" * 10,
        cs2_1="1" * 10 + "1" * 8 + "00" + "1" * 10,
        cs2_01="1" * 6 + "0" * 4 + "1" * 8 + "00" + "1" * 9 + "0",
        none="11" + "0" * 8 + "0" * 10 + "1" * 10,
    )
    found = recovery(own, Resamples(own.clips), list(own.right))
    assert found is not None
    assert found.full == "cs2@1"
    assert {name: gap.value for name, gap in found.needing.items()} == pytest.approx({"a": 0.8, "b": 0.8})
    assert list(found.apart) == ["c"] and found.apart["c"].value == 0.0
    (budget,) = found.settings
    assert budget.setting == "cs2@0.1"
    assert budget.families["a"] is not None and budget.families["b"] is not None
    assert (budget.families["a"].value, budget.families["b"].value) == pytest.approx((0.5, 1.0))
    assert budget.share is not None and budget.accuracy is not None
    # Means of a and b: 0.7 of the budget, 0.1 of none, 0.9 of all.
    assert budget.accuracy.value == pytest.approx(0.7)
    assert budget.share.value == pytest.approx(0.75)
    assert budget.share.low < 0.75 < budget.share.high < 1.0
    assert budget.families["b"].low == budget.families["b"].high == 1.0, "right and wrong where everything is"


def test_the_better_of_the_models_is_what_it_is_measured_against() -> None:
    own = marks("aaaa", cs2_1="1110", cs2_01="1100", none="0000")
    before = marks("aaaa", cs2_1="0001", **{"without-cs2": "1111"})
    both = with_full(own, before)
    assert best_full(both) == f"{BEFORE}without-cs2"
    found = recovery(both, Resamples(both.clips), ["cs2@1", "cs2@0.1", "none"])
    assert found is not None and found.full == f"{BEFORE}without-cs2"
    shares = {one.setting: one.share.value if one.share else None for one in found.settings}
    assert shares == {"cs2@1": 0.75, "cs2@0.1": 0.5}
    assert best_full(with_full(own, marks("aaaa", cs2_1="1100"))) == "cs2@1"
    assert best_full(with_full(own, marks("aaaa", cs2_01="1111"))) == "cs2@1", "it keeps less than everything"


def test_where_nothing_can_be_recovered() -> None:
    assert recovery(marks("a", cs2_1="1"), Resamples("a"), ["cs2@1"]) is None
    assert recovery(marks("a", none="1", random_01="1"), Resamples("a"), ["none"]) is None
    own = marks("ab", cs2_1="10", cs2_01="10", none="11")
    found = recovery(own, Resamples(own.clips), list(own.right))
    assert found is not None and not found.needing and list(found.apart) == ["a", "b"]
    assert [(one.share, one.accuracy) for one in found.settings] == [(None, None)]


def test_one_question_proves_no_need() -> None:
    """Drawing one clip anew gives that clip: by itself it would be sure of anything."""
    own = marks("a" + "b" * 6, cs2_1="1" * 7, none="0" * 7)
    found = recovery(own, Resamples(own.clips), ["cs2@1", "none"])
    assert found is not None and (list(found.apart), list(found.needing)) == (["a"], ["b"])
    assert found.apart["a"].value == 1.0 and found.apart["a"].low < 0.0


def test_a_family_stands_apart_when_it_is_said_to() -> None:
    own = marks("aaaabbbb", cs2_1="11111111", cs2_01="11001111", none="00000000")
    found = recovery(own, Resamples(own.clips), list(own.right), ["b"])
    assert found is not None and (list(found.needing), list(found.apart)) == (["a"], ["b"])
    assert found.settings[0].share is not None and found.settings[0].share.value == 0.5


def test_a_ratio_whose_denominator_may_be_nothing_is_open() -> None:
    above, below = np.full(100, 0.5), np.concatenate([np.full(90, 1.0), np.zeros(10)])
    found = ratio_of(0.5, 1.0, above, below)
    assert found is not None and (found.value, found.low, found.high) == (0.5, -math.inf, math.inf)
    few = ratio_of(0.5, 1.0, above, np.concatenate([np.full(99, 1.0), [0.0]]))
    assert few is not None and (few.low, few.high) == (0.5, 0.5)
    assert ratio_of(0.5, 0.0, above, below) is None


# --- intervals by clips

answers = st.lists(st.booleans(), min_size=1, max_size=30)


@settings(max_examples=25, deadline=None)
@given(answers, st.integers(0, 5))
def test_with_one_question_a_clip_it_is_the_plain_bootstrap(right: list[bool], seed: int) -> None:
    found = Resamples([str(place) for place in range(len(right))], R, seed)
    drawn = found.means(np.array(right, float)[:, None], np.ones(len(right), bool))[0, :, 0]
    rng = np.random.default_rng(seed)
    plain = [np.mean([right[place] for place in rng.integers(0, len(right), len(right))]) for _ in range(R)]
    assert drawn == pytest.approx(np.array(plain))


@settings(max_examples=25, deadline=None)
@given(answers, st.integers(1, 5))
def test_asking_the_same_again_makes_nothing_surer(right: list[bool], times: int) -> None:
    """Every question several times about its own clip: the interval by clips stays, where Wilson's would shrink."""
    once = marks("a" * len(right), cs2_1="".join("01"[one] for one in right))
    again = marks(
        "a" * len(right) * times,
        "".join(chr(0x4E00 + place) * times for place in range(len(right))),
        cs2_1="".join("01"[one] * times for one in right),
    )
    first, second = (by_clip(own, Resamples(own.clips, R), ["cs2@1"])["cs2@1"] for own in (once, again))
    for ours, theirs in ((first.overall, second.overall), (first.mean, second.mean)):
        assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high))


def test_one_seed_one_interval() -> None:
    own = marks("a" * 20, cs2_1="1" * 13 + "0" * 7, none="0" * 20)
    first, second = (by_clip(own, Resamples(own.clips), ["cs2@1"])["cs2@1"] for _ in range(2))
    assert first == second
    gap = differences(own, Resamples(own.clips), [("cs2@1", "none")])[0].overall
    # By clips the normal approximation of 13 in 20, 0.65 ± 0.21; by questions 0.59 ± 0.24 (Bonett and Price).
    assert (gap.value, gap.high) == pytest.approx((0.65, 0.85), abs=0.051)
    assert gap.low == paired_difference([True] * 13 + [False] * 7, [False] * 20).low
    assert differences(own, Resamples(own.clips), []) == []


def test_differences_over_the_families_that_need_tokens() -> None:
    """a: 6 more of 10, b: 2 more of 5, c: none more of 20; by hand 8 of 35 in all, and (0.6 + 0.4) / 2 of a and b."""
    own = marks(
        "a" * 10 + "b" * 5 + "c" * 20,
        cs2_01="1" * 8 + "00" + "11100" + "1" * 20,
        random_01="11" + "0" * 8 + "10000" + "1" * 20,
    )
    pairs = [("cs2@0.1", "random@0.1"), ("random@0.1", "cs2@0.1")]
    gaps, turned = differences(own, Resamples(own.clips), pairs, ["a", "b"])
    assert {name: gap.value for name, gap in gaps.families.items()} == pytest.approx({"a": 0.6, "b": 0.4, "c": 0.0})
    assert (gaps.overall.value, gaps.mean.value) == pytest.approx((8 / 35, 1 / 3))
    assert gaps.needing is not None and turned.needing is not None
    assert gaps.needing.value == pytest.approx(0.5) and gaps.needing.low > gaps.overall.low
    assert (turned.needing.low, turned.needing.high) == pytest.approx((-gaps.needing.high, -gaps.needing.low))
    assert differences(own, Resamples(own.clips), pairs)[0].needing is None
    found = recovery(marks("aaaabbbb", cs2_1="11111111", none="00001111"), Resamples("abcdefgh"), ["cs2@1", "none"])
    assert found is not None and list(found.needing) == ["a"]


def test_clips_of_many_questions_widen_the_interval() -> None:
    """Ten clips of ten questions each, all right or all wrong: as ten questions, and not as a hundred."""
    clips = "".join(letter * 10 for letter in "abcdefghij")
    text = "".join(("1" if letter in "abcdef" else "0") * 10 for letter in "abcdefghij")
    own, apart = marks("x" * 100, clips, cs2_1=text), marks("x" * 100, cs2_1=text)
    wide, narrow = (by_clip(one, Resamples(one.clips), ["cs2@1"])["cs2@1"].overall for one in (own, apart))
    assert wide.half == pytest.approx(0.3, abs=0.051)
    assert narrow.half == pytest.approx(0.096, abs=0.02)
    alone = Resamples("aaa", R)
    assert alone.clips == 1
    assert np.ptp(alone.means(np.array([[1.0], [0.0], [1.0]]), np.ones(3, bool))) == 0.0


def test_sets_without_a_family_leave_it_out_of_their_mean() -> None:
    resamples, over = Resamples("ab", R), OverFamilies()
    values = np.array([[1.0], [0.0]])
    for _, value, drawn in resamples.by_family(values, ["x", "y"]):
        over.add(value, drawn)
    assert over.mean is not None
    plain, drawn = over.mean
    assert plain == [0.5]
    # Both clips, or one of them twice: the mean is then that family's own.
    assert {0.0, 0.5, 1.0} == set(drawn[0, :, 0].tolist())
    assert interval_of(0.5, np.array([0.5, math.nan])).low == 0.5
    with pytest.raises(ValueError, match="nothing"):
        Resamples([])


def test_recordings_are_drawn_as_clusters() -> None:
    """Two recordings of two clips each, one always right: none, half or all, as chance has it."""
    drawn = Resamples("abcd", R, recordings=["x", "x", "y", "y"]).means(np.array([[1.0], [1.0], [0.0], [0.0]]), ALL)
    assert drawn.shape == (2, R, 1)
    values, counts = np.unique(drawn[1, :, 0], return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    assert counts / R == pytest.approx(np.array([0.25, 0.5, 0.25]), abs=0.1)


def test_a_clip_of_several_recordings_by_hand() -> None:
    """The first, right, plays x and y, the second, wrong, plays z, and z is drawn k times of three.

    Weights are 1 + ((3 - k) - 2) / √2 and k: the mean is 0.5 + 0.5 · (1 - k) (1 / √2 + 1) / 2, but never below 0.
    """
    drawn = Resamples("ab", 4000, recordings=["xy", "z"]).means(np.array([[1.0], [0.0]]), np.ones(2, bool))[1, :, 0]
    values, counts = np.unique(drawn.round(9), return_counts=True)
    expected = [0.0, *(0.5 + 0.25 * (1 - k) * (1 + 2**-0.5) for k in (2, 1, 0))]
    assert values == pytest.approx(expected)
    assert counts / 4000 == pytest.approx(np.array([1, 6, 12, 8]) / 27, abs=0.03)


def test_few_recordings_widen_the_interval() -> None:
    """A hundred clips of ten recordings, all right or all wrong: as ten clips, and not as a hundred."""
    text = "1" * 60 + "0" * 40
    own = marks("x" * 100, cs2_1=text, none="0" * 100)
    played = replace(own, recordings=tuple((str(place // 10),) for place in range(100)))
    apart = replace(own, recordings=tuple((str(place),) for place in range(100)))

    def drawn(one: Marks) -> Resamples:
        return Resamples(one.clips, recordings=one.recordings)

    plain, narrow, wide = (by_clip(one, drawn(one), ["cs2@1"])["cs2@1"].overall for one in (own, apart, played))
    assert (drawn(own).recordings, drawn(played).recordings) == (0, 10)
    assert wide.half == pytest.approx(0.3, abs=0.051)
    assert plain.half <= narrow.half == pytest.approx(plain.half, abs=0.02)
    (gap,) = differences(played, drawn(played), [("cs2@1", "none")])
    assert gap.overall.half == pytest.approx(0.3, abs=0.051)
    found = recovery(played, drawn(played), ["cs2@1", "none"])
    assert found is not None and found.needing["x"].half == pytest.approx(0.3, abs=0.051)
    assert compare(played, own).recordings == 10


def test_who_plays_nothing_counts_with_its_clip() -> None:
    """Two questions about one silent clip, and one about a clip of one recording: two to draw from."""
    drawn = Resamples("aab", R, recordings=["", "", "x"]).means(np.array([[1.0], [1.0], [0.0]]), np.ones(3, bool))
    # By clips 0, 2 in 3, or 1; a recording twice moves the mean by 4 in 9 towards its clips, up to 1.
    assert set(drawn[0, :, 0].round(9)) == {0.0, round(2 / 3, 9), 1.0}
    assert set(drawn[1, :, 0].round(9)) == {round(2 / 9, 9), round(2 / 3, 9), 1.0}
    assert Resamples("ab", R, recordings=["", ""]).recordings == 0


# --- two reports


def test_two_reports_are_paired_by_hand() -> None:
    ours = marks("aabb", cs2_1="1111", cs2_01="1110", none="0000")
    theirs = marks("aabb", cs2_1="1010", cs2_01="0110")
    found = compare(ours, theirs)
    assert (found.questions, found.clips) == (4, 4)
    assert [(pair.setting, pair.reference) for pair in found.pairs] == [("cs2@1", "cs2@1"), ("cs2@0.1", "cs2@0.1")]
    full, tenth = found.pairs
    assert (full.accuracy.value, full.reference_accuracy.value, full.mean.value) == (1.0, 0.5, 0.5)
    assert {name: gap.value for name, gap in tenth.families.items()} == {"a": 0.5, "b": 0.0}
    assert (tenth.overall.value, tenth.mean.value) == (0.25, 0.25)
    turned = compare(theirs, ours).pairs[0].overall
    assert (turned.value, turned.low, turned.high) == (-full.overall.value, -full.overall.high, -full.overall.low)
    same = compare(ours, ours).pairs[0]
    never = paired_difference([True] * 2, [True] * 2)  # of a family's two questions, which never disagree
    assert same.families["a"] == never and never.low < 0.0 < never.high
    assert (same.mean.value, same.mean.high) == (0.0, pytest.approx(never.half / math.sqrt(2)))


@pytest.mark.parametrize(
    ("ours", "theirs", "pairs"),
    [
        (["cs2@0.1", "random@0.1"], ["random@0.1"], [("random@0.1", "random@0.1")]),
        (["cs2@0.1"], ["question-attention@0.1", "none"], [("cs2@0.1", "question-attention@0.1")]),
        (["cs2@0.1"], ["cs2@0.05"], [("cs2@0.1", "cs2@0.05")]),
        (["cs2@0.1", "none"], ["cs2@0.05"], []),
    ],
)
def test_which_settings_of_two_reports_are_compared(ours: Any, theirs: Any, pairs: Any) -> None:
    assert matched(ours, theirs) == pairs


def test_other_questions_are_not_compared() -> None:
    own = marks("ab", cs2_1="11")
    with pytest.raises(ValueError, match="different questions: 2 questions and 1"):
        compare(own, marks("a", cs2_1="1"))
    with pytest.raises(ValueError, match="'1' is asked in other words"):
        compare(own, marks("ac", cs2_1="11"))
    with pytest.raises(ValueError, match="'0' stands in the place of '9'"):
        compare(own, Marks(("9", "1"), own.clips, own.families, own.asked, own.right))
    with pytest.raises(ValueError, match=r"no setting in common: cs2@1 in one, none, random@0\.1 in the other"):
        compare(own, marks("ab", none="11", random_01="11"))
