"""Small clips as most tests need them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np


def write_clip(
    path: Path,
    seconds: float = 3.0,
    fps: int = 10,
    sound: bool = True,
    picture: bool = True,
    times: Sequence[float] | None = None,
    heard: tuple[float, float] | None = None,
) -> Path:
    """A small H.264 + AAC mp4 (or either alone): a moving bright square and a 440 Hz tone.

    ``times`` are seconds of the frames, in place of ``fps`` a second; ``heard`` are those from and to which the tone
    sounds, in place of all: silence before, and nothing after.
    """
    import av

    with av.open(str(path), "w") as container:
        video = audio = None
        if picture:
            video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
            video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
            if times is not None:
                video.codec_context.time_base = Fraction(1, 1000)
        if sound:
            audio = container.add_stream("aac", rate=16000, layout="mono")
        for index in range((int(seconds * fps) if times is None else len(times)) if video else 0):
            image = np.full((120, 160, 3), 30, np.uint8)
            image[20:60, index % 120 : index % 120 + 40] = (250, 200, 40)
            shown = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                shown.pts, shown.time_base = round(1000 * times[index]), Fraction(1, 1000)
            container.mux(video.encode(shown))
        if audio:
            begin, end = heard or (0.0, seconds)
            tone = (0.4 * np.sin(np.arange(int(end * 16000)) * 2 * np.pi * 440 / 16000)).astype(np.float32)
            tone[: int(begin * 16000)] = 0.0
            frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(audio.encode(frame))
        for stream in (video, audio):
            if stream:
                container.mux(stream.encode(None))
    return path


def garble_sound(path: Path, source: Path) -> Path:
    """A copy of a clip, in which every packet of the sound is noise and the picture is as it was."""
    import av

    content, noise = bytearray(source.read_bytes()), np.random.default_rng(1)
    with av.open(str(source)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(container.streams.audio[0]) if packet.size]
    for begin, size in places:
        content[begin : begin + size] = noise.bytes(size)
    path.write_bytes(content)
    return path
