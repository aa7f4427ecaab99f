"""Sound that runs ahead of its time stamps is set right; jitter and repeated sound are left as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from makers import seconds_heard, tones, write_clip

from echopix_cli.media import DecodePlan, load_clip
from echopix_cli.media.demux import Damage
from echopix_cli.media.hearing import Hearing
from echopix_cli.media.recall import remembering
from echopix_cli.media.timeline import Timeline

RATE, FRAME = 16_000, 1024


def retimed(path: Path, seconds: int, move: Callable[[int], float]) -> Path:
    """Seconds of tones, each packet of 64 ms at another time: number → seconds."""
    source = write_clip(path.with_name("source.mkv"), sound=tones(0, seconds))
    with av.open(str(source)) as origin, av.open(str(path), "w") as out:
        track = out.add_stream_from_template(origin.streams[0])
        for number, packet in enumerate(packet for packet in origin.demux() if packet.size):
            assert packet.time_base == Fraction(1, 1000)
            packet.pts = packet.dts = round(move(number) * 1000)
            packet.stream = track
            out.mux(packet)
    return path


@pytest.mark.parametrize("rate", [0.95, 0.99])
def test_sound_keeps_to_its_times(tmp_path: Path, rate: float) -> None:
    path = retimed(tmp_path / "a.mkv", 40, lambda number: number * FRAME / RATE * rate)
    clip = load_clip(path)
    assert clip.waveform is not None and clip.waveform.size / RATE == pytest.approx(40 * rate, abs=0.15)
    for second, heard in enumerate(seconds_heard(clip.waveform)):
        assert heard in {int((second + 0.3) / rate), int((second + 0.7) / rate)}, second
    with remembering():
        plan = DecodePlan(start=0, end=8)
        parts = [load_clip(path, replace(plan, start=start, end=start + 8)).waveform for start in range(0, 32, 8)]
    whole = clip.waveform[: 32 * RATE]
    assert np.array_equal(np.concatenate([part for part in parts if part is not None]), whole)


@pytest.mark.parametrize("moved", ["early", "back", "on time"])
def test_jitter_and_sound_that_is_repeated_stay_as_they_are(moved: str) -> None:
    sound = tones(0, 8)
    timeline = Timeline(0.0, 20 * RATE)
    hearing = Hearing(timeline, Damage())
    for number in range(sound.shape[1] // FRAME):
        time = number * FRAME / RATE
        if moved == "early" and number % 20 > 8:
            time -= 0.06
        elif moved == "back" and number >= 60:
            time -= 2.0
        frame = av.AudioFrame.from_ndarray(sound[:, number * FRAME : (number + 1) * FRAME].copy(), "fltp", "mono")
        frame.sample_rate = RATE
        hearing.hear(frame, time)
    hearing.close()
    np.testing.assert_array_equal(timeline.waveform(), sound[0])
