"""One continuous clock for a file whose time stamps start again or jump.

Transport streams that were joined, recordings with a reconnect and chained Ogg files hold several clocks, one after
another. Picture and sound change from one to the next at different packets, so all packets of both tracks are looked
at, in file order and by their decoding times, before anything is decoded.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.stream import VideoStream

from echopix_cli.media.memory import require_memory
from echopix_cli.media.pulse import beat
from echopix_cli.media.resync import Broken, broken_between
from echopix_cli.media.source import READ_ERRORS, late_tracks, open_regular, origin_of
from echopix_cli.media.transport import Turns, goes_on, in_place, torn

# Containers that may hold more than one clock, and how many seconds without any picture or sound they may hold:
# a longer time is a jump. Broadcast recordings are cut together; the others let a picture stand for minutes.
_LONGEST_GAP = {"mpegts": 10.0, "mpeg": 10.0, "flv": 600.0, "ogg": 600.0}
_PAUSE = 600.0  # the same, whatever the container, where there is only picture or only sound
_MUTED = 3600.0  # seconds; a jump up to this one is told as a pause where the longest that is kept is already _PAUSE
_BACK = 0.1  # seconds that the times of one track may go back by without meaning anything
_REORDERED = 1.0  # the same for presentation times, where there are no others: frames are stored in another order
_APART = 2.0  # seconds between the places of picture and sound that belong together, in file order
_OVERLAP = 0.25  # seconds of sound that may stand over the end of the picture where two recordings meet
_SEAM = 3  # packets beside a join that carry pieces of both recordings' counts
_MISSED = 0.2  # seconds from one packet of a track to the next in which there may have been others
_REMEMBERED = 4  # clocks that a packet may still belong to

_Track = TypeVar("_Track", VideoStream, AudioStream)


@dataclass(frozen=True)
class Run:
    """Packets of a track, from one on, that belong to the same clock."""

    first: int  # number of the first one among the track's packets that carry data
    shift: float  # seconds to add to their times
    start: float  # seconds, container time after the shift, of the first one


@dataclass(frozen=True)
class Clock:
    """How the times in a file become seconds from the start of the media.

    Args:
        origin: container time, in seconds, that is time 0.
        runs: by stream index; tracks with a single clock have none.
        closed: seconds of the pauses that the file's clock passed over and that were closed up.
        torn: by stream index; numbers of packets before which the file is damaged, though nothing else says so.
        late: kinds, "video" or "audio", of the tracks that FFmpeg met behind where it looks for them.
        renumbered: whether a track goes on under another number, which FFmpeg takes for another track.
        broken: what tells that of two packets which leave a time out between them, where that is asked for each.
    """

    origin: float = 0.0
    runs: Mapping[int, Sequence[Run]] = field(default_factory=dict)
    closed: Sequence[float] = ()
    torn: Mapping[int, Sequence[int]] = field(default_factory=dict)
    late: Sequence[str] = ()
    renumbered: bool = False
    broken: Broken | None = field(default=None, compare=False)

    @property
    def jumps(self) -> bool:
        """Whether the file holds more than one clock."""
        return bool(self.runs)

    def straightened(
        self, stream: _Track, packets: Iterator[Packet[_Track]], first: int = 0
    ) -> Iterator[Packet[_Track]]:
        """All packets of a track that carry data, from the ``first`` one on, with times on the one clock."""
        runs = self.runs.get(stream.index)
        if not runs or stream.time_base is None:
            yield from packets
            return
        following, shift = 0, 0
        for number, packet in enumerate(packets, first):
            while following < len(runs) and runs[following].first <= number:
                shift = round(runs[following].shift / stream.time_base)
                following += 1
            if packet.is_corrupt and any(abs(run.first - number) <= _SEAM for run in runs[1:]):
                packet.is_corrupt = False  # the numbers of its pieces do not go on; that is no damage
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift
            yield packet

    def joins(self, stream: VideoStream | AudioStream) -> list[float]:
        """When a track's clocks begin, in seconds from the start of the media, but for the first."""
        return [run.start - self.origin for run in self.runs.get(stream.index, ())[1:]]


def read_clock(
    path: str | os.PathLike[str],
    container: InputContainer,
    tracks: Sequence[VideoStream | AudioStream],
    most: int,
    *,
    joined: bool = False,
) -> Clock:
    """The clock of a file that was just opened; all its packets are read if it may hold more than one.

    Args:
        path, container: of the file.
        joined: whether it is Matroska, and known to do so.
        tracks: those that will be read, the picture first.
        most: packets to look at.
    """
    origin = origin_of(container)
    gap = math.inf if joined else _LONGEST_GAP.get(container.format.name)
    timed = [track for track in tracks if track.time_base is not None]
    broken = broken_between(path, container.format.name)
    if gap is None or not timed:
        return Clock(origin, broken=broken)
    wanted = {track.index for track in timed}
    turns = Turns(container, timed if container.format.name == "mpegts" else ())
    seen = {*wanted, *(track.index for track in turns.others)}
    for stream in container.streams:
        if stream.index not in seen:
            stream.discard = Discard.all
    if len({track.type for track in timed}) == 1:
        gap = max(gap, _PAUSE)
    record = _Record({track.index: float(track.time_base or 0) for track in timed}, gap, matroska=joined)
    try:
        for packet in in_place(container, *timed, *turns.others):
            beat()
            turns.see(packet)
            if packet.size > 0 and packet.stream.index in wanted:
                record.add(packet)
                most -= 1
                if most <= 0:
                    break
    except (IndexError, *READ_ERRORS) as error:  # PyAV can raise an IndexError for tracks that turn up late
        require_memory(error)  # whoever decodes meets all else again, and says so
    damaged: dict[int, list[int]] = {}
    if container.format.name == "mpegts":
        with open_regular(path) as file:
            record.keep_pauses(file)
            damaged = record.torn(file)
    shifts = record.shifts()
    late = late_tracks(container)
    return Clock(origin, record.runs(shifts), record.closed(shifts), damaged, late, turns.taken, broken)


@dataclass
class _Part:
    """What one track holds of one clock. Times are seconds as stored."""

    first: float  # earliest presentation time
    last: float  # latest decoding time so far
    end: float  # latest end of a presentation so far
    before: tuple[int, float] | None  # the clock that the track came from, and the end of its part until then


class _Record:
    """Assigns packets to clocks.

    Args:
        units: seconds per time unit, by stream index, the picture's first.
        gap: seconds without any picture or sound that are no jump.
        matroska: whether the decoding times are FFmpeg's guesses.
    """

    def __init__(self, units: Mapping[int, float], gap: float, *, matroska: bool = False) -> None:
        self._units, self._gap, self._matroska = units, gap, matroska
        self._shifts: list[float] = []  # of each clock, as far as is known while reading
        self._parts: dict[tuple[int, int], _Part] = {}  # by stream index and clock
        self._current: dict[int, int] = {}  # the clock that each track is in
        self._ends: dict[int, float] = {}  # the continuous time up to which each track was read
        self._steps: dict[int, float] = {}  # usual distance of packets
        self._decoding: dict[int, bool] = {}  # whether the last packet told its decoding time
        self._behind: set[int] = set()  # tracks that began far behind the others, and have one clock so far
        self._untimed: dict[int, int] = {}  # packets since the last one that told a time
        self._count: dict[int, int] = {}
        self._runs: dict[int, list[tuple[int, int, float]]] = {}  # first packet, clock, its time as stored
        self._places: dict[int, int] = {}  # byte at which each track's last packet begins
        self._seams: dict[int, tuple[int, int]] = {}  # those of a track's packets before and after a new clock begins
        self._times: dict[int, float] = {}  # as stored, of each track's last packet
        self._gaps: list[tuple[int, int, int, int]] = []  # stream, packet after one, bytes where both begin
        self._paused: set[int] = set()  # clocks that are the one before them, after a pause

    def add(self, packet: Packet[Any]) -> None:
        """Take the next packet of the file."""
        index = packet.stream.index
        number = self._count[index] = self._count.get(index, -1) + 1
        decoding = packet.dts is not None and not self._matroska
        unit, ticks = self._units[index], packet.dts if decoding else packet.pts
        if ticks is None:
            self._go_on(index)
            return
        time, shown = ticks * unit, (ticks if packet.pts is None else packet.pts) * unit
        known = len(self._shifts)
        clock = self._clock_of(index, time, _BACK if decoding and self._decoding.get(index, True) else _REORDERED)
        place = self._places.get(index, 0)
        self._places[index] = place if packet.pos is None else packet.pos
        if time - self._times.get(index, time) > _MISSED and place < self._places[index]:
            self._gaps.append((index, number, place, self._places[index]))
        self._times[index] = time
        if len(self._shifts) > known > 0:
            self._seams[clock] = (place, self._places[index])
        self._decoding[index] = decoding
        part = self._parts.get((index, clock))
        if part is not None and clock == self._current.get(index):
            if time == part.last:
                self._go_on(index)
                return
            if time > part.last:
                # A running mean that one long distance moves little.
                passed = (time - part.last) / (1 + self._untimed.get(index, 0))
                step = self._steps.get(index, passed)
                self._steps[index] = step + min(passed - step, step) / 8
        self._untimed[index] = 0
        length = packet.duration * unit if packet.duration else self._steps.get(index, 0.0)
        if clock != self._current.get(index):
            self._runs.setdefault(index, []).append((number, clock, shown))
        if part is None:
            old = self._current.get(index)
            if old is not None:
                self._behind.discard(index)
            before = None if old is None else (old, self._parts[index, old].end)
            part = self._parts[index, clock] = _Part(shown, time, shown + length, before)
        part.first, part.last = min(part.first, shown), max(part.last, time)
        part.end = max(part.end, shown + length)
        self._current[index] = clock
        self._ends[index] = max(self._ends.get(index, time), time + self._shifts[clock] + length)

    def _go_on(self, index: int) -> None:
        """Take a packet that follows the one before it in its track, and tells no time of its own."""
        self._untimed[index] = self._untimed.get(index, 0) + 1
        if index in self._current:
            self._parts[index, self._current[index]].end += self._steps.get(index, 0.0)
            self._ends[index] += self._steps.get(index, 0.0)

    def _clock_of(self, index: int, time: float, back: float) -> int:
        """The clock of a packet that comes next in the file, which may be a new one."""
        if not self._shifts:
            self._shifts.append(0.0)
            return 0
        lead, newest = max(self._ends.values()), len(self._shifts) - 1
        current = self._current.get(index)
        if current is None:
            # Its place in the file says little: some write seconds of picture before any sound.
            if time + self._shifts[newest] < lead - _APART:
                self._behind.add(index)
            return newest
        clocks = [clock for clock in range(newest, max(-1, newest - _REMEMBERED), -1) if clock != current]
        for clock in [current, *clocks]:
            place, part = time + self._shifts[clock], self._parts.get((index, clock))
            forth = place - lead <= self._gap
            if part is not None:
                # Its own track tells best, and only the clock that it is in may have stood still.
                near = time - part.last <= _APART or (clock == current and forth)
                if time >= part.last - back and near:
                    return clock
            elif clock == newest and forth and place >= self._ends[index] - _APART:
                return clock
        self._shifts.append(lead - time)
        for other in [other for other in self._behind if abs(self._parts[other, newest].last - time) <= _APART]:
            self._move(other, newest, newest + 1)
        return newest + 1

    def _move(self, index: int, old: int, new: int) -> None:
        """Let a track begin in a clock that was not known yet when its first packets came."""
        self._behind.discard(index)
        part = self._parts[index, new] = self._parts.pop((index, old))
        self._current[index] = new
        self._runs[index] = [(number, new, shown) for number, _, shown in self._runs[index]]
        self._ends[index] = part.end + self._shifts[new]

    def keep_pauses(self, file: io.FileIO) -> None:
        """Find the jumps forward over which a transport stream goes on: nothing was sent, or it is damaged."""
        if not self._in_order:
            return
        jumps = [before - after for before, after in pairwise(self._shifts)]
        for clock, jump in enumerate(jumps, 1):
            beat()  # each is a look at megabytes of the file
            if self._gap < jump <= _PAUSE and clock in self._seams:
                seam = self._seams[clock]
                if goes_on(file, *seam) or torn(file, *seam):
                    self._paused.add(clock)

    def torn(self, file: io.FileIO) -> dict[int, list[int]]:
        """By stream index, the packets of a transport stream before which others are lost because it is damaged."""
        found: dict[int, list[int]] = {}
        for index, number, before, after in self._gaps:
            beat()
            if torn(file, before, after):
                found.setdefault(index, []).append(number)
        return found

    def shifts(self) -> list[float]:
        """Seconds to add to the times of each clock."""
        shifts = self._shifts[:1]
        for clock in range(1, len(self._shifts)):
            shifts.append(shifts[-1] if clock in self._paused else self._meeting(clock, shifts))
        return shifts

    def closed(self, shifts: Sequence[float]) -> list[float]:
        """Seconds by which the clocks jump forward, one after another.

        None where one jumps back, or too far, or is left again: recordings that were joined, or a wrong time stamp.
        """
        jumps = [before - after for before, after in pairwise(shifts) if before != after]
        most = _PAUSE if self._gap < _PAUSE else _MUTED
        return jumps if self._in_order and all(self._gap < jump <= most for jump in jumps) else []

    @property
    def _in_order(self) -> bool:
        """Whether no track goes back to a clock that it has left."""
        orders = [[clock for _, clock, _ in runs] for runs in self._runs.values()]
        return all(order == sorted(order) for order in orders)

    def runs(self, shifts: Sequence[float]) -> dict[int, list[Run]]:
        """The runs of each track; none where there is one clock only."""
        if len(set(shifts)) < 2:
            return {}
        found: dict[int, list[Run]] = {}
        for index, runs in self._runs.items():
            for number, clock, shown in runs:
                before = found.setdefault(index, [])
                if not before or before[-1].shift != shifts[clock]:
                    before.append(Run(number, shifts[clock], shown + shifts[clock]))
        return found

    def _meeting(self, clock: int, shifts: list[float]) -> float:
        """The shift with which a clock's parts follow what came before them without a gap.

        The picture follows its own end, unless sound would be written over for longer than codecs take to start.
        """
        found = []
        for index in self._units:
            part = self._parts.get((index, clock))
            if part is not None and part.before is not None and part.before[0] < clock:
                old, end = part.before
                found.append(end + shifts[old] - part.first)
        if not found:
            return self._shifts[clock]
        return found[0] if found[0] >= max(found) - _OVERLAP else max(found)
