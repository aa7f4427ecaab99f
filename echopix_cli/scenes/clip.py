"""A scene as the media room would hand it over, and which of its prompt rows an answer depends on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from echopix_cli.media import Clip, MediaInfo
from echopix_cli.results import AudioStatus
from echopix_cli.scenes.audio import render_audio
from echopix_cli.scenes.frames import render_frames
from echopix_cli.scenes.geometry import away, visible
from echopix_cli.scenes.script import COUNTED, PICTURES, SAMPLE_RATE, Evidence, Script

SIDE = 112  # pixels of the square frames, where a checkpoint has no frame size of its own
AUDIO_ROWS_PER_SECOND = 25


def scene_clip(script: Script, side: int, times: np.ndarray, without: str = "") -> Clip:
    """A scene without the detour through a file.

    Args:
        script: what happens.
        side: pixels of the square frames.
        times: seconds of the frames, (T,); :func:`sample_times` gives those that sampling a file takes.
        without: a modality, ``audio`` or ``video``, that is left out.
    """
    waveform = None if without == "audio" else render_audio(script, SAMPLE_RATE)
    picture = without != "video"
    return Clip(
        path=f"scene:{script.split}:{script.seed}",
        frames=render_frames(script, times, side) if picture else None,
        frame_times=times if picture else None,
        waveform=waveform,
        audio_status=AudioStatus.ABSENT if waveform is None else AudioStatus.USED,
        start=0.0,
        end=script.duration,
        info=MediaInfo(format="scene", duration=script.duration, tracks=()),
        notices=(),
    )


def frame_side(max_pixels: int | None, factor: int) -> int:
    """Pixels of a scene's square frames: as many as a model was trained with or a user allows, in whole factors."""
    wanted = math.isqrt(max_pixels or SIDE * SIDE)
    return max(factor, wanted // factor * factor)


# What is said of each moment: which pictures are seen, which have hopped away, how many notes have begun.
SURROUNDINGS = (len(PICTURES), len(PICTURES), len(COUNTED))


def surroundings(script: Script, times: Sequence[float] | np.ndarray, dark: bool = False) -> np.ndarray:
    """What goes on around moments of the sound, which the sound alone does not tell.

    Returns:
        bool (len(times), sum of SURROUNDINGS): for each of PICTURES, whether it is on screen; for each, whether it
        has hopped away from its place; and whether at least one, two, … nine notes have begun. ``dark``: of
        the pictures nothing, as the clip is shown without them.
    """
    times = np.asarray(times, dtype=np.float64)
    around = np.zeros((len(times), sum(SURROUNDINGS)), dtype=bool)
    for sprite in () if dark else script.sprites:
        place = PICTURES.index(sprite.name)
        around[:, place] |= visible(sprite, times)
        around[:, len(PICTURES) + place] |= visible(sprite, times) & away(sprite, times)
    begun = (times[:, None] >= np.array([note.start for note in script.notes])).sum(axis=1)
    around[:, 2 * len(PICTURES) :] = begun[:, None] > np.arange(len(COUNTED))
    return around


def evidence_rows(
    evidence: Sequence[Evidence], cells: tuple[int, int, int], grid_times: np.ndarray, audio_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which prompt rows lie on what an answer depends on.

    Args:
        evidence: of the item.
        cells: grid steps, rows and columns of the picture, as the prompt has them; zeros without picture.
        grid_times: (steps,) seconds at which each grid step is first shown.
        audio_rows: prompt rows of the sound, 25 a second.

    Returns:
        bool (steps * rows * columns,) and bool (audio_rows,).
    """
    sound_times = (np.arange(audio_rows) + 0.5) / AUDIO_ROWS_PER_SECOND
    sound = np.zeros(audio_rows, dtype=bool)
    _, h, w = cells
    picture = np.zeros(cells, dtype=bool)
    for piece in evidence:
        if piece.modality == "audio":
            sound |= (sound_times >= piece.start) & (sound_times < piece.end)
        elif picture.size:
            until = np.append(grid_times[1:], np.inf)
            shown = (until > piece.start) & (grid_times < piece.end)
            x0, y0, x1, y1 = piece.box or (0.0, 0.0, 1.0, 1.0)
            inside_y = (np.arange(1, h + 1) / h > y0) & (np.arange(h) / h < y1)
            inside_x = (np.arange(1, w + 1) / w > x0) & (np.arange(w) / w < x1)
            picture |= shown[:, None, None] & inside_y[None, :, None] & inside_x[None, None, :]
    return picture.reshape(-1), sound
