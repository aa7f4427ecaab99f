"""Still pictures of the HEIF family (HEIC, AVIF): which of a file's pictures is the photo, and how it is put together.

A file holds previews, gain maps and depth maps beside the photo, and the photo itself often as a grid of tiles. FFmpeg
decodes each of them as a track of its own, whose id is the picture's number; the header, read here, tells the rest
(ISO/IEC 23008-12).
"""

from __future__ import annotations

import dataclasses
import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import cast

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from echopix_cli.errors import MediaError
from echopix_cli.media.cost import Meter
from echopix_cli.media.demux import Damage, open_decoder, video_frames
from echopix_cli.media.pixels import on_white, rgb
from echopix_cli.media.plan import Limits
from echopix_cli.media.sampling import Pixels
from echopix_cli.media.source import open_regular, opened, shown
from echopix_cli.media.values import MediaInfo, TrackInfo

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"avif", b"mif3", b"jpeg", b"j2ki")
_LARGEST_HEADER = 16 * 2**20  # bytes; those of real photos take a few thousand
_MOST_TILES = 4096
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_DERIVED = (b"grid", b"iovl", b"iden", b"tmap")


@dataclass(frozen=True)
class Still:
    """How the photo of a file is put together, in stored pixels before it is cropped and turned."""

    tiles: tuple[int, ...]  # numbers of the pictures that make it up, row by row
    columns: int
    size: tuple[int, int] | None  # (height, width) of a grid; None for a single picture: its own
    changes: tuple[tuple[bytes, bytes], ...] = ()  # cropping, turning and mirroring, in this order
    alpha: Still | None = None  # how opaque it is, of the same size

    @property
    def rotation(self) -> int:
        """Degrees clockwise that turn it upright, mirroring apart."""
        return -90 * sum(body[0] & 3 for kind, body in self.changes if kind == b"irot") % 360


@dataclass
class _Header:
    """What a header tells of its pictures, by number."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    parts: dict[int, list[int]] = field(default_factory=dict)
    auxiliary: dict[int, list[int]] = field(default_factory=dict)  # pictures that tell more of this one
    places: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # method, offset, length
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    associated: dict[int, list[int]] = field(default_factory=dict)
    data: bytes = b""


def read_still(path: str | os.PathLike[str]) -> Still | None:
    """How a still picture is put together; None for files of other kinds.

    Raises:
        MediaError: its header is damaged, or it is put together in a way that is not known here.
    """
    with open_regular(path) as file:
        if not _is_still(file):
            return None
        meta = _top_level(file, b"meta")
        if meta is None:
            return None
        try:
            return _still(_header(meta[4:]), file, shown(path))
        except (struct.error, IndexError, ZeroDivisionError) as error:
            raise MediaError(f"{shown(path)} is damaged: its picture's header is broken", "copy it again") from error


def _is_still(file: io.FileIO) -> bool:
    head = file.read(512) or b""
    size = int.from_bytes(head[:4], "big")
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS and size >= 16 and b"avis" not in head[8:12]


def _top_level(file: io.FileIO, wanted: bytes) -> bytes | None:
    """The body of a box that lies in no other one."""
    at, end = 0, os.fstat(file.fileno()).st_size
    while at + 8 <= end:
        file.seek(at)
        size, name = struct.unpack(">I4s", (file.read(8) or b"").ljust(8, b"\0"))
        begin = 8
        if size == 1:
            size, begin = int.from_bytes(file.read(8) or b"", "big"), 16
        if size == 0:
            size = end - at
        if name == wanted:
            return file.read(min(size - begin, _LARGEST_HEADER)) if size > begin else None
        if size < begin:
            return None
        at += size
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and bodies of the boxes in a body."""
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield name, data[at + 8 : at + size]
        at += size


def _header(meta: bytes) -> _Header:
    header = _Header()
    for name, body in _boxes(meta):
        wide = len(body) > 0 and body[0] > 0
        if name == b"pitm":
            (header.primary,) = struct.unpack_from(">I" if wide else ">H", body, 4)
        elif name == b"iinf":
            for _, entry in _boxes(body[8 if wide else 6 :]):
                long = entry[0] > 2
                (number,) = struct.unpack_from(">I" if long else ">H", entry, 4)
                header.kinds[number] = entry[10:14] if long else entry[8:12]
        elif name == b"iref":
            _read_references(header, body[4:], ">I" if wide else ">H")
        elif name == b"iloc":
            _read_places(header, body)
        elif name == b"idat":
            header.data = body
        elif name == b"iprp":
            for kind, inner in _boxes(body):
                if kind == b"ipco":
                    header.properties = list(_boxes(inner))
                elif kind == b"ipma":
                    _read_associations(header, inner)
    return header


def _read_references(header: _Header, data: bytes, number: str) -> None:
    step = struct.calcsize(number)
    for kind, body in _boxes(data):
        if kind not in (b"dimg", b"auxl"):
            continue
        (owner,) = struct.unpack_from(number, body)
        (count,) = struct.unpack_from(">H", body, step)
        others = [struct.unpack_from(number, body, step + 2 + part * step)[0] for part in range(count)]
        if kind == b"dimg":
            header.parts[owner] = others
        else:
            for other in others:
                header.auxiliary.setdefault(other, []).append(owner)


def _read_places(header: _Header, body: bytes) -> None:
    version, sizes = body[0], int.from_bytes(body[4:6], "big")
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version > 0 else 0
    stream = io.BytesIO(body[6:])

    def take(count: int) -> int:
        read = stream.read(count)
        if len(read) < count:
            raise IndexError
        return int.from_bytes(read, "big")

    wide = 4 if version == 2 else 2
    for _ in range(take(wide)):
        number = take(wide)
        method = take(2) & 15 if version > 0 else 0
        take(2)
        base, extents = take(base_size), take(2)
        for extent in range(extents):
            take(index_size)
            offset, length = base + take(offset_size), take(length_size)
            if extent == 0:
                header.places[number] = method, offset, length


def _read_associations(header: _Header, body: bytes) -> None:
    wide, long = body[0] > 0, body[3] & 1
    (count,) = struct.unpack_from(">I", body, 4)
    at = 8
    for _ in range(count):
        (number,) = struct.unpack_from(">I" if wide else ">H", body, at)
        at += 4 if wide else 2
        entries, at = body[at], at + 1
        for _ in range(entries):
            index = int.from_bytes(body[at : at + 1 + long], "big") & (0x7FFF if long else 0x7F)
            header.associated.setdefault(number, []).append(index)
            at += 1 + long


def _still(header: _Header, file: io.FileIO, name: str) -> Still:
    number, changes = header.primary, _changes(header, header.primary)
    while header.kinds.get(number) == b"iden" and number in header.parts and len(changes) < 64:
        (number,) = header.parts[number][:1]  # the same picture, changed once more
        changes = _changes(header, number) + changes
    alpha = next((other for other in header.auxiliary.get(number, ()) if _is_alpha(header, other)), None)
    opacity = None if alpha is None else _made_of(header, alpha, file, name)
    return dataclasses.replace(_made_of(header, number, file, name), changes=changes, alpha=opacity)


def _is_alpha(header: _Header, number: int) -> bool:
    found = [header.properties[index - 1] for index in header.associated.get(number, ()) if index > 0]
    return any(kind == b"auxC" and body[4:].partition(b"\0")[0] in _ALPHA for kind, body in found)


def _made_of(header: _Header, number: int, file: io.FileIO, name: str) -> Still:
    """The tiles of a picture that is one or a grid of others."""
    kind = header.kinds.get(number, b"")
    if kind not in _DERIVED:
        return Still((number,), 1, None)
    if kind != b"grid":
        what = "overlaid" if kind == b"iovl" else "derived"
        raise MediaError(f"{name}: its picture is {what} from others, which is not supported", "convert it to JPEG")
    method, offset, length = header.places.get(number, (0, 0, 0))
    payload = header.data[offset : offset + length]
    if method == 0:
        file.seek(offset)
        payload = file.read(min(length, 64)) or b""
    long = payload[1] & 1
    height, width = reversed(struct.unpack_from(">II" if long else ">HH", payload, 4))
    rows, columns = payload[2] + 1, payload[3] + 1
    tiles = tuple(header.parts.get(number, ()))
    if len(tiles) != rows * columns or len(tiles) > _MOST_TILES:
        raise IndexError
    return Still(tiles, columns, (height, width))


def _changes(header: _Header, number: int) -> tuple[tuple[bytes, bytes], ...]:
    found = [header.properties[index - 1] for index in header.associated.get(number, ()) if index > 0]
    return tuple(one for one in found if one[0] in (b"clap", b"irot", b"imir"))


def describe_still(container: InputContainer, still: Still) -> MediaInfo:
    """A still picture as a file with one video track."""
    tiles = [stream for stream in container.streams.video if stream.id in still.tiles]
    codec = tiles[0].codec_context if tiles else None
    height, width = still.size or ((codec.height, codec.width) if codec else (0, 0))
    track = TrackInfo("video", 0, codec.name if codec else None, width or None, height or None, rotation=still.rotation)
    return MediaInfo(container.format.name, None, (track,))


def decode_still(path: str | os.PathLike[str], still: Still, limits: Limits, meter: Meter) -> Pixels | None:
    """The photo as uint8 ``(H, W, 3)`` RGB, cropped and upright; None if it cannot be decoded.

    Raises:
        MediaError: it exceeds a limit.
    """
    tiles: dict[int, Pixels] = {}
    wanted = {*still.tiles, *(still.alpha.tiles if still.alpha else ())}
    with opened(path, limits) as container:
        streams = {stream.index: stream for stream in container.streams.video if stream.id in wanted}
        decoders = {index: open_decoder(stream, limits.max_area) for index, stream in streams.items()}
        for packet in container.demux(*streams.values()) if streams else ():
            stream, decoder = streams[packet.stream.index], decoders[packet.stream.index]
            if decoder is None or packet.size == 0 or stream.id in tiles:
                continue
            damage = Damage()
            data = cast("Packet[VideoStream]", packet)
            for frame in [*video_frames(decoder, data, damage), *video_frames(decoder, None, damage)][:1]:
                meter.picture(frame.width, frame.height)
                tiles[stream.id] = rgb(frame)
    if wanted - set(tiles):
        return None
    pixels = _assembled(still, tiles)
    if still.alpha is not None and (alpha := _assembled(still.alpha, tiles)).shape == pixels.shape:
        pixels = on_white(np.concatenate((pixels, alpha[..., :1]), axis=2))
    for kind, body in still.changes:
        if kind == b"clap":
            pixels = _cropped(pixels, body)
        elif kind == b"irot":
            pixels = np.rot90(pixels, body[0] & 3)
        else:
            pixels = pixels[:, ::-1] if body[0] & 1 else pixels[::-1]
    return pixels


def _assembled(still: Still, tiles: dict[int, Pixels]) -> Pixels:
    """The tiles side by side; what stands over at the right and below is cut off."""
    if still.size is None:
        return tiles[still.tiles[0]]
    photo = np.zeros((*still.size, 3), np.uint8)
    tall, wide = tiles[still.tiles[0]].shape[:2]
    for place, number in enumerate(still.tiles):
        row, column = divmod(place, still.columns)
        room = photo[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
        part = tiles[number][: room.shape[0], : room.shape[1]]
        room[: part.shape[0], : part.shape[1]] = part
    return photo


def _cropped(pixels: Pixels, body: bytes) -> Pixels:
    """The clean aperture: its width, height and the distance of its centre from the picture's, each as a fraction."""
    values = struct.unpack_from(">iIiIiIiI", body)
    if 0 in values[1::2]:
        return pixels
    width, height, across, down = (Fraction(values[at], values[at + 1]) for at in range(0, 8, 2))
    left = round((pixels.shape[1] - width) / 2 + across)
    top = round((pixels.shape[0] - height) / 2 + down)
    cropped = pixels[max(0, top) : max(0, top + round(height)), max(0, left) : max(0, left + round(width))]
    return cropped if cropped.size else pixels
