"""Shared by the tests of the media room."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for ``makers``, whatever pytest's import mode
REAL = Path(__file__).resolve().parents[3] / "shared" / "media"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny frames resize faster without threads, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def real() -> Path:
    """The folder of real clips that lies beside the checkout on the project's machines."""
    if not REAL.is_dir():
        pytest.skip(f"the real clips are not here: {REAL}")
    return REAL
