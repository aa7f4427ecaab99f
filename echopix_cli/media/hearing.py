"""Decoded frames of sound, mixed to one channel and laid on a timeline in blocks.

A frame of 21 ms takes as long to convert and to resample as a second does, so frames of one kind are put together
first. What comes out is the same, sample for sample.
"""

from __future__ import annotations

import math
from typing import Any

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame

from echopix_cli.media.demux import Damage
from echopix_cli.media.downmix import Downmix, Planes
from echopix_cli.media.memory import require_memory
from echopix_cli.media.source import READ_ERRORS
from echopix_cli.media.timeline import Samples, Stretch, Timeline
from echopix_cli.media.values import SAMPLE_RATE

_GAP = 0.05  # seconds; smaller jumps are rounded timestamps, larger ones are real gaps
_JUMP = 0.5  # seconds; sound that runs ahead of its times by more was written twice, or is timed wrongly: it is kept
_STEADY = 16  # frames in a row that begin before the sound in front of them ends: fewer are jitter
_JOINED = 262_144  # samples put together, all channels together,
_FEWEST = 1024  # but not fewer than these in each
_MARGIN = 0.1  # seconds before the timeline is full from which on frames are taken one by one
# PyAV 18 finds a frame's planes by looking for a null pointer, and from 8 planes on there is none: it reads
# beyond the list, and crashes.
_MANY_CHANNELS = 8


class Hearing:
    """What was heard of a track so far: stretches of sound, each at its own time.

    Args:
        timeline: where the sound is laid.
        damage: counts the frames that cannot be used.
        origin: seconds; when the whole track begins, of which this hears a later part: it is resampled as if it had
            been heard from there on. None: the part begins where it begins.
        tick: seconds to which the container rounds times.
    """

    def __init__(self, timeline: Timeline, damage: Damage, origin: float | None = None, tick: float = 0.0) -> None:
        self.begin: float | None = None  # seconds; time of the first sample
        self.downmix = Downmix()
        self._timeline, self._damage = timeline, damage
        self._origin, self._tick = origin, tick
        self._stretch: Stretch | None = None
        self._fifo = AudioFifo()
        self._kind: tuple[str, int, int] | None = None  # of the frames that may be put together
        self._nearly_full = timeline.start + timeline.limit / SAMPLE_RATE - _MARGIN
        self._ahead = 0  # frames in a row that began before the end of the sound,
        self._least = math.inf  # by so many seconds at least
        self._excess = 0  # samples still to be left out, so that sound and times agree again

    def go_on(self, timeline: Timeline) -> bool:
        """Lay what comes from here on onto a time line that follows the one before; False if some was dropped."""
        self._timeline, self._nearly_full = timeline, timeline.start + timeline.limit / SAMPLE_RATE - _MARGIN
        self.downmix.forget_cancelled()
        if self._stretch is None:
            return True
        self._stretch.go_on(timeline)
        return not self._stretch.dropped

    @property
    def end(self) -> float | None:
        """Time in seconds just after the last sample; None before the first."""
        stretch = self._stretch
        return None if stretch is None else stretch.begin + (stretch.pushed + self._fifo.samples) / stretch.rate

    def hear(self, frame: AudioFrame, time: float | None, *, joined: bool = False) -> None:
        """Take a frame that begins at a time in seconds; None: where the one before it ended.

        If ``joined``, a recording begins with it, which may stand over the end of the one before.
        """
        kind = (frame.format.name, frame.sample_rate, frame.layout.nb_channels)
        end = self.end
        if kind != self._kind or joined:
            self._ahead, self._least, self._excess = 0, math.inf, 0
        elif time is not None and end is not None and not self._excess:
            self._watch(end - time, frame.sample_rate)
        if self._excess:
            omitted = min(self._excess, frame.samples)
            self._excess -= omitted
            if omitted < frame.samples:
                self._flush()
                self._lay(frame, None, omitted=omitted)
            return
        if (
            kind != self._kind
            or joined
            or end is None
            or (time is not None and time - end > _GAP)
            or end + frame.samples / frame.sample_rate > self._nearly_full
        ):
            self._flush()
            # The first of a kind goes alone: it shows whether they can be converted at all.
            self._kind = kind if self._lay(frame, time, joined) else None
            self._fifo = AudioFifo()  # one takes a single kind
            return
        frame.pts = None  # the queue would insist on times without jumps
        self._fifo.write(frame)
        if self._fifo.samples * kind[2] >= _JOINED and self._fifo.samples >= _FEWEST:
            self._flush()

    def _watch(self, ahead: float, rate: int) -> None:
        """Note by how many seconds sound runs ahead of its times; what is too much of it, where that lasts."""
        if not _GAP < ahead <= _JUMP:
            self._ahead, self._least = 0, math.inf
            return
        self._ahead, self._least = self._ahead + 1, min(self._least, ahead)
        if self._ahead == _STEADY:
            self._excess = round(self._least * rate)
            self._ahead, self._least = 0, math.inf

    def close(self) -> None:
        """Lay down what is still held."""
        self._flush()
        if self._stretch is not None:
            self._stretch.close()

    def _flush(self) -> None:
        joined = self._fifo.read()
        if joined is not None:
            self._lay(joined, None)

    def _lay(self, frame: AudioFrame, time: float | None, joined: bool = False, omitted: int = 0) -> bool:
        """Push a frame onto the stretch, or onto a new one where the sound is interrupted; whether that worked.

        Args:
            omitted: samples at its beginning that are left out.
        """
        stretch = self._stretch
        try:
            samples = self.downmix.mix(planes(frame), frame.sample_rate, speakers(frame))[omitted:]
            if stretch is None:
                samples, stretch = self._begin(samples, frame.sample_rate, time)
                if stretch is None:
                    return False
                self.begin = stretch.begin
            elif joined and time is not None:
                stretch.close()
                stretch = Stretch(self._timeline, frame.sample_rate, time)
            elif frame.sample_rate != stretch.rate or (time is not None and time - stretch.end > _GAP):
                stretch.close()
                # Backward jumps are not followed: sound that was heard is not overwritten.
                stretch = Stretch(self._timeline, frame.sample_rate, max(stretch.end, time or 0.0))
            self._stretch = stretch
            stretch.push(samples)
        except READ_ERRORS as error:
            require_memory(error)
            self._damage.packets += 1
            return False
        return True

    def _begin(self, samples: Samples, rate: int, time: float | None) -> tuple[Samples, Stretch | None]:
        """The first stretch, and what is pushed onto it first; None if nothing is left of that.

        Samples at 16 kHz lie between those of other rates, and coincide with every so many: there it begins, so that
        they are those of the whole track.
        """
        if time is None or self._origin is None:
            return samples, Stretch(self._timeline, rate, time or 0.0)
        passed = round((time - self._origin) * rate)
        frames = round(passed / samples.size) * samples.size  # as many as there are if all of them are of one size
        if abs(frames - passed) <= self._tick * rate + 1:
            passed = frames
        skipped = -passed % (rate // math.gcd(rate, SAMPLE_RATE))
        if skipped >= samples.size:
            return samples, None
        passed += skipped
        place = (
            round(self._origin * SAMPLE_RATE) + passed * SAMPLE_RATE // rate - round(self._timeline.start * SAMPLE_RATE)
        )
        return samples[skipped:], Stretch(self._timeline, rate, self._origin + passed / rate, place)


def speakers(frame: AudioFrame) -> tuple[str, ...]:
    """FFmpeg's names of the places that a frame's channels stand for; none where the file does not tell them.

    The usual ones are not taken instead: of a field recorder's six channels the fourth is a microphone like the others.
    """
    names = tuple(channel.name for channel in frame.layout.channels)
    return () if "NONE" in names else names


def planes(frame: AudioFrame) -> Planes:
    """A frame's channels as float32 ``(channels, n)``, full scale at ±1."""
    if frame.format.is_planar and frame.layout.nb_channels >= _MANY_CHANNELS:
        frame = _packed(frame)
    # Planar: (channels, n); packed: (1, n * channels).
    block: np.ndarray[Any, np.dtype[Any]] = frame.to_ndarray()
    if not frame.format.is_planar:
        block = block.reshape(-1, len(frame.layout.channels)).T
    if block.dtype == np.uint8:
        block = (block.astype(np.float32) - 128.0) / 128.0
    elif np.issubdtype(block.dtype, np.integer):
        block = block.astype(np.float32) / -float(np.iinfo(block.dtype).min)
    return block.astype(np.float32, copy=False)


def _packed(frame: AudioFrame) -> AudioFrame:
    """The same samples, interleaved in one plane."""
    converter = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
    frame.pts = None
    return converter.resample(frame)[0]
