"""A clip after the towers: all that questions about it need, without its frames and its sound."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from echopix_cli.media import Clip, MediaInfo
from echopix_cli.model.processing import ClipInputs
from echopix_cli.results import AudioStatus, PeakMemory, Sampling


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
