"""Counting, comparing, drawing: on results made by hand."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import combinations
from math import comb
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.console import Console

from echopix_cli import files
from echopix_cli.cli.eval_markdown import recovered_markdown, report_markdown
from echopix_cli.cli.eval_records import report_record
from echopix_cli.cli.eval_tables import report_tables
from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.evaluation import plot
from echopix_cli.evaluation.intervals import Interval, mean_of, wider, wilson
from echopix_cli.evaluation.marks import marks_in
from echopix_cli.evaluation.report import make_report, pairs
from echopix_cli.evaluation.values import Condition, Facts, Graded, ItemResult, Report, Rows
from echopix_cli.files import check_target, write_whole
from echopix_cli.results import AudioStatus, ModelFacts

FULL, TENTH, RANDOM = Condition("cs2", 1.0), Condition("cs2", 0.1), Condition("random", 0.1)
NONE, AROUND = Condition("none", 0.0), Condition("without-cs2", 1.0)
FACTS = Facts("0", "today", "echopix eval", ModelFacts("tiny", None, 1, "float32", "cpu"), "d", 4, ("a", "b"), 0, {})


def item(
    family: str, right: dict[Condition, bool | None], evidence: int = 0, on: int = 0, pool: int = 20
) -> ItemResult:
    """None stands for a failure; every setting keeps a tenth of ``pool``, ``on`` of it on the evidence."""
    outcomes = {
        setting: Graded(None, False, None, 0.0, "no room")
        if hit is None
        else Graded("yes", hit, Rows(pool // 10, 0, on), 0.5 if hit else 0.25)
        for setting, hit in right.items()
    }
    return ItemResult("i", "m", family, "q", "yes", pool, evidence, outcomes)


ITEMS = [
    item("a", {FULL: True, TENTH: True, RANDOM: False}, evidence=5, on=2),
    item("a", {FULL: True, TENTH: False, RANDOM: False}, evidence=4, on=1),
    item("a", {FULL: True, TENTH: True, RANDOM: None}),
    item("b", {FULL: False, TENTH: False, RANDOM: True}),
]


def test_counts_by_family_and_overall() -> None:
    report = make_report(FACTS, ITEMS, [FULL, TENTH, RANDOM], 2.0)
    full, tenth, random = report.results
    assert {name: (share.right, share.total, share.failed) for name, share in random.families.items()} == {
        "a": (0, 3, 1),
        "b": (1, 1, 0),
    }
    assert (tenth.overall.right, tenth.overall.total, tenth.overall.failed) == (2, 4, 0)
    assert tenth.overall.accuracy == wilson(2, 4)
    assert full.mean == mean_of([(3, 3), (0, 1)])
    assert full.mean.value == 0.5
    assert (full.median_seconds, tenth.median_seconds, random.median_seconds) == (0.5, 0.375, None)
    assert [(f.id, f.setting, f.reason) for f in report.failures] == [("i", "random@0.1", "no room")]


def test_groups_and_shares_kept() -> None:
    """By each field of the data, over the items that have it; a failed item is in the total and has no rows."""
    kept, failed = Graded("yes", True, Rows(6, 35, 0), 0.1), Graded.failed("gone")
    items = [
        replace(item("a", {}), outcomes={TENTH: kept}, pool=200, pool_audio=100, groups=(("duration", "short"),)),
        replace(item("a", {}), outcomes={TENTH: kept}, pool=170, pool_audio=70, groups=(("duration", "long"),)),
        replace(item("b", {}), outcomes={TENTH: failed}, pool=0, groups=(("duration", "short"), ("audio", "Music"))),
    ]
    (tenth,) = make_report(FACTS, items, [TENTH], 2.0).results
    counts = {
        field: {value: (share.right, share.total, share.failed) for value, share in values.items()}
        for field, values in tenth.groups.items()
    }
    assert counts == {"duration": {"short": (1, 2, 1), "long": (1, 1, 0)}, "audio": {"Music": (0, 1, 1)}}
    assert tenth.groups["duration"]["short"].accuracy == wilson(1, 2)
    assert (tenth.share_video, tenth.share_audio) == (pytest.approx(0.06), pytest.approx((0.35 + 0.5) / 2))
    (seen,) = make_report(FACTS, [replace(items[0], pool=100, pool_audio=0)], [TENTH], 2.0).results
    assert (seen.share_video, seen.share_audio) == (pytest.approx(0.06), None)


def test_what_is_said_of_media_is_there_once_and_lost_sound_first() -> None:
    one = item("a", {TENTH: True})
    items = [
        replace(one, media="tracks", audio=AudioStatus.USED, notices=("two tracks",)),
        replace(one, media="mute", audio=AudioStatus.UNDECODABLE, notices=("no sound", "two tracks")),
        replace(one, media="mute", audio=AudioStatus.UNDECODABLE, notices=("no sound", "two tracks")),
        replace(one, media="half", audio=AudioStatus.TRUNCATED, notices=("half of it",)),
        one,
    ]
    report = make_report(FACTS, items, [TENTH], None)
    assert report.notices == (
        ("mute", "no sound"), ("mute", "two tracks"), ("half", "half of it"), ("tracks", "two tracks")
    )  # fmt: skip
    assert report.audio == {"used": 1, "undecodable": 2, "truncated": 1}
    record = report_record(report)
    assert (record["audio"], record["seconds"]) == (report.audio, None)
    assert [row.get("audio") for row in record["items"]] == [None, "undecodable", "undecodable", "truncated", None]
    said = "it could not be decoded, 2 questions; only a part of it was used, 1 question"
    assert f"Sound: {said}." in report_markdown(record)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(report_tables(report, 200))
    shown = console.export_text()
    assert said in shown and "took" not in shown


def test_comparisons_are_paired() -> None:
    report = make_report(FACTS, ITEMS, [FULL, TENTH, RANDOM], 2.0)
    less, against_random = report.comparisons
    assert (less.setting, less.reference, less.items) == (TENTH, FULL, 4)
    assert (less.difference.value, less.ratio) == (-0.25, pytest.approx(2 / 3))
    assert (against_random.setting, against_random.reference) == (TENTH, RANDOM)
    assert (against_random.difference.value, against_random.ratio) == (0.25, 2.0)
    never = [item("a", {TENTH: True, RANDOM: False})]
    assert make_report(FACTS, never, [TENTH, RANDOM], 0.0).comparisons[0].ratio is None


def test_what_choosing_is_worth_where_tokens_are_needed_is_said_everywhere() -> None:
    """Of family a the sieve has 12 in 16 and chance 4, without tokens nothing; family b is right without any."""
    items = [
        replace(item(family, {FULL: True, TENTH: place < own, RANDOM: place < other, NONE: family == "b"}), media=name)
        for family, own, other in (("a", 12, 4), ("b", 16, 16))
        for place in range(16)
        for name in (f"{family}{place}",)
    ]
    report = make_report(replace(FACTS, count=32), items, [FULL, TENTH, RANDOM, NONE], 1.0)
    assert report.recovery is not None and list(report.recovery.needing) == ["a"]
    (against,) = (one for one in report.comparisons if one.reference == RANDOM)
    assert against.needing is not None
    assert (against.difference.value, against.needing.value, against.families["b"].value) == (0.25, 0.5, 0.0)
    assert tuple(vars(against.needing).values()) == pytest.approx(tuple(vars(against.families["a"]).values()))
    record = report_record(report)
    (written,) = (one for one in record["comparisons"] if one["reference"] == "random@0.1")
    ends = {"value": 0.5, "low": round(against.needing.low, 6), "high": round(against.needing.high, 6)}
    assert (written["needing"], written["families"]["a"]) == (ends, ends)
    low, high = (f"{100 * end:+.1f}" for end in (against.needing.low, against.needing.high))
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(report_tables(report, 100))
    rows = [line.split() for line in console.export_text().splitlines()]
    assert ["cs2@0.1", "random@0.1", "+50.0", low, "…", high] in rows
    markdown = report_markdown(record).replace("\\", "")
    assert "| right with | less than with | points | points where tokens are needed | ratio |" in markdown
    assert f"| cs2@0.1 | random@0.1 | +50.0 ({low} … {high}) | +0.0 (" in markdown
    table = [line.split(" | ") for line in recovered_markdown(record).replace("\\", "").splitlines()]
    assert table[1] == ["| recovered, %", "cs2@1 less none, points", "cs2@0.1 |"], "not chance"
    share = report.recovery.settings[0].families["a"]
    assert share is not None and share.value == 0.75
    cell = f"75 ({100 * share.low:.0f} … {100 * share.high:.0f}) |"
    assert [row[0] for row in table[3:6]] == ["| a", "| mean", "| b (apart)"]
    assert table[3][2] == table[4][2] == cell and table[3][1].startswith("+100.0 (")
    assert table[5][1].startswith("+0.0 (") and "75" not in "".join(table[5])
    without = make_report(FACTS, ITEMS, [TENTH, RANDOM], 1.0)
    assert recovered_markdown(report_record(without)) == ""
    assert without.comparisons[0].needing is None
    assert "where tokens are needed" not in report_markdown(report_record(without))


def test_recordings_are_in_the_report_and_widen_what_is_shown() -> None:
    """Eight clips of two recordings, all right or all wrong: nothing is sure of either."""
    items = [
        replace(
            item("a", {TENTH: place < 4}), media=str(place), id=str(place), recordings=(("x", "y")[place // 4], "z")
        )
        for place in range(8)
    ]
    report = make_report(replace(FACTS, count=8), items, [TENTH], 1.0)
    record = report_record(report)
    assert (report.recordings, record["recordings"], record["clips"]) == (3, 3, 8)
    assert [row["recordings"] for row in record["items"]] == [[0, 1]] * 4 + [[2, 1]] * 4
    assert marks_in(record).recordings == (("0", "1"),) * 4 + (("2", "1"),) * 4
    assert (report.by_clip[TENTH].overall.low, report.by_clip[TENTH].overall.high) == (0.0, 1.0)
    assert report.shown[0].overall.accuracy == wider(wilson(4, 8), report.by_clip[TENTH].overall)
    assert "of drawing the 8 clips or the 3 recorded samples that they play anew" in report_markdown(record)
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(report_tables(report, 160))
    assert "about 8 clips that play 3 recorded samples" in console.export_text()
    plain = report_record(make_report(FACTS, ITEMS, [FULL], 1.0))
    assert plain["recordings"] == 0 and "recordings" not in plain["items"][0]
    assert marks_in(plain).recordings == ((),) * 4
    for wrong in (7, ["x"], [True]):
        with pytest.raises(ValueError, match="fit"):
            marks_in({**plain, "items": [{**row, "recordings": wrong} for row in plain["items"]]})


def test_which_settings_are_compared() -> None:
    fifth, uniform = Condition("cs2", 0.2), Condition("uniform", 0.2)
    found = list(pairs([FULL, fifth, TENTH, uniform, RANDOM, NONE, AROUND]))
    assert found == [
        (fifth, FULL), (TENTH, FULL), (FULL, AROUND), (fifth, uniform), (TENTH, RANDOM),
        (FULL, NONE), (fifth, NONE), (TENTH, NONE),
    ]  # fmt: skip
    assert list(pairs([RANDOM, NONE])) == []
    assert list(pairs([TENTH, AROUND])) == []


def test_evidence_is_averaged_over_items_that_have_some() -> None:
    (result,) = make_report(FACTS, ITEMS, [TENTH], 0.0).results
    share = result.evidence
    assert share is not None
    assert share.items == 2
    assert share.on_evidence == pytest.approx((2 / 2 + 1 / 2) / 2)
    assert share.at_random == pytest.approx((5 / 20 + 4 / 20) / 2)
    assert share.ratio == pytest.approx(0.75 / 0.225)
    assert share.recall == pytest.approx((2 / 5 + 1 / 4) / 2)
    assert set(result.evidence_by_family) == {"a"}
    assert result.kept_video == 2.0


def test_evidence_where_nothing_is_kept_or_known() -> None:
    nothing = replace(ITEMS[0], outcomes={NONE: Graded("yes", True, Rows(0, 0, 0), 0.1)})
    (result,) = make_report(FACTS, [nothing], [NONE], 0.0).results
    assert result.evidence is not None
    assert (result.evidence.on_evidence, result.evidence.ratio, result.evidence.recall) == (None, None, 0.0)
    (without,) = make_report(FACTS, ITEMS[3:], [TENTH], 0.0).results
    assert without.evidence is None
    assert without.evidence_by_family == {}


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=8).filter(any), st.data())
def test_a_blind_choice_has_ratio_one_in_expectation(mask: list[bool], data: st.DataObject) -> None:
    """Over all equally likely choices of k rows of a mask, exactly."""
    pool, evidence = len(mask), sum(mask)
    kept = data.draw(st.integers(1, pool))
    items = [
        ItemResult("i", "m", "a", "q", "yes", pool, evidence, {RANDOM: Graded("yes", True, Rows(kept, 0, on), 0.1)})
        for rows in combinations(mask, kept)
        for on in [sum(rows)]
    ]
    assert len(items) == comb(pool, kept)
    share = make_report(FACTS, items, [RANDOM], 0.0).results[0].evidence
    assert share is not None
    assert share.ratio == pytest.approx(1.0)
    assert share.recall == pytest.approx(kept / pool)


def report_of(*settings: Condition) -> Report:
    right = {setting: index % 2 == 0 for index, setting in enumerate(settings)}
    return make_report(FACTS, [item("a", right), item("b", right)], settings, 1.0)


def test_a_failure_of_every_setting_is_listed_once() -> None:
    failed = item("a", {FULL: None, TENTH: None})
    mixed = {**failed.outcomes, TENTH: Graded(None, False, None, 0.0, "other")}
    report = make_report(FACTS, [failed, replace(failed, outcomes=mixed)], [FULL, TENTH], 0.0)
    assert [(failure.setting, failure.reason) for failure in report.failures] == [
        (None, "no room"), ("cs2@1", "no room"), ("cs2@0.1", "other"),
    ]  # fmt: skip


def test_plots(tmp_path: Path) -> None:
    report = report_of(FULL, TENTH, RANDOM, NONE, AROUND)
    assert plot.draw(report, ".png").startswith(b"\x89PNG")
    svg = plot.draw(report, ".svg")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert svg == plot.draw(report, ".svg")


@pytest.mark.parametrize("settings", [(TENTH,), (NONE,), (RANDOM,), (AROUND,), (FULL,)])
def test_plots_of_single_settings(settings: tuple[Condition, ...]) -> None:
    facts = replace(FACTS, data="a$b_{" + "x" * 200, model=replace(FACTS.model, name="$m"))
    assert plot.draw(replace(report_of(*settings), facts=facts), ".svg")


def test_questions_that_share_clips_are_as_uncertain_wherever_they_are_shown() -> None:
    """Ten clips of ten questions each, all right or all wrong: some ± 30 points, and not the ± 10 of a hundred."""
    items = [
        replace(item("a", {FULL: clip < 6}), media=f"{clip}.mp4", id=f"{clip}-{number}")
        for clip in range(10)
        for number in range(10)
    ]
    report = make_report(replace(FACTS, count=100), items, [FULL], 1.0)
    (counted,), (shown,) = report.results, report.shown
    drawn = report.by_clip[FULL].mean
    expected = Interval(0.6, min(counted.mean.low, drawn.low), max(counted.mean.high, drawn.high))
    assert (counted.mean, expected.half) == (wilson(60, 100), pytest.approx(0.3, abs=0.051))
    assert {shown.mean, shown.overall.accuracy, shown.families["a"].accuracy} == {expected}
    cell = f"60.0 ±{100 * expected.half:.1f}"
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(report_tables(report, 100))
    text = console.export_text()
    assert f"a            {cell}" in text and "about 10 clips; intervals are the wider" in text
    assert f"| cs2@1 | {cell.replace('±', '± ')} |" in report_markdown(report_record(report))
    axes = Figure().add_subplot()
    plot._curves(axes, report.shown)
    ((_, low), (_, high)) = axes.containers[0].lines[2][0].get_segments()[0]  # type: ignore[attr-defined]
    assert (low, high) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert b"100 questions about 10 clips" in plot.draw(report, ".svg")
    apart = replace(report, clips=100)
    assert apart.shown == report.results


def test_what_cannot_be_plotted(monkeypatch: pytest.MonkeyPatch) -> None:
    plot.check_plot(Path("a.SVG"))
    with pytest.raises(UsageError, match="PNG or SVG"):
        plot.check_plot(Path("a.jpg"))
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="matplotlib") as caught:
        plot.check_plot(Path("a.png"))
    assert caught.value.hint == "pip install 'echopix[plot]'"


def test_files_appear_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    check_target(target)
    write_whole(target, b"new")
    assert target.read_text() == "new"

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(EchopixError, match="No space left"):
        write_whole(target, b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert target.read_text() == "new"


def test_places_where_no_file_can_go(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        check_target(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        check_target(tmp_path / "no" / "report.json")
