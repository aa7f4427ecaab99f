"""Files whose reading stands still: that ends without a timeout, and slow reading that goes on does not."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from echopix_cli.decoding import worker as worker_module
from echopix_cli.decoding.worker import Worker
from echopix_cli.errors import EchopixError, MediaError
from echopix_cli.media import DecodePlan, Limits, load_clip, probe, pulse
from echopix_cli.media.extent import MediaFile
from echopix_cli.media.source import open_regular

PLAN = DecodePlan(max_frames=4)


def test_a_decoder_that_comes_no_further_is_given_up(clips: dict[str, Path]) -> None:
    worker = Worker()
    try:
        worker.fingerprint(str(clips["dark"]))
        first = worker._pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        patience, worker.patience, began = worker.patience, 1.5, time.monotonic()
        with pytest.raises(MediaError, match=r"dark\.m4a: reading it has come no further for 1\.5 s"):
            worker.decode(str(clips["dark"]), PLAN)
        assert time.monotonic() - began >= 1.5
        worker.patience = patience
        assert worker.decode(str(clips["dark"]), PLAN).clip.waveform is not None
        assert worker._pid != first
    finally:
        worker.close()


def test_one_that_is_slow_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading 200 GiB of nothing takes minutes, in which no packet comes. Each time that it shows that it goes on, half
    of the patience is already used up."""
    path = tmp_path / "endless.mp4"
    with open(path, "wb") as file:
        file.truncate(200 * 2**30)
    worker, came, vain = Worker(patience=120.0), list[bool](), [0]
    arrives = worker_module.Channel.arrives

    def late(channel: Any, seconds: float) -> bool:
        if vain[0] < 60:
            vain[0] += 1
            return False  # as a wait of a second ends
        if arrived := arrives(channel, seconds):
            came.append(arrived)
            vain[0] = 0
        return arrived

    monkeypatch.setattr(worker_module.Channel, "arrives", late)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(worker.fingerprint, str(path))
        wait_until(lambda: asked.done() or len(came) >= 4)
        assert not asked.done()
        worker.kill()
        assert isinstance(asked.exception(20), EchopixError)
    worker.close()


def test_a_command_that_was_stopped_finds_its_file_read(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z stops command and decoder alike, however long: what counts is how often was waited in vain."""
    worker, waits = Worker(patience=60.0), list[float]()
    arrives = worker_module.Channel.arrives

    def stopped(channel: Any, seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 1:
            return False  # as a wait that went on meanwhile ends
        return arrives(channel, seconds)

    monkeypatch.setattr(worker_module.Channel, "arrives", stopped)
    try:
        assert worker.decode(str(clips["dark"]), PLAN).clip.waveform is not None
        assert max(waits) <= 1.0
    finally:
        worker.close()


def test_time_that_the_command_was_stopped_is_none_of_the_timeout(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, clock, passed = Worker(timeout=30.0), time.monotonic, [0.0]
    arrives = worker_module.Channel.arrives

    def stopped(channel: Any, seconds: float) -> bool:
        if not passed[0]:
            passed[0] = 1000.0
            return False
        return arrives(channel, seconds)

    monkeypatch.setattr(time, "monotonic", lambda: clock() + passed[0])
    monkeypatch.setattr(worker_module.Channel, "arrives", stopped)
    try:
        assert worker.decode(str(clips["dark"]), PLAN).clip.waveform is not None
    finally:
        worker.close()


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[None]]:
    """A list that grows with every sign of progress."""
    monkeypatch.setattr(pulse, "_SECONDS", 0.0)
    felt: list[None] = []
    with pulse.felt(lambda: felt.append(None)):
        yield felt


@pytest.mark.parametrize("name", ["both", "silent", "dark"])
def test_reading_shows_that_it_goes_on(clips: dict[str, Path], beats: list[None], name: str) -> None:
    info = probe(clips[name], Limits())
    before = len(beats)
    assert before
    clip = load_clip(clips[name], PLAN)
    assert len(beats) - before > 20 * len(info.tracks)
    assert clip.frames is not None or clip.waveform is not None


def test_reading_in_circles_is_no_progress(clips: dict[str, Path], beats: list[None]) -> None:
    size = clips["both"].stat().st_size
    with open_regular(clips["both"]) as raw:
        file = MediaFile(raw)
        for _ in range(4):
            file.seek(0)
            while file.read(1000):
                pass
        once = len(beats)
        assert once >= 4 * size // 1000
        for _ in range(3):
            file.seek(0)
            while file.read(1000):
                pass
        assert len(beats) == once


@pytest.mark.parametrize("words", [("ask", "What?"), ("profile", "-b", "0.5")])
def test_a_command_ends(
    run: Any, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """A decoder that hangs in the middle of the clip is one line, and the code of media."""
    stream, hung = Worker.stream, list[int]()

    def hanging(self: Worker, path: str, plan: Any) -> Iterator[Any]:
        for part in stream(self, path, plan):
            if not hung:
                assert self._pid is not None
                self.patience = 1.0
                os.kill(self._pid, signal.SIGSTOP)
                hung.append(self._pid)
            yield part

    monkeypatch.setattr(Worker, "stream", hanging)
    monkeypatch.setattr(worker_module, "_idle", [])
    ran = run(words[0], clips["both"], *words[1:], "--fps", 25, "--max-frames", 400)
    assert (ran.code, ran.out) == (4, "")
    assert re.search(r"^error: .*both.*: reading it has come no further for 1 s$", ran.err, re.MULTILINE)
    for worker in worker_module._idle:
        worker.close()
