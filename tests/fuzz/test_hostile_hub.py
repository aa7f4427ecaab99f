"""A hub that misbehaves: a whole model or one clear error each time, and nothing outside the cache.

All modes there are, with those that wait between tries: ``python tests/fuzz/hostile_hub.py``, some six minutes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import harness
import hostile_hub

# One of each kind that needs no second try.
SEEDS = [name for name in hostile_hub.MODES if name.startswith("header etag")] + [
    "commit absolute", "commit relative", "commit is null", "sha256 relative", "blob nul", "file name absolute",
    "a file is null", "size is text", "size beyond all disks", "card is list", "says a page", "says nothing",
    "config says a page", "config says deep", "metadata bomb", "metadata without end", "refusal without end",
    "redirect without end", "redirect to 'file:///etc/passwd'", "wait 100000000", "file without end",
    "file too long", "file packed", "file bomb", "file of other bytes", "a name to save it under",
]  # fmt: skip
WHOLE = {name for name in SEEDS if name.startswith(("header", "file name"))} | {
    "card is list", "file packed", "a name to save it under",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is watched by way of /proc")
def test_whatever_a_hub_does(tmp_path: Path) -> None:
    chosen = list(hostile_hub.MODES) if os.environ.get("ECHOPIX_FUZZ") else SEEDS
    endings = hostile_hub.attack(chosen, tmp_path)
    bad = {name: ending for name, ending in endings.items() if ending.outcome not in harness.GOOD}
    assert not bad
    assert {name for name in SEEDS if endings[name].outcome == harness.ANSWERED} == WHOLE


def test_there_are_many_modes() -> None:
    assert len(hostile_hub.MODES) >= 60
