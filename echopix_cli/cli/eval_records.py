"""A report of an evaluation as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from echopix_cli.cli.output import SCHEMA_VERSION

if TYPE_CHECKING:
    from echopix_cli.evaluation.intervals import Interval
    from echopix_cli.evaluation.values import EvidenceShare, Report, SettingResult, Share


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
        "seconds": round(report.seconds, 3),
        "settings": [_setting(result) for result in report.results],
        "comparisons": [
            {
                "setting": comparison.setting.name,
                "reference": comparison.reference.name,
                "items": comparison.items,
                "difference": _interval(comparison.difference),
                "ratio": _rounded(comparison.ratio),
            }
            for comparison in report.comparisons
        ],
        "failures": [asdict(failure) for failure in report.failures],
    }


def _setting(result: SettingResult) -> dict[str, Any]:
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


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
