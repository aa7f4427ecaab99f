"""Frames as picture files, for pages."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from echopix_cli.media.sampling import Pixels


def jpeg(frame: Pixels) -> bytes:
    """A frame, uint8 ``(3, H, W)`` RGB, as JPEG without subsampling of colours."""
    _, height, width = frame.shape
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj444p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"qmin": "3", "qmax": "6"}
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.transpose(1, 2, 0)), format="rgb24")
    packets = [*encoder.encode(picture.reformat(format="yuvj444p", threads=1)), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
