"""Entries of the feature cache, and what of an answer does not depend on them, for comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from echopix_cli.engine import Encoded, GenerationOptions
from echopix_cli.results import Answer, PeakMemory, StageTimes
from echopix_cli.shelf import FEATURES, Shelf

SHORT = GenerationOptions(max_new_tokens=4)


def entries(shelf: Shelf) -> list[Path]:
    return [item.path for item in shelf.items() if item.path.suffix == FEATURES]


def same(first: Encoded, second: Encoded) -> bool:
    """Whether two differ in nothing but what they cost."""
    for one, other in ((first.video, second.video), (first.audio, second.audio)):
        if (one is None) != (other is None):
            return False
        if one is not None and other is not None and not (one.dtype == other.dtype and torch.equal(one, other)):
            return False
    if first.inputs.grid_times.dtype != second.inputs.grid_times.dtype:
        return False
    if first.inputs.grid_times.tolist() != second.inputs.grid_times.tolist():
        return False
    plain = [
        replace(
            one, video=None, audio=None, seconds={}, peaks=PeakMemory(), cached=False,
            inputs=replace(one.inputs, grid_times=None),  # type: ignore[arg-type]
        )
        for one in (first, second)
    ]  # fmt: skip
    return plain[0] == plain[1]


def timeless(answer: Answer) -> Answer:
    return replace(answer, latency=StageTimes(), peak_memory=PeakMemory(), cached=False)
