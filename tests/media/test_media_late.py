"""Tracks that turn up late in a file, or that no decoder reads: what can be heard is heard, the rest is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers import (
    CODED_RATE,
    coded,
    codes,
    seconds_heard,
    tones,
    write_clip,
    write_coded,
    write_tracks,
    write_two_tracks,
)

from echopix_cli.media import DecodePlan, load_clip, source
from echopix_cli.results import AudioStatus

SMALL = {"min_pixels": 28 * 28, "max_pixels": 100 * 28 * 28, "fps": 1.0}


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    """Three transport streams one after another, of which only the second has sound."""
    silent = write_coded(tmp_path / "silent.ts", 0, 3, sound=None).read_bytes()
    nothing = (b"\x47\x1f\xff\x10" + bytes(184)) * 5000  # packets that fill up a channel
    path = tmp_path / "joined.ts"
    loud = write_coded(tmp_path / "loud.ts", 3, 6).read_bytes()
    path.write_bytes(silent + nothing + loud + nothing + silent)
    return path


def test_sound_in_the_middle_of_joined_transport_streams(joined: Path) -> None:
    clip = load_clip(joined, DecodePlan(**SMALL))
    assert clip.audio_status is AudioStatus.USED and clip.notices == ()
    assert clip.waveform is not None and seconds_heard(clip.waveform) == [None, None, None, 3, 4, 5]
    assert clip.frames is not None and codes(clip.frames)[0] == 0 and clip.end == pytest.approx(9, abs=0.1)
    part = load_clip(joined, DecodePlan(start=4, end=6, **SMALL))
    assert part.waveform is not None and seconds_heard(part.waveform) == [4, 5]
    assert load_clip(joined, DecodePlan(audio=False, **SMALL)).audio_status is AudioStatus.DISABLED


def test_sound_that_lies_too_late_to_be_found_is_said(joined: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_FAR", 2048)
    clip = load_clip(joined, DecodePlan(**SMALL))
    assert clip.audio_status is AudioStatus.UNDECODABLE and clip.waveform is None
    assert clip.notices == ("sound begins late in the file, and cannot be read; only the picture was used",)


def test_sound_behind_megabytes_of_a_flash_video(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [coded(number, 480, 640) // 2 + rng.integers(0, 120, (480, 640, 3), np.uint8) for number in range(50)]
    path = write_clip(tmp_path / "a.flv", pictures, fps=CODED_RATE, codec="libx264", pix_fmt="yuv420p",
                      options={"preset": "ultrafast", "qp": "4"}, audio_codec="aac", sound=tones(0, 2))  # fmt: skip
    data = bytearray(path.read_bytes())
    data[4] = 1  # the header says that there is a picture only; all sound stands behind it
    path.write_bytes(data)
    assert len(data) > 8_000_000
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.audio_status is AudioStatus.USED and clip.notices == ()
    assert clip.waveform is not None and seconds_heard(clip.waveform) == [0, 1]


def test_a_track_without_a_decoder_gives_way(tmp_path: Path) -> None:
    path = write_two_tracks(tmp_path / "a.mov", tones(0, 2), tones(2, 4))
    data = bytearray(path.read_bytes())
    data[data.index(b"sowt") : data.index(b"sowt") + 4] = b"apac"
    for at in [at for at in range(len(data)) if data[at : at + 4] == b"tkhd"]:
        data[at + 7] |= 1  # both are enabled, the first is FFmpeg's choice
    path.write_bytes(data)
    clip = load_clip(path)
    assert clip.info.tracks[0].codec is None and clip.info.tracks[1].codec == "pcm_s16le"
    assert clip.audio_status is AudioStatus.USED
    assert clip.notices == ("the file has 2 audio tracks; track 1 was used",)
    assert clip.waveform is not None and seconds_heard(clip.waveform) == [2, 3]
    assert load_clip(write_two_tracks(tmp_path / "b.mov", tones(0, 2), tones(2, 4))).notices == (
        "the file has 2 audio tracks; track 0 was used",
    )


def test_a_programme_that_goes_on_under_other_numbers(tmp_path: Path) -> None:
    def part(name: str, first: int, number: str, coding: str = "mp2") -> bytes:
        return write_coded(tmp_path / name, first, first + 4, options={"preset": "ultrafast", "bf": "0"},
                           video_start=1 + first, sound_start=1 + first, audio_codec=coding,
                           container_options={"mpegts_start_pid": number}).read_bytes()  # fmt: skip

    begin, path = part("a.ts", 0, "256"), tmp_path / "both.ts"
    path.write_bytes(begin + part("b.ts", 4, "700"))
    clip = load_clip(path, DecodePlan(**SMALL))
    assert [track.kind for track in clip.info.tracks] == ["video", "audio"]
    assert clip.audio_status is AudioStatus.USED and clip.notices == ()
    assert clip.waveform is not None and seconds_heard(clip.waveform) == list(range(8))
    assert clip.frames is not None and clip.frame_times is not None
    assert codes(clip.frames) == [round((time - clip.frame_times[0]) * CODED_RATE) for time in clip.frame_times]
    assert codes(clip.frames)[-1] == 8 * CODED_RATE - 1
    later = load_clip(path, DecodePlan(start=5, end=7, **SMALL))
    assert later.frames is not None and codes(later.frames)[0] == 5 * CODED_RATE
    assert later.waveform is not None and seconds_heard(later.waveform) == [5, 6]
    # What is coded in another way cannot be the same track.
    path.write_bytes(begin + part("c.ts", 4, "700", "aac"))
    assert "the file has 2 audio tracks; track 0 was used" in load_clip(path, DecodePlan(**SMALL)).notices
    # What is asked for by its number is read as it lies in the file.
    other = load_clip(path, DecodePlan(audio_track=1, **SMALL))
    assert other.waveform is not None and seconds_heard(other.waveform)[-4:] == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("before", "behind", "heard"),
    [
        (("eng", "deu"), ("eng", "deu"), [10, 11, 12, 13]),  # the same tracks under other numbers
        (("eng", "deu"), ("deu", "eng"), [10, 11]),
        (("eng", "deu"), ("deu",), [10, 11]),
        (("eng",), ("deu",), [10, 11]),
        (("eng",), ("",), [10, 11, 12, 13]),  # whose language is not told
    ],
)
def test_tracks_of_other_languages_are_not_taken_as_one(
    tmp_path: Path, before: tuple[str, ...], behind: tuple[str, ...], heard: list[int]
) -> None:
    """The first language has seconds 10 to 14 of the tones, the other one 40 to 44."""

    def part(name: str, second: int, number: str, languages: tuple[str, ...]) -> bytes:
        sounds = [(tones(at, at + 2), own) for own in languages for at in [second + 30 * (own == "deu")]]
        return write_tracks(tmp_path / name, sounds, "mp2", start=second, mpegts_start_pid=number).read_bytes()

    path = tmp_path / "both.ts"
    path.write_bytes(part("a.ts", 10, "256", before) + part("b.ts", 12, "700", behind))
    clip = load_clip(path, DecodePlan(audio_track=0, **SMALL))
    assert clip.waveform is not None and seconds_heard(clip.waveform) == heard
