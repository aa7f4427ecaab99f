"""A long file read as windows, one after another: they hold what the whole holds, and nothing is read twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import tones, write_coded

from echopix_cli.media import Clip, DecodePlan, load_clip
from echopix_cli.media import load as load_room
from echopix_cli.media import source as source_room
from echopix_cli.media.recall import remembering
from echopix_cli.results import AudioStatus

PLAN = DecodePlan(fps=5.0, min_frames=2, max_frames=1000, min_pixels=28 * 28, max_pixels=100 * 28 * 28)
SECONDS = 12
KINDS = {
    "a.mp4": {},
    "a.mkv": {"sound_rate": 44_100, "sound": tones(0, SECONDS, 44_100)},
    "a.ts": {},
    "opus.mkv": {"audio_codec": "libopus", "sound_rate": 48_000, "sound": tones(0, SECONDS, 48_000)},
    "late.mp4": {"sound_start": 5.3, "sound": tones(5, SECONDS)},
}


@pytest.fixture(scope="module", params=KINDS)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coded(tmp_path_factory.mktemp("film") / request.param, 0, SECONDS, **KINDS[request.param])


@pytest.fixture
def remembered() -> Iterator[None]:
    with remembering():
        yield


def windows(path: Path, length: float, total: float = SECONDS, **more: Any) -> list[Clip]:
    edges = [*np.arange(0.0, total - length / 2, length).tolist(), None]
    return [load_clip(path, replace(PLAN, start=start, end=end, **more)) for start, end in pairwise(edges)]


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("length", [0.75, 2.0, 4.4375, 3.66673])
def test_windows_joined_are_the_sound_of_the_whole(film: Path, length: float) -> None:
    whole = load_clip(film, replace(PLAN, video=False)).waveform
    parts = windows(film, length, keyframes=True, max_frames=2)
    joined = np.zeros_like(whole)
    for part in parts:
        if part.waveform is not None:
            begin = round(part.start * 16_000)
            joined[begin : begin + part.waveform.size] = part.waveform
            assert part is parts[-1] or part.waveform.size <= round(length * 16_000) + 1
    assert np.array_equal(joined, whole), "sample for sample"
    assert all(part.notices == () or part.waveform is None for part in parts)


@pytest.mark.parametrize("keyframes", [False, True])
def test_frames_do_not_depend_on_what_was_read_before(film: Path, keyframes: bool) -> None:
    more = {"audio": False, "keyframes": keyframes}
    fresh = windows(film, 2.0, **more)
    with remembering():
        again = windows(film, 2.0, **more)
        back = windows(film, 2.0, **more)[::-1]
    for one, other, third in zip(fresh, again, back[::-1], strict=True):
        assert np.array_equal(one.frames, other.frames) and np.array_equal(one.frames, third.frames)
        assert np.array_equal(one.frame_times, other.frame_times)
        assert (one.notices, one.info) == (other.notices, other.info)


@pytest.mark.usefixtures("remembered")
def test_a_film_is_opened_once_for_each_purpose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_coded(tmp_path / "a.mp4", 0, SECONDS)
    opened: list[object] = []
    real = source_room._open
    monkeypatch.setattr(source_room, "_open", lambda *given: opened.append(given) or real(*given))
    windows(path, 1.0)
    # Header and sound once; the picture's packets and frames in the first window and, from a place, in all others.
    assert len(opened) == 6


@pytest.mark.usefixtures("remembered")
def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 0, 4)
    first = [load_clip(path, replace(PLAN, start=start, end=start + 1.0)) for start in (0.0, 1.0)]
    write_coded(path, 20, 24)
    second = load_clip(path, replace(PLAN, start=2.0, end=3.0))
    fresh = load_room.load_clip(path, replace(PLAN, start=2.0, end=3.0))
    assert first[1].frames is not None and np.array_equal(second.frames, fresh.frames)
    assert second.waveform is not None and fresh.waveform is not None
    assert np.abs(np.abs(np.fft.rfft(second.waveform)).argmax() - (300 + 40 * 22)) <= 1


@pytest.mark.usefixtures("remembered")
def test_where_one_track_has_ended_the_other_is_used_alone(tmp_path: Path) -> None:
    short = windows(write_coded(tmp_path / "a.mp4", 0, 9, sound=tones(0, 4)), 3.0, 9.0)
    assert [part.audio_status for part in short] == [AudioStatus.USED, AudioStatus.USED, AudioStatus.ABSENT]
    assert all(part.frames is not None for part in short)
    assert [part.notices for part in short[:2]] == [(), ()]
    (said,) = short[2].notices
    assert re.fullmatch(r"the sound ends at 0:04(\.\d\d)?, before the span; only the picture was used", said)
    long = windows(write_coded(tmp_path / "b.mp4", 0, 4, sound=tones(0, 9)), 3.0, 9.0)
    assert [part.audio_status for part in long] == [AudioStatus.USED] * 3
    assert [part.frames is not None for part in long] == [True, True, False]
    assert [part.notices for part in long[:2]] == [(), ()]
    assert len(long[2].notices) == 1 and "the picture ends at" in long[2].notices[0]
