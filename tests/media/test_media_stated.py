"""What a header states of the file's size: what is missing is said, and what stands behind it."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from makers import seconds_heard, tones, write_clip, write_coded

from echopix_cli.media import DecodePlan, load_clip
from echopix_cli.times import clock, parse_time

PLAN = DecodePlan(min_pixels=28 * 28, max_pixels=100 * 28 * 28, fps=1.0)
BEHIND = r"the last ([0-9]+)% of the file lie behind the recording that its header describes, and were not read"


def sound(path: Path, first: int, last: int) -> Path:
    codec = {"mp3": "libmp3lame", "flac": "flac"}.get(path.suffix[1:], "pcm_s16le")
    return write_clip(path, sound=tones(first, last), audio_codec=codec)


@pytest.mark.parametrize("suffix", ["mp3", "w64", "caf"])
def test_sound_that_is_cut_short(tmp_path: Path, suffix: str) -> None:
    path = sound(tmp_path / f"a.{suffix}", 0, 10)
    assert load_clip(path).notices == ()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    found = re.fullmatch(r"read (.*) of (.*); the rest is missing or damaged", load_clip(path).notices[-1])
    assert found is not None
    assert (parse_time(found[1]), parse_time(found[2])) == (pytest.approx(6, abs=0.1), pytest.approx(10, abs=0.1))
    tagged = tmp_path / f"tagged.{suffix}"
    tagged.write_bytes(data + (b"TAG" + bytes(125) if suffix == "mp3" else b""))
    assert load_clip(tagged).notices == ()


def test_an_mp3_that_counts_its_cover_as_sound(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.mp3", 0, 10)
    data = bytearray(path.read_bytes())
    at = data.index(b"Info") + 12  # behind the mark, the flags and the number of frames
    struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + 50_000)
    path.write_bytes(data)
    assert load_clip(path).notices == ()


@pytest.mark.parametrize("suffix", ["mkv", "flv", "mp4"])
@pytest.mark.parametrize("late", [0, 15, 36_000])
def test_a_file_whose_times_begin_late_is_cut_short(tmp_path: Path, suffix: str, late: int) -> None:
    more: dict[str, Any] = {"container_options": {"movflags": "faststart"}} if suffix == "mp4" else {}
    source = write_coded(tmp_path / "source.mp4", 0, 10)
    path = tmp_path / f"a.{suffix}"
    with av.open(str(source)) as origin, av.open(str(path), "w", options=more.get("container_options", {})) as out:
        tracks = {stream.index: out.add_stream_from_template(stream) for stream in origin.streams}
        packets = [packet for packet in origin.demux() if packet.dts is not None]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            packet.pts, packet.dts = (ticks + round(late / packet.time_base) for ticks in (packet.pts, packet.dts))
            packet.stream = tracks[packet.stream.index]
            out.mux(packet)
    assert load_clip(path, PLAN).notices == ()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    found = re.fullmatch(r"read (.*) of (.*); the rest is missing or damaged", load_clip(path, PLAN).notices[-1])
    assert found is not None
    assert parse_time(found[1]) < 7 and parse_time(found[2]) == pytest.approx(10, abs=1.0)


def test_a_whole_mp4_with_a_delay_and_a_cut_of_its_sound(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 0, 4, sound_start=1.0)
    data = bytearray(path.read_bytes())
    edits = data.rindex(b"elst") + 8
    count, empty, nowhere = struct.unpack_from(">IIi", data, edits)
    assert (count, nowhere) == (2, -1) and empty == pytest.approx(1000, abs=100)
    struct.pack_into(">I", data, edits + 16, 3000)  # of the sound, of which there are 4 seconds, 3 are heard
    path.write_bytes(data)
    clip = load_clip(path, PLAN)
    assert clip.notices == () and clip.waveform is not None and clip.end == pytest.approx(4, abs=0.1)


def test_fragments_of_a_recorder_that_never_stops(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 0, 6, container_options={"movflags": "frag_keyframe+empty_moov"})
    with av.open(str(path)) as container:
        hours = {stream.id: round(3600 / stream.time_base) for stream in container.streams if stream.time_base}
    data, at = bytearray(path.read_bytes()), 0
    while (at := data.find(b"tfdt\1", at) + 8) > 8:
        (track,) = struct.unpack_from(">I", data, data.rindex(b"tfhd", 0, at) + 8)
        struct.pack_into(">Q", data, at, struct.unpack_from(">Q", data, at)[0] + hours[track])
    path.write_bytes(data[: data.rindex(b"mfra") - 4])  # which lists the times that were
    with av.open(str(path)) as container:
        assert container.start_time == pytest.approx(3600e6, abs=1e5)
    clip = load_clip(path, PLAN)
    assert clip.notices == () and clip.end == pytest.approx(6, abs=0.1)


def test_an_avi_whose_end_was_never_written(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    source = write_coded(tmp_path / "s.mkv", 0, 8, codec="mpeg4", options={"g": "25"}, audio_codec="libmp3lame",
                         sound=tones(0, 8, 44_100), sound_rate=44_100)  # fmt: skip
    with av.open(str(source)) as origin, av.open(str(path), "w") as out:
        tracks = {stream.index: out.add_stream_from_template(stream) for stream in origin.streams}
        packets = [packet for packet in origin.demux() if packet.size]
        for packet in sorted(packets, key=lambda packet: packet.pts * packet.time_base):
            packet.dts = packet.pts
            packet.stream = tracks[packet.stream.index]
            out.mux(packet)
    assert load_clip(path, PLAN).notices == ()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3] + bytes(len(data) - len(data) // 3))
    found = re.fullmatch(r"read (.*) of (.*); the rest is missing or damaged", load_clip(path, PLAN).notices[-1])
    assert found is not None
    assert parse_time(found[1]) < 5 and parse_time(found[2]) == pytest.approx(8, abs=0.2)


@pytest.mark.parametrize(
    ("suffix", "codec", "audio_codec", "rate"),
    [
        ("wmv", "wmv2", "libmp3lame", 44_100),
        ("rm", "rv20", "ac3", 44_100),
        ("mxf", "mpeg2video", "pcm_s16le", 48_000),
    ],
)
@pytest.mark.parametrize("seconds", [10, 7])
def test_old_and_broadcast_containers_that_are_cut_short(
    tmp_path: Path, suffix: str, codec: str, audio_codec: str, rate: int, seconds: int
) -> None:
    """Of picture and sound that differ in length; a container of broadcasts keeps them equal."""
    lasts = seconds if suffix == "mxf" else 10
    path = write_coded(
        tmp_path / f"a.{suffix}", 0, 10, codec=codec, options={"g": "12"}, tick=Fraction(1, 25),
        audio_codec=audio_codec, sound_rate=rate, sound=tones(0, seconds, rate),
    )  # fmt: skip
    assert load_clip(path, PLAN).notices == ()
    data = path.read_bytes()
    for share in (0.5, 0.9):
        path.write_bytes(data[: round(len(data) * share)])
        clip = load_clip(path, PLAN)
        found = re.fullmatch(r"read (.*) of (.*); the rest is missing or damaged", clip.notices[-1])
        assert found is not None and clip.end is not None and clip.end < lasts - 0.5
        assert parse_time(found[1]) == pytest.approx(clip.end, abs=0.1)
        assert parse_time(found[2]) == pytest.approx(lasts, abs=0.1)


@pytest.mark.parametrize("live", [False, True])
def test_windows_media_sound_that_is_cut_short(tmp_path: Path, live: bool) -> None:
    """What was sent while it was made states nothing."""
    path = write_clip(tmp_path / "a.wma", sound=tones(0, 10), audio_codec="wmav2", format="asf")
    data = bytearray(path.read_bytes())
    data[data.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")) + 88] |= live
    path.write_bytes(data)
    assert load_clip(path).notices == ()
    path.write_bytes(data[: len(data) // 2])
    clip = load_clip(path)
    assert clip.end == pytest.approx(5.1, abs=0.1)
    found = [notice for notice in clip.notices if notice.startswith("read")]
    assert found == ([] if live else [f"read {clock(clip.end)} of 0:10.02; the rest is missing or damaged"])


@pytest.mark.parametrize("suffix", ["wav", "flac", "flv", "mp4"])
def test_a_second_recording_is_not_dropped_without_a_word(tmp_path: Path, suffix: str) -> None:
    make = sound if suffix in ("wav", "flac") else write_coded
    first, second = (make(tmp_path / f"{n}.{suffix}", n, n + 4).read_bytes() for n in (0, 4))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(first + second)
    clip = load_clip(path, PLAN)
    assert clip.waveform is not None and seconds_heard(clip.waveform)[:4] == [0, 1, 2, 3]
    (notice,) = clip.notices
    found = re.fullmatch(BEHIND, notice)
    assert found is not None and int(found[1]) == round(100 * len(second) / (len(first) + len(second)))


def test_a_wav_that_holds_more_than_it_states(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tones(0, 8)[0], 16_000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"data") + 4, 2 * 16_000 * 2)
    path.write_bytes(data)
    (notice,) = load_clip(path).notices
    assert re.fullmatch(BEHIND, notice)


@pytest.mark.parametrize("more", [
    b"LIST" + struct.pack("<I", 200_001) + b"x" * 200_001, b"bext" + struct.pack("<I", 90_000) + bytes(90_000),
    b"ID3\4\0\0" + b"\1" * 300_000, bytes(500_000),
])  # fmt: skip
@pytest.mark.parametrize("odd", [0, 1])
def test_chunks_tags_and_zeros_behind_the_sound_are_no_recording(tmp_path: Path, more: bytes, odd: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.repeat(tones(0, 2).T, 1, axis=1), 16_000, subtype="PCM_U8")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    struct.pack_into("<I", data, at, 32_000 - odd)
    path.write_bytes(bytes(data[: at + 4 + 32_000 - odd]) + bytes(odd) + more)
    assert load_clip(path).notices == ()
