"""The places of a clip's frames: each is filled once, upright and resized, as its frame comes out of the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from av.video.frame import VideoFrame

from echopix_cli.errors import MediaError
from echopix_cli.media.cost import Meter
from echopix_cli.media.memory import require_memory
from echopix_cli.media.pixels import upright
from echopix_cli.media.plan import DecodePlan, Limits
from echopix_cli.media.sampling import Ints, Pixels, resize_frames, smart_resize
from echopix_cli.media.source import READ_ERRORS
from echopix_cli.sizes import exact

Arrived = Callable[[Pixels, int], None]
_SAME_SHAPE = 0.02  # aspect ratios that differ by less are one: encoders round a size to whole blocks


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
        self._decoder = ""
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
        self, frames: Iterator[tuple[int, VideoFrame]], pixel_aspect: float, decoder: str, stand_ins: bool
    ) -> None:
        """Take the wanted ones from ``(tick, frame)`` pairs in presentation order; ``decoder`` as of :func:`upright`.

        Where a wanted frame does not come out, the one on screen before it stands in, if ``stand_ins`` are let, it
        is not wanted itself and nearer than half the distance between samples.
        """
        reach = (self.wanted[-1] - self.wanted[0]) / max(1, len(self.wanted) - 1) / 2
        self._decoder = decoder
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
            pixels, turned = upright(frame, self._decoder)
        except READ_ERRORS as error:
            require_memory(error)
            return
        width, height = max(1, round(frame.width * pixel_aspect)), frame.height  # as stored
        size = (width, height) if turned else (height, width)
        self.put(slot, tick, pixels, size, -frame.rotation % 360)

    def put(self, slot: int, tick: int, pixels: Pixels, size: tuple[int, int], rotation: int) -> None:
        """Fill one slot.

        Args:
            tick: when the frame is shown, in the track's units.
            pixels: uint8 ``(3, H, W)``, upright.
            size: its height and width as displayed.
            rotation: degrees clockwise by which it was turned.
        """
        if self.frames is None or self.size is None:
            self.size, self.rotation = size, rotation
            self.frames = self._allocate(*size)
        self.frames[slot] = _fit(pixels, size, self.size, (self.frames.shape[2], self.frames.shape[3]))
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
                f"{len(self.wanted)} frames of {size[1]}x{size[0]} need more than {exact(plan.limits.max_frame_bytes)}",
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


def _fit(pixels: Pixels, size: tuple[int, int], first: tuple[int, int], room: tuple[int, int]) -> Pixels:
    """A frame as uint8 ``(3, *room)``: filling it, or between black bars where its shape is not the clip's.

    Args:
        pixels: uint8 ``(3, H, W)``.
        size: its height and width as displayed.
        first: those of the clip's first frame, which fills the room.
    """
    ratio = (size[1] * first[0]) / (size[0] * first[1])  # how much wider it is than the first
    if abs(ratio - 1) < _SAME_SHAPE:
        fitted: Pixels = resize_frames(pixels[None], *room)[0]
        return fitted
    height, width = max(1, round(room[0] * min(1.0, 1 / ratio))), max(1, round(room[1] * min(1.0, ratio)))
    fitted = np.zeros((3, *room), np.uint8)
    top, left = (room[0] - height) // 2, (room[1] - width) // 2
    fitted[:, top : top + height, left : left + width] = resize_frames(pixels[None], height, width)[0]
    return fitted
