"""What a frame becomes: turned as its EXIF says, on white where it is transparent, HDR within a screen's range."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from makers import tone, write_clip, write_picture

from echopix_cli.media import DecodePlan, load_clip
from echopix_cli.media.pixels import on_white, rgb

SMALL: dict[str, Any] = {"min_pixels": 28 * 28, "max_pixels": 100 * 28 * 28}
CORNERS = ("top left", "top right", "bottom right", "bottom left")


def corner(frame: Any) -> str:
    """Which corner of ``(3, H, W)`` is bright."""
    top, left, bottom, right = slice(0, 20), slice(0, 20), slice(-20, None), slice(-20, None)
    places = [(top, left), (top, right), (bottom, right), (bottom, left)]
    return max(zip(CORNERS, places, strict=True), key=lambda pair: float(frame[:, *pair[1]].mean()))[0]


def exif(orientation: int) -> bytes:
    """An APP1 segment that says how the picture is to be turned, and who made it."""
    maker = b"Maker\0"
    entries = struct.pack("<HHII", 0x010F, 2, len(maker), 8 + 2 + 2 * 12 + 4)
    entries += struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0" + b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + bytes(4) + maker
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def jpeg_with_exif(folder: Path, orientation: int) -> Path:
    """96 pixels high and 128 wide, bright in the stored picture's top left corner."""
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[:24, :24] = 255
    plain = write_picture(folder / "plain.jpg", picture, "mjpeg", "yuvj420p").read_bytes()
    path = folder / f"exif{orientation}.jpg"
    path.write_bytes(plain[:2] + exif(orientation) + plain[2:])
    return path


@pytest.mark.parametrize(
    ("mark", "content"),
    [
        (0xE2, b"MPF\0MM\0*\0\0\0\x08"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<Container:Directory/>"),
    ],
)
@pytest.mark.parametrize("filled", [b"", b"\xff\xff"])  # any mark may have such bytes before it
@pytest.mark.parametrize("side", [96, 1600])  # FFmpeg reads large ones in another way
def test_of_a_photo_with_a_gain_map_behind_it_the_photo_is_taken(
    tmp_path: Path, side: int, filled: bytes, mark: int, content: bytes
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    photo = write_picture(tmp_path / "photo.jpg", noise, "mjpeg", "yuvj420p").read_bytes()
    behind = write_picture(tmp_path / "map.jpg", np.full((48, 48, 3), 90, np.uint8), "mjpeg", "yuvj420p").read_bytes()
    segment = bytes([0xFF, mark]) + (len(content) + 2).to_bytes(2, "big") + content
    several = tmp_path / "several.jpg"
    several.write_bytes(photo[:2] + segment + filled + photo[2:] + behind)
    clip, alone = load_clip(several, DecodePlan(**SMALL)), load_clip(tmp_path / "photo.jpg", DecodePlan(**SMALL))
    assert clip.frames is not None and alone.frames is not None and np.array_equal(clip.frames, alone.frames)
    assert clip.info == alone.info and clip.source_size == (side, side) and clip.end == 0.04 and clip.notices == ()
    several.write_bytes(photo + behind)  # which tells of nothing behind it: pictures one after another
    assert len(load_clip(several, DecodePlan(**SMALL)).frames) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, "top left"),
        (2, "top right"),
        (3, "bottom right"),
        (4, "bottom left"),
        (5, "top left"),
        (6, "top right"),
        (7, "bottom right"),
        (8, "bottom left"),
    ],
)
def test_a_picture_with_exif_is_decoded_and_turned_upright(tmp_path: Path, orientation: int, expected: str) -> None:
    clip = load_clip(jpeg_with_exif(tmp_path, orientation), DecodePlan(**SMALL))
    assert clip.frames is not None and clip.notices == ()
    assert clip.source_size == ((96, 128) if orientation < 5 else (128, 96))
    assert corner(clip.frames[0]) == expected


def test_a_camera_clip_of_pictures_with_exif_keeps_its_picture(tmp_path: Path) -> None:
    jpeg = jpeg_with_exif(tmp_path, 1).read_bytes()
    with av.open(str(tmp_path / "camera.avi"), "w") as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        for number in range(20):
            packet = av.Packet(jpeg)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
            packet.is_keyframe = True
            out.mux(packet)
    clip = load_clip(tmp_path / "camera.avi", DecodePlan(**SMALL))
    assert clip.frames is not None and len(clip.frames) == 4 and clip.notices == ()
    assert {corner(frame) for frame in clip.frames} == {"top left"}


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.png", "png", "rgba"),
        ("a.png", "png", "ya8"),
        ("a.png", "png", "rgba64be"),
        ("a.webp", "libwebp", "bgra"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.mkv", "ffv1", "yuva420p"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.webm", "libvpx", "yuva420p"),
    ],
)
def test_what_is_transparent_is_white(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    """Black throughout; opaque at the left, half transparent in the middle, transparent at the right."""
    pixels = np.zeros((64, 192, 4), np.uint8)
    pixels[:, :64, 3], pixels[:, 64:128, 3] = 255, 128
    path = tmp_path / name
    if path.suffix in (".png", ".webp"):
        encoder = av.CodecContext.create(codec, "w")
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 192, 64, pix_fmt, Fraction(1, 25)
        if codec == "libwebp":
            encoder.options = {"lossless": "1"}
        frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pix_fmt)
        frame.pts = 0
        path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))
    else:
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=10, options={"crf": "4", "b": "1M"} if "vpx" in codec else {})
            stream.width, stream.height, stream.pix_fmt = 192, 64, pix_fmt
            stream.codec_context.thread_count = 1
            if "vpx" in codec:
                stream.codec_context.options = {"auto-alt-ref": "0", "crf": "4", "b": "1M"}
            for number in range(4):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pix_fmt)
                frame.pts, frame.time_base = number, Fraction(1, 10)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.frames is not None and clip.notices == ()
    third = clip.frames.shape[3] // 3
    middles = [
        float(clip.frames[0][:, :, n * third + third // 4 : (n + 1) * third - third // 4].mean()) for n in (0, 1, 2)
    ]
    assert middles == pytest.approx([0, 127, 255], abs=4)


@pytest.mark.parametrize("kind", ["rgba", "bgra", "argb", "abgr", "yuva444p", "ya8"])
def test_colours_keep_their_places(kind: str) -> None:
    """Whatever the order in which a frame holds them, and however its rows are padded."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 37, 4), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=kind)
    np.testing.assert_array_equal(rgb(frame), on_white(frame.to_ndarray(format="rgba")))


def hdr(luma: float, transfer: int) -> av.VideoFrame:
    """A grey frame whose signal is ``luma`` of full scale, 10 bits, BT.2020."""
    frame = av.VideoFrame(64, 48, "yuv420p10le")
    for number, plane in enumerate(frame.planes):
        plane.update(np.full(plane.buffer_size // 2, 64 + round(luma * 876) if number == 0 else 512, np.uint16))
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, 9, 9, 1
    return frame


@pytest.mark.parametrize(
    ("transfer", "signal", "grey"),
    [
        (16, 0.0, 0),
        (16, 0.5081, 184),  # 100 nits
        (16, 0.5807, 249),  # 203 nits, white
        (16, 0.7518, 255),  # 1000 nits
        (18, 0.38, 101),
        (18, 0.75, 249),  # HLG's white
        (1, 0.5, 128),  # SDR stays as it is
    ],
)
def test_hdr_is_brought_into_the_range_of_a_screen(transfer: int, signal: float, grey: int) -> None:
    assert rgb(hdr(signal, transfer)).mean() == pytest.approx(grey, abs=2)


def test_an_hdr_file_is_tone_mapped_whatever_its_size(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "white.mkv"), "w") as out:
        stream = out.add_stream(
            "libx265", rate=10, options={"x265-params": "transfer=16:colorprim=9:colormatrix=9:log-level=none"}
        )
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p10le"
        stream.codec_context.thread_count, stream.codec_context.time_base = 1, Fraction(1, 10)
        frame = hdr(0.5807, 16).reformat(1280, 720)
        for number in range(4):
            frame.pts, frame.time_base = number, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    clip = load_clip(tmp_path / "white.mkv", DecodePlan(**SMALL))
    assert clip.frames is not None and clip.source_size == (720, 1280)
    assert clip.frames.mean() == pytest.approx(249, abs=3)


def test_frames_of_another_shape_are_fitted_between_bars(tmp_path: Path) -> None:
    shapes = (
        [(96, 128)] * 4 + [(96, 64)] * 4 + [(48, 64)] * 4
    )  # as wide, half as wide, a smaller one of the first shape
    with av.open(str(tmp_path / "sizes.avi"), "w") as out:
        stream = out.add_stream("mjpeg", rate=2)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        for number, shape in enumerate(shapes):
            white = np.full((*shape, 3), 255, np.uint8)
            packet = av.Packet(write_picture(tmp_path / "one.jpg", white, "mjpeg", "yuvj420p").read_bytes())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 2)
            packet.is_keyframe = True
            out.mux(packet)
    clip = load_clip(tmp_path / "sizes.avi", DecodePlan(**SMALL))
    assert clip.frames is not None and len(clip.frames) == 12
    width = clip.frames.shape[3]
    assert clip.frames[:4].min() > 250 and clip.frames[8:].min() > 250
    for frame in clip.frames[4:8]:
        assert frame[:, :, : width // 4 - 1].max() == 0 and frame[:, :, -(width // 4 - 1) :].max() == 0
        assert frame[:, :, width // 4 + 2 : -(width // 4 + 2)].min() > 250


def test_sound_and_picture_of_a_transparent_clip(tmp_path: Path) -> None:
    """A frame that is opaque throughout is as it would be without an alpha channel."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    plain = load_clip(write_clip(tmp_path / "a.mkv", [noise] * 4, sound=tone(1)), DecodePlan(**SMALL))
    alpha = load_clip(write_clip(tmp_path / "b.mkv", [noise] * 4, sound=tone(1), pix_fmt="bgra"), DecodePlan(**SMALL))
    assert plain.frames is not None and alpha.frames is not None
    assert np.array_equal(plain.frames, alpha.frames)


@pytest.mark.parametrize("matrix", [3, 8, 10, 14])
def test_a_matrix_that_the_library_does_not_know_is_no_damage(matrix: int) -> None:
    """It is shown by the nearest one that it knows, as players do."""
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[:8], colours[8:] = (200, 40, 40), (90, 90, 90)
    frame = av.VideoFrame.from_ndarray(colours, format="rgb24").reformat(format="yuv420p")
    known = rgb(frame)
    frame.colorspace = matrix
    assert np.abs(rgb(frame).astype(int) - known).max() <= 40
    frame.colorspace, frame.color_trc, frame.color_primaries = matrix, 16, 9
    assert rgb(frame).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "grey"),
    [
        ("a.avi", "rawvideo", "bgra", 90),
        ("a.avi", "huffyuv", "bgra", 90),
        ("a.mkv", "ffv1", "bgra", 90),
        ("a.mov", "qtrle", "argb", 90),
        ("a.apng", "apng", "rgba", 255),
        ("a.mov", "png", "rgba", 255),
        ("a.webm", "libvpx-vp9", "yuva420p", 255),
    ],
)
def test_a_fourth_byte_that_is_unused_is_no_alpha(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, grey: int
) -> None:
    """It is 0 throughout, as recorders of screens leave it; where a format declares alpha, that is transparent."""
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        stream.codec_context.thread_count = 1
        for number in range(2):
            pixels = np.full((48, 64, 4), (90, 90, 90, 0), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    clip = load_clip(tmp_path / name, DecodePlan(**SMALL))
    assert clip.frames is not None and clip.notices == ()
    assert clip.frames.min() == clip.frames.max() == grey
