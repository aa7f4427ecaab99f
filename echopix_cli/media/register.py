"""What the packets of a video track tell, read once: a window of a long film begins where it begins in there."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from echopix_cli.errors import MediaError
from echopix_cli.media.clock import Clock
from echopix_cli.media.counting import Counted
from echopix_cli.media.demux import Damage, begins_anew, by_decoding_times, packets
from echopix_cli.media.plan import Limits
from echopix_cli.media.sampling import Flags

_UNTIMED = -(2**63)  # stands for a decoding time that a packet does not tell
DELAY = 16  # packets: so many of frames that are shown after a frame may stand before its own, in H.264 and HEVC
_RUN_IN = 10.0  # seconds before a span that are kept in reach: some keyframes are none, and decoding starts before them


class Register:
    """The packets of a video track from where its container stands, numbered; read no further than was needed so far.

    Args:
        name: of the file, as shown.
        container: that is read. It belongs to whoever made it.
        stream: of the container.
        clock: of the file.
        limits: how many packets there may be.
    """

    def __init__(self, name: str, container: InputContainer, stream: VideoStream, clock: Clock, limits: Limits) -> None:
        self.container, self.stream = container, stream
        self.ticks, self.lengths, self.places = array("q"), array("q"), array("q")
        self.decoding = array("q")  # decoding times
        self.keys, self.visible = bytearray(), bytearray()
        self.parts = False  # whether packets without a time of presentation are known to be parts of frames
        self.counted: dict[bool, Counted] = {}  # what came out of the decoder, where there were such packets
        self.tick = float(stream.time_base or 0)
        self._name, self._most, self._origin = name, limits.max_packets, clock.origin
        self._cuts: list[int] = []  # keyframes that are shown after all that stands before them in the file
        self._timeless = array("q")  # packets that tell no time of presentation
        self._anew = array("q")  # of those, the ones that part all before them from all after
        self._latest: float = -math.inf  # tick so far
        self._unmarked = False  # whether there are packets that are marked as no keyframes
        self._damage = Damage()
        self._troubles: list[tuple[int, Damage]] = []  # what was found at a packet, or behind it
        self._packets = packets(container, stream, self._damage, clock)
        self._over = False

    def span(self, start: float, end: float | None) -> tuple[int, int]:
        """The packets, from one up to before another, that tell all about a span of the media; read so far.

        Args:
            start, end: seconds from the start of the media; None: its end.

        Raises:
            MediaError: the track holds more packets than the limits allow.
        """
        until = self._until(self._begin(start - _RUN_IN), end)
        while until is None:
            until = len(self.ticks) if not self._read() or self._behind(end) else None
        return self._begin(start - _RUN_IN), until

    def timeless(self, until: int) -> int:
        """How many packets before one tell no time of presentation."""
        return bisect_left(self._timeless, until)

    def in_order(self, until: int) -> bool:
        """Whether all packets before one tell when they are decoded and nothing else, as in AVI.

        Frames are shown in the order of these times: the first one at the earliest, and so on.
        """
        told = np.frombuffer(self.decoding, np.int64)[:until] != _UNTIMED
        return 0 < until == self.timeless(until) and self.tick > 0 and bool(told.all())

    @property
    def given_up(self) -> bool:
        """Whether the last packet stands before a broken place that could not be stepped over."""
        return self._damage.given_up

    @property
    def marked(self) -> bool:
        """Whether keyframes are marked. Without an index an AVI has them all marked, if they do not tell themselves."""
        codec = self.stream.codec_context
        alike = self._unmarked or codec is None or codec.codec.intra_only
        return alike or not by_decoding_times(self.container)

    def parting(self, begin: int, until: int) -> Flags:
        """Of packets in order, from one up to before another, which part all before them from all after: flags."""
        return np.isin(np.arange(begin, until), np.frombuffer(self._anew, np.int64))

    def damage(self, start: float, until: int) -> Damage:
        """What could not be read of a span that begins at a time, in seconds, and ends before a packet."""
        found, first = Damage(), self._begin(start)
        for number, trouble in self._troubles:
            if first <= number < max(until, 1):
                found.add(trouble)
                found.ticks += self.ticks[number : number + 2]
        return found

    def _begin(self, start: float) -> int:
        """Where all begins that is shown from a time on: 0 if the packets' order does not tell."""
        cuts: Sequence[int] = self._cuts
        times = self.ticks
        if self._timeless and not self.parts:
            if not self.in_order(len(self.ticks)):
                return 0
            cuts, times = self._anew, self.decoding
        elif not self.marked:
            return 0
        latest = (start + self._origin) / self.tick if self.tick else -1.0
        known = bisect_right(cuts, latest, key=times.__getitem__)
        return cuts[known - 1] if known else 0

    def _until(self, begin: int, end: float | None) -> int | None:
        """The number after the first packet, from one on, that is decoded after a time; None where it was not met.

        Where the order of the frames is not known, so many more as may be shown before that one.
        """
        if end is not None:
            known = max(begin, len(self.ticks) - self._delay)
            later = np.frombuffer(self.decoding, np.int64)[begin:known] * self.tick - self._origin > end
            if later.any():
                return begin + int(later.argmax()) + 1 + self._delay
        return len(self.ticks) if self._over else None

    def _behind(self, end: float | None) -> bool:
        """Whether the last packet is decoded after a time: nothing is shown before, so whatever follows is later."""
        last = len(self.ticks) - 1 - self._delay
        return end is not None and last >= 0 and self.decoding[last] * self.tick - self._origin > end

    @property
    def _delay(self) -> int:
        return DELAY if self._timeless and not self.parts else 0

    def _read(self) -> bool:
        """Take the next packet; False where there is none."""
        before, number = replace(self._damage), len(self.ticks)
        packet = next(self._packets, None)
        if self._damage != before:
            self._troubles.append((max(0, number - 1), self._damage.since(before)))
        if packet is None:
            self._over = True
            return False
        if number >= self._most:
            raise MediaError(
                f"{self._name} holds more than {self._most} video packets",
                "choose a shorter span, or raise the setting limit_packets",
            )
        if packet.pts is None:
            self._timeless.append(number)
            if begins_anew(self.stream, packet):
                self._anew.append(number)
        # The second field of a frame has its first one's time.
        tick = packet.pts if packet.pts is not None else self.ticks[-1] if number else 0
        if packet.is_keyframe and tick > self._latest:
            self._cuts.append(number)
        self._latest = max(self._latest, tick)
        self.ticks.append(tick)
        self.lengths.append(packet.duration or 0)
        self.places.append(-1 if packet.pos is None else packet.pos)
        self.decoding.append(_UNTIMED if packet.dts is None else packet.dts)
        self.keys.append(packet.is_keyframe)
        self._unmarked = self._unmarked or not packet.is_keyframe
        self.visible.append(not packet.is_discard)
        return True
