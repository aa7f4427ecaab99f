"""What a report shows of a moment: a frame with its kept patches, and the sound around it with what was kept."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from echopix_cli.errors import EchopixError
from echopix_cli.results import Answer, KeptToken, Moment

if TYPE_CHECKING:
    from echopix_cli.media import Clip, DecodePlan

Box = tuple[float, float, float, float]
_Span = tuple[float, float | None]
_SHOWN = 5  # moments of an answer
_PIXELS = 640 * 360  # of a frame
_AROUND = 5.0  # seconds in which a frame is looked for, where none begins at its own time
_MARGIN = 1.0  # seconds of sound before and after a moment
_LONGEST = 60.0  # seconds of sound that are drawn
_POINTS = 240  # of an envelope
_QUIET = 0.02  # peak below which a sound is drawn as quiet as it is
_PATIENCE = 60.0  # seconds that reads which come to nothing may take of one file
_JOINED = 0.01  # seconds between kept tokens that are drawn as one


@dataclass(frozen=True)
class Still:
    """A frame as JPEG, its true time in seconds, and the boxes of what was kept of it."""

    jpeg: bytes
    width: int
    height: int
    time: float
    kept: tuple[Box, ...]


@dataclass(frozen=True)
class Wave:
    """Sound from ``start`` to ``end``, in seconds: its lowest and highest values, evenly spread and in [-1, 1], and
    the stretches of which tokens were kept."""

    start: float
    end: float
    envelope: tuple[tuple[float, float], ...]
    kept: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Exhibit:
    """A moment and what can be shown of it."""

    moment: Moment
    still: Still | None
    wave: Wave | None


class Exhibitor:
    """Reads a file again for the moments of its answers, each frame and sound once.

    Args:
        path: of the file.
        plan: that the answers were made with: its tracks and limits hold.
    """

    def __init__(self, path: str | os.PathLike[str], plan: DecodePlan) -> None:
        self._path, self._plan, self._lost = os.fspath(path), plan, 0.0
        self._frames: dict[tuple[float, _Span | None], tuple[bytes, int, int, float] | None] = {}
        self._sounds: dict[tuple[float, float], tuple[tuple[float, float], ...] | None] = {}

    def exhibits(self, answer: Answer) -> list[Exhibit]:
        """The highest moments of an answer that lists its kept tokens; what cannot be read again is left out."""
        return [
            Exhibit(moment, self._still(answer, moment), self._wave(answer, moment))
            for moment in answer.moments[:_SHOWN]
        ]

    def _still(self, answer: Answer, moment: Moment) -> Still | None:
        if not answer.sampling.frames:
            return None
        peak = _peak(answer.kept_tokens, moment)
        step = next((t for t in answer.kept_tokens if t.modality == "video" and t.start <= peak < t.end), None)
        begin = peak if step is None else step.start
        only = (answer.sampling.start, answer.sampling.end) if answer.sampling.frames == 1 else None
        if (begin, only) not in self._frames:
            self._frames[begin, only] = self._frame(begin, only)
        found = self._frames[begin, only]
        if found is None:
            return None
        kept = [t.box for t in answer.kept_tokens if t.modality == "video" and step and t.start == step.start]
        return Still(*found, tuple(box for box in kept if box is not None))

    def _frame(self, at: float, only: _Span | None) -> tuple[bytes, int, int, float] | None:
        """JPEG, width, height and true time of the frame that is shown at a time, or of a span's only one."""
        plan = replace(
            self._plan, audio=False, max_pixels=_PIXELS, min_pixels=4, size_factor=2, min_frames=4, max_frames=16
        )
        around = [(max(0.0, at - before), at + after) for before, after in ((0.001, 0.2), (_AROUND, _AROUND))]
        for start, end in [only] if only else around:
            clip = self._read(replace(plan, start=start, end=end, fps=16.0))
            if clip is not None and clip.frames is not None and clip.frame_times is not None:
                from echopix_cli.media.stills import jpeg

                shown = [place for place, each in enumerate(clip.frame_times) if each <= at + 0.001]
                place = shown[-1] if shown else 0
                frame = clip.frames[place]
                return jpeg(frame), frame.shape[2], frame.shape[1], float(clip.frame_times[place])
        return None

    def _wave(self, answer: Answer, moment: Moment) -> Wave | None:
        if not answer.sampling.audio_seconds:
            return None
        first = max(answer.sampling.start, moment.start - _MARGIN)
        last = min(moment.end + _MARGIN, answer.sampling.end or math.inf)
        if last - first > _LONGEST:
            middle = _peak(answer.kept_tokens, moment)
            first = min(max(first, middle - _LONGEST / 2), last - _LONGEST)
            last = first + _LONGEST
        if last <= first:
            return None
        if (first, last) not in self._sounds:
            self._sounds[first, last] = self._envelope(first, last)
        envelope = self._sounds[first, last]
        if envelope is None:
            return None
        return Wave(first, last, envelope, _joined(answer.kept_tokens, first, last))

    def _envelope(self, start: float, end: float) -> tuple[tuple[float, float], ...] | None:
        """Lowest and highest values of the sound, evenly spread from ``start`` to ``end``: silence where it is over."""
        clip = self._read(replace(self._plan, video=False, start=start, end=end, max_audio_seconds=None))
        if clip is None or clip.waveform is None or not len(clip.waveform):
            return None
        import numpy as np

        from echopix_cli.media.values import SAMPLE_RATE

        silence = max(0, round((end - start) * SAMPLE_RATE) - len(clip.waveform))
        wave = np.pad(clip.waveform, (0, silence)) / max(float(np.abs(clip.waveform).max()), _QUIET)
        parts = np.array_split(wave, min(_POINTS, len(wave)))
        return tuple((float(part.min()), float(part.max())) for part in parts)

    def _read(self, plan: DecodePlan) -> Clip | None:
        from echopix_cli.decoding.worker import decode

        if self._lost > _PATIENCE:
            return None
        began = time.monotonic()
        try:
            return decode(self._path, plan)
        except EchopixError:  # the answer stands; its page says that this is missing
            self._lost += time.monotonic() - began
            return None


def _peak(tokens: Sequence[KeptToken], moment: Moment) -> float:
    """The time within a moment at which most of its attention lies."""
    shares: dict[tuple[float, float], float] = {}
    for token in tokens:
        if token.modality == moment.modality and moment.start <= token.start and token.end <= moment.end:
            shares[token.start, token.end] = shares.get((token.start, token.end), 0.0) + token.share
    start, end = max(shares, key=lambda span: shares[span], default=(moment.start, moment.end))
    return start if moment.modality == "video" else (start + end) / 2


def _joined(tokens: Sequence[KeptToken], first: float, last: float) -> tuple[tuple[float, float], ...]:
    """Stretches of kept sound between two times."""
    found: list[tuple[float, float]] = []
    for token in sorted((t for t in tokens if t.modality == "audio"), key=lambda token: token.start):
        start, end = max(token.start, first), min(token.end, last)
        if end <= start:
            continue
        if found and start <= found[-1][1] + _JOINED:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return tuple(found)
