"""A file that is whole is not said to lack anything, and one that is cut short is."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import seconds_heard, tone, tones, write_clip, write_coded

from echopix_cli.errors import MediaError
from echopix_cli.media import DecodePlan, load_clip
from echopix_cli.media.extent import MediaFile, media_size
from echopix_cli.media.source import open_regular
from echopix_cli.results import AudioStatus
from echopix_cli.times import parse_time

SMALL: dict[str, Any] = {"min_pixels": 28 * 28, "max_pixels": 100 * 28 * 28, "fps": 1.0}
CODECS: dict[str, dict[str, Any]] = {
    "avi": {"codec": "mpeg4", "audio_codec": "libmp3lame", "options": {}},
    "webm": {"codec": "libvpx", "audio_codec": "libopus", "options": {"deadline": "realtime"}, "sound_rate": 48_000},
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "flv", "nut", "ts", "avi"])
@pytest.mark.parametrize(("video_start", "sound_start"), [(0, 3), (3, 0), (20, 20), (20, 26)])
def test_whole_files_that_begin_late_give_no_alarm(
    tmp_path: Path, suffix: str, video_start: float, sound_start: float
) -> None:
    chosen = CODECS.get(suffix, {})
    sound = tones(0, 2, chosen.get("sound_rate", 16_000))
    path = write_coded(tmp_path / f"a.{suffix}", 0, 2, video_start=video_start, sound_start=sound_start,
                       **{**chosen, "sound": sound})  # fmt: skip
    assert load_clip(path, DecodePlan(**SMALL)).notices == ()


def test_sound_that_is_shorter_than_a_picture_nobody_asked_for(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mkv", 0, 6, sound=tones(0, 2))
    assert load_clip(path, DecodePlan(video=False)).notices == ()


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi", "flac", "wav"])
def test_a_file_that_is_cut_short_gives_one(tmp_path: Path, suffix: str) -> None:
    path, plan = tmp_path / f"a.{suffix}", DecodePlan(**SMALL)
    if suffix in ("wav", "flac"):
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 6 * 16_000), 16_000)
    else:
        more = {**CODECS.get(suffix, {}), "container_options": {"movflags": "faststart"} if suffix == "mp4" else {}}
        write_coded(path, 0, 6, **more)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 4 if suffix == "avi" else len(data) // 2])  # half of an AVI may be its index
    (found,) = [re.search(r"read (.*) of (.*); the rest is", said) for said in load_clip(path, plan).notices[-1:]]
    assert found is not None and parse_time(found[1]) < 4 and parse_time(found[2]) == pytest.approx(6, abs=0.6)


@pytest.mark.parametrize("codec", ["adpcm_ima_wav", "adpcm_ms", "pcm_s16le"])
@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_a_wrong_byte_rate_is_no_damage(tmp_path: Path, codec: str, rate: float) -> None:
    path = write_clip(tmp_path / "a.wav", sound=tones(0, 3), audio_codec=codec)
    data = bytearray(path.read_bytes())
    at = data.index(b"fmt ") + 16
    struct.pack_into("<I", data, at, round(struct.unpack_from("<I", data, at)[0] * rate))
    path.write_bytes(bytes(data))
    clip = load_clip(path)
    assert clip.notices == () and clip.waveform is not None
    assert clip.waveform.size / 16_000 == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("told", [0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_whose_writer_could_not_seek_back(tmp_path: Path, told: int, channels: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.repeat(tones(0, 3).T, channels, axis=1), 16_000)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 4, told)
    struct.pack_into("<I", data, data.index(b"data") + 4, told)
    path.write_bytes(bytes(data))
    clip = load_clip(path)
    assert clip.waveform is not None and clip.notices == () and clip.audio_status is AudioStatus.USED
    assert seconds_heard(clip.waveform) == [0, 1, 2] and clip.waveform.size == 3 * 16_000
    later = load_clip(path, DecodePlan(start=1, end=2))
    assert later.waveform is not None and seconds_heard(later.waveform) == [1]


def _ape(items: int, header: bool) -> bytes:
    footer = b"APETAGEX" + struct.pack("<IIII", 2000, items + 32, 1, (1 << 31) if header else 0) + bytes(8)
    return (footer if header else b"") + b"\xff\xfb\x90" * (items // 3) + bytes(items % 3) + footer


TAGS = {
    "id3v1": b"TAG" + b"x" * 125,
    "ape": _ape(4000, header=True),
    "ape without a header": _ape(2001, header=False),
    "lyrics3 v2": b"LYRICSBEGIN" + b"\xff\xfbLA" * 900 + b"003611LYRICS200",
    "lyrics3 v1": b"LYRICSBEGIN" + b"\xff\xfbLA" * 500 + b"LYRICSEND",
    "id3v2 at the end": b"ID3\4\0\x10\0\0\1\0" + bytes(128) + b"3DI\4\0\x10\0\0\1\0",
}


@pytest.mark.parametrize("tags", [["ape"], ["lyrics3 v2", "id3v1"], ["ape", "lyrics3 v1", "id3v1"], [*TAGS]])
def test_tags_behind_mpeg_audio_are_no_damage(tmp_path: Path, tags: list[str]) -> None:
    path = write_clip(tmp_path / "a.mp3", sound=tones(0, 3), audio_codec="libmp3lame")
    path.write_bytes(path.read_bytes() + b"".join(TAGS[name] for name in tags))
    clip = load_clip(path)
    assert clip.notices == () and clip.waveform is not None
    assert clip.waveform.size / 16_000 == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize("tag", ["", "id3v1", "lyrics3 v2", "lyrics3 v1", "id3v2 at the end"])
def test_tags_between_joined_mpeg_audio_are_no_damage(tmp_path: Path, tag: str) -> None:
    parts = [
        write_clip(tmp_path / f"{first}.mp3", sound=tones(first, first + 3), audio_codec="libmp3lame").read_bytes()
        for first in (0, 3)
    ]
    path = tmp_path / "a.mp3"
    path.write_bytes(TAGS.get(tag, b"").join(parts))
    clip = load_clip(path)
    assert clip.notices == () and clip.waveform is not None and seconds_heard(clip.waveform) == list(range(6))
    path.write_bytes((b"\xff\xfb\x90" + bytes(800)).join(parts))
    (notice,) = load_clip(path).notices
    assert notice.startswith("parts of the audio track are damaged and were skipped (0:0")


@pytest.mark.parametrize("suffix", ["mp3", "ac3"])
def test_damage_up_to_the_end_of_the_sound_is_said_to_reach_it(tmp_path: Path, suffix: str) -> None:
    codec, rate = {"mp3": ("libmp3lame", 16_000), "ac3": ("ac3", 48_000)}[suffix]
    path = write_clip(tmp_path / f"a.{suffix}", sound=tones(0, 6, rate), sound_rate=rate, audio_codec=codec)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    notice = load_clip(path).notices[0]
    found = re.fullmatch(r"parts of the audio track are damaged and were skipped \(from (.*) on\)", notice)
    assert found is not None and parse_time(found[1]) == pytest.approx(3, abs=0.5)


@settings(max_examples=60)
@given(names=st.lists(st.sampled_from(sorted(TAGS)), max_size=5))
def test_the_media_end_where_the_tags_begin(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "tags"
    media = b"\xff\xfb" + bytes(5998)
    path.write_bytes(media + b"".join(TAGS[name] for name in names))
    with open_regular(path) as file:
        assert media_size(file) == len(media)
        assert MediaFile(file).read() == media
    path.write_bytes(b"\0\0\0\x18ftyp" + media + TAGS["id3v1"])  # other containers know their own ends
    with open_regular(path) as file:
        assert media_size(file) == len(media) + 8 + 128


@settings(max_examples=100)
@given(moves=st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-1, 5)), max_size=10))
def test_an_impossible_seek_is_an_error_number(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "seek"
    path.write_bytes(bytes(100))
    with open_regular(path) as raw:
        file = MediaFile(raw)
        for offset, whence in moves:
            place = file.seek(offset, whence)
            assert place < 0 or place == file.tell()
        assert file.seek(-7, 2) == 93 and file.read(100) == bytes(7)


def broken_sizes(kind: str) -> bytes:
    """A file whose header sends its reader to places that do not exist."""
    if kind == "caf":
        chunk = (
            b"caff\0\1\0\0" + b"desc" + struct.pack(">q", 32) + struct.pack(">d4sIIIII", 8e3, b"lpcm", 0, 2, 1, 1, 16)
        )
        return chunk + b"free" + struct.pack(">q", -(2**62)) + b"data" + struct.pack(">q", 2**62) + bytes(100)
    if kind == "aiff":
        return (
            b"FORM\xff\xff\xff\xf0AIFF"
            + b"COMM"
            + struct.pack(">IHIH", 18, 1, 2**31, 16)
            + bytes(10)
            + b"SSND\xff\xff\xff\xff"
            + bytes(50)
        )
    return bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + struct.pack("<QIBB", 2**63 - 1, 3, 1, 2) + b"\xff" * 400


@pytest.mark.parametrize("kind", ["caf", "aiff", "wmv"])
def test_damaged_headers_leave_no_traceback(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(broken_sizes(kind))
    with pytest.raises(MediaError):
        load_clip(path)
    assert capfd.readouterr().err == ""


def test_a_tone_is_heard_through_the_file_object(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(1)[0], 16_000)
    clip = load_clip(path)
    assert clip.waveform is not None and clip.waveform.size == 16_000
