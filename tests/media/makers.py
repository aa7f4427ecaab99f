"""Makes small media files with PyAV, frame by frame, so that a test knows exactly what is in them.

A picture's brightness carries its number: frame ``i`` is a grey of value ``shade(i)``, and with the
lossless ffv1 codec it comes back unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

Array = np.ndarray[Any, Any]


def shade(number: int) -> int:
    """The grey of frame ``number``; distinct for the first 80 frames."""
    return (number * 3) % 240 + 8


def numbers(frames: Array) -> list[int]:
    """Frame numbers read back from the brightness of uint8 ``(T, 3, H, W)`` frames."""
    return [round((float(frame.mean()) - 8) / 3) for frame in frames]


def greys(count: int, height: int = 60, width: int = 80) -> list[Array]:
    return [np.full((height, width, 3), shade(number), np.uint8) for number in range(count)]


def tone(seconds: float, rate: int = 16_000, pitch: float = 440.0, level: float = 0.5) -> Array:
    """A sine, float32 ``(1, n)``."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * pitch * time)).astype(np.float32)[None]


def write_clip(
    path: Path,
    frames: Sequence[Array] | None = None,
    *,
    fps: int | Fraction = 10,
    times: Sequence[float] | None = None,
    sound: Array | None = None,
    sound_rate: int = 16_000,
    sound_start: float = 0.0,
    video_start: float = 0.0,
    codec: str = "ffv1",
    pix_fmt: str = "bgr0",
    audio_codec: str = "pcm_s16le",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    hflip: bool = False,
    extra_frames: Sequence[Array] | None = None,
    aspect: Fraction | None = None,
    format: str | None = None,
    tick: Fraction = Fraction(1, 30_000),
) -> Path:
    """Write a container with any of: pictures at ``times`` (default: at ``fps``), sound, a second track."""
    with av.open(str(path), "w", format=format, options=container_options or {}) as out:
        tracks = []
        for pictures in (frames, extra_frames):
            if pictures is None:
                continue
            stream = out.add_stream(codec, rate=fps, options=options or {})
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = pix_fmt
            stream.codec_context.thread_count = 1
            stream.codec_context.time_base = tick
            if rotation or hflip:
                stream.set_display_rotation(rotation, hflip=hflip)
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            tracks.append((stream, pictures))
        audio = None
        if sound is not None:
            audio = out.add_stream(audio_codec, rate=sound_rate, layout="mono" if len(sound) == 1 else "stereo")
            if audio_codec == "wmav2":
                audio.codec_context.bit_rate = 128_000
            audio.codec_context.options = {"strict": "experimental"} if audio_codec == "vorbis" else {}
        for stream, pictures in tracks:
            for number, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.time_base = Fraction(1, 30_000)
                at = times[number] if times is not None else number / Fraction(fps)
                frame.pts = round((at + Fraction(video_start)) * 30_000)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        if audio is not None:
            _write_sound(out, audio, sound, sound_rate, sound_start)
    return path


def _write_sound(out: Any, stream: Any, sound: Array, rate: int, start: float) -> None:
    step = stream.codec_context.frame_size or 1024
    converter = av.AudioResampler(format=stream.codec_context.format, layout=stream.codec_context.layout, rate=rate)
    layout = "mono" if len(sound) == 1 else "stereo"
    for begin in range(0, sound.shape[1], step):
        block = np.ascontiguousarray(sound[:, begin : begin + step])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = begin + round(start * rate)
        for converted in converter.resample(frame):
            out.mux(stream.encode(converted))
    out.mux(stream.encode(None))


def write_picture(path: Path, picture: Array, codec: str = "png", pix_fmt: str = "rgb24") -> Path:
    """Write one still image file."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt, encoder.time_base = pix_fmt, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
    frame.pts = 0
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    path.write_bytes(b"".join(bytes(packet) for packet in packets))
    return path


def write_stretches(path: Path, stretches: Sequence[tuple[float, Array]], rate: int = 16_000) -> Path:
    """Write one audio track that consists of separate stretches ``(start in seconds, sound)``."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=rate, layout="mono")
        for start, sound in stretches:
            block = np.round(sound * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(start * rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def write_two_tracks(path: Path, first: Array, second: Array, rate: int = 16_000) -> Path:
    """Write two mono audio tracks and nothing else."""
    return write_tracks(path, [(first, ""), (second, "")], rate=rate)


def write_tracks(
    path: Path,
    tracks: Sequence[tuple[Array, str]],
    codec: str = "pcm_s16le",
    rate: int = 16_000,
    start: float = 0.0,
    **options: str,
) -> Path:
    """Write mono audio tracks, each with its language where it has one; ``options`` are the muxer's."""
    with av.open(str(path), "w", options=options) as out:
        streams = [out.add_stream(codec, rate=rate, layout="mono") for _ in tracks]
        for stream, (_, language) in zip(streams, tracks, strict=True):
            stream.metadata.update({"language": language} if language else {})
        for stream, (sound, _) in zip(streams, tracks, strict=True):
            _write_sound(out, stream, sound, rate, start)
    return path


def flac_with_cover(source: Path, target: Path, picture: bytes) -> Path:
    """Insert a PICTURE block (cover art) after the STREAMINFO block of a FLAC file."""
    mime = b"image/png"
    body = (3).to_bytes(4, "big") + len(mime).to_bytes(4, "big") + mime + bytes(4)
    body += bytes(16) + len(picture).to_bytes(4, "big") + picture
    data = source.read_bytes()
    info_end = 4 + 4 + 34  # marker, block header, STREAMINFO
    head = bytearray(data[:info_end])
    head[4] &= 0x7F  # STREAMINFO is not the last block any more
    last = data[4] & 0x80
    block = bytes([6 | last]) + len(body).to_bytes(3, "big") + body
    target.write_bytes(bytes(head) + block + data[info_end:])
    return target


CODED_RATE = 25  # pictures a second


def coded(number: int, height: int = 96, width: int = 128) -> Array:
    """A picture whose 4 × 3 fields spell its number: least significant bit first, by rows, white is 1."""
    picture = np.zeros((height, width, 3), np.uint8)
    for bit in range(12):
        if number >> bit & 1:
            row, column = divmod(bit, 4)
            picture[row * height // 3 : (row + 1) * height // 3, column * width // 4 : (column + 1) * width // 4] = 255
    return picture


def codes(frames: Array) -> list[int]:
    """The numbers of coded pictures, uint8 ``(T, 3, H, W)``."""
    height, width = frames.shape[2:]
    rows, columns = [(2 * n + 1) * height // 6 for n in range(3)], [(2 * n + 1) * width // 8 for n in range(4)]
    fields = [(row, column) for row in rows for column in columns]
    return [
        sum(int(frame[:, y - 4 : y + 4, x - 4 : x + 4].mean() > 128) << bit for bit, (y, x) in enumerate(fields))
        for frame in frames
    ]


def tones(first: int, last: int, rate: int = 16_000) -> Array:
    """Seconds ``first`` to ``last`` of a sound that tells its place: second n is a sine of 300 + 40 n Hz."""
    return np.concatenate([tone(1, rate, 300.0 + 40 * second) for second in range(first, last)], axis=1)


def seconds_heard(waveform: Array, rate: int = 16_000) -> list[int | None]:
    """For each second of a waveform the n of its tone; None where it is silent."""
    found: list[int | None] = []
    for begin in range(0, waveform.size - rate // 2, rate):
        part = waveform[begin + rate // 4 : begin + 3 * rate // 4]
        pitch = np.abs(np.fft.rfft(part * np.hanning(part.size))).argmax() * rate / max(1, part.size)
        found.append(round((pitch - 300) / 40) if part.size and np.abs(part).max() > 0.05 else None)
    return found


def interleaved(path: Path, target: Path, **options: str) -> Path:
    """The same packets, in the order of their decoding times; ``options`` are the muxer's."""
    with av.open(str(path)) as source, av.open(str(target), "w", options=options) as out:
        tracks = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        packets = [packet for packet in source.demux() if packet.dts is not None]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            packet.stream = tracks[packet.stream.index]
            out.mux(packet)
    return target


def write_coded(path: Path, first: int, last: int, **more: Any) -> Path:
    """Seconds ``first`` to ``last`` of the coded recording: H.264 with B-frames and AAC, if nothing else is said."""
    pictures = [coded(number) for number in range(first * CODED_RATE, last * CODED_RATE)]
    chosen = {
        "fps": CODED_RATE,
        "codec": "libx264",
        "pix_fmt": "yuv420p",
        "options": {"preset": "ultrafast", "bf": "2", "g": "25"},
        "audio_codec": "aac",
        "sound": tones(first, last),
        **more,
    }
    return write_clip(path, pictures, **chosen)
