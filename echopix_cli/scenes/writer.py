"""Write a scene to an H.264 + AAC mp4."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from echopix_cli.errors import UsageError
from echopix_cli.scenes.audio import render_audio
from echopix_cli.scenes.script import SAMPLE_RATE, Script
from echopix_cli.scenes.video import render_frames


def write_mp4(script: Script, path: str | os.PathLike[str], size: int | tuple[int, int] = 224, fps: int = 25) -> None:
    """Render a script into an mp4 file.

    The file appears under its name only when it is complete: it is written beside it and then renamed.

    Args:
        script: the scene.
        path: where the file goes; an existing one is replaced.
        size: edge length of a square picture, or (height, width); both must be even (H.264, 4:2:0).
        fps: frames per second.

    Raises:
        UsageError: the picture's height or width is odd.
    """
    import av

    height, width = (size, size) if isinstance(size, int) else size
    if height % 2 or width % 2:
        raise UsageError(f"a picture of {width}x{height} cannot be H.264", "choose an even width and height")
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            wave = render_audio(script)
            picture: Any = container.add_stream("libx264", rate=fps)
            picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
            # The same bytes every time: x264's macroblock tree reads memory that nobody wrote, and slices
            # depend on how many cores there are.
            picture.options = {"crf": "20", "preset": "veryfast", "mbtree": "0"}
            picture.thread_count = 1
            sound: Any = None if wave is None else container.add_stream("aac", rate=SAMPLE_RATE)
            if sound is not None:
                sound.layout, sound.bit_rate = "mono", 96_000
            _write_picture(container, picture, script, (height, width), fps)
            if sound is not None and wave is not None:
                _write_sound(container, sound, wave)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _write_picture(container: Any, stream: Any, script: Script, size: tuple[int, int], fps: int) -> None:
    import av

    times = np.arange(round(script.duration * fps)) / fps
    for begin in range(0, len(times), fps):  # a second at a time: memory stays flat at any size
        for frame in render_frames(script, times[begin : begin + fps], size):
            rows = np.ascontiguousarray(frame.transpose(1, 2, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rows, format="rgb24")))
    container.mux(stream.encode(None))


def _write_sound(container: Any, stream: Any, wave: np.ndarray) -> None:
    import av

    step = 1024  # what one AAC frame holds
    for begin in range(0, len(wave), step):
        frame = av.AudioFrame.from_ndarray(wave[None, begin : begin + step], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, begin
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
