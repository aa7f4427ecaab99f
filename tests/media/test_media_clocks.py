"""Clocks that start again or jump, and packets without a time: picture and sound stay where they belong."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from makers import CODED_RATE, coded, codes, seconds_heard, tones, write_clip, write_coded

from echopix_cli.errors import MediaError
from echopix_cli.media import Clip, DecodePlan, load_clip
from echopix_cli.media.counting import fill_times
from echopix_cli.results import AudioStatus

SMALL: dict[str, Any] = {"min_pixels": 28 * 28, "max_pixels": 100 * 28 * 28}
FAULTS = Path(__file__).resolve().parents[3] / "shared" / "faults"


def fault(name: str) -> Path:
    if not (FAULTS / name).is_file():
        pytest.skip(f"the files that were handled wrongly are not here: {FAULTS}")
    return FAULTS / name


def right(clip: Clip, seconds: list[int], slack: float = 0.1) -> None:
    """Each picture is the one of its time, and each second of sound its own."""
    assert clip.frames is not None and clip.frame_times is not None and clip.waveform is not None
    assert len(clip.frames) == 2 * len(seconds)
    np.testing.assert_allclose(clip.frame_times, np.array(codes(clip.frames)) / CODED_RATE, atol=slack)
    assert seconds_heard(clip.waveform) == seconds
    assert clip.notices == () and clip.audio_status is AudioStatus.USED


def test_joined_recordings_are_one(tmp_path: Path) -> None:
    right(load_clip(fault("reset.ts"), DecodePlan(**SMALL)), list(range(12)))
    span = load_clip(fault("reset.ts"), DecodePlan(start=8, end=11, **SMALL))
    assert span.frames is not None and span.frame_times is not None
    np.testing.assert_allclose(span.frame_times, np.array(codes(span.frames)) / CODED_RATE, atol=0.05)
    assert span.frame_times.min() >= 8 and span.frame_times.max() < 11


@pytest.mark.parametrize("shift", [0.0, 3.0, 60.0, 3 * 3600.0])
@pytest.mark.parametrize("first", [0.0, 100.0])
def test_transport_streams_end_to_end(tmp_path: Path, first: float, shift: float) -> None:
    """The second one's clock starts at 0, where the first one's did, or hours later."""
    parts = [
        write_coded(tmp_path / "a.ts", 0, 5, video_start=first, sound_start=first),
        write_coded(tmp_path / "b.ts", 5, 9, video_start=shift, sound_start=shift),
        write_coded(tmp_path / "c.ts", 9, 11, video_start=first, sound_start=first),
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    right(load_clip(path, DecodePlan(**SMALL)), list(range(11)), slack=0.13)


@pytest.mark.parametrize("suffix", ["ts", "flv"])
def test_a_part_without_sound_or_without_picture(tmp_path: Path, suffix: str) -> None:
    parts = [write_coded(tmp_path / f"a.{suffix}", 0, 3, sound=None), write_coded(tmp_path / f"b.{suffix}", 3, 6)]
    path = tmp_path / f"joined.{suffix}"
    data = [part.read_bytes() for part in parts]
    path.write_bytes(data[0] + data[1][13 if suffix == "flv" else 0 :])
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.frames is not None and clip.frame_times is not None
    np.testing.assert_allclose(clip.frame_times, np.array(codes(clip.frames)) / CODED_RATE, atol=0.1)
    if suffix == "ts":
        assert clip.waveform is not None and seconds_heard(clip.waveform) == [None, None, None, 3, 4, 5]


@pytest.mark.parametrize("shift", [0.0, 3 * 3600.0])
def test_a_recording_with_a_reconnect(tmp_path: Path, shift: float) -> None:
    """FLV tags of two sessions behind one header."""
    first = write_coded(tmp_path / "a.flv", 0, 4)
    second = write_coded(tmp_path / "b.flv", 4, 9, video_start=shift, sound_start=shift)
    path = tmp_path / "joined.flv"
    path.write_bytes(first.read_bytes() + second.read_bytes()[13:])  # a header of 9 bytes, and a size
    right(load_clip(path, DecodePlan(**SMALL)), list(range(9)), slack=0.13)


@pytest.mark.parametrize(("codec", "suffix"), [("libopus", "opus"), ("vorbis", "ogg"), ("flac", "oga")])
def test_chained_ogg_is_heard_to_the_end(tmp_path: Path, codec: str, suffix: str) -> None:
    parts = []
    for first, last in ((0, 3), (3, 5), (5, 9)):
        rate = 48_000
        sound = np.repeat(tones(first, last, rate), 2 if codec == "vorbis" else 1, axis=0)
        part = write_clip(tmp_path / f"{first}.ogg", sound=sound, sound_rate=rate, audio_codec=codec,
                          format="ogg")  # fmt: skip
        parts.append(part.read_bytes())
    path = tmp_path / f"chain.{suffix}"
    path.write_bytes(b"".join(parts))
    clip = load_clip(path)
    assert clip.waveform is not None and clip.notices == ()
    assert clip.waveform.size / 16_000 == pytest.approx(9, abs=0.2)
    assert seconds_heard(clip.waveform) == list(range(9))


@pytest.mark.parametrize("suffix", ["ts", "flv", "mkv"])
def test_slides_that_stand_for_minutes_keep_their_times(tmp_path: Path, suffix: str) -> None:
    times = [0.0, 1.0, 241.0, 250.0, 490.0]
    path = write_clip(tmp_path / f"s.{suffix}", [coded(n) for n in range(5)], times=times, codec="libx264",
                      pix_fmt="yuv420p", options={"bf": "0", "g": "1"})  # fmt: skip
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.frames is not None and clip.frame_times is not None
    assert codes(clip.frames) == list(range(5))
    np.testing.assert_allclose(clip.frame_times, times, atol=0.01)


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_sound_alone_may_pause(tmp_path: Path, codec: str) -> None:
    pauses = np.concatenate((tones(0, 5), np.zeros((1, 15 * 16_000), np.float32), tones(20, 25)), axis=1)
    source = write_clip(tmp_path / "a.ts", sound=pauses, audio_codec=codec)
    paused = tmp_path / "b.ts"
    with av.open(str(source)) as container, av.open(str(paused), "w") as out:
        stream = out.add_stream_from_template(container.streams.audio[0])
        for packet in [packet for packet in container.demux() if packet.size and packet.pts is not None]:
            time = float((packet.pts - container.streams.audio[0].start_time) * packet.time_base)
            if not 5.2 < time < 19.8:
                packet.stream = stream
                out.mux(packet)
    clip = load_clip(paused)
    assert clip.waveform is not None and clip.notices == ()
    assert seconds_heard(clip.waveform)[:25] == [*range(5), *[None] * 15, *range(20, 25)]


def test_a_pause_of_picture_and_sound_that_is_closed_up_is_said(tmp_path: Path) -> None:
    parts = [
        write_coded(tmp_path / "a.ts", 0, 4, video_start=0.0, sound_start=0.0),
        write_coded(tmp_path / "b.ts", 4, 7, video_start=24.0, sound_start=24.0),
    ]
    path = tmp_path / "paused.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.waveform is not None and seconds_heard(clip.waveform) == list(range(7))
    assert clip.notices == ("the file's clock jumps forward once, by 0:20; later times are that much earlier here",)


def paused(path: Path, pause: float, size: int = 188) -> Path:
    """Seven seconds in one transport stream, the fourth of which is followed by a pause, in packets of a size."""
    source = write_coded(path.with_suffix(".mp4"), 0, 7, options={"g": "25", "bf": "0"})
    with av.open(str(source)) as container, av.open(str(path), "w", format="mpegts") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in container.streams}
        for packet in container.demux():
            if packet.size and packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                later = round(pause / packet.time_base) if packet.pts * packet.time_base >= 4 else 0
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    data = path.read_bytes()
    pieces = [data[at : at + 188] for at in range(0, len(data), 188)]
    path.write_bytes(b"".join(bytes(size - 188 if size == 192 else 0) + p + bytes(16 * (size == 204)) for p in pieces))
    return path


@pytest.mark.parametrize(("pause", "size"), [(20, 188), (90, 192), (20, 204)])
def test_a_pause_in_a_transport_stream_that_goes_on_is_kept(tmp_path: Path, pause: int, size: int) -> None:
    clip = load_clip(paused(tmp_path / "a.ts", pause, size), DecodePlan(**SMALL))
    assert clip.frames is not None and clip.frame_times is not None and clip.waveform is not None
    assert clip.notices == ()
    numbers = np.array(codes(clip.frames))
    assert clip.frame_times == pytest.approx(numbers / CODED_RATE + pause * (numbers >= 4 * CODED_RATE), abs=0.1)
    assert numbers.max() > 5 * CODED_RATE and numbers.min() < CODED_RATE
    assert seconds_heard(clip.waveform)[: pause + 7] == [*range(4), *[None] * pause, 4, 5, 6]


def test_a_pause_after_which_another_clock_is_announced_is_closed_up(tmp_path: Path) -> None:
    path = paused(tmp_path / "a.ts", 20)
    data = bytearray(path.read_bytes())
    clocks = [at for at in range(0, len(data), 188) if data[at + 3] & 0x20 and data[at + 4] and data[at + 5] & 0x10]
    times = [int.from_bytes(data[at + 6 : at + 10], "big") / 45_000 for at in clocks]
    first = next(at for at, time in zip(clocks, times, strict=True) if time > times[0] + 15)
    data[first + 5] |= 0x80
    path.write_bytes(bytes(data))
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.waveform is not None and seconds_heard(clip.waveform) == list(range(7))
    assert clip.notices == ("the file's clock jumps forward once, by 0:20; later times are that much earlier here",)


def test_one_wild_time_stamp_moves_nothing_else(tmp_path: Path) -> None:
    source = write_coded(tmp_path / "a.ts", 0, 6)
    with av.open(str(source)) as container, av.open(str(tmp_path / "b.flv"), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in container.streams}
        packets = [p for p in container.demux() if p.size and p.dts is not None]
        for packet in packets:
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    data = bytearray((tmp_path / "b.flv").read_bytes())
    at, tags = 13, []
    while at + 11 < len(data):
        tags.append(at)
        at += 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
    wild = tags[len(tags) // 2]
    data[wild + 4 : wild + 8] = (5_000_000).to_bytes(4, "big")[1:] + b"\0"
    (tmp_path / "b.flv").write_bytes(bytes(data))
    clip = load_clip(tmp_path / "b.flv", DecodePlan(**SMALL))
    assert clip.frames is not None and clip.frame_times is not None and clip.waveform is not None
    off = np.abs(clip.frame_times - np.array(codes(clip.frames)) / CODED_RATE)
    assert (off < 0.15).sum() >= len(off) - 1
    heard = seconds_heard(clip.waveform)
    assert sum(a == b for a, b in zip(heard, range(6), strict=False)) >= 5


def grouped(path: Path, target: Path, size: int) -> None:
    """The picture of a clip with ``size`` frames to a packet of the container: only the first has a time."""
    with av.open(str(path)) as container, av.open(str(target), "w") as out:
        source = container.streams.video[0]
        stream = out.add_stream_from_template(source)
        packets = [packet for packet in container.demux(source) if packet.size]
        for begin in range(0, len(packets), size):
            group = packets[begin : begin + size]
            packet = av.Packet(b"".join(bytes(one) for one in group))
            packet.pts, packet.dts, packet.time_base = group[0].pts, group[0].dts, group[0].time_base
            packet.is_keyframe, packet.stream = group[0].is_keyframe, stream
            out.mux(packet)


@pytest.mark.parametrize("b_frames", ["0", "2"])
@pytest.mark.parametrize("size", [2, 25, 150])
def test_one_time_for_a_group_of_frames(tmp_path: Path, size: int, b_frames: str) -> None:
    options = {"preset": "ultrafast", "bf": b_frames, "g": "50"}
    source = write_coded(tmp_path / "a.ts", 0, 12, sound=None, options=options)
    grouped(source, tmp_path / "b.ts", size)
    clip = load_clip(tmp_path / "b.ts", DecodePlan(**SMALL))
    assert clip.frames is not None and clip.frame_times is not None and clip.notices == ()
    assert len(clip.frames) == 24
    np.testing.assert_allclose(clip.frame_times, np.array(codes(clip.frames)) / CODED_RATE, atol=0.09)
    assert clip.end == pytest.approx(12, abs=0.1)


def test_the_second_field_is_no_frame_of_its_own() -> None:
    clip = load_clip(fault("paff.ts"), DecodePlan(fps=100, **SMALL))
    assert clip.frames is not None and clip.frame_times is not None and clip.waveform is not None
    assert len(clip.frames) == 24 and clip.notices == ()
    np.testing.assert_allclose(np.diff(clip.frame_times), 0.04, atol=1e-6)
    assert clip.waveform.size / 16_000 == pytest.approx(2, abs=0.05)
    half = load_clip(fault("paff.ts"), DecodePlan(fps=12.5, **SMALL))
    assert half.frames is not None and half.notices == ()
    times = [round(float(time), 4) for time in clip.frame_times]
    for frame, time in zip(half.frames, half.frame_times, strict=True):
        assert np.array_equal(frame, clip.frames[times.index(round(float(time), 4))])


def test_field_pictures_of_a_stream_without_times(tmp_path: Path) -> None:
    with av.open(str(fault("paff.ts"))) as container:
        data = b"".join(bytes(packet) for packet in container.demux(video=0))
    (tmp_path / "paff.h264").write_bytes(data)
    clip = load_clip(tmp_path / "paff.h264", DecodePlan(fps=100, **SMALL))
    assert clip.frames is not None and len(clip.frames) == 24 and clip.notices == ()


def test_mpeg_4_with_b_frames_in_avi_has_its_times(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.avi", 0, 6, codec="mpeg4", options={"bf": "2", "g": "25", "qmax": "4"},
                       audio_codec="libmp3lame")  # fmt: skip
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.frames is not None and clip.frame_times is not None and clip.waveform is not None
    np.testing.assert_allclose(clip.frame_times, np.array(codes(clip.frames)) / CODED_RATE, atol=0.09)
    assert seconds_heard(clip.waveform) == list(range(6)) and clip.notices == ()


def test_unknown_times_lie_between_known_ones() -> None:
    times = fill_times([None, 100, None, None, 250, 200, None], 0.01, 9.0)
    np.testing.assert_allclose(times, [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5])
    np.testing.assert_allclose(fill_times([None, 100, None], 0.01, 0.5), [0.5, 1.0, 1.5])
    np.testing.assert_allclose(fill_times([None] * 3, 0.01, 0.5), [0, 0.5, 1.0])


def test_pictures_before_the_first_marked_keyframe_are_shown_if_they_can_be(tmp_path: Path) -> None:
    source = write_coded(tmp_path / "a.ts", 0, 4, sound=None)
    unmarked = tmp_path / "unmarked.mkv"
    with av.open(str(source)) as container, av.open(str(unmarked), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(p for p in container.demux(video=0) if p.size):
            packet.is_keyframe = packet.is_keyframe and number >= 50
            packet.stream = stream
            out.mux(packet)
    clip = load_clip(unmarked, DecodePlan(**SMALL))
    assert clip.frames is not None and clip.frame_times is not None
    assert codes(clip.frames)[0] == 0 and len(clip.frames) == 8
    cut = tmp_path / "cut.mkv"  # its first 20 frames refer to a keyframe that it does not hold
    with av.open(str(source)) as container, av.open(str(cut), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(p for p in container.demux(video=0) if p.size):
            if number >= 5:
                packet.stream = stream
                out.mux(packet)
    clip = load_clip(cut, DecodePlan(**SMALL))
    assert clip.frames is not None and codes(clip.frames)[0] == 25


def test_a_span_beyond_the_end_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="ends at 0:12"):
        load_clip(fault("reset.ts"), DecodePlan(start=20, **SMALL))


def test_times_are_counted_in_rational_rates(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.ts", 0, 4, sound=None, fps=Fraction(30_000, 1001))
    grouped(path, tmp_path / "b.ts", 10)
    clip = load_clip(tmp_path / "b.ts", DecodePlan(**SMALL))
    assert clip.frames is not None and clip.frame_times is not None
    np.testing.assert_allclose(clip.frame_times, np.array(codes(clip.frames)) * 1001 / 30_000, atol=0.09)


def test_joined_matroska_files_are_one(tmp_path: Path) -> None:
    parts = [write_coded(tmp_path / f"{first}.mkv", first, last) for first, last in ((0, 4), (4, 7))]
    path = tmp_path / "joined.mkv"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    right(load_clip(path, DecodePlan(**SMALL)), list(range(7)), slack=0.05)
    span = load_clip(path, DecodePlan(start=5, end=6, **SMALL))
    assert span.frames is not None and span.frame_times is not None and span.waveform is not None
    np.testing.assert_allclose(span.frame_times, np.array(codes(span.frames)) / CODED_RATE, atol=0.05)
    assert seconds_heard(span.waveform) == [5]


def test_joined_programme_streams_with_a_time_for_each_packet_of_many_frames(tmp_path: Path) -> None:
    more: dict[str, Any] = {"audio_codec": "mp2", "sound_rate": 32_000, "format": "vob"}
    parts = [
        write_coded(tmp_path / f"{first}.mpg", first, last, sound=tones(first, last, 32_000), **more)
        for first, last in ((0, 4), (4, 7))
    ]
    path = tmp_path / "joined.mpg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    right(load_clip(path, DecodePlan(**SMALL)), list(range(7)), slack=0.2)


@pytest.mark.parametrize("parts", [1, 2])
def test_sound_far_behind_its_picture_in_the_file(tmp_path: Path, parts: int) -> None:
    """All of the picture is written before any sound."""
    made = []
    for first in range(0, 6 * parts, 6):
        source = write_coded(tmp_path / f"{first}.mp4", first, first + 6)
        path = tmp_path / f"{first}.ts"
        options = {"max_interleave_delta": "1", "flush_packets": "1"}
        with av.open(str(source)) as container, av.open(str(path), "w", container_options=options) as out:
            streams = {s.index: out.add_stream_from_template(s) for s in container.streams}
            packets = [p for p in container.demux() if p.size and p.dts is not None]
            for packet in sorted(packets, key=lambda packet: packet.stream.type != "video"):
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
        made.append(path.read_bytes())
    path = tmp_path / "late.ts"
    path.write_bytes(b"".join(made))
    right(load_clip(path, DecodePlan(**SMALL)), list(range(6 * parts)), slack=0.13)


@pytest.mark.parametrize(
    ("suffix", "live", "what"),
    [
        ("webm", "0", None),
        ("webm", "1", "the sound's times jump forward by 11:40; what follows is heard that much earlier here"),
        ("ogg", "0", "the file's clock jumps forward once, by 11:40; later times are that much earlier here"),
    ],
)
def test_sound_that_comes_back_after_many_minutes(tmp_path: Path, suffix: str, live: str, what: str | None) -> None:
    """As of a microphone that was muted: it is heard in its place where the file says that it lasts so long."""
    source = write_clip(tmp_path / "s.webm", sound=tones(0, 6, 48_000), sound_rate=48_000, audio_codec="libopus")
    path = tmp_path / f"a.{suffix}"
    with av.open(str(source)) as begin, av.open(str(path), "w", options={"live": live} if live == "1" else {}) as out:
        stream = out.add_stream_from_template(begin.streams.audio[0])
        for packet in begin.demux():
            if packet.pts is not None:
                late = packet.pts * packet.time_base >= 3
                packet.pts = packet.dts = packet.pts + (round(700 / packet.time_base) if late else 0)
                packet.stream = stream
                out.mux(packet)
    clip = load_clip(path)
    assert clip.waveform is not None and clip.notices == (() if what is None else (what,))
    assert [second for second in seconds_heard(clip.waveform) if second is not None] == [0, 1, 2, 3, 4, 5]
    assert clip.end == pytest.approx(706 if what is None else 6, abs=0.1)
