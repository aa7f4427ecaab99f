"""The precision that a device computes in: what it has units for, asked of CUDA devices, measured on CPUs."""

from __future__ import annotations

import time
from functools import cache

import torch
from torch.nn import functional as F

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BFLOAT16 = (8, 0)  # compute capability from which there is arithmetic in it
_WORTH = (
    1.5  # times faster, from which a CPU's bfloat16 is taken: units for it give two and more, emulation less than one
)
_SECONDS, _ROUNDS = 1.0, 6  # that the probe may take, and how often it measures at most
_ROWS, _WIDTH = 128, 1024  # of the product that is measured: a prompt's rows, a small layer's width


def precision_of(name: str, device: torch.device, bundled: bool = False) -> torch.dtype:
    """A dtype by its name. ``auto`` is what the device is fast in without loss of range where possible.

    CUDA: bfloat16, and float16 below compute capability 8.0, where bfloat16 is emulated in no less memory.
    CPU: float32, or bfloat16 where that is measured to be faster.

    Args:
        name: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        device: that will compute.
        bundled: of the bundled model, which is small enough and answers alike on every CPU.
    """
    if name in _DTYPES:
        return _DTYPES[name]
    if device.type == "cpu":
        return torch.bfloat16 if not bundled and bfloat16_gain() >= _WORTH else torch.float32
    capability = capability_of(device)
    return torch.bfloat16 if capability is None or capability >= _BFLOAT16 else torch.float16


def capability_of(device: torch.device) -> tuple[int, int] | None:
    """A CUDA device's compute capability; None of others, and where no driver is there to ask."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_capability(device)


@cache
def bfloat16_gain() -> float:
    """How many times faster this CPU multiplies in bfloat16 than in float32, by the best of a few rounds of both.

    It takes a second at most, once in a process; the precisions take turns, so that other work slows both.
    """
    until = time.monotonic() + _SECONDS
    best: dict[torch.dtype, float] = {}
    for turn in range(_ROUNDS):
        for dtype in (torch.float32, torch.bfloat16):
            seconds = _product_seconds(dtype)
            if turn:  # the first compiles kernels
                best[dtype] = min(seconds, best.get(dtype, seconds))
        if best and time.monotonic() > until:
            break
    return best[torch.float32] / best[torch.bfloat16]


def _product_seconds(dtype: torch.dtype) -> float:
    """What one product of a prompt's rows with a layer takes."""
    rows, weight = torch.ones(_ROWS, _WIDTH, dtype=dtype), torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    begin = time.perf_counter()
    F.linear(rows, weight)
    return time.perf_counter() - begin
