"""Write a scene, or a movie of many, to an H.264 + AAC mp4."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from echopix_cli.errors import UsageError
from echopix_cli.scenes.audio import render_audio
from echopix_cli.scenes.frames import render_frames
from echopix_cli.scenes.movie import Movie
from echopix_cli.scenes.movie_clip import movie_sound
from echopix_cli.scenes.script import SAMPLE_RATE, Script

# How coarse the picture may be. Most of a file is the grain of its frames: an hour would take 700 MB at 20.
_CRF, _CRF_MOVIE = 20, 26
# Scenes, the seconds shown of each, and its sound.
Written = Iterable[tuple[Script, float, "np.ndarray | None"]]


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
    wave = render_audio(script)
    _write(Path(path), [(script, script.duration, wave)], size, fps, _CRF, heard=wave is not None)


def write_movie(
    movie: Movie,
    path: str | os.PathLike[str],
    size: int | tuple[int, int] = 224,
    fps: int = 25,
    watch: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Render a movie into an mp4 file, scene by scene, as :func:`write_mp4` does.

    Args:
        movie: scenes one after another.
        path: where the file goes; an existing one is replaced.
        size: edge length of a square picture, or (height, width); both must be even.
        fps: frames per second.
        watch: told after each scene how many seconds are written.

    Raises:
        UsageError: the picture's height or width is odd.
    """

    def scenes() -> Iterator[tuple[Script, float, np.ndarray]]:
        for window in range(movie.windows):
            begin, end = movie.span(window)
            yield movie.script(window), end - begin, movie_sound(movie, window)
            watch(end)

    _write(Path(path), scenes(), size, fps, _CRF_MOVIE, heard=True)


def _write(target: Path, scenes: Written, size: int | tuple[int, int], fps: int, crf: int, heard: bool) -> None:
    import av

    height, width = (size, size) if isinstance(size, int) else size
    if height % 2 or width % 2:
        raise UsageError(f"a picture of {width}x{height} cannot be H.264", "choose an even width and height")
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            picture: Any = container.add_stream("libx264", rate=fps)
            picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
            # The same bytes every time: x264's macroblock tree reads memory that nobody wrote, and slices
            # depend on how many cores there are.
            picture.options = {"crf": str(crf), "preset": "veryfast", "mbtree": "0"}
            picture.thread_count = 1
            sound: Any = container.add_stream("aac", rate=SAMPLE_RATE) if heard else None
            if sound is not None:
                sound.layout, sound.bit_rate = "mono", 96_000
            begin = 0  # samples before this scene
            for script, seconds, wave in scenes:
                _write_picture(container, picture, script, seconds, (height, width), fps)
                if wave is not None:
                    _write_sound(container, sound, wave, begin)
                    begin += len(wave)
            for stream in (picture, sound):
                if stream is not None:
                    container.mux(stream.encode(None))
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _write_picture(
    container: Any, stream: Any, script: Script, seconds: float, size: tuple[int, int], fps: int
) -> None:
    import av

    times = np.arange(round(seconds * fps)) / fps
    for begin in range(0, len(times), fps):  # a second at a time: memory stays flat at any size
        for frame in render_frames(script, times[begin : begin + fps], size):
            rows = np.ascontiguousarray(frame.transpose(1, 2, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rows, format="rgb24")))


def _write_sound(container: Any, stream: Any, wave: np.ndarray, begin: int) -> None:
    import av

    step = 1024  # what one AAC frame holds; the encoder joins what is left of one scene with the next
    for at in range(0, len(wave), step):
        frame = av.AudioFrame.from_ndarray(wave[None, at : at + step], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, begin + at
        container.mux(stream.encode(frame))
