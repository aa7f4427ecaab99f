"""A run's metrics as a picture."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from echopix_cli.errors import UsageError
from echopix_cli.training.loop import METRICS

LOSSES = ("answer", "hearing", "seeing", "binding", "hopping", "meanwhile", "pointing", "evidence", "teaching")
_POINTS = 200  # bins that the steps of a long run are averaged into


def draw_curves(folder: Path, kind: str) -> bytes:
    """Losses over steps, and, where there were several validations, their accuracy below.

    Args:
        folder: of the run.
        kind: ``.png`` or ``.svg``.

    Raises:
        UsageError: the run has no metrics yet.
    """
    from matplotlib.figure import Figure

    try:
        records = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the metrics of {folder}: {error}") from None
    steps = [record for record in records if "loss" in record]
    checks = [record for record in records if record.get("validation")]
    checks = checks if len(checks) > 1 else []  # a single point is no curve
    figure = Figure(figsize=(8, 6.5 if checks else 3.8), layout="constrained")
    axes: Any = figure.subplots(2 if checks else 1, 1, sharex=True, squeeze=False)[:, 0]
    for name in LOSSES:
        points = [(record["step"], record[name]) for record in steps if name in record]
        if points:
            axes[0].plot(*_averaged(np.array(points, dtype=float)), label=name)
    axes[0].set(yscale="log", ylabel="loss", title=f"Training of {folder.resolve().name}")
    axes[0].grid(alpha=0.3)
    if checks:
        for name in checks[-1]["validation"]:
            points = [(r["step"], 100 * r["validation"][name]["all"]) for r in checks if name in r["validation"]]
            axes[1].plot(*np.array(points, dtype=float).T, marker=".", label=name)
        axes[1].set(ylabel="right answers on val, %", ylim=(0, 100))
        axes[1].grid(alpha=0.3)
    for one in axes:
        one.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)  # covers no curve
    axes[-1].set(xlabel="step")
    target = io.BytesIO()
    figure.savefig(target, format=kind.removeprefix("."), dpi=120)
    return target.getvalue()


def _averaged(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of at most ``_POINTS`` runs of neighbouring (step, value) points, (n, 2)."""
    bins = np.array_split(points, min(len(points), _POINTS))
    means = np.array([part.mean(axis=0) for part in bins])
    return means[:, 0], means[:, 1]
