"""Tables of an evaluation, or of two beside one another, in Markdown: one row a setting, one column a family."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from echopix_cli.cli.eval_data import data_rows
from echopix_cli.cli.output import one_line
from echopix_cli.evaluation.intervals import Interval, wider
from echopix_cli.evaluation.values import OWN

_MOST_COLUMNS = 13  # families; more of them are rows of a table of their own
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def report_markdown(record: Mapping[str, Any]) -> str:
    """A report's tables: accuracy with what is recovered, then differences, then what was run.

    Args:
        record: a report as it is written; one without items, of an earlier version, has fewer columns.
    """
    tables = [*_accuracy(record), "", *_grouped(record), *_recovered(record), *_differences(record)]
    return "\n".join([*tables, *_caption(record), ""])


def recovered_markdown(record: Mapping[str, Any]) -> str:
    """What the model's own sieve recovers, a row a family and a column a budget; families that need no token apart.

    Args:
        record: a report as it is written; empty where nothing can be recovered.
    """
    found = record.get("recovered")
    if not found or not found["settings"]:
        return ""
    own = {setting["setting"] for setting in record["settings"] if setting["sieve"] in OWN}
    shown = [one for one in found["settings"] if one["setting"] in own]
    rows = [
        [family, _points(gap), *(_share(one["families"][family]) for one in shown)]
        for family, gap in found["needing"].items()
    ]
    if rows:
        rows.append(["mean", "", *(_share(one["share"]) for one in shown)])
    rows += [[f"{family} (apart)", _points(gap), *["" for _ in shown]] for family, gap in found["apart"].items()]
    heads = ["recovered, %", f"{found['full']} less none, points", *(one["setting"] for one in shown)]
    said = "Apart: families that need no token, as far as can be told; the mean is without them."
    return "\n".join(["", *_table(heads, rows), "", *([said, ""] if found["apart"] else [])])


def pair_markdown(record: Mapping[str, Any]) -> str:
    """The table of two reports beside one another.

    Args:
        record: as it is written.
    """
    families = list(record["settings"][0]["families"])
    heads = ["setting", "first", "second", "difference of means", *families]
    rows = []
    for setting in record["settings"]:
        same = setting["setting"] == setting["reference"]
        name = setting["setting"] if same else f"{setting['setting']} − {setting['reference']}"
        right = [f"{100 * setting[key]['value']:.1f}" for key in ("accuracy", "reference_accuracy")]
        each = [_points(setting["families"][family]) for family in families]
        rows.append([name, *right, _points(setting["mean_over_families"]), *each])
    who = "; ".join(
        f"{place}: {_cell(one['model'])} on {_cell(one['data'])}"
        for place, one in (("first", record["compared"][0]), ("second", record["compared"][1]))
    )
    said = (
        f"Points right, first less second, on the same {record['count']:,} questions. {who}. Intervals of 95 %: "
        f"the wider of counting questions and of drawing the {drawn_anew(record)} anew."
    )
    return "\n".join([*_table(heads, rows), "", said, ""])


def _accuracy(record: Mapping[str, Any]) -> Iterator[str]:
    settings = record["settings"]
    several = len(settings[0]["families"]) > 1
    families = [] if _by_rows(record) else list(settings[0]["families"])
    # With as many questions in each family the mean over them says the same.
    overall = len({share["total"] for share in settings[0]["families"].values()}) > 1
    found = record.get("recovered") or {}
    recovered = {one["setting"]: one for one in found["settings"]} if found.get("needing") else {}
    evidence = any(setting["evidence"] for setting in settings)
    apart = not evidence and any(each for setting in settings for each in setting.get("share_kept", {}).values())
    heads = ["kept", *families, *(["mean"] if several else []), *(["all questions"] if overall else [])]
    heads += ["of video, %", "of audio, %"] if apart else []
    heads += ["recovered, %"] if recovered else []
    heads += ["evidence"] if evidence else []
    rows = []
    for setting in settings:
        each = setting["families"]
        if several:
            row = [f"{100 * each[family]['accuracy']:.0f}" for family in families]
            row.append(_right(interval_of(record, setting, "mean_over_families")))
        else:
            row = [_right(interval_of(record, setting, "overall"))]
        if overall:
            row.append(_right(interval_of(record, setting, "overall")))
        if apart:
            shares = (setting["share_kept"]["video"], setting["share_kept"]["audio"])
            row += ["–" if share is None else f"{100 * share:.1f}" for share in shares]
        if recovered:
            row.append(_share((recovered.get(setting["setting"]) or {}).get("share")))
        if evidence:
            ratio = (setting["evidence"] or {}).get("ratio")
            row.append("–" if ratio is None else f"{ratio:.2f} ×")
        rows.append([setting["setting"], *row])
    yield from _table(heads, rows)


def interval_of(record: Mapping[str, Any], setting: Mapping[str, Any], name: str) -> Interval:
    """A setting's ``overall`` or ``mean_over_families``, with the wider of two intervals where these differ."""
    counted = _read(setting[name])
    return wider(counted, _read(setting["by_clip"][name])) if _by_clip(record) else counted


def _read(share: Mapping[str, Any]) -> Interval:
    return Interval(share["accuracy"] if "accuracy" in share else share["value"], share["low"], share["high"])


def _by_rows(record: Mapping[str, Any]) -> bool:
    """Whether families are too many for columns."""
    return len(record["settings"][0]["families"]) > _MOST_COLUMNS


def _grouped(record: Mapping[str, Any]) -> Iterator[str]:
    """Accuracy by each of the data's own fields, and by families that are too many for columns; a column a setting."""
    settings = record["settings"]
    tables = [("family", [setting["families"] for setting in settings])] if _by_rows(record) else []
    tables += [(name, [setting["groups"][name] for setting in settings]) for name in settings[0].get("groups", {})]
    for name, shares in tables:
        heads = [name, "questions", *(setting["setting"] for setting in settings)]
        rows = [
            [value, f"{share['total']:,}", *(f"{100 * own[value]['accuracy']:.1f}" for own in shares)]
            for value, share in shares[0].items()
        ]
        yield from _table(heads, rows)
        yield ""


def _recovered(record: Mapping[str, Any]) -> Iterator[str]:
    """What is recovered by family, where there are several that need tokens."""
    recovered = record.get("recovered") or {"needing": ()}
    families = list(recovered["needing"])
    if len(families) > 1:
        heads = ["recovered, %", *families, "mean"]
        rows = [
            [one["setting"], *(_share(one["families"][family]) for family in families), _share(one["share"])]
            for one in recovered["settings"]
        ]
        yield from _table(heads, rows)
        yield ""


def _differences(record: Mapping[str, Any]) -> Iterator[str]:
    """Of all questions and over the families that need tokens, then of each family."""
    comparisons = record["comparisons"]
    needed = any(one.get("needing") for one in comparisons)
    rows = []
    for one in record["comparisons"]:
        ratio = "–" if one["ratio"] is None else f"{100 * one['ratio']:.1f} %"
        gap = one["by_clip"] if _by_clip(record) else one["difference"]
        more = [_points(one["needing"])] if needed else []
        rows.append([one["setting"], one["reference"], _points(gap), *more, ratio])
    if rows:
        more = ["points where tokens are needed"] if needed else []
        yield from _table(["right with", "less than with", "points", *more, "ratio"], rows)
        yield ""
    families = list(comparisons[0].get("families", ())) if comparisons else []
    if 1 < len(families) <= _MOST_COLUMNS:
        each = [
            [one["setting"], one["reference"], *(_points(one["families"][family]) for family in families)]
            for one in comparisons
        ]
        yield from _table(["right with", "less than with", *families], each)
        yield ""


def _caption(record: Mapping[str, Any]) -> Iterator[str]:
    model = record["model"]
    anew = f", the wider of counting questions and of drawing the {drawn_anew(record)} anew" if _by_clip(record) else ""
    yield (
        f"Per cent right of {record['count']:,} questions, {_cell(record['data'])}, seed {record['seed']}; model "
        f"{_cell(model['name'])}, {model['parameters'] / 1e6:.1f} M parameters. Intervals of 95 %{anew}."
    )
    if (recovered := record.get("recovered")) and recovered["needing"]:
        apart = ", ".join(map(_cell, recovered["apart"]))
        without = f" without {apart}, which need no token as far as can be told" if apart else ""
        full = _cell(recovered["full"])
        yield f"Recovered: (budget − none) / ({full} − none), means over families{without}; by drawing anew alone."
    if said := "; ".join(f"{name}: {_cell(value)}" for name, value in data_rows(record["options"])):
        yield f"{said[0].upper()}{said[1:]}."
    if failed := failed_questions(setting["overall"].get("failed", 0) for setting in record["settings"]):
        yield f"Failed: {failed}."
    if lost := sound_lost(record.get("audio", {})):
        yield f"Sound: {lost}."
    command = one_line(record["command"]).replace("`", "'")
    yield f"`{command}`"


def _by_clip(record: Mapping[str, Any]) -> bool:
    """Whether clips have several questions, or share recordings, so that intervals are those of drawing anew."""
    return bool(record.get("clips", record["count"]) < record["count"] or record.get("recordings"))


def drawn_anew(record: Mapping[str, Any]) -> str:
    """What a report's intervals are from drawing anew, with numbers."""
    recordings = record.get("recordings")
    return f"{record['clips']:,} clips" + (
        f" or the {recordings:,} recorded samples that they play" if recordings else ""
    )


def failed_questions(counts: Iterable[int]) -> str:
    """How many questions got no answer; empty where all did.

    Args:
        counts: of each setting.
    """
    most = max(counts)
    return f"{most:,} question{'' if most == 1 else 's'}, counted as wrong" if most else ""


def sound_lost(audio: Mapping[str, int]) -> str:
    """How many questions are about media whose sound was lost, whole or in part; empty where none was.

    Args:
        audio: questions by what became of the sound.
    """
    words = {"undecodable": "it could not be decoded", "truncated": "only a part of it was used"}
    return "; ".join(
        f"{said}, {audio[status]:,} question{'' if audio[status] == 1 else 's'}"
        for status, said in words.items()
        if audio.get(status)
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(_cell, heads))} |"
    yield f"| --- |{' ---: |' * (len(heads) - 1)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _MARKUP.sub(r"\\\1", one_line(text))


def _right(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} ± {100 * interval.half:.1f}"


def _points(gap: Mapping[str, float]) -> str:
    return f"{100 * gap['value']:+.1f} ({100 * gap['low']:+.1f} … {100 * gap['high']:+.1f})"


def _share(share: Mapping[str, float | None] | None) -> str:
    if share is None or share["value"] is None:
        return "–"
    low, high = (math.nan if share[end] is None else 100 * (share[end] or 0.0) for end in ("low", "high"))
    ends = [("?" if math.isnan(end) else f"{end:.0f}") for end in (low, high)]
    return f"{100 * share['value']:.0f} ({ends[0]} … {ends[1]})"
