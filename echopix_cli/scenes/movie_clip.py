"""A movie's windows rendered, one at a time: nothing of the length of a movie is ever held."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from echopix_cli.media import Clip, MediaInfo
from echopix_cli.results import AudioStatus
from echopix_cli.scenes.audio import render_audio
from echopix_cli.scenes.clip import sample_times, scene_clip
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
    """A window of a movie without the detour through a file; its times are the movie's.

    Args:
        movie: with or without its needles.
        window: counted from 0.
        side: pixels of the square frames.
        without: a modality, ``audio`` or ``video``, that is left out.
    """
    begin, end = movie.span(window)
    times = sample_times(DURATION)
    times = times[times < end - begin]
    clip = scene_clip(movie.script(window), side, times, without="audio")
    sound = None if without == "audio" else movie_sound(movie, window)
    seen = without != "video"
    return replace(
        clip,
        path=movie.name,
        frames=clip.frames if seen else None,
        frame_times=begin + times if seen else None,
        waveform=sound,
        audio_status=AudioStatus.DISABLED if sound is None else AudioStatus.USED,
        start=begin,
        end=end,
        info=MediaInfo(format="movie", duration=movie.duration, tracks=()),
    )
