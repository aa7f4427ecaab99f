"""Damaged files: the readable part is used, and a notice says how much that was."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from makers import CODED_RATE, codes, greys, interleaved, numbers, seconds_heard, tone, tones, write_clip, write_coded

from echopix_cli.errors import MediaError
from echopix_cli.media import DecodePlan, load_clip
from echopix_cli.media.cost import Meter
from echopix_cli.media.recall import remembering
from echopix_cli.results import AudioStatus
from echopix_cli.times import clock, parse_time

SMALL = {"min_pixels": 28 * 28, "max_pixels": 100 * 28 * 28}


def noisy(count: int) -> list[np.ndarray]:
    """Grey frames with noise that an encoder cannot swallow, so that bytes grow with time."""
    rng = np.random.default_rng(0)
    return [np.clip(grey + rng.integers(-8, 8, grey.shape), 0, 255).astype(np.uint8) for grey in greys(count)]


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_a_truncated_clip_is_read_up_to_there(tmp_path: Path, suffix: str) -> None:
    flags = {} if suffix == "mkv" else {"movflags": "faststart"}
    path = write_clip(tmp_path / f"a.{suffix}", noisy(80), codec="mjpeg", pix_fmt="yuvj420p",
                      options={"qmin": "1"}, container_options=flags)  # fmt: skip
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 5])
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.frames is not None and clip.frame_times is not None
    assert 1.0 < clip.frame_times[-1] < 4.0
    found = numbers(clip.frames)
    assert found == sorted(found) and found[0] == 0
    assert clip.notices[-1] == f"read {clock(clip.end)} of 0:08; the rest is missing or damaged"


@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_damage_in_the_middle_is_skipped_over(tmp_path: Path, suffix: str) -> None:
    codec, pix_fmt = {"mkv": ("ffv1", "bgr0"), "mov": ("png", "rgb24")}[suffix]
    path = write_clip(tmp_path / f"a.{suffix}", noisy(80), codec=codec, pix_fmt=pix_fmt, sound=tone(8))
    data = bytearray(path.read_bytes())
    for place in range(len(data) * 4 // 10, len(data) * 5 // 10, 7):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    clip = load_clip(path, DecodePlan(fps=10, **SMALL))
    assert clip.frames is not None and clip.frame_times is not None and clip.waveform is not None
    assert clip.frame_times[-1] > 7.5, "what follows the damage is used as well"
    healthy = clip.frame_times < 2.5
    assert healthy.sum() > 10
    assert numbers(clip.frames[healthy]) == np.round(clip.frame_times[healthy] * 10).astype(int).tolist()
    said = {"mkv": "parts of the video track are damaged", "mov": "could not be decoded and were left out"}[suffix]
    assert any(said in notice for notice in clip.notices)


def test_what_is_lost_at_the_end_was_not_shown(tmp_path: Path) -> None:
    """The last frame that came out stands until the next that was wanted, and not until the picture is over."""
    path = write_clip(tmp_path / "a.mov", greys(80), codec="png", pix_fmt="rgb24", sound=tone(8))
    whole = load_clip(path, DecodePlan(fps=10, **SMALL))
    assert (whole.shown_until, whole.end) == (pytest.approx(8.0), pytest.approx(8.0))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for number, packet in enumerate(container.demux(video=0)):
            if number >= 50 and packet.size and packet.pos is not None:
                data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    clip = load_clip(path, DecodePlan(fps=10, **SMALL))
    assert clip.frame_times is not None and clip.frame_times[-1] == pytest.approx(4.9)
    assert (clip.shown_until, clip.end) == (pytest.approx(5.0), pytest.approx(8.0))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 seconds of picture and sound, which lie beside one another in the file as they play."""
    path = write_coded(
        tmp_path_factory.mktemp("film") / "a.mp4", 0, 24, options={"preset": "ultrafast", "g": "25", "crf": "5"}
    )
    return interleaved(path, path.with_name("film.mp4"))


@pytest.mark.parametrize("how", ["zeros", "noise"])
@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_a_damaged_middle_costs_a_film_no_more_than_that(film: Path, tmp_path: Path, suffix: str, how: str) -> None:
    path = interleaved(film, tmp_path / f"a.{suffix}")
    data, plan = bytearray(path.read_bytes()), DecodePlan(fps=5.0, max_frames=100, **SMALL)
    first, last = round(len(data) * 0.46), round(len(data) * 0.54)
    data[first:last] = bytes(last - first) if how == "zeros" else np.random.default_rng(0).bytes(last - first)
    path.write_bytes(data)
    with remembering():
        parts = [load_clip(path, replace(plan, start=start, end=start + 8.0)) for start in (0.0, 8.0, 16.0)]
    assert [part.audio_status for part in parts] == [AudioStatus.USED] * 3
    assert [bool(part.notices) for part in parts] == [False, True, False], [part.notices for part in parts]
    holes = {}
    for notice in parts[1].notices:
        found = re.search(r"\(([0-9:.]+)–([0-9:.]+)\)$", notice)
        assert found is not None
        hole = holes["audio" in notice] = parse_time(found[1]), parse_time(found[2])
        assert 10.2 < hole[0] <= hole[1] < 14.0
    assert set(holes) == {False, True}, "it is said of both, and when"
    sound = holes[True]
    late = 0.0 if suffix == "mp4" else 0.08  # the sound's run-in moves the picture elsewhere
    for number, part in enumerate(parts):
        assert part.waveform is not None and part.waveform.size == 8 * 16_000 and part.frames is not None
        seconds = np.arange(8 * number, 8 * number + 8)
        whole = (seconds + 1 <= sound[0]) | (seconds - late >= sound[1])
        heard = np.array(seconds_heard(part.waveform), object)
        assert heard[whole].tolist() == seconds[whole].tolist()
        times = part.frame_times - late
        sure = (times < sound[0]) | (times > sound[1] + 1.1)  # up to the next keyframe
        assert codes(part.frames[sure]) == np.round(times[sure] * 25).astype(int).tolist()
        assert len(times) >= (40 if number != 1 else 20) - 2


def test_subtitles_that_last_longer_are_no_missing_end(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    source = write_clip(tmp_path / "source.mkv", greys(60), codec="mjpeg", pix_fmt="yuvj420p", sound=tone(6))
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        tracks = {stream.index: out.add_stream_from_template(stream) for stream in container.streams}
        said = out.add_stream("srt")
        said.codec_context.subtitle_header = b"[Script Info]\nScriptType: v4.00+\n"
        for packet in container.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream.index]
                out.mux(packet)
        words = av.Packet(b"hello")
        words.stream, words.time_base, words.pts, words.dts, words.duration = said, Fraction(1, 1000), 5000, 5000, 2500
        out.mux(words)
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"XURATION"))  # of each track, which not all files tell
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.info.duration == pytest.approx(7.5, abs=0.1)
    assert clip.notices == ()


SOUNDS = [
    ("ogg", "libopus"), ("flac", "flac"), ("webm", "libopus"), ("mka", "libmp3lame"), ("mka", "ac3"),
    ("avi", "libmp3lame"), ("mpg", "mp2"),
]  # fmt: skip


@pytest.mark.parametrize("how", ["zeros", "noise", "gone"])
@pytest.mark.parametrize(("suffix", "codec"), SOUNDS)
def test_sound_that_a_demuxer_steps_over_is_said(tmp_path: Path, suffix: str, codec: str, how: str) -> None:
    """FFmpeg looks for the next packet behind what is damaged, and does not say so."""
    path = write_clip(tmp_path / f"a.{suffix}", sound=tones(0, 20, 48_000), sound_rate=48_000, audio_codec=codec)
    clean = load_clip(path)
    assert (clean.audio_status, clean.notices) == (AudioStatus.USED, ())
    data = bytearray(path.read_bytes())
    first, last = round(len(data) * 0.43), round(len(data) * 0.52)
    lost = {"zeros": bytes(last - first), "noise": np.random.default_rng(0).bytes(last - first), "gone": b""}[how]
    data[first:last] = lost
    path.write_bytes(data)
    clip = load_clip(path)
    assert clip.audio_status is AudioStatus.USED
    (notice,) = (notice for notice in clip.notices if "audio track" in notice)
    found = re.fullmatch(r"parts of the audio track are damaged and were skipped \(([0-9:.]+)–([0-9:.]+)\)", notice)
    assert found is not None
    latest = 15.2 if suffix in ("mka", "webm") else 12.0  # where a cluster begins
    assert 7.0 < parse_time(found[1]) < 9.7 and (suffix == "avi" or 9.8 < parse_time(found[2]) < latest)


@pytest.mark.parametrize(("suffix", "codec"), [SOUNDS[0], *SOUNDS[2:5], SOUNDS[6]])
def test_a_pause_is_no_damage(tmp_path: Path, suffix: str, codec: str) -> None:
    source = write_clip(tmp_path / f"a.{suffix}", sound=tones(0, 20, 48_000), sound_rate=48_000, audio_codec=codec)
    path = tmp_path / f"b.{suffix}"
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(container.streams.audio[0])
        for packet in container.demux():
            if packet.dts is not None and not 6 < packet.dts * packet.time_base < 13:
                packet.stream = stream
                out.mux(packet)
    clip = load_clip(path)
    assert (clip.audio_status, clip.notices) == (AudioStatus.USED, ())
    assert clip.waveform is not None and np.abs(clip.waveform[8 * 16_000 : 12 * 16_000]).max() < 0.01


@pytest.mark.parametrize("how", ["aligned", "uneven"])
def test_an_avi_of_a_careless_writer_is_not_damaged(tmp_path: Path, how: str) -> None:
    """Filled up with zeros between chunks, or without the byte that makes a chunk's size even."""
    source = write_clip(tmp_path / "a.avi", greys(30), codec="mpeg4", pix_fmt="yuv420p", sound=tone(3),
                        audio_codec="libmp3lame")  # fmt: skip
    data = source.read_bytes()
    begin = data.index(b"movi") + 4
    at, pieces = begin, list[bytes]()
    while data[at : at + 4] in (b"00dc", b"01wb", b"JUNK"):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        pieces.append(data[at : at + 8 + size])
        at += 8 + size + size % 2
    assert len(pieces) > 50 and any(len(piece) % 2 for piece in pieces)
    made = [piece + bytes(-len(piece) % 512 if how == "aligned" else 0) for piece in pieces]
    path = tmp_path / "b.avi"
    path.write_bytes(data[:begin] + b"".join(made))
    assert not any("damaged" in notice for notice in load_clip(path, DecodePlan(**SMALL)).notices)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write_clip(
        tmp_path / "a.mkv", greys(20), codec="libx264", pix_fmt="yuv420p", sound=tone(2), audio_codec="aac"
    )


def _scramble(path: Path, codec: bytes) -> None:
    """Give a track a codec that nobody has."""
    data = path.read_bytes()
    assert data.count(codec) == 1
    path.write_bytes(data.replace(codec, codec[:-3] + b"ZZZ"))


def test_undecodable_sound_leaves_the_picture(whole: Path) -> None:
    _scramble(whole, b"A_AAC")
    clip = load_clip(whole, DecodePlan(**SMALL))
    assert clip.frames is not None and clip.waveform is None
    assert clip.audio_status is AudioStatus.UNDECODABLE
    assert clip.notices == ("the sound could not be decoded (unknown codec); only the picture was used",)
    assert load_clip(whole, DecodePlan(start=1.0, **SMALL)).audio_status is AudioStatus.UNDECODABLE


def test_undecodable_picture_leaves_the_sound(whole: Path) -> None:
    _scramble(whole, b"V_MPEG4/ISO/AVC")
    clip = load_clip(whole, DecodePlan(**SMALL))
    assert clip.frames is None and clip.waveform is not None
    assert clip.audio_status is AudioStatus.USED
    assert clip.notices == ("the picture could not be decoded (unknown codec); only the sound was used",)


def test_neither_is_an_error(whole: Path) -> None:
    _scramble(whole, b"V_MPEG4/ISO/AVC")
    _scramble(whole, b"A_AAC")
    with pytest.raises(MediaError, match="could not be decoded"):
        load_clip(whole)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_truncated_plain_audio(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 160_000)
    soundfile.write(path, sound, 16_000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    clip = load_clip(path)
    assert clip.waveform is not None
    assert clip.waveform.size == pytest.approx(80_000, rel=0.05)
    np.testing.assert_allclose(clip.waveform[:70_000], sound[:70_000], atol=1e-3)
    assert clip.notices[-1:] == (f"read {clock(clip.end)} of 0:10; the rest is missing or damaged",)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_no_foreign_error_escapes_from_noise(tmp_path: Path, suffix: str, seed: int) -> None:
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = write_clip(tmp_path / f"a.{suffix}", greys(10), codec=codec, pix_fmt="yuv420p", fps=25,
                      sound=tone(0.5, 48_000), sound_rate=48_000, audio_codec="libmp3lame")  # fmt: skip
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(data), [3, 30, 300][seed % 3]):
        data[place] = rng.integers(256)
    if seed % 4 == 0:
        del data[rng.integers(200, len(data)) :]
    path.write_bytes(bytes(data))
    try:
        clip = load_clip(path, DecodePlan(**SMALL, start=[None, 0.1][seed % 2]))
    except MediaError as error:
        assert error.hint
    else:
        assert clip.frames is not None or clip.waveform is not None


INTERLEAVED = {
    "options": {"preset": "ultrafast", "bf": "0", "g": "25"},
    "container_options": {"max_interleave_delta": "0"},
}


def spoil(path: Path, first: float, last: float) -> None:
    """Overwrite all that lies in the file between two times of its picture with random bytes."""
    with av.open(str(path)) as container:
        begin = min(packet.pts * packet.time_base for packet in container.demux(video=0) if packet.pts is not None)
        container.seek(0)
        places = [
            packet.pos
            for packet in container.demux(video=0)
            if packet.pos is not None and first <= (packet.pts or 0) * packet.time_base - begin < last
        ]
    data = bytearray(path.read_bytes())
    data[min(places) : max(places)] = np.random.default_rng(0).bytes(max(places) - min(places))
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_what_follows_damage_is_heard_and_seen_at_its_time(tmp_path: Path, suffix: str) -> None:
    """A decoder of AAC takes what is damaged for other channels, and has nothing but silence to give from there on."""
    path = write_coded(tmp_path / f"a.{suffix}", 0, 30, **INTERLEAVED)
    whole = load_clip(path, DecodePlan(fps=1.0, **SMALL))
    spoil(path, 8.0, 20.0)
    clip = load_clip(path, DecodePlan(fps=1.0, **SMALL))
    assert whole.waveform is not None and clip.waveform is not None and clip.frames is not None
    heard = seconds_heard(clip.waveform)
    assert heard[:7] == list(range(7)) and heard[22:29] == list(range(22, 29))
    late, much = 24 * 16_000, 4 * 16_000
    likeness = np.correlate(clip.waveform[late : late + much], whole.waveform[late + 400 : late + much - 400])
    assert abs(int(likeness.argmax()) - 400) <= 32, "two milliseconds"
    numbers = np.array(codes(clip.frames))
    after = clip.frame_times > 22
    assert after.sum() >= 6 and np.abs(clip.frame_times - numbers / CODED_RATE)[after].max() < 0.1
    said = " ".join(clip.notices)
    if suffix != "mkv":  # whose demuxer drops what is damaged without a word
        assert "audio track are damaged" in said and ("video track are damaged" in said or "sampled frames" in said)
    assert "clock" not in said


def test_a_window_that_is_damaged_is_not_looked_for_from_the_start(tmp_path: Path, decoded: list[Meter]) -> None:
    path = write_coded(tmp_path / "a.mp4", 0, 30, **INTERLEAVED)
    spoil(path, 18.0, 24.0)
    for start in (20.0, 21.0):
        with pytest.raises(MediaError, match=r"could not be decoded|damaged"):
            load_clip(path, DecodePlan(start=start, end=start + 1.5, video=False, **SMALL))
    assert all(meter.bytes < 2 * 16_000 * 4 for meter in decoded)
