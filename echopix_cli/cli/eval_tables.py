"""Tables about an evaluation. Every cell is plain text: nothing from a file is read as markup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from echopix_cli.cli.eval_data import data_rows
from echopix_cli.cli.eval_markdown import drawn_anew, failed_questions, sound_lost
from echopix_cli.cli.output import one_line
from echopix_cli.cli.tables import facts_grid, precision, seconds
from echopix_cli.evaluation.intervals import Interval
from echopix_cli.evaluation.values import Recovery, Report, SettingResult, Share, written

_CORNER = "accuracy, %"
_LONGEST_FAMILY = 20


def report_tables(report: Report, width: int) -> RenderableType:
    """Accuracy by family in as many tables as fit ``width`` columns, then differences, evidence and facts."""
    groups = _groups(report.shown, width)
    tables: list[RenderableType] = [_accuracy(group) for group in groups]
    tables += [_grouped(field, group) for field in report.results[0].groups for group in groups]
    if report.recovery is not None and report.recovery.needing:
        tables.append(_recovered(report.recovery))
    if report.comparisons:
        tables.append(_differences(report))
        if any(comparison.needing is not None for comparison in report.comparisons):
            tables.append(_where_needed(report))
    if any(result.evidence for result in report.results):
        tables.append(_evidence(report.results))
    elif any(result.share_video is not None or result.share_audio is not None for result in report.results):
        tables.append(_kept(report.results))
    if any(result.last_prompt is not None for result in report.results):
        tables.append(_moments(report.results))
    return Group(*tables, _facts(report))


def _groups(results: Sequence[SettingResult], width: int) -> list[list[SettingResult]]:
    """Results for tables of at most ``width`` columns; each sieve goes whole to the first table with room for it."""
    first = results[0]
    named = [*first.families, *first.groups, *(value for values in first.groups.values() for value in values)]
    free = width - max(len(_CORNER), *(len(_family(name)) for name in named)) - 2
    groups: list[list[SettingResult]] = []
    for sieve in dict.fromkeys(result.setting.sieve for result in results):
        own = [result for result in results if result.setting.sieve == sieve]
        room = (group for group in groups if sum(map(_columns, group + own)) <= free)
        if (group := next(room, None)) is not None:
            group += own
        else:
            groups += _in_pieces(own, free)
    return groups


def _in_pieces(own: Sequence[SettingResult], free: int) -> Iterator[list[SettingResult]]:
    """One sieve's results, cut where the terminal is too narrow for all of its budgets."""
    piece: list[SettingResult] = []
    for result in own:
        if piece and sum(map(_columns, [*piece, result])) > free:
            yield piece
            piece = []
        piece.append(result)
    yield piece


def _columns(result: SettingResult) -> int:
    """Terminal columns of a setting's widest cell, with the space beside it."""
    shares = [share for own in (result.families, *result.groups.values()) for share in own.values()]
    cells = [result.mean, result.overall.accuracy, *(share.accuracy for share in shares)]
    return 2 + max(*map(len, _heading(result).splitlines()), *(len(_percent(cell)) for cell in cells))


def _by(corner: str, shares: Sequence[Mapping[str, Share]], results: Sequence[SettingResult]) -> Table:
    """Accuracy by what questions are counted by, a column a setting."""
    table = _table(f"{corner}\n", *(_heading(result) for result in results))
    for name in shares[0]:
        table.add_row(Text(_family(name)), *(_percent(own[name].accuracy) for own in shares))
    return table


def _grouped(field: str, results: Sequence[SettingResult]) -> Table:
    return _by(_family(field), [result.groups[field] for result in results], results)


def _accuracy(results: Sequence[SettingResult]) -> Table:
    table = _by(_CORNER, [result.families for result in results], results)
    families = results[0].families
    if len(families) > 1:
        table.add_section()
        table.add_row("mean", *(_percent(result.mean) for result in results), style="bold")
        # With as many items in each family the two say the same.
        if len({share.total for share in families.values()}) > 1:
            table.add_row("all items", *(_percent(result.overall.accuracy) for result in results))
    return table


def _heading(result: SettingResult) -> str:
    budget = result.setting.budget
    return f"{result.setting.sieve}\n{written(budget) if budget else ''}"


def _recovered(recovery: Recovery) -> Table:
    table = _table("recovered of what\ntokens are worth", "\n%", "\n95 % interval", "right,\n%")
    for one in recovery.settings:
        right = "–" if one.accuracy is None else f"{100 * one.accuracy.value:.1f}"
        if one.share is None:
            table.add_row(one.setting, "–", "–", right)
        else:
            ends = " … ".join(f"{100 * end:.0f}" if isfinite(end) else "?" for end in (one.share.low, one.share.high))
            table.add_row(one.setting, f"{100 * one.share.value:.1f}", ends, right)
    return table


def _differences(report: Report) -> Table:
    comparisons = report.comparisons
    table = _table("accuracy of", "less that of", "points", "95 % interval", "ratio")
    before = comparisons[0].reference.sieve
    for comparison in comparisons:
        if comparison.reference.sieve != before:
            table.add_section()
            before = comparison.reference.sieve
        gap = comparison.by_clip if report.drawn_anew else comparison.difference
        table.add_row(
            comparison.setting.name,
            comparison.reference.name,
            f"{100 * gap.value:+.1f}",
            f"{100 * gap.low:+.1f} … {100 * gap.high:+.1f}",
            "–" if comparison.ratio is None else f"{100 * comparison.ratio:.1f} %",
            style=None if gap.low <= 0.0 <= gap.high else "bold",
        )
    return table


def _where_needed(report: Report) -> Table:
    """Differences over the families that need tokens, which others would only bring nearer to 0."""
    table = _table("over families that\nneed tokens, of", "\nless that of", "\npoints", "\n95 % interval")
    for comparison in report.comparisons:
        if (gap := comparison.needing) is not None:
            table.add_row(
                comparison.setting.name,
                comparison.reference.name,
                f"{100 * gap.value:+.1f}",
                f"{100 * gap.low:+.1f} … {100 * gap.high:+.1f}",
                style=None if gap.low <= 0.0 <= gap.high else "bold",
            )
    return table


def _kept(results: Sequence[SettingResult]) -> Table:
    """How much of the picture and of the sound each setting keeps: one budget holds for both together."""
    table = _table("kept\n", "rows\nvideo", "\naudio", "share\nvideo", "\naudio")
    for result in results:
        shares = (result.share_video, result.share_audio)
        cells = ("–" if share is None else f"{100 * share:.1f} %" for share in shares)
        table.add_row(result.setting.name, f"{result.kept_video:.1f}", f"{result.kept_audio:.1f}", *cells)
    return table


def _evidence(results: Sequence[SettingResult]) -> Table:
    table = _table(
        "evidence\n",
        "rows kept\nvideo",
        "\naudio",
        "kept on\nevidence",
        "expected\nat random",
        "ratio\n",
        "evidence\nkept",
    )
    for result in results:
        share = result.evidence
        if share is None:
            continue
        table.add_row(
            result.setting.name,
            f"{result.kept_video:.1f}",
            f"{result.kept_audio:.1f}",
            "–" if share.on_evidence is None else f"{100 * share.on_evidence:.1f} %",
            f"{100 * share.at_random:.1f} %",
            "–" if share.ratio is None else f"{share.ratio:.2f}×",
            f"{100 * share.recall:.1f} %",
        )
    return table


def _moments(results: Sequence[SettingResult]) -> Table:
    table = _table("movies\n", "top moment on\nthe evidence, %", "\nof items", "rows in the\nlast prompt")
    for result in results:
        if result.last_prompt is not None:
            share = result.moments
            right = ("–", "–") if share is None else (_percent(share.accuracy), str(share.total))
            table.add_row(result.setting.name, *right, f"{result.last_prompt:.1f}")
    return table


def _facts(report: Report) -> Table:
    facts, model = report.facts, report.facts.model
    first = report.results[0]
    kind = " (demonstration)" if model.demonstration else ""
    times = [(result.setting.budget, result.median_seconds) for result in report.results]
    latency = [f"{seconds(value)} at {written(budget)}" for budget, value in times if value is not None]
    rows = [
        ("model", f"{model.name}{kind}, {model.parameters / 1e6:.1f} M parameters, {precision(model)}"),
        ("data", f"{facts.data}, {facts.count} questions, {_each(list(first.families.values()))}; seed {facts.seed}"),
        ("±", "half a 95 % interval: Wilson's; of the mean, which weighs families alike, Price and Bonett's"),
        ("points", "on the same questions; bold where the interval leaves 0 out" if report.comparisons else ""),
        *data_rows(facts.options),
        ("by clip", f"the questions are about {report.clips} clips{_playing(report)}; intervals are the wider of that "
         f"and of drawing these anew{_only_counted(report)}" if report.drawn_anew else ""),
        ("recovered", _recovered_note(report.recovery)),
        ("evidence", _evidence_note(first)),
        ("latency", f"median of sieve, prefill and answer: {', '.join(latency)}" if latency else ""),
        ("failed", failed_questions(result.overall.failed for result in report.results)),
        ("sound", sound_lost(report.audio)),
        ("took", "" if report.seconds is None else f"{report.seconds:.0f} s"),
    ]  # fmt: skip
    return facts_grid((name, value) for name, value in rows if value)


def _playing(report: Report) -> str:
    return f" that play {report.recordings} recorded samples" if report.recordings else ""


def _only_counted(report: Report) -> str:
    """What has no interval by clips."""
    fields = list(map(_family, report.results[0].groups))
    fields += ["top moment"] if any(result.moments for result in report.results) else []
    return f", but of {', '.join(fields)}" if fields else ""


def _recovered_note(recovery: Recovery | None) -> str:
    if recovery is None:
        return ""
    apart = ", ".join(map(_family, recovery.apart))
    if not recovery.needing:
        return f"in no family is {recovery.full} surely more often right than none, so there is no share of it"
    without = f"; apart, because they need no token as far as can be told: {apart}" if apart else ""
    return f"(budget − none) / ({recovery.full} − none) of means over {len(recovery.needing)} families{without}"


def pair_tables(pair: Mapping[str, Any]) -> RenderableType:
    """Two reports beside one another: means, then differences by family.

    Args:
        pair: as it is written.
    """
    means = _table("right, mean over\nfamilies", "first\n%", "second\n%", "difference\npoints", "\n95 % interval")
    each = _table("difference", "", "points", "95 % interval")
    for one in pair["settings"]:
        name, gap = one["setting"], one["mean_over_families"]
        shown = name if name == one["reference"] else f"{name} − {one['reference']}"
        right = [f"{100 * one[key]['value']:.1f}" for key in ("accuracy", "reference_accuracy")]
        means.add_row(Text(shown), *right, f"{100 * gap['value']:+.1f}", _ends(gap), style=_bold(gap))
        if len(one["families"]) > 1:
            for family, own in one["families"].items():
                points = f"{100 * own['value']:+.1f}"
                each.add_row(Text(_family(family)), Text(shown), points, _ends(own), style=_bold(own))
            each.add_section()
    first, second = (f"{one['file']}: {one['model']} on {one['data']}, seed {one['seed']}" for one in pair["compared"])
    facts = facts_grid(
        [
            ("first", first),
            ("second", second),
            ("points", f"first less second, on the same {pair['count']} questions; intervals of 95 % also by drawing "
             f"the {drawn_anew(pair)} anew; bold where they leave 0 out"),
        ]
    )  # fmt: skip
    return Group(*([means, each] if each.row_count else [means]), facts)


def _ends(gap: Mapping[str, float]) -> str:
    return f"{100 * gap['low']:+.1f} … {100 * gap['high']:+.1f}"


def _bold(gap: Mapping[str, float]) -> str | None:
    return None if gap["low"] <= 0.0 <= gap["high"] else "bold"


def _each(shares: Sequence[Share]) -> str:
    """How many questions a family has."""
    totals = sorted({share.total for share in shares})
    return f"{totals[0]} a family" if len(totals) == 1 else f"{totals[0]} to {totals[-1]} a family"


def _evidence_note(result: SettingResult) -> str:
    if result.evidence is None:
        return ""
    known = f"what an answer rests on, known for {result.evidence.items} questions"
    return f"{known}; expected at random is its share of all rows"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} ±{100 * interval.half:.1f}"


def _family(name: str) -> str:
    """A family's name as it fits the first column."""
    shown = one_line(name)
    return shown if len(shown) <= _LONGEST_FAMILY else shown[: _LONGEST_FAMILY - 1] + "…"


def _table(first: str, *columns: str) -> Table:
    """Numbers on the right, never cut short."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table
