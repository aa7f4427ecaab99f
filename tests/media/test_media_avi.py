"""AVI, which stores no times of presentation, and bare streams, which store none: every frame at its time, and windows
of AVI cost what they cost elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import CODED_RATE, coded, codes, tones, write_clip, write_coded

from echopix_cli.media import Clip, DecodePlan, load_clip, resync
from echopix_cli.media.cost import Meter
from echopix_cli.media.recall import remembering

PLAN = DecodePlan(fps=1000.0, min_frames=1, max_frames=10_000, min_pixels=28 * 28, max_pixels=100 * 28 * 28)
SECONDS = 6
X264 = "scenecut=0:keyint=20:min-keyint=20:b-adapt=0"
MP3 = {"audio_codec": "libmp3lame", "sound_rate": 44_100, "tick": Fraction(1, CODED_RATE)}
QUALITY = {"qmin": "2", "qmax": "4"}
KINDS: dict[str, dict[str, Any]] = {
    "h264": {"options": {"preset": "veryfast", "x264-params": X264 + ":bframes=0"}},
    "pyramid": {"options": {"preset": "veryfast", "x264-params": X264 + ":bframes=3:b-pyramid=normal"}},
    "open": {"options": {"preset": "veryfast", "x264-params": X264 + ":bframes=3:open-gop=1"}},
    "mpeg4": {"codec": "mpeg4", "options": {"g": "20", "sc_threshold": "1000000000", **QUALITY}},
    "mpeg4-b": {"codec": "mpeg4", "options": {"g": "20", "bf": "2", "sc_threshold": "1000000000", **QUALITY}},
    "msmpeg4": {"codec": "msmpeg4", "options": {"g": "20", **QUALITY}},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {}},
}
UNMARKED = ("open", "msmpeg4")  # where decoding cannot begin at a keyframe for sure, there being no index, or at all


def without_index(path: Path) -> Path:
    """A recording that nobody ended."""
    data = path.read_bytes()
    bare = path.with_name(f"bare-{path.name}")
    bare.write_bytes(data[: data.rfind(b"idx1")].replace(b"indx", b"JUNK"))
    return bare


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("avi")
    found = {}
    for kind, more in KINDS.items():
        found[kind] = write_coded(folder / f"{kind}.avi", 0, SECONDS, sound=tones(0, SECONDS, 44_100), **MP3, **more)
        found["bare-" + kind] = without_index(found[kind])
    for suffix in ("mp4", "mkv", "ts", "flv"):
        found[suffix] = write_coded(folder / f"a.{suffix}", 0, SECONDS, **KINDS["pyramid"])
    return found


@pytest.fixture(scope="module")
def wholes(films: dict[str, Path]) -> dict[str, Clip]:
    return {name: load_clip(path, PLAN) for name, path in films.items()}


def same(part: Clip, whole: Clip, end: float) -> bool:
    """Whether each frame of a window up to ``end`` is the whole's; one may be missing, which makes them even."""
    assert whole.frame_times is not None and whole.frames is not None and part.frame_times is not None
    inside = (whole.frame_times >= part.start - 1e-6) & (whole.frame_times < end - 1e-6)
    taken = inside & np.isin(whole.frame_times.round(6), part.frame_times.round(6))
    return inside.sum() - taken.sum() <= inside.sum() % 2 and np.array_equal(part.frames, whole.frames[taken])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("index", ["", "bare-"])
def test_every_frame_has_its_time(wholes: dict[str, Clip], kind: str, index: str) -> None:
    clip = wholes[index + kind]
    assert clip.frames is not None and clip.frame_times is not None and clip.notices == ()
    assert codes(clip.frames) == list(range(SECONDS * CODED_RATE))
    late = clip.frame_times * CODED_RATE - np.arange(SECONDS * CODED_RATE)
    assert (np.abs(late) < 2.01).all() and np.ptp(late[2:]) < 0.01, "but for what an encoder's delay makes of the first"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNMARKED])
def test_a_window_costs_what_it_costs_in_mp4(
    tmp_path: Path, films: dict[str, Path], wholes: dict[str, Clip], decoded: list[Meter], read: list[int], kind: str
) -> None:
    plan = replace(PLAN, start=4.0, end=4.96, audio=False)
    usual = load_clip(write_coded(tmp_path / "a.mp4", 0, SECONDS, **KINDS["pyramid"], sound=None), plan)
    there, frames = len(read), decoded[-1].frames
    read.clear()
    clip = load_clip(films[kind], plan)
    assert usual.frames is not None and clip.frames is not None and len(clip.frames) == len(usual.frames) == 24
    assert same(clip, wholes[kind], 4.96)
    assert len(read) <= there + 36 and decoded[-1].frames <= frames + 36, (
        "a group of pictures, and what may be shown late"
    )
    read.clear()
    glance = load_clip(films[kind], replace(plan, keyframes=True, max_frames=1))
    assert glance.frames is not None and len(read) == decoded[-1].frames == 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNMARKED])
def test_windows_without_an_index_read_only_what_they_need(
    films: dict[str, Path], wholes: dict[str, Clip], read: list[int], kind: str
) -> None:
    starts = np.arange(1.0, SECONDS - 1.0, 0.8).tolist()
    with remembering():
        for start in starts:
            part = load_clip(films["bare-" + kind], replace(PLAN, start=start, end=start + 0.8, audio=False))
            assert same(part, wholes["bare-" + kind], start + 0.8)
    assert len(read) <= len(starts) * (20 + 20 + 20), (
        "a group of pictures, the window and what may be shown before its end"
    )


@pytest.mark.parametrize("index", ["", "bare-"])
def test_a_window_s_sound_is_decoded_alone(films: dict[str, Path], decoded: list[Meter], index: str) -> None:
    plan = replace(PLAN, video=False)
    whole, part = (load_clip(films[index + "mpeg4"], replace(plan, start=start)) for start in (None, 4.0))
    assert whole.waveform is not None and part.waveform is not None and part.notices == ()
    assert np.array_equal(part.waveform, whole.waveform[4 * 16_000 :])
    assert decoded[1].bytes < 0.6 * decoded[0].bytes


@settings(max_examples=30)
@given(data=st.data())
def test_any_windows_in_any_order_hold_what_the_whole_holds(
    films: dict[str, Path], wholes: dict[str, Clip], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(films)))
    starts = data.draw(st.lists(st.integers(0, SECONDS * 100 - 40), min_size=1, max_size=3))
    with remembering():
        for start in starts:
            end = (start + data.draw(st.integers(9, 150))) / 100
            part = load_clip(films[name], replace(PLAN, start=start / 100, end=end, audio=False))
            assert part.notices == () and same(part, wholes[name], end)


def test_a_file_is_opened_once_to_look_between_its_packets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    opening = resync.open_regular
    monkeypatch.setattr(resync, "open_regular", lambda path: (asked.append(path), opening(path))[1])
    path = write_coded(tmp_path / "a.avi", 0, 4, codec="mpeg4", options={}, audio_codec="libmp3lame")
    assert load_clip(path).notices == ()
    assert asked == [path]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mjpeg"])
def test_a_picture_behind_a_long_gap_stays_as_long_as_any(tmp_path: Path, codec: str) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    times = [0, 0.04, 0.08, 2, 12]
    path = write_clip(tmp_path / "a.avi", [coded(n) for n in range(5)], fps=25, times=times, codec=codec,
                      pix_fmt=pix_fmt, tick=Fraction(1, 25), options={"bf": "0"})  # fmt: skip
    clip = load_clip(path, DecodePlan(min_pixels=28 * 28, max_pixels=100 * 28 * 28))
    assert clip.frames is not None and codes(clip.frames) == [0, 1, 2, 3, 4] and clip.notices == ()
    assert clip.frame_times is not None and clip.frame_times.tolist() == pytest.approx(times)
    assert clip.end == pytest.approx(12.04) and clip.shown_until == pytest.approx(12.04)


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "h264"), ("libx265", "hevc")])
def test_a_bare_stream_is_as_fast_as_it_says(tmp_path: Path, codec: str, suffix: str) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", [coded(n) for n in range(60)], fps=15, codec=codec, pix_fmt="yuv420p",
                      tick=Fraction(1, 15), options={"preset": "ultrafast", "x265-params": "log-level=0"})  # fmt: skip
    clip = load_clip(path, DecodePlan(min_pixels=28 * 28, max_pixels=100 * 28 * 28, fps=15))
    assert clip.frames is not None and codes(clip.frames) == list(range(60)) and clip.notices == ()
    assert clip.frame_times is not None and clip.frame_times.tolist() == pytest.approx([n / 15 for n in range(60)])
    assert clip.end == pytest.approx(4) and clip.source_fps == pytest.approx(15)
    later = load_clip(path, DecodePlan(min_pixels=28 * 28, max_pixels=100 * 28 * 28, fps=15, start=2))
    assert later.frames is not None and codes(later.frames) == list(range(30, 60))
