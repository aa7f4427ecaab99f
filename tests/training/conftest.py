"""What the tests of training share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from echopix_cli.model.processing import Processor
from echopix_cli.training.start import build_processor


@pytest.fixture(scope="module")
def processor() -> Processor:
    made = build_processor(40)
    made.rules = replace(made.rules, min_pixels=56 * 56, max_pixels=56 * 56)  # small frames: quick tests
    return made
