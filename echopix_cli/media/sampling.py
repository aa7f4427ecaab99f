"""Which frames to take and how large to make them: the rules of qwen-omni-utils 0.0.9.

The numbers are pinned by ``tests/golden/preprocess``.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from echopix_cli.errors import MediaError

FRAME_FACTOR = 2  # frames come in pairs: one temporal patch holds two
MAX_ASPECT_RATIO = 200

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
SLIDE = 1.0  # seconds; a picture that stays at least so long is worth a frame of its own
_SAME_RATE = 1.01  # rates that differ by less are the same
_BAND = 2**23  # pixels that are made narrower at once

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Choose ``(height, width)``: multiples of ``factor``, area within the bounds, aspect kept.

    ``max_pixels`` wins over ``min_pixels``. For extreme aspect ratios the area may leave the bounds,
    because no edge gets shorter than ``factor`` (so it is in the family).

    Raises:
        MediaError: one edge is more than 200 times the other, or there are no pixels.
    """
    if min(height, width) < 1 or max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise MediaError(
            f"the picture is {width}x{height}: one edge is more than {MAX_ASPECT_RATIO} times the other",
            "crop it, or use only the sound",
        )
    min_pixels = min(min_pixels, max_pixels)
    new_height = max(factor, round(height / factor) * factor)
    new_width = max(factor, round(width / factor) * factor)
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def smart_nframes(total_frames: int, video_fps: float, *, fps: float, min_frames: int, max_frames: int) -> int:
    """How many of ``total_frames`` to sample: ``fps`` per second within the bounds, an even number.

    Where the family raises because a clip is shorter than one frame pair, one frame is taken.
    """
    if total_frames < FRAME_FACTOR:
        return total_frames
    lowest = math.ceil(min_frames / FRAME_FACTOR) * FRAME_FACTOR
    highest = math.floor(max_frames / FRAME_FACTOR) * FRAME_FACTOR
    wanted = min(max(total_frames / video_fps * fps, lowest), highest, total_frames)
    return max(1, math.floor(wanted / FRAME_FACTOR) * FRAME_FACTOR)


def frame_indices(total_frames: int, nframes: int) -> Ints:
    """Spread ``nframes`` indices evenly over the frames, both ends included: int64 ``(nframes,)``."""
    import torch

    # torch's own float32 linspace: numpy's differs by an ulp, which flips ties in the rounding.
    chosen: Ints = torch.linspace(0, total_frames - 1, nframes).round().long().numpy()
    return chosen


def choose_frames(
    times: Floats, header_fps: float | None, *, fps: float, min_frames: int, max_frames: int
) -> tuple[Ints, float | None]:
    """Choose among frames at ``times`` (ascending seconds): indices ``(n,)``, and the source's rate.

    At a constant rate these are the family's evenly spaced indices. At a variable rate evenly spaced
    indices would crowd where frames are dense, so each of as many evenly spaced *times* takes the
    frame nearest to it; a frame that stays longer than they are apart counts as if it stayed just so long.
    If that many frames are all there are, but for one that would make their number odd, all are taken: at a
    constant rate only of slides.
    """
    total = len(times)
    if total < FRAME_FACTOR:
        return np.arange(total), None
    spacing = float(times[-1] - times[0]) / (total - 1)
    rate = 1.0 / spacing
    if header_fps is not None and abs(header_fps * spacing - 1.0) < 0.01:
        rate = header_fps  # exact; a measured 24.9999 would change the frame count
    count = smart_nframes(total, rate, fps=fps, min_frames=min_frames, max_frames=max_frames)
    even = np.linspace(times[0], times[-1], total)
    # Matroska and FLV round timestamps to milliseconds; that alone is not a variable rate.
    constant = float(np.abs(times - even).max()) <= max(0.0015, 0.05 * spacing)
    if total <= max_frames and count + FRAME_FACTOR > total and (rate * SLIDE < _SAME_RATE or not constant):
        return np.arange(total), rate
    if constant:
        return frame_indices(total, count), rate
    counted = capped(times, count)
    found = nearest(counted, np.linspace(counted[0], counted[-1], count))
    return fill_up(counted, found, count), rate


def capped(times: Floats, count: int) -> Floats:
    """Times (n,), ascending, with long distances shortened to that of ``count`` samples spread over what results."""
    gaps = np.diff(times)
    ascending = np.sort(gaps)
    below = np.concatenate(([0.0], np.cumsum(ascending)))  # of the k smallest
    # With the k smallest as they are and all others of length s: below[k] + (n - 1 - k) s = (count - 1) s.
    spare = count - 1 - (len(gaps) - np.arange(len(gaps) + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(spare > 0, below / spare, np.inf)
    fits = steps <= np.append(ascending, np.inf)
    step = float(steps[int(fits.argmax())])
    return np.concatenate(([0.0], np.cumsum(np.minimum(gaps, step))))


def fill_up(times: Floats, chosen: Ints, count: int) -> Ints:
    """Add frames, each in the middle of the longest stretch of which none is chosen, until there are ``count``."""
    taken = sorted(int(index) for index in chosen)
    while len(taken) < count:
        pairs = [(times[b] - times[a], a, b) for a, b in pairwise(taken) if b - a > 1]
        if not pairs:
            break
        _, before, after = max(pairs)
        between = np.abs(times[before + 1 : after] - (times[before] + times[after]) / 2)
        taken.insert(taken.index(after), before + 1 + int(between.argmin()))
    return np.array(taken, np.int64)


def nearest(times: Floats, targets: Floats) -> Ints:
    """Indices into ascending ``times`` of the frames nearest to each target, each frame at most once."""
    return np.unique(_nearest_each(times, targets))


def _nearest_each(times: Floats, targets: Floats) -> Ints:
    """For each target the index into ascending ``times``, of at least two, of the frame nearest to it."""
    after = np.clip(np.searchsorted(times, targets), 1, len(times) - 1)
    closer_before = targets - times[after - 1] <= times[after] - targets
    return np.where(closer_before, after - 1, after).astype(np.int64)


def at_keyframes(times: Floats, chosen: Ints, keys: Ints) -> Ints:
    """Replace each of the chosen frames by the keyframe nearest to it, within half the mean distance between them.

    A keyframe takes the place of one frame, the nearest; the others stay as they are, and so does their order. A frame
    alone is the one in the middle, or the keyframe nearest to that.

    Args:
        times: ``(T,)`` seconds of all frames, ascending.
        chosen: ``(n,)`` indices into them, ascending.
        keys: ``(k,)`` indices of the keyframes, ascending.
    """
    if len(chosen) == 1 and len(times) > 1:
        chosen = _nearest_each(times, (times[:1] + times[-1:]) / 2)
    if not len(keys) or not len(chosen):
        return chosen
    wanted = times[chosen]
    reach = float(np.ptp(wanted)) / (len(wanted) - 1) / 2 if len(wanted) > 1 else float(np.ptp(times)) / 2
    found = keys[_nearest_each(times[keys], wanted)] if len(keys) > 1 else np.repeat(keys, len(wanted))
    away = np.abs(times[found] - wanted)
    replaced = chosen.copy()
    taken: set[int] = set()
    for place in np.argsort(away, kind="stable"):
        if away[place] <= reach and int(found[place]) not in taken:
            taken.add(int(found[place]))
            replaced[place] = found[place]
    return replaced


def resize_frames(frames: Pixels, height: int, width: int) -> Pixels:
    """Resize uint8 ``(T, 3, H, W)`` to uint8 ``(T, 3, height, width)``: bicubic, antialiased.

    Bit-identical to ``torchvision.transforms.functional.resize``, which the family calls: it computes
    in float32, clamps and rounds. (torch's uint8 kernel is faster but off by up to 4 of 255.)
    """
    import torch
    from torch.nn.functional import interpolate

    resized = np.empty((len(frames), 3, height, width), np.uint8)
    rows = max(1, _BAND // frames.shape[3])
    # One channel of one frame at a time: float32 takes four times the memory, and the intermediate step as much again.
    # The width is changed first in any case: of large ones, band by band.
    for number, channel in np.ndindex(len(frames), 3):
        pixels, bands = frames[number, channel], []
        for first in range(0, len(pixels), rows):
            band = torch.from_numpy(np.ascontiguousarray(pixels[first : first + rows]))[None, None].float()
            size = (height if rows >= len(pixels) else band.shape[2], width)
            bands.append(interpolate(band, size=size, mode="bicubic", antialias=True))
        larger = torch.cat(bands, dim=2)
        if len(bands) > 1:
            larger = interpolate(larger, size=(height, width), mode="bicubic", antialias=True)
        resized[number, channel] = larger[0, 0].clamp_(0, 255).round_().to(torch.uint8).numpy()
    return resized
