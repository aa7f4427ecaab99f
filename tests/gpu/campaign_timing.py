"""How the campaign takes times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from campaign import Given


def on_gpu(given: Given) -> bool:
    return given.device == "cuda"


def synchronise(given: Given) -> None:
    if on_gpu(given):
        torch.cuda.synchronize()


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


def timed(given: Given, calls: dict[str, Callable[[], object]], trials: int, warmup: int = 1) -> dict[str, Any]:
    """Seconds of several calls, turn by turn, each waited for."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for trial in range(warmup + trials):
        for name, call in calls.items():
            synchronise(given)
            began = time.perf_counter()
            call()
            synchronise(given)
            if trial >= warmup:
                spent[name].append(time.perf_counter() - began)
    return {name: spread(seconds) for name, seconds in spent.items()}
