"""Films by their windows: all of the sound is heard, and every picture has its own time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import CODED_RATE, coded, codes, seconds_heard, tones, write_clip, write_coded

from echopix_cli.engine.film import film_of
from echopix_cli.media import Clip, DecodePlan, load_clip
from echopix_cli.media.recall import remembering
from echopix_cli.results import AudioStatus

PLAN = DecodePlan(fps=2.5, min_frames=2, min_pixels=28 * 28, max_pixels=50 * 28 * 28)
WINDOW, RATE = 4.0, 16_000


def windows_of(path: Path) -> list[Clip]:
    """What is read of each window."""
    film = film_of(PLAN, load_clip(path, PLAN).end, WINDOW)
    assert film is not None
    with remembering():
        return [load_clip(path, film.window(number, True)) for number in range(len(film.spans))]


def sound_of(parts: list[Clip]) -> Any:
    """The windows' sound, each at its place."""
    sound = np.zeros(round(max(part.start for part in parts) * RATE) + round(WINDOW * 1.2) * RATE, np.float32)
    for part in parts:
        if part.waveform is not None:
            begin = round(part.start * RATE)
            sound[begin : begin + part.waveform.size] = part.waveform
    return sound


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("video_start", "sound_start", "picture", "sound"),
    [(0, 5, 12, 12), (5, 0, 12, 12), (0, 0, 8, 20), (0, 0, 20, 8)],
    ids=["late sound", "late picture", "long sound", "short sound"],
)
def test_all_of_picture_and_sound_at_their_times(
    tmp_path: Path, suffix: str, video_start: int, sound_start: int, picture: int, sound: int
) -> None:
    later = int(suffix == "ts")  # where the run-in before the sound would be earlier than any time can be
    path = write_coded(tmp_path / f"a.{suffix}", 0, picture, sound=tones(0, sound), video_start=video_start + later,
                       sound_start=sound_start + later)  # fmt: skip
    whole, parts = load_clip(path, PLAN), windows_of(path)
    assert whole.waveform is not None
    heard = sound_of(parts)
    assert np.array_equal(heard[: whole.waveform.size], whole.waveform) and not heard[whole.waveform.size :].any()
    assert seconds_heard(heard)[: sound_start + sound] == [None] * sound_start + list(range(sound))
    assert whole.frame_times is not None and whole.frames is not None and codes(whole.frames[:1]) == [0]
    begin = float(whole.frame_times[0])
    assert 0.0 <= begin - video_start < 0.1, "an encoder's run-in may begin before the sound"
    found = 0
    for part in parts:
        if part.frames is None:
            assert part.start >= begin + picture or part.end <= begin, "there is a picture"
            continue
        assert part.frame_times is not None
        numbers = (part.frame_times - begin) * CODED_RATE
        assert codes(part.frames) == np.round(numbers).astype(int).tolist()
        assert np.abs(numbers - np.round(numbers)).max() < 0.06, "true times, as exact as the container tells them"
        found += len(part.frames)
    assert found == pytest.approx(picture * PLAN.fps, abs=4)
    statuses = {
        part.audio_status for part in parts if (part.end or 0.0) <= sound_start + sound and part.start > sound_start
    }
    assert statuses == {AudioStatus.USED}
    kinds = (
        "the picture ends at", "there is no picture between",
        "the sound ends at", "there is no sound between",
    )  # fmt: skip
    notices = [notice for part in parts for notice in part.notices]
    assert all(notice.startswith(kinds) for notice in notices), notices


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_variable_rate_keeps_its_times(tmp_path: Path, suffix: str) -> None:
    """Crowded at first, then a slide for seven seconds, then one picture every half second."""
    times = [*np.arange(0, 6, 0.04), *np.arange(6, 8, 0.2), *np.arange(15, 20, 0.5)]
    path = write_clip(tmp_path / f"a.{suffix}", [coded(number) for number in range(len(times))], times=times,
                      codec="libx264", pix_fmt="yuv420p", options={"preset": "ultrafast", "g": "25"},
                      sound=tones(0, 20), audio_codec="aac")  # fmt: skip
    whole, parts = load_clip(path, PLAN), windows_of(path)
    assert whole.waveform is not None
    assert np.array_equal(sound_of(parts)[: whole.waveform.size], whole.waveform)
    assert seconds_heard(whole.waveform)[:20] == list(range(20))
    assert whole.frames is not None and whole.frame_times is not None
    late = whole.frame_times[0] - times[codes(whole.frames[:1])[0]]
    assert 0.0 <= late < 0.1, "an encoder's run-in may begin before the sound"
    for part in parts:
        assert part.frames is not None and part.frame_times is not None and part.notices == ()
        expected = np.array(times)[codes(part.frames)] + late
        np.testing.assert_allclose(part.frame_times, expected, atol=0.001)
        if part.start == 8.0:
            assert codes(part.frames) == [len(times) - 11], "the slide, and nothing else"
