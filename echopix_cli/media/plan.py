"""What to take from a media file, and how much of a hostile one to put up with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from echopix_cli.errors import MediaError, UsageError
from echopix_cli.times import clock
from echopix_cli.times import parse_time as parse_time


@dataclass(frozen=True)
class Limits:
    """Bounds against decompression bombs. Generous for honest files; each has its own message.

    Each is a setting of its own, with ``limit_`` in place of ``max_``.
    """

    max_side: int = 16_384  # pixels along one edge of a decoded frame
    max_area: int = 134_217_728  # pixels of a decoded frame
    max_tracks: int = 64  # streams a container may declare
    max_packets: int = 10_000_000  # video packets: 92 hours at 30 frames per second
    max_decoded_frames: int = 3_000_000  # to reach the sampled ones: 27 hours at 30 frames per second
    max_decoded_bytes: int = 2 * 2**40  # of picture and sound: 350 thousand frames of 1920x1080
    max_frame_bytes: int = 4 * 2**30  # all sampled frames together, after resizing
    max_memory: int = 6 * 2**30  # bytes that reading one file may take: twice what the largest picture does
    max_picture_seconds: float = 48 * 3600.0  # from the first frame in the span to the last
    max_sound_seconds: float = 12 * 3600.0  # 2.8 GB of 16 kHz float32


@dataclass(frozen=True)
class DecodePlan:
    """What to take from a file. The defaults are the model family's (qwen-omni-utils 0.0.9).

    Args:
        fps: frames sampled per second of video, before ``min_frames`` and ``max_frames`` apply.
        min_pixels, max_pixels: bounds of a resized frame's area; ``max_pixels`` wins.
        size_factor: resized edges are multiples of this (patch 14, merged by 2).
        start, end: the span in seconds from the start of the media; ``None`` means its edge.
        video_track, audio_track: 0-based among the tracks of that kind; ``None`` takes the best.
        keyframes: take in place of each sampled frame the keyframe nearest to it, which is decoded alone, if there is
            one within half the distance between samples.
        max_audio_seconds: longer sound is cut there, and a notice says how much was left out.

    Raises:
        UsageError: a number that no file could satisfy.
        MediaError: a span that holds nothing.
    """

    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 120
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 105_369
    size_factor: int = 28
    start: float | None = None
    end: float | None = None
    video: bool = True
    audio: bool = True
    video_track: int | None = None
    audio_track: int | None = None
    keyframes: bool = False
    max_audio_seconds: float | None = None
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        positive = ("fps", "min_frames", "max_frames", "min_pixels", "max_pixels", "size_factor")
        for name in (*positive, "max_audio_seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} must be a positive number, not {value}")
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise MediaError(f"the {name} of the span must be 0 s or later, not {value}")
        if self.end is not None and self.end <= self.from_time:
            raise MediaError(
                f"the span ends at {clock(self.end)}, which is not after its start at {clock(self.from_time)}",
                "give an end later than the start",
            )

    @property
    def from_time(self) -> float:
        """Start of the span in seconds; 0 when none was asked for."""
        return self.start or 0.0
