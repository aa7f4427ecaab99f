"""A decoded frame as plain RGB: upright, on white where it is transparent, and within the range of a screen."""

from __future__ import annotations

from enum import Enum
from fractions import Fraction
from functools import cache
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame

from echopix_cli.media.sampling import Pixels

# Decoders whose colour profiles have a name. PyAV frees that name twice when a frame's side data was looked at, and
# the process crashes: most PNGs that are screenshots are of this kind.
_NAMED_PROFILES = ("png", "apng")
# Decoders of codecs that keep 32 bits a pixel without telling whether the fourth byte is alpha: where screens were
# recorded it is 0 throughout, and the picture opaque.
_UNTOLD_ALPHA = ("rawvideo", "huffyuv", "ffvhuff", "ffv1", "qtrle")
# Of each conversion. The default is one for each processor, kept as long as the frame is not collected: on a machine
# of sixteen, a minute of film held two thousand threads and their stacks.
_THREADS = 1
_PQ, _HLG, _BT2020 = 16, 18, 9  # FFmpeg's numbers of the transfer functions of HDR, and of their primaries
# Matrices from luma and chroma that libswscale knows, by FFmpeg's numbers; others are shown by the nearest of them.
_MATRICES, _UNTOLD = frozenset((0, 1, 2, 4, 5, 6, 7, 9)), 2
_WHITE = 203.0  # nits; how bright HDR shows what is white paper in SDR (ITU-R BT.2408)
_HLG_PEAK = 1000.0  # nits; of the screen that HLG is graded for
_KNEE = 0.9  # of white; what is brighter is pressed together instead of being cut off
_ENOUGH = 2**19  # pixels of a tone-mapped frame: larger ones are made smaller first, since each takes a while

_Order = tuple[int, int, int, int]
_RGBA = (0, 1, 2, 3)
# Where red, green, blue and alpha stand in formats that keep them in bytes.
_ORDERS = {"rgba": _RGBA, "bgra": (2, 1, 0, 3), "argb": (1, 2, 3, 0), "abgr": (3, 2, 1, 0)}

Values = np.ndarray[Any, np.dtype[np.float32]]


def _unnamed(kind: type[Enum], value: object) -> Enum:
    """A member for a kind of side data that PyAV's table lacks, such as EXIF: the others can be read beside it."""
    member = object.__new__(kind)
    member._value_, member._name_ = value, f"UNNAMED_{value}"
    return member


SideDataType._missing_ = classmethod(_unnamed)  # type: ignore[method-assign, assignment]


def upright(frame: VideoFrame, decoder: str) -> tuple[Pixels, bool]:
    """A frame as uint8 ``(3, H, W)`` RGB with its display matrix applied; and whether axes were swapped.

    The matrix maps (x, y) to (a·x + c·y, b·x + d·y); phones use it for turns by quarters and mirroring.

    Args:
        decoder: FFmpeg's name of the decoder that the frame came from.
    """
    pixels = rgb(frame, padded=decoder in _UNTOLD_ALPHA)
    matrix = display_matrix(frame, decoder)
    if matrix is None:
        return pixels.transpose(2, 0, 1), False
    a, b, c, d = matrix
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    if turned:
        pixels = pixels.transpose(1, 0, 2)
    if (c if turned else a) < 0:
        pixels = pixels[:, ::-1]
    if (b if turned else d) < 0:
        pixels = pixels[::-1]
    return pixels.transpose(2, 0, 1), turned


def display_matrix(frame: VideoFrame, decoder: str) -> tuple[int, int, int, int] | None:
    """The ``(a, b, c, d)`` of a frame's display matrix, as of :func:`upright`; None where it has none."""
    if decoder in _NAMED_PROFILES:
        frame = _without_profile(frame)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return None
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    return a, b, c, d


def _without_profile(frame: VideoFrame) -> VideoFrame:
    """The same frame without its colour profile."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    graph.link_nodes(source, graph.add("sidedata", "delete:ICC_PROFILE"), graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def rgb(frame: VideoFrame, *, padded: bool = False) -> Pixels:
    """A frame as uint8 ``(H, W, 3)`` RGB, as it is stored; in HDR it may come out smaller.

    Args:
        padded: alpha that is 0 everywhere is no alpha, but unused bytes.
    """
    if frame.colorspace not in _MATRICES:
        frame.colorspace = _BT2020 if frame.color_primaries == _BT2020 else _UNTOLD
    if frame.color_trc in (_PQ, _HLG):
        return _tone_mapped(frame)
    if any(component.is_alpha for component in frame.format.components) or frame.format.has_palette:
        pixels, order = _with_alpha(frame)
        alpha = pixels[..., order[3]]
        if alpha.min() < 255 and (alpha.any() or not padded):
            return on_white(pixels, order)
        del pixels, alpha
    return frame.to_ndarray(format="rgb24", threads=_THREADS).astype(np.uint8, copy=False)


def _with_alpha(frame: VideoFrame) -> tuple[Pixels, _Order]:
    """A frame as uint8 ``(H, W, 4)``, its own memory where that holds such pixels; and where each channel stands."""
    order = _ORDERS.get(frame.format.name)
    if order is None:
        return frame.to_ndarray(format="rgba", threads=_THREADS).astype(np.uint8, copy=False), _RGBA
    plane = frame.planes[0]
    shape, strides = (frame.height, frame.width, 4), (plane.line_size, 4, 1)
    return np.lib.stride_tricks.as_strided(
        np.frombuffer(cast(Any, plane), np.uint8), shape, strides, writeable=False
    ), order


def on_white(pixels: Pixels, order: _Order = _RGBA) -> Pixels:
    """Uint8 ``(H, W, 4)`` over white, as uint8 ``(H, W, 3)`` RGB; ``order`` is where red, green, blue, alpha stand."""
    shown = np.empty((*pixels.shape[:2], 3), np.uint8)
    for row, row_shown in zip(pixels, shown, strict=True):  # wider numbers for one row at a time
        alpha = row[:, order[3:]].astype(np.uint32)
        row_shown[:] = (row[:, order[:3]] * alpha + 255 * (255 - alpha) + 127) // 255
    return shown


def _tone_mapped(frame: VideoFrame) -> Pixels:
    """The SDR picture of a frame in HDR: white at 203 nits, brighter places pressed together below full scale.

    libswscale can do it, but takes seconds to prepare for each size, and libavfilter's own needs a library that PyAV
    does not carry.
    """
    shrink = min(1.0, (_ENOUGH / (frame.width * frame.height)) ** 0.5)
    width, height = (max(1, round(edge * shrink)) for edge in (frame.width, frame.height))
    stored = frame.reformat(
        width, height, "rgb48le", interpolation="AREA", threads=_THREADS
    ).to_ndarray()  # (H, W, 3) uint16
    light = _light(frame.color_trc)[stored]
    if frame.color_trc == _HLG:  # the screen's own gamma, which depends on the luminance
        light *= (light @ _LUMINANCE)[..., None] ** 0.2 * (_HLG_PEAK / _WHITE)
    if frame.color_primaries == _BT2020:
        light = np.maximum(light @ _TO_BT709, 0)
    brightest = light.max(axis=-1, keepdims=True)
    over = np.maximum(brightest - _KNEE, 0)
    light *= np.where(over > 0, (_KNEE + over / (1 + over / (1 - _KNEE))) / np.maximum(brightest, _KNEE), 1)
    return np.round(255 * np.minimum(light, 1) ** (1 / 2.2)).astype(np.uint8)


_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020's red, green and blue
# Rows of ITU-R BT.2087's matrix from BT.2020 to BT.709, transposed to stand behind a pixel.
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32).T


@cache
def _light(transfer: int) -> Values:
    """For each 16-bit value the light that it stands for: in units of white for PQ, of the scene for HLG."""
    signal = np.linspace(0, 1, 65_536)
    if transfer == _PQ:  # SMPTE ST 2084
        power = signal ** (32 / 2523)
        light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (16_384 / 2610)
        return (light * 10_000 / _WHITE).astype(np.float32)
    high = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12  # ARIB STD-B67
    return np.where(signal <= 0.5, signal**2 / 3, high).astype(np.float32)
