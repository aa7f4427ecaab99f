"""Shared by the tests of the media room."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from echopix_cli.media import demux as demux_room
from echopix_cli.media import walk as walk_room
from echopix_cli.media.cost import Meter

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


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Meter]:
    """The meters of the clips that are loaded."""
    meters: list[Meter] = []

    class Kept(Meter):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            meters.append(self)

    monkeypatch.setattr("echopix_cli.media.load.Meter", Kept)
    return meters


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The places in the file of all packets that are read in order to be decoded."""
    places: list[int] = []

    def noting(*arguments: Any) -> Iterator[Any]:
        for packet in demux_room.packets(*arguments):
            places.append(packet.pos)
            yield packet

    monkeypatch.setattr(walk_room, "packets", noting)
    return places
