"""When a video track shows what, read from its packets without decoding them.

Headers may lack a frame count or lie about it, so the sampling is planned on the timestamps themselves.
"""

from __future__ import annotations

import dataclasses
import os
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from av.video.stream import VideoStream

from echopix_cli.media.clock import Clock
from echopix_cli.media.cost import Meter
from echopix_cli.media.counting import count_frames, fill_times, frames_before
from echopix_cli.media.demux import Damage, can_omit, indexed, seek_before
from echopix_cli.media.plan import DecodePlan
from echopix_cli.media.recall import leave, take
from echopix_cli.media.register import DELAY, Register
from echopix_cli.media.sampling import SLIDE, Flags, Floats, Ints
from echopix_cli.media.source import again, opened, shown, video_tracks

_FALLBACK_FPS = 25.0  # FFmpeg's own guess for elementary streams, which carry no timestamps
_TOLERANCE = 1e-6  # seconds; timestamps are compared with times that people typed


@dataclass(frozen=True)
class Scan:
    """The frames of a video track (from the span's keyframe on): of every packet one, in decoding order.

    Where the packets do not tell the times, of every frame one, in the order in which they are shown.
    """

    ticks: Ints  # presentation time in time base units; the ordinal where the packets do not tell it
    decoding: Ints  # decoding time in these units, where the packets tell it
    keys: Flags  # decoding may start here; where ticks are ordinals: at the packet of that number
    visible: Flags  # False: needed for decoding, but not shown: cut away by an edit list, or not to be decoded
    places: Ints  # byte position in the file; -1 where the container does not tell
    times: Floats | None  # seconds from the media's start, by ordinal; None where the ticks tell them
    packets: int  # how many there are
    indexed: bool  # whether the packets can be found again by their times
    omits: bool  # whether the decoder can pass over frames, and does no harm by it
    tick: float  # seconds per unit
    origin: float  # seconds; the media's time 0
    end: float  # seconds from the media's start: when the last frame leaves the screen
    reached: float  # the same, with frames that an edit list hides
    header_fps: float | None
    sought: bool  # whether the pass began at a keyframe before the span instead of the file's start
    before: int  # packets that the pass saw before these
    given_up: bool  # whether the last one stands before a broken place, behind which there may be more

    @property
    def timed(self) -> bool:
        """Whether frames are told apart by their ticks; otherwise by counting them."""
        return self.times is None

    def over(self, end: float | None) -> float:
        """When the picture is known to be over, in seconds, for a span that ends at a time, or with the media."""
        return self.end if end is None or not self.given_up else max(self.end, end)

    def seconds(self, ticks: Ints) -> Floats:
        """Times relative to the start of the media."""
        return ticks.astype(np.float64) * self.tick - self.origin if self.times is None else self.times[ticks]


def scan_track(
    path: str | os.PathLike[str], track: int, plan: DecodePlan, clock: Clock, meter: Meter, damage: Damage
) -> Scan | None:
    """Read the timestamps up to the end of the span; None if the track holds no packet.

    Raises:
        MediaError: the track holds more packets than ``plan.limits`` allows, or too much is decoded.
    """
    left = take(path, _Left, plan.limits, track)
    if plan.start and (left is None or indexed(left.register.container, clock)):
        with again(path, plan.limits, track, moves=True) as container:
            stream = video_tracks(container)[track]
            if seek_before(container, stream, clock, plan.from_time):
                register = Register(shown(path), container, stream, clock, plan.limits)
                scan = _scan(register, path, track, plan, clock, meter, damage, sought=True)
                # A seek lands late where the index is broken; then only reading from the start is sure.
                if scan is not None and scan.seconds(scan.ticks[:1])[0] <= plan.start:
                    if left is not None:
                        leave(path, left, left.file.close, plan.limits, track)
                    return scan
    if left is None:
        file = ExitStack()
        container = file.enter_context(opened(path, plan.limits))
        left = _Left(Register(shown(path), container, video_tracks(container)[track], clock, plan.limits), file)
    try:
        scan = _scan(left.register, path, track, plan, clock, meter, damage, sought=False)
    except BaseException:
        left.file.close()
        raise
    if not left.register.given_up and (plan.start or not indexed(left.register.container, clock)):
        leave(path, left, left.file.close, plan.limits, track)
    else:
        left.file.close()
    return scan


class _Left(NamedTuple):
    """What an earlier window has read of a track's packets, and what closes the file."""

    register: Register
    file: ExitStack


def _scan(
    register: Register,
    path: str | os.PathLike[str],
    track: int,
    plan: DecodePlan,
    clock: Clock,
    meter: Meter,
    damage: Damage,
    *,
    sought: bool,
) -> Scan | None:
    """What a register tells of a span; ``sought``: it begins at a keyframe before that, and not at the file's start."""
    begin, until = register.span(plan.from_time, plan.end)
    timeless, tick, counted = register.timeless(until), register.tick, None
    in_order = register.in_order(until)
    if timeless and tick > 0 and not in_order and not register.parts:
        untimed = timeless == until
        counted = register.counted.get(untimed) or count_frames(path, track, plan, clock, meter, untimed=untimed)
        register.counted[untimed] = counted
        if counted.parts:
            register.parts = True
            begin, until = register.span(plan.from_time, plan.end)
    found = register.damage(plan.from_time, until)
    damage.add(found)
    if begin == until:
        return None
    scan = Scan(
        ticks=np.array(register.ticks[begin:until], np.int64),
        decoding=np.array(register.decoding[begin:until], np.int64),
        keys=np.array(
            register.keys[begin:until] if register.marked else [True] + [False] * (until - begin - 1), np.bool_
        ),
        visible=np.array(register.visible[begin:until], np.bool_),
        places=np.array(register.places[begin:until], np.int64),
        times=None,
        packets=until - begin,
        indexed=indexed(register.container, clock) and not timeless and not found.reads,
        omits=tick > 0 and can_omit(register.stream),
        tick=tick,
        origin=clock.origin,
        end=0.0,
        reached=0.0,
        header_fps=_header_fps(register.stream),
        sought=sought,
        before=begin,
        given_up=register.given_up and until == len(register.ticks),
    )
    lengths = register.lengths[begin:until]
    if timeless and register.parts:
        return _ending(scan, lengths)
    if timeless or tick <= 0:
        told = np.frombuffer(lengths, np.int64)
        # A bare stream's header tells a made-up rate, and its packets the true one.
        step = float(told[told > 0].mean()) * tick if told.any() else 1.0 / (scan.header_fps or _FALLBACK_FPS)
        if in_order:
            times: Floats = np.sort(scan.decoding.astype(np.float64)) * tick - clock.origin
            return _counted(scan, times, float(told[-1]) * tick or step, register.parting(begin, until))
        times = np.arange(until, dtype=np.float64) * step
        if counted is not None:
            times = fill_times(counted.ticks, tick, step) - (0.0 if timeless == until else clock.origin)
        last = float(times[-1] - times[-2]) if len(times) > 1 else step
        return _counted(scan, times, last, np.zeros(len(times), np.bool_))
    first = int(scan.keys.argmax())
    if scan.keys.any() and first > 0 and not sought:
        whole = frames_before(path, track, plan, clock, meter, first)
        early = np.arange(len(scan.ticks)) < first
        scan = dataclasses.replace(scan, visible=scan.visible & (~early | np.isin(scan.ticks, list(whole))))
    return _ending(scan, lengths)


def _ending(scan: Scan, lengths: array[int]) -> Scan:
    """The scan with its end: that of the last frame which is shown, if any is."""
    shown = scan.visible if scan.visible.any() else np.ones_like(scan.visible)
    ends = scan.ticks + np.frombuffer(lengths, np.int64)
    end = int(ends[shown].max()) * scan.tick - scan.origin
    return dataclasses.replace(scan, end=end, reached=int(ends.max()) * scan.tick - scan.origin)


def _counted(scan: Scan, times: Floats, last: float, keys: Flags) -> Scan | None:
    """The scan of a track whose frames, at ``times`` in ascending seconds, are told apart by counting them.

    Args:
        last: seconds for which the last one is shown.
        keys: flags of the frames that are the first to come out where decoding begins with the packet of their number.
    """
    if not len(times):
        return None
    count, seconds, end = len(times), float(times[-1] - times[0]), float(times[-1]) + last
    return dataclasses.replace(
        scan,
        ticks=np.arange(count),
        keys=keys,
        visible=np.ones(count, np.bool_),
        times=times,
        indexed=False,
        omits=False,
        header_fps=round((count - 1) / seconds, 6) if seconds > 0 else scan.header_fps,  # the header knows no better
        end=end,
        reached=end,
    )


def _header_fps(stream: VideoStream) -> float | None:
    return float(stream.average_rate) if stream.average_rate else None


def candidates(scan: Scan, start: float, end: float | None) -> Ints:
    """The distinct ticks, ascending, of the frames that are shown within the span and can be decoded.

    A frame that is on screen at ``start`` and stays for a while (a slide) counts, though it began earlier.
    """
    usable = scan.visible
    first = int(scan.keys.argmax()) if scan.keys.any() else 0
    if not usable[:first].any():
        # What is shown before the first keyframe refers to frames that the file does not hold.
        usable = usable & (np.arange(len(usable)) >= first) & (scan.ticks >= scan.ticks[first])
    ticks = np.unique(scan.ticks[usable])
    times = scan.seconds(ticks)
    inside = times >= start - _TOLERANCE
    if end is not None:
        inside &= times < end - _TOLERANCE
    on_screen = int(np.searchsorted(times, start + _TOLERANCE, side="right")) - 1
    following = times[inside][0] if inside.any() else scan.end
    if on_screen >= 0 and start < scan.end and (not inside.any() or following - start > SLIDE):
        inside[on_screen] = True
    return ticks[inside]


def keyframes(scan: Scan, ticks: Ints) -> Ints:
    """Indices into the distinct ``ticks`` of those whose frames can be decoded alone; none where that is not known."""
    return np.flatnonzero(np.isin(ticks, scan.ticks[scan.keys & scan.visible]))


def decoding_ranges(scan: Scan, wanted: Ints) -> list[tuple[int, int]]:
    """Which packets to decode for the ``wanted`` ticks: inclusive, ascending, disjoint index ranges.

    A frame needs everything from the last keyframe that precedes it both in the file and on screen: a
    keyframe that is shown later does not help the frames which lead up to it.
    """
    keys = np.flatnonzero(scan.keys)
    if not scan.timed and not len(keys):
        return whole(scan)  # frames are told apart by counting them, so none may be skipped
    place_of = {int(tick): place for place, tick in _wanted_places(scan, wanted)}  # the last: a frame's second field
    ranges: list[tuple[int, int]] = []
    for tick, place in sorted(place_of.items(), key=lambda item: item[1]):
        before = keys[: np.searchsorted(keys, place, side="right")]
        fit = before[scan.ticks[before] <= tick]
        begin = int(fit[-1]) if len(fit) else 0
        if not scan.timed and begin < place:
            place = _reach(scan, keys, place)
        while ranges and begin <= ranges[-1][1] + 1:  # what leads up to a keyframe may need the one before it
            first, last = ranges.pop()
            begin, place = min(first, begin), max(last, place)
        ranges.append((begin, place))
    return ranges


def _reach(scan: Scan, keys: Ints, ordinal: int) -> int:
    """The packet up to which a frame that is told by its ordinal, and all before it, have come out."""
    following = keys[np.searchsorted(keys, ordinal, side="right") :]
    return min(ordinal + DELAY, int(following[0]) - 1 if len(following) else scan.packets - 1, scan.packets - 1)


def whole(scan: Scan) -> list[tuple[int, int]]:
    """All packets, as one range."""
    return [(0, scan.packets - 1)]


def holding(scan: Scan, ranges: list[tuple[int, int]], wanted: Ints) -> list[tuple[int, int]]:
    """Those of the packet ranges that hold any of the ``wanted`` ticks."""
    if not scan.timed:
        return ranges
    places = np.flatnonzero(np.isin(scan.ticks, wanted))
    return [(first, last) for first, last in ranges if np.any((places >= first) & (places <= last))]


def needed(scan: Scan, wanted: Ints) -> Flags:
    """Which packets must be decoded even if no other frame refers to theirs: flags, one for each packet.

    Those of the ``wanted`` ticks, and each one's successor: it may be the other field of the same frame.
    """
    flags: Flags = np.isin(scan.ticks, wanted)
    flags[1:] |= flags[:-1].copy()
    return flags


def _wanted_places(scan: Scan, wanted: Ints) -> Iterator[tuple[int, int]]:
    places = np.flatnonzero(np.isin(scan.ticks, wanted) & scan.visible)
    return ((int(place), int(scan.ticks[place])) for place in places)
