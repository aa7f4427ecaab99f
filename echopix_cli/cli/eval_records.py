"""A report of an evaluation as JSON, and two beside one another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from echopix_cli import __version__
from echopix_cli.cli.output import SCHEMA_VERSION
from echopix_cli.evaluation.marks import item_rows, marks_text
from echopix_cli.evaluation.resampling import RESAMPLES, SEED
from echopix_cli.files import named

if TYPE_CHECKING:
    from echopix_cli.evaluation.compare import ReportPair
    from echopix_cli.evaluation.intervals import Interval
    from echopix_cli.evaluation.values import EvidenceShare, Recovery, Report, SettingResult, Share


def report_record(report: Report) -> dict[str, Any]:
    """A report as the JSON object of schema version 1."""
    facts = report.facts
    return {
        "schema_version": SCHEMA_VERSION,
        "echopix_version": facts.version,
        "date": facts.date,
        "command": facts.command,
        "model": asdict(facts.model),
        "data": facts.data,
        "count": facts.count,
        "families": list(facts.families),
        "seed": facts.seed,
        "options": facts.options,
        "seconds": _rounded(report.seconds, 3),
        "settings": [_setting(result, report) for result in report.results],
        "comparisons": [
            {
                "setting": comparison.setting.name,
                "reference": comparison.reference.name,
                "items": comparison.items,
                "difference": _interval(comparison.difference),
                "ratio": _rounded(comparison.ratio),
                "by_clip": _interval(comparison.by_clip),
                "needing": None if comparison.needing is None else _interval(comparison.needing),
                "families": {name: _interval(gap) for name, gap in comparison.families.items()},
            }
            for comparison in report.comparisons
        ],
        "failures": [asdict(failure) for failure in report.failures],
        "audio": report.audio,
        "notices": [{**named(media), "notice": notice} for media, notice in report.notices],
        "clips": report.clips,
        "recordings": report.recordings,
        "resampling": {"resamples": RESAMPLES, "seed": SEED},
        "recovered": None if report.recovery is None else _recovery(report.recovery),
        "items": item_rows(report.items),
    }


def pair_record(pair: ReportPair, files: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Two reports beside one another as the JSON object of schema version 1.

    Args:
        pair: what came of comparing them.
        files: each one's path and content.
    """
    facts = [
        {"file": path, **{key: report.get(key) for key in ("date", "command", "data", "seed")}, **_model_of(report)}
        for path, report in files
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "echopix_version": __version__,
        "compared": facts,
        "count": pair.questions,
        "clips": pair.clips,
        "recordings": pair.recordings,
        "resampling": {"resamples": RESAMPLES, "seed": SEED},
        "settings": [
            {
                "setting": one.setting,
                "reference": one.reference,
                "accuracy": _interval(one.accuracy),
                "reference_accuracy": _interval(one.reference_accuracy),
                "mean_over_families": _interval(one.mean),
                "overall": _interval(one.overall),
                "families": {name: _interval(gap) for name, gap in one.families.items()},
            }
            for one in pair.pairs
        ],
    }


def _model_of(report: Mapping[str, Any]) -> dict[str, str]:
    model = report.get("model")
    return {"model": str(model.get("name", "?")) if isinstance(model, dict) else "?"}


def _recovery(recovery: Recovery) -> dict[str, Any]:
    return {
        "full": recovery.full,
        "needing": {name: _interval(gap) for name, gap in recovery.needing.items()},
        "apart": {name: _interval(gap) for name, gap in recovery.apart.items()},
        "settings": [
            {
                "setting": one.setting,
                "accuracy": None if one.accuracy is None else _interval(one.accuracy),
                "share": None if one.share is None else _interval(one.share),
                "families": {name: None if share is None else _interval(share) for name, share in one.families.items()},
            }
            for one in recovery.settings
        ],
    }


def _setting(result: SettingResult, report: Report) -> dict[str, Any]:
    by_clip = report.by_clip[result.setting]
    return {
        "setting": result.setting.name,
        "sieve": result.setting.sieve,
        "budget": result.setting.budget,
        "mean_over_families": _interval(result.mean),
        "overall": _share(result.overall),
        "families": {name: _share(share) for name, share in result.families.items()},
        "groups": {
            field: {value: _share(share) for value, share in values.items()} for field, values in result.groups.items()
        },
        "evidence": None if result.evidence is None else _evidence(result.evidence),
        "evidence_by_family": {name: _evidence(share) for name, share in result.evidence_by_family.items()},
        "mean_rows_kept": {"video": round(result.kept_video, 3), "audio": round(result.kept_audio, 3)},
        "share_kept": {"video": _rounded(result.share_video), "audio": _rounded(result.share_audio)},
        "median_seconds": _rounded(result.median_seconds),
        **(
            {}
            if result.last_prompt is None
            else {
                "top_moment_on_evidence": None if result.moments is None else _share(result.moments),
                "mean_rows_in_last_prompt": round(result.last_prompt, 3),
            }
        ),
        "by_clip": {
            "overall": _interval(by_clip.overall),
            "mean_over_families": _interval(by_clip.mean),
            "families": {name: _interval(own) for name, own in by_clip.families.items()},
        },
        "marks": marks_text(report.items, result.setting),
    }


def _share(share: Share) -> dict[str, Any]:
    counts = {"right": share.right, "total": share.total, "failed": share.failed}
    return {**counts, "accuracy": _rounded(share.accuracy.value), **_ends(share.accuracy)}


def _evidence(share: EvidenceShare) -> dict[str, Any]:
    return {name: value if isinstance(value, int) else _rounded(value) for name, value in asdict(share).items()}


def _interval(interval: Interval) -> dict[str, Any]:
    return {"value": _rounded(interval.value), **_ends(interval)}


def _ends(interval: Interval) -> dict[str, Any]:
    return {"low": _rounded(interval.low), "high": _rounded(interval.high)}


def _rounded(value: float | None, digits: int = 6) -> float | None:
    """None also for an end that is not known to be anywhere."""
    return round(value, digits) if value is not None and math.isfinite(value) else None
