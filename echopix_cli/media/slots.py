"""The places of a clip's frames: each is filled once, upright and resized, as its frame comes out of the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame

from echopix_cli.errors import MediaError
from echopix_cli.media.cost import Meter
from echopix_cli.media.plan import DecodePlan, Limits
from echopix_cli.media.sampling import Ints, Pixels, resize_frames, smart_resize
from echopix_cli.media.source import READ_ERRORS

Arrived = Callable[[Pixels, int], None]


class Slots:
    """The frames that are wanted, filled as they come out of the decoder.

    Args:
        wanted: int64 ``(T,)``, ascending: when each is shown, in the track's units.
        name: of the file, as shown.
        plan: how large they become, and what is too large.
        meter: counts what is decoded.
        arrived: as of :func:`echopix_cli.media.load_clip`.
    """

    def __init__(self, wanted: Ints, name: str, plan: DecodePlan, meter: Meter, arrived: Arrived | None = None) -> None:
        self.wanted = wanted  # (T,) ticks, ascending
        self.ticks = wanted.copy()  # what was really taken
        self.filled = np.zeros(len(wanted), np.bool_)
        self.frames: Pixels | None = None
        self.size: tuple[int, int] | None = None
        self.rotation: int | None = None
        self.meter = meter
        self._mirrors = False
        self._name, self._plan = name, plan
        self._arrived, self._ready = arrived, 0

    @property
    def missing(self) -> Ints:
        """The wanted ticks whose frames have not come out (yet)."""
        return self.wanted[~self.filled]

    @property
    def lost(self) -> int:
        """How many of the wanted frames have not come out (yet)."""
        return len(self.missing)

    def fill(
        self, frames: Iterator[tuple[int, VideoFrame]], pixel_aspect: float, mirrors: bool, stand_ins: bool
    ) -> None:
        """Take the wanted ones from ``(tick, frame)`` pairs in presentation order; ``mirrors`` as of :func:`upright`.

        Where a wanted frame does not come out, the one on screen before it stands in, if ``stand_ins`` are let, it
        is not wanted itself and nearer than half the distance between samples.
        """
        reach = (self.wanted[-1] - self.wanted[0]) / max(1, len(self.wanted) - 1) / 2
        self._mirrors = mirrors
        slot, spare = 0, None
        for tick, frame in frames:
            while slot < len(self.wanted) and self.wanted[slot] < tick:
                if stand_ins and spare is not None and self.wanted[slot] - spare[0] <= reach:
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
        self._tell(self.frames)

    def _tell(self, frames: Pixels) -> None:
        """Say so if frames from the first one on are complete that were not before."""
        before = self._ready
        while self._ready < len(self.filled) and self.filled[self._ready]:
            self._ready += 1
        if self._arrived is not None and self._ready > before:
            self._arrived(frames, self._ready)

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
