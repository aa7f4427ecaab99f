"""What a file's header states of its size, compared with the bytes that are there."""

from __future__ import annotations

import io
import os
import re
import struct
from dataclasses import dataclass

from echopix_cli.media.boxes import read_boxes
from echopix_cli.media.extent import bytes_at, media_size
from echopix_cli.media.pulse import beat

# What writers that cannot seek back leave as a size, beside 0: nearly the most that 32 or 31 bits hold.
_UNTOLD = (range(0x7FFFF000, 0x80000001), range(0xFFFFFF00, 0x1_0000_0000))
_BLOCK = 2**20  # bytes read at a time
_FEW, _SHARE = 65_536, 20  # bytes behind the data, and the share of these, that tags and padding may take
_TAIL = 4096  # bytes at the end of an AVI that are not all zeros where it was written to its end
_CHUNK = re.compile(rb"[A-Za-z0-9 _.-]{4}")  # names of chunks in a RIFF file
_TAGS = (b"ID3", b"TAG", b"APET", b"LYRI")
_W64_RIFF, _W64_DATA = b"riff\x2e\x91\xcf\x11", b"data\xf3\xac\xd3\x11"
_FLAC = b"fLaC\0\0\0\x22"  # what a FLAC file begins with, its first block included
# What an ASF file begins with, and the object in its header that states the size.
_ASF, _ASF_FILE = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_ALIKE = 1.03  # sizes that differ by less: FFmpeg tells the duration that the header states
_XING = (36, 21, 13)  # places of the mark "Xing" or "Info" in a frame of MPEG audio


@dataclass(frozen=True)
class Stated:
    """Sizes are compared, not times, because headers state wrong byte rates."""

    promise: float | None = None  # how many times as much as there is the header promises; None: look at durations
    seconds: float | None = None  # how long the whole of it lasts, where FFmpeg does not tell what the header states
    beyond: float = 0.0  # share of the file that lies behind the recording which the header describes


def read_stated(file: io.FileIO) -> Stated:
    """What the header states of a file's size, as far as its kind is known here."""
    size, head = os.fstat(file.fileno()).st_size, bytes_at(file, 0, 12)
    if head[4:8] == b"ftyp":
        another = read_boxes(file).another
        return Stated(beyond=0.0 if another is None else (size - another) / size)
    if head[:4] == b"RIFF" and head[8:] in (b"WAVE", b"AVI "):
        return _riff(file, size, avi=head[8:] == b"AVI ")
    if head[:8] == _W64_RIFF:
        return Stated(_promise(file, 40, size, "<16sq", 24, _W64_DATA))
    if head[:4] == b"caff":
        return Stated(_promise(file, 8, size, ">4sq", 0, b"data"))
    if head[:4] == b"FLV\1":
        return _flv(file, size)
    if head[:4] == b"fLaC":
        return Stated(beyond=_second_flac(file, size) / size)
    if head == _ASF[:12]:
        return _asf(file, size)
    if head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        return Stated(_mpeg_audio(file))
    return Stated()


def _riff(file: io.FileIO, size: int, *, avi: bool) -> Stated:
    at = 12
    while len(chunk := bytes_at(file, at, 8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        if name == b"data" or (avi and name == b"LIST" and bytes_at(file, at + 8, 4) == b"movi"):
            begin, there = at + 8, size - at - 8
            if not there or not length or any(length in sizes for sizes in _UNTOLD):
                return Stated(1.0)
            if avi and length <= there and _only_zeros(file, max(0, size - _TAIL), size):
                return Stated()  # its end was never written: the headers of the tracks tell how long they are
            rest = 0 if avi else _unexplained(file, begin + length, size, length)
            return Stated(max(1.0, length / there), beyond=rest / size)
        at += 8 + length + length % 2
    return Stated(1.0)


def _unexplained(file: io.FileIO, at: int, size: int, length: int) -> int:
    """Bytes behind the data that are neither chunks, tags nor zeros: more sound than is stated, or another file."""
    at += _padding(file, at, length)
    while len(chunk := bytes_at(file, at, 8)) == 8:
        name, taken = struct.unpack("<4sI", chunk)
        if name == b"RIFF" or not _CHUNK.fullmatch(name) or at + 8 + taken > size:
            break
        at += 8 + taken
        at += _padding(file, at, taken)
    rest = size - at
    known = rest <= max(_FEW, length // _SHARE) or bytes_at(file, at, 4).startswith(_TAGS)
    return 0 if known or _only_zeros(file, at, size) else rest


def _padding(file: io.FileIO, at: int, length: int) -> int:
    """The byte behind an odd size that makes it even, which some writers forget."""
    forgotten = _CHUNK.fullmatch(bytes_at(file, at, 4)) and not _CHUNK.fullmatch(bytes_at(file, at + 1, 4))
    return 0 if forgotten else length % 2


def _only_zeros(file: io.FileIO, at: int, size: int) -> bool:
    while block := bytes_at(file, at, min(_BLOCK, size - at)):
        beat()
        if block.strip(b"\0"):
            return False
        at += len(block)
    return True


def _promise(file: io.FileIO, at: int, size: int, form: str, own: int, wanted: bytes) -> float | None:
    """The promise of a file that consists of chunks.

    Args:
        at: where the first one begins.
        form: of a chunk's head, its name and size.
        own: bytes of the head that the size includes; such chunks begin at multiples of 8.
        wanted: what the name of the chunk with the sound begins with.
    """
    width = struct.calcsize(form)
    while len(chunk := bytes_at(file, at, width)) == width:
        name, length = struct.unpack(form, chunk)
        there, length = size - at - width, length - own
        if name.startswith(wanted):
            return max(1.0, length / there) if there > 0 and length > 0 else 1.0
        if length < 0:
            return None
        at += width + length + (-length % 8 if own else 0)
    return None


def _flv(file: io.FileIO, size: int) -> Stated:
    tag = bytes_at(file, 13, 11)  # the first one
    script = bytes_at(file, 24, min(_FEW, int.from_bytes(tag[1:4], "big"))) if tag[:1] == b"\x12" else b""
    at = script.find(b"filesize\0") + 9
    if at < 9 or at + 8 > len(script):
        return Stated()
    (told,) = struct.unpack_from(">d", script, at)
    if not 0 < told < 2**62:
        return Stated()
    another = told < size and bytes_at(file, int(told), 4) == b"FLV\1"
    return Stated(told / size if told > size else None, beyond=(size - told) / size if another else 0.0)


def _asf(file: io.FileIO, size: int) -> Stated:
    at, end = 30, int.from_bytes(bytes_at(file, 16, 8), "little")
    while at < end and len(head := bytes_at(file, at, 92)) == 92:
        beat()
        if head[:16] == _ASF_FILE:
            told, _, _, lasts, _, late, flags = struct.unpack_from("<6QI", head, 40)
            if flags & 1 or not told or not late / 1e3 < lasts / 1e7 < 2**31:  # 1: it was sent while it was made
                return Stated(1.0)
            return Stated(told / size, lasts / 1e7 - late / 1e3) if told > size * _ASF_ALIKE else Stated()
        at += max(24, int.from_bytes(head[16:24], "little"))
    return Stated(1.0)


def _second_flac(file: io.FileIO, size: int) -> int:
    """Bytes from where another FLAC file begins behind the first one."""
    at = 4
    while block := bytes_at(file, at, _BLOCK):
        beat()
        if (found := block.find(_FLAC)) >= 0:
            return size - at - found
        if len(block) < len(_FLAC):
            break
        at += len(block) - len(_FLAC) + 1
    return 0


def _mpeg_audio(file: io.FileIO) -> float | None:
    """The promise of an MP3 whose first frame states the bytes; None where it is kept, or there is none."""
    head, at = bytes_at(file, 0, 10), 0
    if head[:3] == b"ID3" and len(head) == 10:
        at = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    frame, there = bytes_at(file, at, 64), media_size(file) - at
    for place in _XING:
        if frame[place : place + 4] in (b"Xing", b"Info") and len(frame) >= place + 16:
            flags, first, second = struct.unpack_from(">III", frame, place + 4)
            told = (second if flags & 1 else first) if flags & 2 else 0
            return told / there if told > there > 0 else None
    return None
