"""16 kHz mono sound laid out on the time line of a span."""

from __future__ import annotations

from typing import Any

import av
import numpy as np

from echopix_cli.media.values import SAMPLE_RATE

_STEP = 60  # seconds of sound that are resampled at once

Samples = np.ndarray[Any, np.dtype[np.float32]]


class Timeline:
    """Collects pieces of sound at their places; what lies between them is silence.

    Args:
        start: time in seconds of the first sample.
        limit: the most samples to keep; later ones are dropped.
    """

    def __init__(self, start: float, limit: int) -> None:
        self.start = start
        self.limit = limit
        self.length = 0  # samples up to the end of the last piece
        self.reached = 0  # samples up to the furthest place that sound was offered for, kept or not
        self.first: int | None = None  # the first place of sound that was offered, kept or not
        self._pieces: list[tuple[int, Samples]] = []
        self._beyond: list[tuple[int, Samples]] = []  # what was offered behind the limit

    def following(self, start: float, limit: int) -> Timeline:
        """The time line that begins at ``start``, not before this one's end, with what was offered here too late."""
        following, shift = Timeline(start, limit), self.shift(start)
        for place, samples in self._beyond:
            following.add(place - shift, samples)
        return following

    def shift(self, start: float) -> int:
        """Samples from the start of this time line to that of one which begins at ``start``."""
        return round(start * SAMPLE_RATE) - round(self.start * SAMPLE_RATE)

    @property
    def full(self) -> bool:
        """Whether nothing that comes later could be kept."""
        return self.reached >= self.limit

    def place(self, seconds: float) -> int:
        """The sample number of a time; negative before the start."""
        return round((seconds - self.start) * SAMPLE_RATE)

    def add(self, place: int, samples: Samples) -> None:
        """Put float32 ``(n,)`` samples at a place, cutting what lies outside the span."""
        if place < 0:
            samples, place = samples[-place:], 0
        if samples.size:
            self.reached = max(self.reached, place + samples.size)
            self.first = place if self.first is None else min(self.first, place)
        left = max(0, self.limit - place)
        if samples.size > left:
            self._beyond.append((place + left, samples[left:]))
        samples = samples[:left]
        if samples.size:
            self._pieces.append((place, samples))
            self.length = max(self.length, place + samples.size)

    def waveform(self) -> Samples:
        """All pieces as float32 ``(length,)`` in [-1, 1]."""
        sound = np.zeros(self.length, np.float32)
        for place, samples in self._pieces:
            sound[place : place + samples.size] = samples
        return np.clip(sound, -1.0, 1.0, out=sound)


class Stretch:
    """One unbroken stretch of sound at one sampling rate, resampled onto a timeline as it comes.

    Args:
        rate: Hz of what is pushed.
        begin: time in seconds of its first sample.
        place: number of that sample on the timeline, where it does not follow from the time alone.
    """

    def __init__(self, timeline: Timeline, rate: int, begin: float, place: int | None = None) -> None:
        self.rate = rate
        self.begin = begin
        self.pushed = 0  # samples at ``rate``
        self.dropped = False  # whether samples were left out because the timeline was full
        self._timeline = timeline
        self._place = timeline.place(begin) if place is None else place
        # libswresample starts and ends without delay, so output sample 0 lies at ``begin``.
        self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)

    @property
    def end(self) -> float:
        """Time in seconds just after the last sample."""
        return self.begin + self.pushed / self.rate

    def go_on(self, timeline: Timeline) -> None:
        """Write what comes from here on to a time line that follows the one before."""
        self._place -= self._timeline.shift(timeline.start)
        self._timeline = timeline

    def push(self, samples: Samples) -> None:
        """Append float32 ``(n,)`` mono samples; what is not a number becomes silence."""
        # In steps of some seconds: at the few samples a second that a damaged header may state, one block
        # lasts for hours, and would fill the memory before anybody could look at its length.
        step = max(1, self.rate * _STEP)
        for begin in range(0, samples.size, step):
            if self._timeline.full:
                self.dropped = True
                return
            part = samples[begin : begin + step]
            # Before resampling, whose filter would spread one NaN over its neighbours.
            if not np.isfinite(part).all():
                part = np.nan_to_num(part, nan=0.0, posinf=0.0, neginf=0.0)
            frame = av.AudioFrame.from_ndarray(part[None], format="fltp", layout="mono")
            frame.sample_rate = self.rate
            self.pushed += part.size
            self._collect(self._resampler.resample(frame))

    def close(self) -> None:
        """Write what the resampler still holds."""
        self._collect(self._resampler.resample(None))

    def _collect(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray()[0].astype(np.float32)
            self._timeline.add(self._place, samples)
            self._place += samples.size
