"""What a CPU computes in: measured, taken for all models but the bundled one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from echopix_cli.engine import Engine
from echopix_cli.engine import precision as room
from echopix_cli.engine.precision import precision_of

CPU = torch.device("cpu")
MEASURED = room.bfloat16_gain  # before the tests' own fixture puts a number in its place


@pytest.mark.parametrize(("gain", "dtype"), [(0.5, "float32"), (1.1, "float32"), (2.0, "bfloat16"), (6.0, "bfloat16")])
def test_bfloat16_where_it_is_fast(
    random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, gain: float, dtype: str
) -> None:
    monkeypatch.setattr(room, "bfloat16_gain", lambda: gain)
    assert precision_of("auto", CPU) == getattr(torch, dtype)
    assert precision_of("auto", CPU, bundled=True) == torch.float32
    assert precision_of("float32", CPU) == torch.float32
    assert Engine.load(str(random_checkpoint), "cpu").facts.dtype == dtype


def test_the_bundled_model_is_not_measured_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured() -> float:
        raise AssertionError

    monkeypatch.setattr(room, "bfloat16_gain", measured)
    assert Engine.load("tiny", "cpu").facts.dtype == Engine.load("auto", "cpu").facts.dtype == "float32"


def test_the_probe_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the best of its rounds: what disturbs some of them changes nothing."""
    taken = {torch.float32: [9.0, 0.04, 0.03, 5.0], torch.bfloat16: [9.0, 5.0, 0.02, 0.01]}
    rounds = {dtype: iter([*seconds, 9.0, 9.0]) for dtype, seconds in taken.items()}
    monkeypatch.setattr(room, "_product_seconds", lambda dtype: next(rounds[dtype]))
    assert MEASURED.__wrapped__() == pytest.approx(3.0)


def test_the_probe_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a warm-up and a round, where those take longer than it may."""
    calls: list[torch.dtype] = []

    def slow(dtype: torch.dtype) -> float:
        calls.append(dtype)
        return 1.0

    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(room, "_product_seconds", slow)
    assert MEASURED.__wrapped__() == 1.0
    assert calls == [torch.float32, torch.bfloat16] * 2


def test_the_real_product() -> None:
    assert 0.0 < room._product_seconds(torch.bfloat16) < 60.0
