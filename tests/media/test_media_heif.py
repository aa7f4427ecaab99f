"""HEIC and AVIF: the photo itself, put together, cropped and upright; never a preview or an auxiliary picture."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import coded as numbered
from makers import codes, write_clip

from echopix_cli.errors import MediaError
from echopix_cli.media import DecodePlan, load_clip, probe
from echopix_cli.media.heif import read_still

SMALL: dict[str, Any] = {"min_pixels": 28 * 28, "max_pixels": 100 * 28 * 28}
TILE = 64
CODECS = {"hevc": ("libx265", b"hvc1", b"hvcC", b"heic"), "av1": ("libsvtav1", b"av01", b"av1C", b"avif")}


def box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, name) + body


def coded(folder: Path, picture: Any, codec: str) -> tuple[bytes, bytes]:
    """The decoder's configuration box, and the data, of a picture as an item of its own."""
    encoder, _, config, _ = CODECS[codec]
    path = folder / "one.mp4"
    with av.open(str(path), "w") as out:
        options = {"x265-params": "log-level=none:info=0:keyint=1:bframes=0"} if codec == "hevc" else {"preset": "10"}
        stream = out.add_stream(encoder, rate=1, options={**options, "crf": "10"})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        stream.codec_context.time_base = Fraction(1, 1)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    data = path.read_bytes()
    at = data.index(config) - 4
    with av.open(str(path)) as container:
        packet = next(packet for packet in container.demux(video=0) if packet.size)
        return data[at : at + struct.unpack_from(">I", data, at)[0]], bytes(packet)


def write_heif(
    path: Path,
    tiles: list[Any],
    *,
    columns: int = 1,
    size: tuple[int, int] | None = None,
    changes: tuple[bytes, ...] = (),
    others: tuple[tuple[bytes, Any], ...] = (),
    codec: str = "hevc",
    kind: bytes = b"grid",
    auxiliary: bytes = b"urn:com:apple:photo:2020:aux:hdrgainmap",
) -> Path:
    """A file whose photo is made of tiles, or is the only one, beside ``others``: (``thmb`` or ``auxl``, picture)."""
    pictures = [*tiles, *(picture for _, picture in others)]
    configs, data = zip(*(coded(path.parent, picture, codec) for picture in pictures), strict=True)
    grid = len(pictures) + 1 if size is not None else 1
    properties, associated = [*configs], []
    for number, picture in enumerate(pictures, start=1):
        properties.append(box(b"ispe", bytes(4), struct.pack(">II", picture.shape[1], picture.shape[0])))
        associated.append((number, [number, len(properties)]))
    if size is not None:
        properties.append(box(b"ispe", bytes(4), struct.pack(">II", size[1], size[0])))
        associated.append((grid, [len(properties)]))
    first = len(properties) + 1
    properties += changes
    associated[grid - 1][1].extend(range(first, len(properties) + 1))
    properties.append(box(b"auxC", bytes(4), auxiliary + b"\0"))
    for place, (relation, _) in enumerate(others):
        if relation == b"auxl":
            associated[len(tiles) + place][1].append(len(properties))
    entries = [
        box(b"infe", b"\2\0\0" + bytes([size is not None and number <= len(tiles)]), struct.pack(">HH", number, 0),
            CODECS[codec][1], b"\0")
        for number in range(1, len(pictures) + 1)
    ]  # fmt: skip
    references = [
        box(relation, struct.pack(">HHH", len(tiles) + 1 + place, 1, grid))
        for place, (relation, _) in enumerate(others)
    ]
    payload = b""
    if size is not None:
        entries.append(box(b"infe", b"\2\0\0\0", struct.pack(">HH", grid, 0), kind, b"\0"))
        references.append(box(b"dimg", struct.pack(f">HH{len(tiles)}H", grid, len(tiles), *range(1, len(tiles) + 1))))
        payload = bytes([0, 0, len(tiles) // columns - 1, columns - 1]) + struct.pack(">HH", size[1], size[0])
    ipma = b"".join(struct.pack(">HB", number, len(some)) + bytes(some) for number, some in associated)

    def meta(begin: int) -> bytes:
        places, at = b"", begin
        for number, one in enumerate(data, start=1):
            places += struct.pack(">HHHHII", number, 0, 0, 1, at, len(one))
            at += len(one)
        if size is not None:
            places += struct.pack(">HHHHII", grid, 1, 0, 1, 0, len(payload))
        return box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", bytes(4), struct.pack(">H", grid)),
            box(b"iloc", b"\1\0\0\0\x44\0", struct.pack(">H", len(entries)), places),
            box(b"iinf", bytes(4), struct.pack(">H", len(entries)), *entries),
            box(b"iref", bytes(4), *references) if references else b"",
            box(b"iprp", box(b"ipco", *properties), box(b"ipma", bytes(4), struct.pack(">I", len(associated)), ipma)),
            box(b"idat", payload) if payload else b"",
        )

    brand = CODECS[codec][3]
    head = box(b"ftyp", brand, bytes(4), b"mif1", brand)
    begin = len(head) + len(meta(0)) + 8
    path.write_bytes(head + meta(begin) + box(b"mdat", *data))
    return path


def greys(*levels: int, height: int = TILE, width: int = TILE) -> list[Any]:
    return [np.full((height, width, 3), level, np.uint8) for level in levels]


PREVIEW = (b"thmb", np.full((48, 80, 3), 250, np.uint8))
GAIN_MAP = (b"auxl", np.full((64, 64, 3), 128, np.uint8))


@pytest.mark.parametrize("codec", ["hevc", "av1"])
@pytest.mark.parametrize("others", [(), (PREVIEW,), (GAIN_MAP, PREVIEW)])
def test_tiles_become_one_picture(tmp_path: Path, codec: str, others: tuple[Any, ...]) -> None:
    """Three columns and two rows; what stands over at the right and below is cut off."""
    path = write_heif(tmp_path / "a.heic", greys(10, 60, 110, 160, 200, 240), columns=3, size=(112, 168),
                      others=others, codec=codec)  # fmt: skip
    clip = load_clip(path, DecodePlan(**{**SMALL, "size_factor": 8}))
    assert clip.source_size == (112, 168) and clip.notices == ()
    assert clip.frames is not None and clip.frames.shape == (1, 3, 112, 168)
    found = [[int(clip.frames[0, :, y, x].mean()) for x in (32, 96, 148)] for y in (32, 88)]
    np.testing.assert_allclose(found, [[10, 60, 110], [160, 200, 240]], atol=4)
    info = probe(path)
    assert [(track.width, track.height) for track in info.tracks] == [(168, 112)]


def test_the_photo_is_taken_and_not_what_lies_beside_it(tmp_path: Path) -> None:
    photo = greys(90, height=96, width=128)
    path = write_heif(tmp_path / "a.heic", photo, others=(GAIN_MAP, PREVIEW))
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.source_size == (96, 128) and clip.frames is not None
    assert clip.frames.mean() == pytest.approx(90, abs=4)


IROT = [box(b"irot", bytes([turns])) for turns in range(4)]
LEFT_RIGHT, UP_DOWN = box(b"imir", b"\1"), box(b"imir", b"\0")
# The left half is 40 wide of 128: its centre lies 44 left of the picture's.
CROP = box(b"clap", struct.pack(">iIiIiIiI", 40, 1, 96, 1, (1 << 32) - 44 - (1 << 32), 1, 0, 1))


@pytest.mark.parametrize(
    ("changes", "size", "corner"),
    [
        ((), (96, 128), (0, 0)),
        ((IROT[1],), (128, 96), (-1, 0)),
        ((IROT[2],), (96, 128), (-1, -1)),
        ((IROT[3],), (128, 96), (0, -1)),
        ((LEFT_RIGHT,), (96, 128), (0, -1)),
        ((UP_DOWN,), (96, 128), (-1, 0)),
        ((IROT[1], LEFT_RIGHT), (128, 96), (-1, -1)),
        ((CROP,), (96, 40), (0, 0)),
        ((CROP, IROT[3]), (40, 96), (0, -1)),
    ],
)
@pytest.mark.parametrize("tiled", [False, True])
def test_it_is_cropped_and_turned_in_order(
    tmp_path: Path, changes: tuple[bytes, ...], size: tuple[int, int], corner: tuple[int, int], tiled: bool
) -> None:
    photo = np.zeros((96, 128, 3), np.uint8)
    photo[:32, :32] = 255
    tiles = [photo[:64, :64], photo[:64, 64:], photo[32:, :64], photo[32:, 64:]] if tiled else [photo]
    if tiled:
        tiles[2:] = [np.zeros((64, 64, 3), np.uint8)] * 2
    path = write_heif(tmp_path / "a.heic", tiles, columns=2, size=(96, 128) if tiled else None, changes=changes)
    clip = load_clip(path, DecodePlan(**{**SMALL, "size_factor": 8}))
    assert clip.source_size == size and clip.frames is not None
    places = {(y, x): float(clip.frames[0][:, slice(6) if y == 0 else slice(-6, None), slice(6) if x == 0 else
                                           slice(-6, None)].mean()) for y in (0, -1) for x in (0, -1)}  # fmt: skip
    assert places[corner] > 240 and sum(value > 100 for value in places.values()) == 1
    turns = sum(change[8] for change in changes if change in IROT)
    assert clip.info.tracks[0].rotation == -90 * turns % 360


@pytest.mark.parametrize("urn", [b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1"])
def test_a_transparent_photo_stands_on_white(tmp_path: Path, urn: bytes) -> None:
    alpha = np.zeros((96, 128, 3), np.uint8)
    alpha[:, :64] = 255
    path = write_heif(tmp_path / "a.avif", greys(40, height=96, width=128), others=((b"auxl", alpha),), codec="av1",
                      changes=(LEFT_RIGHT,), auxiliary=urn)  # fmt: skip
    clip = load_clip(path, DecodePlan(**{**SMALL, "size_factor": 8}))
    assert clip.frames is not None
    assert clip.frames[0, :, :, 80:].mean() == pytest.approx(40, abs=4)
    assert clip.frames[0, :, :, :48].mean() == pytest.approx(255, abs=4)


def test_what_cannot_be_put_together_is_refused(tmp_path: Path) -> None:
    path = write_heif(tmp_path / "a.heic", greys(10, 60), columns=2, size=(64, 128), kind=b"iovl", others=(PREVIEW,))
    with pytest.raises(MediaError, match="its picture is overlaid from others"):
        load_clip(path)


def test_a_missing_tile_is_no_photo(tmp_path: Path) -> None:
    path = write_heif(tmp_path / "a.heic", greys(10, 60), columns=2, size=(64, 128))
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat")
    data[at + 4 :] = bytes(len(data) - at - 4)
    path.write_bytes(bytes(data))
    with pytest.raises(MediaError, match="could not be decoded"):
        load_clip(path)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("heif")
    return write_heif(folder / "a.heic", greys(10, 60), columns=2, size=(64, 128), changes=(CROP, IROT[1])).read_bytes()


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_header_is_read_or_refused(
    photo: bytes, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, int]]
) -> None:
    path, data = tmp_path_factory.getbasetemp() / "damaged.heic", bytearray(photo)
    for place, value in changes:
        data[24 + int(place * (data.index(b"mdat") - 25))] = value
    path.write_bytes(bytes(data))
    try:
        still = read_still(path)
    except MediaError:
        return
    assert still is None or still.tiles


def test_a_crop_to_the_left_of_a_grey_picture() -> None:
    path = Path(__file__).resolve().parents[3] / "shared" / "faults" / "heif__L_8__29x100.heif"
    if not path.is_file():
        pytest.skip("the files that were handled wrongly are not here")
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.source_size == (100, 29) and clip.notices == ()


def test_an_animated_avif_is_one_track(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avif", [numbered(n) for n in range(10)], codec="libsvtav1", pix_fmt="yuv420p",
                      tick=Fraction(1, 10), options={"preset": "12"}, format="avif")  # fmt: skip
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2  # a still picture stands beside those that move
    clip = load_clip(path, DecodePlan(min_pixels=28 * 28, max_pixels=100 * 28 * 28, fps=10.0))
    assert clip.frames is not None and codes(clip.frames) == list(range(10)) and clip.notices == ()
    assert [(track.index, track.duration) for track in clip.info.tracks] == [(0, 1.0)]
