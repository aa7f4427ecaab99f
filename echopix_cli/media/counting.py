"""Tracks whose packets do not all tell a time: what comes out of the decoder tells how many frames there are, and when.

A packet without a time may be a frame, of a stream that tells the time once for a group, or the second field of the
frame before it. Only the decoder knows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from echopix_cli.media.clock import Clock
from echopix_cli.media.cost import Meter
from echopix_cli.media.demux import Damage, open_decoder, packets, video_frames
from echopix_cli.media.plan import DecodePlan
from echopix_cli.media.sampling import Floats
from echopix_cli.media.source import opened, video_tracks

_SURE = 8  # untimed packets after which it is clear that they are no frames of their own
_INTRA = 1  # FFmpeg's number of a picture that refers to no other
# Decoders that give out no frame before they have all that it refers to; others paint what is missing grey.
_WAIT = ("h264", "hevc")


@dataclass(frozen=True)
class Counted:
    """The frames of a track in the order in which they are shown."""

    ticks: list[int | None]  # presentation times, as far as they are known
    parts: bool  # whether packets without a time are parts of frames: then not all frames were counted


def count_frames(
    path: str | os.PathLike[str], track: int, plan: DecodePlan, clock: Clock, meter: Meter, *, untimed: bool
) -> Counted:
    """Decode a track until it is clear what its untimed packets are: to the end, if they are frames.

    Args:
        untimed: no packet tells a time.

    Raises:
        MediaError: the file cannot be opened any more, or too much is decoded.
    """
    ticks: list[int | None] = []
    timeless = 0
    with opened(path, plan.limits) as container:
        stream = video_tracks(container)[track]
        decoder = open_decoder(stream, plan.limits.max_area)
        if decoder is None:
            return Counted([], False)
        damage = Damage()
        for packet in packets(container, stream, damage, clock):
            timeless += packet.pts is None
            for frame in video_frames(decoder, packet, damage):
                meter.picture(frame.width, frame.height)
                ticks.append(frame.pts)
            if not untimed and timeless >= _SURE and ticks and None not in ticks:
                return Counted(ticks, True)
        ticks += [frame.pts for frame in video_frames(decoder, None, damage)]
    return Counted(ticks, not untimed and bool(ticks) and None not in ticks)


def frames_before(
    path: str | os.PathLike[str], track: int, plan: DecodePlan, clock: Clock, meter: Meter, count: int
) -> set[int]:
    """The times of those frames that come whole out of the first ``count`` packets, which are marked as no keyframes.

    Raises:
        MediaError: the file cannot be opened any more, or too much is decoded.
    """
    ticks: set[int] = set()
    with opened(path, plan.limits) as container:
        stream = video_tracks(container)[track]
        decoder = open_decoder(stream, plan.limits.max_area)
        if decoder is None:
            return ticks
        damage, begun = Damage(), decoder.name in _WAIT
        for number, packet in enumerate(packets(container, stream, damage, clock)):
            last = number >= count
            for frame in video_frames(decoder, None if last else packet, damage):
                meter.picture(frame.width, frame.height)
                begun = begun or frame.pict_type == _INTRA
                if begun and frame.pts is not None and not frame.is_corrupt:
                    ticks.add(frame.pts)
            if last:
                break
    return ticks


def fill_times(ticks: list[int | None], tick: float, step: float) -> Floats:
    """Seconds ``(T,)`` of all frames: between known times evenly spaced, before and after them by ``step``.

    Args:
        ticks: known presentation times, in units of ``tick`` seconds. One that is earlier than one before it
            counts as unknown, and of equal ones the first.
        step: seconds from frame to frame, where fewer than two times are known.
    """
    known: list[tuple[int, float]] = []
    for place, value in enumerate(ticks):
        if value is None or (known and value * tick < known[-1][1]):
            continue
        if known and value * tick == known[-1][1]:
            known.pop()  # a frame that began in the packet before it may carry the time of the next
        known.append((place, value * tick))
    places = np.arange(len(ticks), dtype=np.float64)
    if not known:
        return places * step
    first, last = known[0], known[-1]
    if last[0] > first[0]:
        step = (last[1] - first[1]) / (last[0] - first[0])
    times: Floats = np.interp(places, [place for place, _ in known], [time for _, time in known])
    times[: first[0]] = first[1] - (first[0] - places[: first[0]]) * step
    times[last[0] :] = last[1] + (places[last[0] :] - last[0]) * step
    return times
