"""The picture: decode the sampled frames, turn them upright, resize them, keep nothing else.

Decoding starts at the keyframe before each wanted frame, so a long clip costs no more than its sampled
places, and memory is bounded by the frames that are kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from echopix_cli.errors import MediaError
from echopix_cli.media.cost import Meter
from echopix_cli.media.demux import Damage, packets, prepare_decoder, seek_before, video_frames
from echopix_cli.media.plan import DecodePlan, Limits
from echopix_cli.media.sampling import Floats, Ints, Pixels, choose_frames, resize_frames, smart_resize
from echopix_cli.media.scan import Scan, candidates, decoding_ranges, scan_track
from echopix_cli.media.source import READ_ERRORS, opened, shown, video_tracks

# Decoders whose colour profiles have a name. PyAV frees that name twice when a frame's side data was looked at, and
# the process crashes: most PNGs that are screenshots are of this kind.
_NAMED_PROFILES = ("png", "apng")
_CREDIBLE_ASPECT = 10.0  # a pixel wider or narrower than this is a broken header, not a lens


@dataclass(frozen=True)
class Picture:
    """What came out of a video track. ``frames`` and ``times`` are None when nothing did."""

    frames: Pixels | None = None  # (T, 3, H, W)
    times: Floats | None = None  # (T,) seconds from the start of the media
    fps: float | None = None  # of the source, within the span
    size: tuple[int, int] | None = None  # (height, width) as displayed, before resizing
    rotation: int | None = None
    decodable: bool = True  # False: there are frames in the span, or should be, and none came out
    end: float | None = None  # when the last readable frame leaves the screen
    notices: tuple[str, ...] = ()


def read_picture(path: str | os.PathLike[str], track: int, plan: DecodePlan, origin: float, meter: Meter) -> Picture:
    """Sample frames from a video track as the plan asks.

    Args:
        track: position among the file's usable video tracks.
        origin: container time in seconds at which the media starts.
        meter: counts what is decoded.

    Raises:
        MediaError: the picture exceeds a limit or has an impossible shape.
    """
    damage = Damage()
    scan = scan_track(path, track, plan, origin, damage)
    if scan is None:
        return Picture(decodable=False)
    ticks = candidates(scan, plan.from_time, plan.end)
    if not len(ticks):
        return Picture(end=scan.end)
    _check_length(shown(path), scan.seconds(ticks), plan.limits)
    chosen, fps = choose_frames(
        scan.seconds(ticks),
        scan.header_fps,
        fps=plan.fps,
        min_frames=plan.min_frames,
        max_frames=plan.max_frames,
    )
    slots = _Slots(ticks[chosen], shown(path), plan, meter)
    ranges = decoding_ranges(scan, ticks[chosen])
    _decode(path, track, plan, scan, ranges, slots, damage)
    whole = [(0, len(scan.ticks) - 1)]
    if slots.lost and ranges != whole:
        # Some streams mark as keyframes places where a decoder cannot really start.
        try:
            _decode(path, track, plan, scan, whole, slots, damage)
        except MediaError:  # it would take too much; what came out at first may do
            if slots.frames is None:
                raise
    return _picture(slots, scan, fps, damage)


def _picture(slots: _Slots, scan: Scan, fps: float | None, damage: Damage) -> Picture:
    asked = len(slots.wanted)
    if slots.frames is None:
        return Picture(end=scan.end, decodable=False)
    notices: tuple[str, ...] = ()
    if slots.lost:
        notices = (f"{slots.lost} of {asked} sampled frames could not be decoded and were left out",)
    elif damage:
        notices = ("parts of the video track are damaged and were skipped",)
    times = scan.seconds(slots.ticks[slots.filled])
    frames = slots.frames if slots.filled.all() else slots.frames[slots.filled]
    return Picture(frames, times, fps, slots.size, slots.rotation, True, scan.end, notices)


class _Slots:
    """The frames that are wanted, filled as they come out of the decoder."""

    def __init__(self, wanted: Ints, name: str, plan: DecodePlan, meter: Meter) -> None:
        self.wanted = wanted  # (T,) ticks, ascending
        self.ticks = wanted.copy()  # what was really taken
        self.filled = np.zeros(len(wanted), np.bool_)
        self.frames: Pixels | None = None
        self.size: tuple[int, int] | None = None
        self.rotation: int | None = None
        self.meter = meter
        self._mirrors = False
        self._name, self._plan = name, plan

    @property
    def lost(self) -> int:
        """How many of the wanted frames have not come out (yet)."""
        return int((~self.filled).sum())

    def fill(self, frames: Iterator[tuple[int, VideoFrame]], pixel_aspect: float, mirrors: bool) -> None:
        """Take the wanted ones from ``(tick, frame)`` pairs in presentation order; ``mirrors`` as of :func:`upright`.

        Where a wanted frame does not come out, the one on screen before it stands in, if it is not
        wanted itself and nearer than half the distance between samples.
        """
        reach = (self.wanted[-1] - self.wanted[0]) / max(1, len(self.wanted) - 1) / 2
        self._mirrors = mirrors
        slot, spare = 0, None
        for tick, frame in frames:
            while slot < len(self.wanted) and self.wanted[slot] < tick:
                if spare is not None and self.wanted[slot] - spare[0] <= reach:
                    self._put(slot, *spare, pixel_aspect)
                    spare = None
                slot += 1
            spare = (tick, frame)
            if slot < len(self.wanted) and self.wanted[slot] == tick:
                self._put(slot, tick, frame, pixel_aspect)
                slot, spare = slot + 1, None

    def _put(self, slot: int, tick: int, frame: VideoFrame, pixel_aspect: float) -> None:
        """Fill one slot; a frame that cannot be converted leaves it empty."""
        if self.filled[slot]:
            return
        check_size(self._name, frame.width, frame.height, self._plan.limits)
        try:
            pixels, turned = upright(frame, self._mirrors)
        except READ_ERRORS:
            return
        height, width = pixels.shape[1:]
        if turned:
            height = max(1, round(height * pixel_aspect))
        else:
            width = max(1, round(width * pixel_aspect))
        if self.frames is None:
            self.size, self.rotation = (height, width), -frame.rotation % 360
            self.frames = self._allocate(height, width)
        self.frames[slot] = resize_frames(pixels[None], *self.frames.shape[2:])[0]
        self.ticks[slot], self.filled[slot] = tick, True

    def _allocate(self, height: int, width: int) -> Pixels:
        plan = self._plan
        size = smart_resize(height, width, plan.size_factor, plan.min_pixels, plan.max_pixels)
        shape = (len(self.wanted), 3, *size)
        if np.prod(shape, dtype=np.int64) > plan.limits.max_frame_bytes:
            raise MediaError(
                f"{len(self.wanted)} frames of {size[1]}x{size[0]} need more than "
                f"{plan.limits.max_frame_bytes // 2**20} MiB",
                "take fewer or smaller frames, or raise the setting limit_frame_bytes",
            )
        return np.empty(shape, np.uint8)


def _decode(
    path: str | os.PathLike[str],
    track: int,
    plan: DecodePlan,
    scan: Scan,
    ranges: list[tuple[int, int]],
    slots: _Slots,
    damage: Damage,
) -> None:
    """Decode the packet ranges and put the wanted frames that come out into their slots."""
    with opened(path, plan.limits) as container:
        stream = video_tracks(container)[track]
        if stream.codec_context is None:
            return
        width, height = stream.codec_context.width, stream.codec_context.height
        check_size(shown(path), width, height, plan.limits)
        slots.meter.foresee(sum(last + 1 - first for first, last in ranges), width, height)
        prepare_decoder(stream, plan.limits.max_area)
        mirrors = stream.codec_context.name not in _NAMED_PROFILES
        if scan.sought:
            seek_before(container, stream, plan.from_time + scan.origin)
        source = packets(container, stream, Damage())  # the scan has counted these places already
        position = 0
        for first, last in ranges:
            run = islice(source, first - position, last + 1 - position)
            position = last + 1
            slots.fill(_frames(stream, run, scan.timed, damage, slots.meter), _pixel_aspect(stream), mirrors)


def _frames(
    stream: VideoStream, run: Iterator[Packet[VideoStream]], timed: bool, damage: Damage, meter: Meter
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode a run of packets: ``(tick, frame)`` in the order in which they are shown."""
    count = 0
    for packet in chain(run, (None,)):
        for frame in video_frames(stream, packet, damage):
            meter.picture(frame.width, frame.height)
            tick = (frame.dts if frame.pts is None else frame.pts) if timed else count
            count += 1
            if tick is not None:
                yield tick, frame
    stream.codec_context.flush_buffers()  # the decoder has seen the end; let it begin anew


def _pixel_aspect(stream: VideoStream) -> float:
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / _CREDIBLE_ASPECT <= aspect <= _CREDIBLE_ASPECT else 1.0


def check_size(name: str, width: int, height: int, limits: Limits) -> None:
    """Refuse frames that are too large to be honest.

    Raises:
        MediaError: an edge or the area exceeds its limit.
    """
    if max(width, height) > limits.max_side:
        raise MediaError(
            f"{name}: the picture is {width}x{height}; its edges may be at most {limits.max_side} pixels",
            "make a smaller copy of it, or raise the setting limit_side",
        )
    if width * height > limits.max_area:
        raise MediaError(
            f"{name}: the picture is {width}x{height}; it may have at most {limits.max_area} pixels",
            "make a smaller copy of it, or raise the setting limit_area",
        )


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


def upright(frame: VideoFrame, mirrors: bool) -> tuple[Pixels, bool]:
    """A frame as uint8 ``(3, H, W)`` RGB with its display matrix applied; and whether axes were swapped.

    The matrix maps (x, y) to (a·x + c·y, b·x + d·y); phones use it for turns by quarters and mirroring.

    Args:
        mirrors: whether the matrix itself may be looked at; otherwise only its angle is applied.
    """
    pixels = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)  # (H, W, 3)
    if not mirrors:
        quarters = round(frame.rotation / 90) % 4
        return np.rot90(pixels, quarters).transpose(2, 0, 1), quarters % 2 == 1
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return pixels.transpose(2, 0, 1), False
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    if turned:
        pixels = pixels.transpose(1, 0, 2)
    if (c if turned else a) < 0:
        pixels = pixels[:, ::-1]
    if (b if turned else d) < 0:
        pixels = pixels[::-1]
    return pixels.transpose(2, 0, 1), turned
