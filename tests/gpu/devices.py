"""The GPU that tests run on."""

from __future__ import annotations

import os

import pytest
import torch


def cuda() -> torch.device:
    """Skips a test where there is none; ``ECHOPIX_REQUIRE_GPU=1`` makes that a failure."""
    if not torch.cuda.is_available():
        if os.environ.get("ECHOPIX_REQUIRE_GPU") == "1":
            pytest.fail("ECHOPIX_REQUIRE_GPU=1, but torch sees no CUDA device")
        pytest.skip("no CUDA device")
    return torch.device("cuda")
