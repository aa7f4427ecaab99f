"""The plain frozen values that leave this room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from echopix_cli.results import AudioStatus

if TYPE_CHECKING:
    import numpy as np

SAMPLE_RATE = 16_000  # Hz; what the model family's audio tower hears


@dataclass(frozen=True)
class TrackInfo:
    """One audio or video track, as far as its header tells. ``None`` where it does not."""

    kind: str  # "video" or "audio"
    index: int  # 0-based among the tracks of its kind
    codec: str | None = None
    width: int | None = None  # stored pixels, before rotation and sample aspect ratio
    height: int | None = None
    fps: float | None = None  # average
    sample_rate: int | None = None
    channels: int | None = None
    duration: float | None = None  # seconds
    rotation: int | None = None  # degrees clockwise that turn the stored picture upright
    language: str | None = None
    default: bool = False


@dataclass(frozen=True)
class MediaInfo:
    """A container and its audio and video tracks. Cover art is not a track."""

    format: str
    duration: float | None  # seconds
    tracks: tuple[TrackInfo, ...]

    def of_kind(self, kind: str) -> tuple[TrackInfo, ...]:
        """The tracks of one kind, ``"video"`` or ``"audio"``, in file order."""
        return tuple(track for track in self.tracks if track.kind == kind)

    @property
    def still(self) -> bool:
        """Whether it is one picture: FFmpeg names the demuxers of picture files ``png_pipe`` and alike."""
        return self.format.endswith("_pipe")


@dataclass(frozen=True)
class Clip:
    """What was really taken from one file.

    ``frames`` is uint8 ``(T, 3, H, W)`` RGB, upright and already resized; ``frame_times`` is
    float64 ``(T,)``: true presentation times in seconds from the start of the media (the earliest
    track's start is 0). ``waveform`` is float32 ``(n,)`` in [-1, 1], 16 kHz mono; its sample 0 lies
    at ``start``, so a late track begins with silence. ``shown_until`` is when the picture is over,
    or the frame after the last of these was to be taken, which could not be decoded; None: at ``end``. ``refused`` says
    that the disk did not give all that was to be read: another time it may.
    """

    path: str
    frames: np.ndarray[Any, np.dtype[np.uint8]] | None
    frame_times: np.ndarray[Any, np.dtype[np.float64]] | None
    waveform: np.ndarray[Any, np.dtype[np.float32]] | None
    audio_status: AudioStatus
    start: float
    end: float | None  # None: the media does not say where it ends
    info: MediaInfo
    shown_until: float | None = None
    source_fps: float | None = None  # of the span that was sampled
    source_size: tuple[int, int] | None = None  # (height, width) as displayed, before resizing
    asked_fps: float = 2.0
    notices: tuple[str, ...] = ()
    refused: bool = False

    @property
    def sampled_fps(self) -> float | None:
        """Frames per second really sampled; what was asked for when there is one frame only."""
        if self.frame_times is None:
            return None
        count = len(self.frame_times)
        seconds = float(self.frame_times[-1] - self.frame_times[0])
        return (count - 1) / seconds if count > 1 and seconds > 0 else self.asked_fps

    @property
    def second_per_grid(self) -> float | None:
        """Seconds between temporal grid steps, which hold two frames each (Qwen2.5-Omni's rule)."""
        fps = self.sampled_fps
        return None if fps is None else 2.0 / fps

    @property
    def audio_seconds(self) -> float:
        """Length of the waveform in seconds."""
        return 0.0 if self.waveform is None else self.waveform.size / SAMPLE_RATE
