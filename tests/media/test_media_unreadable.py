"""A medium with a place that cannot be read: what lies behind it is found again by the windows that come after."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from echopix_cli.errors import Hollow, MediaError
from echopix_cli.media import DecodePlan, load_clip
from echopix_cli.media.extent import MediaFile
from echopix_cli.media.recall import remembering
from echopix_cli.results import AudioStatus

WINDOW, SECONDS = 4.0, 40


def recording(path: Path, picture: bool) -> Path:
    """A keyframe a second, a tone, in turn."""
    with av.open(str(path), "w") as target:
        tracks: list[Any] = []
        if picture:
            video = target.add_stream("libx264", rate=10, options={"preset": "ultrafast", "g": "10"})
            video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
            tracks.append(video)
        audio = target.add_stream("aac", rate=16_000, layout="mono")
        tracks.append(audio)
        rng = np.random.default_rng(0)
        for index in range(SECONDS * 10):
            if picture:
                image = rng.integers(0, 255, (120, 160, 3), np.uint8)
                target.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            frame = av.AudioFrame.from_ndarray(
                rng.normal(0, 0.2, (1, 1600)).astype(np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 16_000, index * 1600
            target.mux(audio.encode(frame))
        for track in tracks:
            target.mux(track.encode(None))
    return path


def spoil(path: Path, start: float, end: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two shares of the file reading fails, as on a disk with a bad place."""
    size = path.stat().st_size
    first, last = int(size * start), int(size * end)
    real = MediaFile.__init__

    class Disk:
        """As a file that is read without a buffer."""

        def __init__(self, file: io.FileIO) -> None:
            self._file = file
            self.tell, self.seek, self.fileno = file.tell, file.seek, file.fileno

        def read(self, count: int = -1) -> bytes | None:
            at = self._file.tell()
            if first <= at < last:
                raise OSError(errno.EIO, "Input/output error")
            return self._file.read(min(count, first - at) if at < first < at + count else count)

    monkeypatch.setattr(MediaFile, "__init__", lambda self, file: real(self, Disk(file)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("picture", [True, False])
def test_only_the_bad_place_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, picture: bool
) -> None:
    path = recording(tmp_path / f"bad.{suffix}", picture)
    spoil(path, 0.3, 0.4, monkeypatch)
    whole, hurt = set(), set()
    with remembering():
        for number in range(int(SECONDS / WINDOW)):
            start = number * WINDOW
            try:
                clip = load_clip(path, DecodePlan(start=start, end=start + WINDOW))
            except Hollow as hollow:
                assert "the sound is damaged" in hollow.message
                hurt.add(number)
                continue
            full = clip.waveform is not None and len(clip.waveform) == 16_000 * WINDOW and not clip.notices
            if full and (not picture or (clip.frames is not None and len(clip.frames) == 8)):
                assert clip.audio_status is AudioStatus.USED
                whole.add(number)
            else:
                assert clip.refused, "the disk may give it another time"
                assert any("damaged" in text or "could not be decoded" in text for text in clip.notices), clip.notices
                assert not any("ends at" in notice or "the rest is missing" in notice for notice in clip.notices), (
                    clip.notices
                )
                hurt.add(number)
    assert whole | hurt == set(range(10))
    assert whole >= {0, 1, 6, 7, 8, 9}, "what lies well before and behind"
    assert hurt & {2, 3, 4}, "and the place itself"
    monkeypatch.undo()
    assert not load_clip(path, DecodePlan(start=3 * WINDOW, end=4 * WINDOW)).refused


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_places_far_from_each_other_are_not_counted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """One giving up after so many errors in all would lose the rest of a long file."""
    path = recording(tmp_path / f"bad.{suffix}", picture=False)
    for number in range(8):
        spoil(path, 0.1 + number / 10, 0.11 + number / 10, monkeypatch)
    clip = load_clip(path, DecodePlan())
    assert clip.waveform is not None and len(clip.waveform) > 0.97 * SECONDS * 16_000
    assert clip.notices == (clip.notices[0],) and "damaged" in clip.notices[0]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_bad_place_is_no_damage_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """FFmpeg keeps the first error in mind, and gives it as the reason why nothing is left."""
    path = recording(tmp_path / f"bad.{suffix}", picture=False)
    spoil(path, 0.3, 0.31, monkeypatch)
    with remembering():
        clips = [load_clip(path, DecodePlan(start=start, end=start + 20.0)) for start in (0.0, 20.0)]
    (said,) = clips[0].notices
    assert "damaged" in said
    assert clips[1].notices == ()
    assert clips[1].waveform is not None and len(clips[1].waveform) >= 19.9 * 16_000


def test_a_window_that_begins_at_a_bad_place_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The move to a window's beginning lands there, and nothing tells how far to step."""
    path = recording(tmp_path / "bad.m4a", picture=False)
    spoil(path, 0.245, 0.25, monkeypatch)
    clip = load_clip(path, DecodePlan(start=11.0, end=30.0))
    assert clip.waveform is not None and len(clip.waveform) > 16_000 * 17
    assert clip.notices == () or "damaged" in clip.notices[0]


def test_a_picture_that_is_given_up_is_missing_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLV finds no place behind the bad one."""
    path = recording(tmp_path / "bad.flv", picture=True)
    spoil(path, 0.5, 0.6, monkeypatch)
    whole = load_clip(path, DecodePlan(audio=False))
    assert whole.notices == ("parts of the video track are damaged and were skipped (from 0:19.86 on)",)
    part = load_clip(path, DecodePlan(audio=False, start=16.0, end=30.0))
    (notice,) = part.notices
    assert notice.startswith("parts of the video track are damaged") and notice.endswith("–0:30)")


@pytest.mark.parametrize("suffix", ["mp4", "ts", "flv"])
def test_a_bad_place_at_the_start_is_not_called_another_kind_of_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = recording(tmp_path / f"bad.{suffix}", picture=True)
    spoil(path, 0.001, 0.2, monkeypatch)
    with pytest.raises(MediaError, match=f"bad.{suffix} cannot be read: Input/output error"):
        load_clip(path, DecodePlan())
