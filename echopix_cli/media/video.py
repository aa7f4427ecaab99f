"""The picture: decode the sampled frames, turn them upright, resize them, keep nothing else.

Decoding starts at the keyframe before each wanted frame, and passes over what no frame refers to, so a long clip
costs no more than its sampled places, and memory is bounded by the frames that are kept.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from echopix_cli.errors import MediaError
from echopix_cli.media.clock import Clock
from echopix_cli.media.cost import Meter
from echopix_cli.media.demux import Damage, omit_unreferenced, video_frames
from echopix_cli.media.heif import Still, decode_still
from echopix_cli.media.plan import DecodePlan, Limits
from echopix_cli.media.sampling import Flags, Floats, Ints, Pixels, at_keyframes, choose_frames
from echopix_cli.media.scan import (
    Scan,
    candidates,
    decoding_ranges,
    holding,
    keyframes,
    needed,
    scan_track,
    whole,
)
from echopix_cli.media.slots import Arrived, Slots, check_size
from echopix_cli.media.source import shown
from echopix_cli.media.walk import Walk
from echopix_cli.times import clock as clock_words
from echopix_cli.times import stretch

_STILL_FPS = 25.0  # FFmpeg's guess for pictures: how long they are shown
_CREDIBLE_ASPECT = 10.0  # a pixel wider or narrower than this is a broken header, not a lens


@dataclass(frozen=True)
class Picture:
    """What came out of a video track. ``frames`` and ``times`` are None when nothing did."""

    frames: Pixels | None = None  # (T, 3, H, W)
    times: Floats | None = None  # (T,) seconds from the start of the media
    fps: float | None = None  # of the source, within the span
    size: tuple[int, int] | None = None  # (height, width) as displayed, before resizing
    rotation: int | None = None
    locked: bool = False  # whether nothing came out because it is encrypted
    decodable: bool = True  # False: there are frames in the span, or should be, and none came out
    end: float | None = None  # when the last readable frame leaves the screen
    reached: float | None = None  # the same, with frames that an edit list hides
    until: float | None = None  # when it is over, or the frame after the last was to be taken, and did not come out
    notices: tuple[str, ...] = ()


def read_picture(
    path: str | os.PathLike[str],
    track: int,
    plan: DecodePlan,
    clock: Clock,
    meter: Meter,
    arrived: Arrived | None = None,
) -> Picture:
    """Sample frames from a video track as the plan asks.

    Args:
        track: position among the file's usable video tracks.
        clock: of the file.
        meter: counts what is decoded.
        arrived: as of :func:`echopix_cli.media.load_clip`.

    Raises:
        MediaError: the picture exceeds a limit or has an impossible shape.
    """
    damage = Damage()
    scan = scan_track(path, track, plan, clock, meter, damage)
    if scan is None:
        return Picture(decodable=False, locked=bool(damage.locked))
    ticks = candidates(scan, plan.from_time, plan.end)
    if not len(ticks):
        return Picture(end=scan.over(plan.end), reached=_reached(scan, plan))
    times = np.maximum(scan.seconds(ticks), plan.from_time)  # what is on screen at first is not sampled for its past
    _check_length(shown(path), times, plan.limits)
    chosen, fps = choose_frames(
        times,
        scan.header_fps,
        fps=plan.fps,
        min_frames=plan.min_frames,
        max_frames=plan.max_frames,
    )
    if plan.keyframes:
        chosen = at_keyframes(times, chosen, keyframes(scan, ticks))
    slots = Slots(ticks[chosen], shown(path), plan, meter, arrived)
    ranges = decoding_ranges(scan, slots.wanted)
    if scan.omits:
        _decode(path, track, plan, clock, scan, ranges, slots, Damage(), omit=True)
    decoded = Damage()
    if slots.lost:
        _decode(path, track, plan, clock, scan, holding(scan, ranges, slots.missing), slots, decoded)
    if slots.lost and ranges != whole(scan):
        # Some streams mark as keyframes places where a decoder cannot really start: what it refuses there is no damage.
        through = Damage()
        try:
            _decode(path, track, plan, clock, scan, whole(scan), slots, through)
            decoded = through
        except MediaError:  # it would take too much; what came out at first may do
            if slots.frames is None:
                raise
    damage.add(decoded)
    return _picture(slots, scan, plan, fps, damage)


def read_still_picture(
    path: str | os.PathLike[str], still: Still, plan: DecodePlan, meter: Meter, arrived: Arrived | None = None
) -> Picture:
    """The one frame of a still picture, as of :func:`read_picture`."""
    end = 1.0 / _STILL_FPS
    if plan.from_time >= end:
        return Picture(end=end, reached=end)
    if still.size is not None:
        check_size(shown(path), still.size[1], still.size[0], plan.limits)
    pixels = decode_still(path, still, plan.limits, meter)
    if pixels is None:
        return Picture(end=end, reached=end, decodable=False)
    size = (pixels.shape[0], pixels.shape[1])
    check_size(shown(path), size[1], size[0], plan.limits)
    slots = Slots(np.zeros(1, np.int64), shown(path), plan, meter, arrived)
    slots.put(0, 0, pixels.transpose(2, 0, 1), size, still.rotation)
    return Picture(slots.frames, np.zeros(1), None, size, slots.rotation, end=end, reached=end, until=end)


def _reached(scan: Scan, plan: DecodePlan) -> float | None:
    """Up to where the picture was read; None where there may be more of it within the span."""
    return None if scan.given_up and plan.end is not None else scan.reached


def _picture(slots: Slots, scan: Scan, plan: DecodePlan, fps: float | None, damage: Damage) -> Picture:
    end, reached = scan.over(plan.end), _reached(scan, plan)
    asked = len(slots.wanted)
    if slots.frames is None:
        return Picture(end=end, reached=reached, decodable=False)
    notices: tuple[str, ...] = ()
    if slots.lost:
        when = _when(scan, slots.missing)
        notices = (f"{slots.lost} of {asked} sampled frames could not be decoded and were left out{when}",)
    if damage.reads or (damage and not slots.lost):
        when = _when(scan, np.array(damage.ticks), (plan.end or math.inf) if scan.given_up else -math.inf)
        skipped = f"parts of the video track are damaged and were skipped{when}"
        notices = (*notices, skipped)
    if damage.locked:
        notices = (*notices, "parts of the video track are encrypted and were left out")
    times = scan.seconds(slots.ticks[slots.filled])
    frames = slots.frames if slots.filled.all() else slots.frames[slots.filled]
    lost = slots.missing[slots.missing > slots.ticks[slots.filled][-1]]
    until = float(scan.seconds(lost)[0]) if len(lost) else scan.end
    return Picture(frames, times, fps, slots.size, slots.rotation, False, True, end, reached, until, notices)


def _when(scan: Scan, ticks: Ints, beyond: float = -math.inf) -> str:
    """From when to when, and not before ``beyond``, in words that follow others; nothing where that is not known."""
    if not scan.timed or not len(ticks):
        return ""
    times = scan.seconds(ticks)
    first, last = max(0.0, float(times.min())), max(float(times.max()), beyond)
    return f" (from {clock_words(first)} on)" if last == math.inf else f" ({stretch(first, last)})"


def _decode(
    path: str | os.PathLike[str],
    track: int,
    plan: DecodePlan,
    clock: Clock,
    scan: Scan,
    ranges: list[tuple[int, int]],
    slots: Slots,
    damage: Damage,
    *,
    omit: bool = False,
) -> None:
    """Decode the packet ranges and put the wanted frames that come out into their slots.

    Args:
        omit: pass over frames that are neither wanted nor referred to, and leave a range where it is damaged: what a
            decoder makes of damage, and what may stand in for a lost frame, depends on frames that were passed over.
    """
    with Walk(path, track, plan, clock, scan, strict=omit) as walk:
        header = walk.stream.codec_context
        if header is None:
            return
        check_size(shown(path), header.width, header.height, plan.limits)
        slots.meter.foresee(sum(last + 1 - first for first, last in ranges), header.width, header.height)
        keep = needed(scan, slots.wanted) if omit else None
        for first, last in ranges:
            run = walk.run(first, last)
            if walk.decoder is None:
                return
            frames = _frames(walk.decoder, run, keep, None if scan.timed else first, damage, slots.meter)
            slots.fill(frames, _pixel_aspect(walk.stream), walk.decoder.name, stand_ins=not omit)


def _frames(
    decoder: VideoCodecContext,
    run: Iterator[tuple[int, Packet[VideoStream]]],
    keep: Flags | None,
    ordinal: int | None,
    damage: Damage,
    meter: Meter,
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode a run of numbered packets: ``(tick, frame)`` in the order in which they are shown.

    Args:
        keep: which packets to decode in any case, up to the first that is damaged; None: decode all.
        ordinal: of the first frame, where a tick is the frame's ordinal.
    """
    before = damage.packets
    for number, packet in chain(run, ((0, None),)):
        if keep is not None:
            if damage.packets > before:
                break
            omit_unreferenced(decoder, packet is not None and not keep[number])
        for frame in video_frames(decoder, packet, damage):
            meter.picture(frame.width, frame.height)
            if ordinal is None:
                tick = frame.dts if frame.pts is None else frame.pts
            else:
                tick, ordinal = ordinal, ordinal + 1
            if tick is not None:
                yield tick, frame
    decoder.flush_buffers()  # the decoder has seen the end; let it begin anew


def _pixel_aspect(stream: VideoStream) -> float:
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / _CREDIBLE_ASPECT <= aspect <= _CREDIBLE_ASPECT else 1.0


def _check_length(name: str, times: Floats, limits: Limits) -> None:
    """Refuse a picture that lasts longer than anybody films.

    Args:
        times: ``(T,)`` seconds, ascending, of the frames in the span. The header may say anything.

    Raises:
        MediaError: it does.
    """
    if times[-1] - times[0] > limits.max_picture_seconds:
        raise MediaError(
            f"{name}: the picture lasts {(times[-1] - times[0]) / 3600:.6g} h, and at most "
            f"{limits.max_picture_seconds / 3600:.6g} h are read at once",
            "choose a shorter span, or raise the setting limit_picture_seconds",
        )
