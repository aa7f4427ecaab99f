"""Training on people's own files: what one of them does to its decoder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from echopix_cli.decoding.worker import Worker
from echopix_cli.media import DecodePlan
from echopix_cli.model.processing import Processor
from echopix_cli.training.conversations import Conversation, ConversationBatches


def test_a_file_that_crashes_its_decoder_is_left_out(
    processor: Processor, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process that prepares batches, which goes on with the others."""
    stream = Worker.stream

    def dying(self: Worker, path: str, plan: Any) -> Iterator[Any]:
        for part in stream(self, path, plan):
            if "silent" in path:
                assert self._pid is not None
                os.kill(self._pid, signal.SIGSEGV)
            yield part

    monkeypatch.setattr(Worker, "stream", dying)
    talks = [Conversation(clips[name], "What?", "a dog") for name in ("both", "silent", "dark")]
    data = ConversationBatches(processor, talks, DecodePlan(fps=25.0, max_frames=400), 1, 3)
    batches = list(DataLoader(data, batch_size=None, num_workers=1))
    fate = {data.conversation(place).media.stem: batch is not None for place, batch in enumerate(batches)}
    assert fate == {"both": True, "silent": False, "dark": True}
