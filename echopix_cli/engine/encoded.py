"""A clip after the towers: all that questions about it need, without its frames and its sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from echopix_cli.media import Clip, MediaInfo
from echopix_cli.model.processing import ClipInputs
from echopix_cli.results import AudioStatus, FilmFacts, PeakMemory, Sampling

AUDIO_ROW = 0.04  # seconds of sound in one row of the tower: 25 a second
Spans = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Survivors:
    """The rows that the windows of a film handed on, in the order of the last prompt.

    Attributes:
        is_audio: (n,) rows of sound.
        positions: (4, n) relative to the start of the block.
        spans: (n, 2) seconds of media time.
        boxes: (n, 4) parts of the frame that each row of picture shows, as :attr:`Encoded.boxes`.
        video_total: rows of picture that all windows had.
        audio_total: rows of sound.
        facts: how the film was read.
    """

    is_audio: np.ndarray[Any, np.dtype[np.bool_]]
    positions: np.ndarray[Any, np.dtype[np.int64]]
    spans: Spans
    boxes: Spans
    video_total: int
    audio_total: int
    facts: FilmFacts

    @property
    def share(self) -> float:
        """Of all rows."""
        return len(self.is_audio) / max(1, self.video_total + self.audio_total)


@dataclass(frozen=True)
class Encoded:
    """A clip after the towers: features on the device, ready for any number of questions and budgets.

    Attributes:
        path: of the file.
        info: what its header says.
        audio_status: what became of the sound.
        sampling: what was taken of it.
        notices: what the user should know about what was not used.
        inputs: grids, times and rows; what the towers read (patches, log-mel) is gone.
        video: features (rows, d) of the picture; None where there is none.
        audio: features (rows, d) of the sound; None where there is none.
        seconds: spent in ``decode``, ``vision`` and ``audio``.
        peaks: of memory meanwhile.
        cached: whether the features were computed earlier and came from the disk.
        survivors: of a film, what its windows handed on for one question; ``video`` and ``audio`` are theirs, and
            ``inputs`` say only which of them there are. None for a clip.
    """

    path: str
    info: MediaInfo
    audio_status: AudioStatus
    sampling: Sampling
    notices: tuple[str, ...]
    inputs: ClipInputs
    video: Tensor | None
    audio: Tensor | None
    seconds: dict[str, float]
    peaks: PeakMemory
    cached: bool = False
    survivors: Survivors | None = None

    @property
    def spans(self) -> tuple[Spans, Spans]:
        """Seconds of media time, (rows, 2) with start and end, in which each row of picture and of sound lies."""
        if self.survivors is not None:
            return self.survivors.spans[~self.survivors.is_audio], self.survivors.spans[self.survivors.is_audio]
        _, height, width = self.inputs.cells
        begins = self.inputs.grid_times
        ends = np.append(begins[1:], self.inputs.grid_end)[: len(begins)]
        shown = np.stack([begins, ends], axis=1).repeat(height * width, axis=0)
        heard = np.arange(self.inputs.audio_rows)[:, None] * AUDIO_ROW + np.array([0.0, AUDIO_ROW])
        return shown + self.sampling.start, heard + self.sampling.start

    @property
    def boxes(self) -> Spans:
        """What each row of the picture shows of its frame, (rows, 4): left, top, right and bottom edge as fractions of
        width and height."""
        if self.survivors is not None:
            boxes: Spans = self.survivors.boxes[~self.survivors.is_audio]
            return boxes
        steps, height, width = self.inputs.cells
        row, column = np.divmod(np.arange(height * width), max(width, 1))
        edges = np.stack([column / width, row / height, (column + 1) / width, (row + 1) / height], axis=1)
        return np.tile(edges, (steps, 1))


def sampling_of(clip: Clip) -> Sampling:
    """What was really taken from the media."""
    shape = None if clip.frames is None else clip.frames.shape
    return Sampling(
        fps=clip.sampled_fps if shape is not None and shape[0] > 1 else None,
        frames=0 if shape is None else shape[0],
        height=None if shape is None else shape[2],
        width=None if shape is None else shape[3],
        second_per_grid=clip.second_per_grid,
        start=clip.start,
        end=clip.end,
        audio_seconds=clip.audio_seconds,
    )
