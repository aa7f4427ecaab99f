"""Spans of a long file in any order: each is that part of the whole, and none costs what lies before it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from makers import codes, tones, write_clip, write_coded

from echopix_cli.errors import Nothing, PastEnd
from echopix_cli.media import Clip, DecodePlan, load_clip
from echopix_cli.media import audio as audio_room
from echopix_cli.media import register as register_room
from echopix_cli.media import source as source_room
from echopix_cli.media import walk as walk_room
from echopix_cli.media.recall import remembering

PLAN = DecodePlan(fps=2.5, min_frames=2, max_frames=1000, min_pixels=28 * 28, max_pixels=50 * 28 * 28)
SECONDS = 10


def _sound(codec: str, rate: int, first: int = 0) -> dict[str, Any]:
    return {"audio_codec": codec, "sound_rate": rate, "sound": tones(first, SECONDS, rate)}


# Not AAC at other rates: FFmpeg's encoder then leaves noise to the decoder's dice.
KINDS: dict[str, dict[str, Any]] = {
    "a.mp4": {},
    "a.mkv": {},
    "a.ts": {},
    "mp3.ts": _sound("libmp3lame", 44_100),
    "open.ts": {"options": {"preset": "ultrafast", "bf": "2", "g": "25", "x264-params": "open-gop=1"}},
    "late.ts": {"sound_start": 5.3, "sound": tones(5, SECONDS)},
    "a.flv": _sound("libmp3lame", 44_100),
    "a.mp3": _sound("libmp3lame", 44_100),
    "a.ogg": _sound("libopus", 48_000),
}


@pytest.fixture(scope="module")
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Clip]:
    """A file of some kind, and all of it at once."""
    path, more = tmp_path_factory.mktemp("spans") / request.param, KINDS[request.param]
    pictured = path.suffix not in (".mp3", ".ogg")
    path = write_coded(path, 0, SECONDS, **more) if pictured else write_clip(path, **more)
    return path, load_clip(path, replace(PLAN, fps=25.0))


places = st.integers(0, 4 * SECONDS)


@pytest.mark.parametrize("film", KINDS, indirect=True)
@settings(max_examples=4, phases=[Phase.generate])
@given(spans=st.lists(st.tuples(places, st.integers(2, 8), st.booleans()), min_size=2, max_size=4))
def test_a_span_is_that_part_of_the_whole(film: tuple[Path, Clip], spans: list[tuple[int, int, bool]]) -> None:
    path, everything = film
    assert everything.waveform is not None
    with remembering():
        for place, length, keyframes in spans:
            start = place / 4
            plan = replace(PLAN, start=start, end=start + length / 4, keyframes=keyframes)
            expected = everything.waveform[round(start * 16_000) : round((start + length / 4) * 16_000)]
            try:
                clip = load_clip(path, plan)
            except Nothing:
                assert not expected.any()
                continue
            except PastEnd:
                assert start > SECONDS - 0.3
                continue
            heard = np.zeros(0, np.float32) if clip.waveform is None else clip.waveform
            assert np.array_equal(heard, expected[: len(heard)]) and not expected[len(heard) :].any()
            if clip.frames is not None and everything.frames is not None:
                numbers = np.searchsorted(everything.frame_times, clip.frame_times - 1e-6)
                assert np.array_equal(clip.frame_times, everything.frame_times[numbers])
                assert codes(clip.frames) == numbers.tolist()
                assert np.array_equal(clip.frames, everything.frames[numbers])
            said = [notice for notice in clip.notices if not notice.startswith("the picture ends at")]
            assert not said or (said[0].startswith("there is no sound between") and not expected.any())


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What is done: files opened, packets read of pictures, twice, and of sound, and sound decoded."""
    done: Counter[str] = Counter()

    def counting(room: Any, name: str, what: str) -> None:
        original = getattr(room, name)

        def once(*given: Any) -> Any:
            done[what] += 1
            return original(*given)

        def each(*given: Any) -> Iterator[Any]:
            for packet in original(*given):
                done[what] += 1
                yield packet

        monkeypatch.setattr(room, name, each if name == "packets" else once)

    counting(source_room, "_open", "opened")
    counting(register_room, "packets", "times")
    counting(walk_room, "packets", "pictures")
    counting(audio_room, "packets", "sound")
    counting(audio_room, "audio_frames", "heard")
    return done


@pytest.mark.parametrize("film", ["a.ts", "a.flv"], indirect=True)
def test_the_times_of_a_film_without_an_index_are_read_once(film: tuple[Path, Clip], work: Counter[str]) -> None:
    path, _ = film
    plans = [replace(PLAN, start=float(start), end=start + 1.0, keyframes=True) for start in range(SECONDS)]
    with remembering():
        for plan in [plans[-1], *plans]:
            load_clip(path, plan)
    assert work["times"] == SECONDS * 25
    # Header, what was to be sought in, times, pictures, and sound from the last window and from the first one on.
    # A transport stream's pictures are gone back to; others are read from the start again.
    assert work["opened"] == (6 if path.suffix == ".ts" else 7)
    assert work["pictures"] <= (SECONDS + 1) * 25 * (1 if path.suffix == ".ts" else 2)
    assert work["heard"] <= (SECONDS + 3) / (1024 / 16_000 if path.suffix == ".ts" else 1152 / 44_100)


@pytest.mark.parametrize("film", ["mp3.ts", "a.mp3", "a.flv", "a.ogg"], indirect=True)
def test_sound_before_a_span_is_not_decoded(film: tuple[Path, Clip], work: Counter[str]) -> None:
    path, _ = film
    with remembering():
        for start, seconds in ((8.0, 2.5), (2.0, 2.5), (6.0, 2.5), (7.0, 1.5), (4.0, 2.5)):
            before = work["heard"]
            load_clip(path, replace(PLAN, start=start, end=start + 1.0, video=False))
            frame = 0.02 if path.suffix == ".ogg" else 1152 / 44_100
            assert work["heard"] - before <= seconds / frame
