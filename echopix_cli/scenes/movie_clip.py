"""A movie's windows rendered, one at a time: nothing of the length of a movie is ever held."""

from __future__ import annotations

import math

import numpy as np

from echopix_cli.media import Clip, MediaInfo
from echopix_cli.results import AudioStatus
from echopix_cli.scenes.audio import render_audio
from echopix_cli.scenes.clip_times import SOURCE_FPS
from echopix_cli.scenes.frames import render_frames
from echopix_cli.scenes.movie import Movie
from echopix_cli.scenes.script import DURATION, SAMPLE_RATE

_FADE = np.linspace(0, 1, SAMPLE_RATE // 100, dtype=np.float32)  # notes keep further from both ends of a scene


def movie_sound(movie: Movie, window: int) -> np.ndarray:
    """The sound of a window, which begins and ends in silence: scenes in a row do not click.

    Returns:
        float32 (n,) in -1..1 at 16 kHz; zeros where the scene has no sound.
    """
    begin, end = movie.span(window)
    wave = render_audio(movie.script(window))
    if wave is None:
        return np.zeros(round((end - begin) * SAMPLE_RATE), dtype=np.float32)
    wave = wave[: round((end - begin) * SAMPLE_RATE)].copy()
    wave[: len(_FADE)] *= _FADE
    wave[-len(_FADE) :] *= _FADE[::-1]
    return wave


def movie_clip(movie: Movie, window: int, side: int, without: str = "") -> Clip:
    """A window of a movie, counted from 0, at two frames a second; otherwise as :func:`movie_span`."""
    begin, end = movie.span(window)
    return movie_span(movie, begin, end, 2 * round(end - begin), side, without)


def movie_span(
    movie: Movie, start: float, end: float, frames: int, side: int, without: str = "", heard: float = math.inf
) -> Clip:
    """A part of a movie without the detour through a file; its times are the movie's.

    Args:
        movie: with or without its needles.
        start, end: seconds of the movie.
        frames: how many, from the first of the part to its last; one is the one in its middle.
        side: pixels of the square frames.
        without: a modality, ``audio`` or ``video``, that is left out.
        heard: sound is cut after so many seconds of the part.
    """
    last_shown = end - start - 1 / SOURCE_FPS
    inside = np.linspace(0.0, last_shown, frames) if frames > 1 else np.array([last_shown / 2])
    pictures, sounds, hushed = list[np.ndarray](), list[np.ndarray](), min(end, start + heard)
    for window in range(int(start // DURATION), math.ceil(end / DURATION)):
        begin, finish = movie.span(window)
        if without != "video":
            own = inside[(start + inside >= begin) & (start + inside < finish)] + (start - begin)
            if len(own):
                pictures.append(render_frames(movie.script(window), own, side))
        if without != "audio" and begin < hushed:
            first, last = (round((at - begin) * SAMPLE_RATE) for at in (max(start, begin), min(hushed, finish)))
            sounds.append(movie_sound(movie, window)[first:last])
    status = AudioStatus.USED if hushed == end else AudioStatus.TRUNCATED
    return Clip(
        path=movie.name,
        frames=np.concatenate(pictures) if pictures else None,
        frame_times=start + inside if pictures else None,
        waveform=np.concatenate(sounds) if sounds else None,
        audio_status=status if sounds else AudioStatus.DISABLED,
        start=start,
        end=end,
        info=MediaInfo(format="movie", duration=movie.duration, tracks=()),
    )
