"""The bundled model, and how it is asked, for all of this room's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from echopix_cli.engine import Engine
from echopix_cli.evaluation.asking import Asking
from echopix_cli.media import DecodePlan
from echopix_cli.scenes import frame_side


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load("tiny", "cpu")


@pytest.fixture(scope="module")
def asking(engine: Engine) -> Asking:
    rules = engine.processor.rules
    return Asking(engine.plan(DecodePlan()), frame_side(rules.max_pixels, rules.size_factor))


@pytest.fixture(scope="module")
def stock_engine(stock_checkpoint: Path) -> Engine:
    """A model without CS2, whose redundancy stage depends on the budget."""
    return Engine.load(str(stock_checkpoint), "cpu")
