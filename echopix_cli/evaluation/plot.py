"""Accuracy against budget as a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echopix_cli.errors import UsageError
from echopix_cli.evaluation.values import AROUND, OTHER, OWN, SINGLE_PASS, Report, SettingResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")
_LONGEST_NAME = 40
# Okabe and Ito's palette, told apart by colour-blind readers too; each sieve keeps its colour in every plot.
_LOOKS = {
    "cs2": ("#0072B2", "o", 2.4),
    "question-attention": ("#0072B2", "o", 2.4),
    "per-modality": ("#009E73", "s", 1.4),
    "uniform": ("#E69F00", "^", 1.4),
    "random": ("#D55E00", "v", 1.4),
    OTHER: ("#F0E442", "P", 1.4),
    SINGLE_PASS: ("#56B4E9", "x", 1.4),
    "none": ("#666666", "", 1.4),
    AROUND: ("#CC79A7", "D", 1.4),
}


def check_plot(path: Path) -> None:
    """Refuse a plot that cannot be drawn before anything is measured.

    Raises:
        UsageError: a file name that stands for no known format, or matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"a plot is PNG or SVG, and {path} is neither", "--plot accuracy.svg")
    if find_spec("matplotlib") is None:
        raise UsageError("a plot needs matplotlib, which is not installed", "pip install 'echopix[plot]'")


def draw(report: Report, kind: str) -> bytes:
    """The mean over families against the fraction kept, a line a sieve, with 95 % intervals.

    Args:
        report: to draw.
        kind: ``.png`` or ``.svg``.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # No pyplot: it would look for a display and keep every figure. The salt makes equal plots equal files.
    with matplotlib.rc_context({"svg.hashsalt": "echopix", "font.size": 10}):
        figure = Figure(figsize=(7.6, 4.4), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        _curves(axes, report.shown)
        _levels(axes, report.shown)
        _frame(axes, report)
        target = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None} if kind == ".svg" else {}
        figure.savefig(target, format=kind.removeprefix("."), metadata=metadata)
    return target.getvalue()


def _curves(axes: Axes, results: Sequence[SettingResult]) -> None:
    """A line with bars for each sieve that has budgets; the model's own lies on top."""
    curves = {name: line for name, line in _lines(results) if name not in ("none", AROUND)}
    for place, (sieve, line) in enumerate(curves.items()):
        colour, marker, width = _LOOKS[sieve]
        # A step aside on the logarithmic axis, or bars at one budget would hide each other.
        aside = 1.025 ** (place - (len(curves) - 1) / 2)
        kept = [result.setting.budget * aside for result in line]
        height = [100 * result.mean.value for result in line]
        below = [100 * (result.mean.value - result.mean.low) for result in line]
        above = [100 * (result.mean.high - result.mean.value) for result in line]
        axes.errorbar(
            kept, height, yerr=(below, above), color=colour, marker=marker, linewidth=width, markersize=5.5,
            elinewidth=1.0, capsize=2.5, clip_on=False, label=sieve, zorder=4 if sieve in OWN else 3,
        )  # fmt: skip


def _levels(axes: Axes, results: Sequence[SettingResult]) -> None:
    """What has no budget: ``none`` as a dashed line with a band, ``without-cs2`` as a point where all is kept."""
    for name, (result, *_) in _lines(results):
        colour, marker, width = _LOOKS[name]
        mean = result.mean
        if name == "none":
            label = "none (question rows only)"
            axes.axhline(100 * mean.value, color=colour, linestyle="--", linewidth=width, label=label, zorder=2)
            axes.axhspan(100 * mean.low, 100 * mean.high, color=colour, alpha=0.1, linewidth=0, zorder=1)
        elif name == AROUND:
            bars = ([100 * (mean.value - mean.low)], [100 * (mean.high - mean.value)])
            axes.errorbar(
                [1.06], [100 * mean.value], yerr=bars, color=colour, marker=marker, linestyle="", elinewidth=1.0,
                capsize=2.5, label="all rows, past CS2", clip_on=False,
            )  # fmt: skip


def _lines(results: Sequence[SettingResult]) -> Iterator[tuple[str, list[SettingResult]]]:
    """Results of each sieve, in order of budget."""
    for name in dict.fromkeys(result.setting.sieve for result in results):
        own = [result for result in results if result.setting.sieve == name]
        yield name, sorted(own, key=lambda result: result.setting)


def _frame(axes: Axes, report: Report) -> None:
    """Axes, ticks at the budgets measured, title and legend."""
    facts = report.facts
    budgets = sorted({result.setting.budget for result in report.results if result.setting.budget > 0.0} | {1.0})
    axes.set_xscale("log")
    axes.set_xlim(min(budgets) / 1.15, 1.15)
    axes.set_xticks(budgets, [f"{100 * budget:g} %" for budget in budgets])
    axes.set_xticks([], minor=True)
    tops = [100 * result.mean.high for result in report.shown]
    axes.set_ylim(0, 5 * (max(tops) // 5 + 1))
    families = len(report.results[0].families)
    axes.set_xlabel("audio-visual tokens kept")
    axes.set_ylabel("accuracy, %" if families == 1 else f"accuracy, mean over {families} families, %")
    # Paths may be long, and their ends say most; matplotlib would read $…$ as mathematics.
    model, data = (_tail(text).replace("$", r"\$") for text in (facts.model.name, facts.data))
    asked = f"{facts.count} questions" + (f" about {report.clips} clips" if report.clips < facts.count else "")
    axes.set_title(f"{model} on {data}\n{asked}, 95 % intervals", fontsize=10)
    axes.grid(axis="y", alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _tail(text: str) -> str:
    """The end of a long name."""
    return text if len(text) <= _LONGEST_NAME else "…" + text[1 - _LONGEST_NAME :]
