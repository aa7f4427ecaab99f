"""Meters: what they must not do to what they measure."""

from __future__ import annotations

import pytest
import torch

from echopix_cli.engine.meters import reset_peaks


def test_new_peaks_leave_the_allocator_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks are reset before each question: giving cached blocks back there would make each one pay for new ones."""
    called: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: called.append("empty_cache"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: called.append("reset"))
    reset_peaks(torch.device("cuda"))
    assert called == ["reset"]
