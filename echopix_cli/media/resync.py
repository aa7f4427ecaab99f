"""Whether the bytes between two packets of a track are a row of packets, or damaged.

Demuxers of Matroska, Ogg, FLAC, AVI and MPEG program streams look for the next packet behind what they cannot read, and
say nothing. Where the times of a track leave something out, the bytes between show whether it was a pause: elements,
pages or packets follow one another without a gap.
"""

from __future__ import annotations

import io
import math
import os
import re
import zlib
from collections.abc import Callable
from contextlib import suppress

from echopix_cli.errors import MediaError
from echopix_cli.media.pulse import beat
from echopix_cli.media.source import open_regular

_BLOCKS = (0xA3, 0xA1)  # Matroska: SimpleBlock, and Block in a BlockGroup
_OPENED = (0x1F43B675, 0xA0, 0x18538067)  # Cluster, BlockGroup, Segment: what they hold follows their head
# What else stands among blocks: times, references, durations, voids, checksums; cues, tags, the head of another file.
_PASSED = (
    *(0xE7, 0xAB, 0xA7, 0x9B, 0xFB, 0xFA, 0xFD, 0xA4, 0xA2, 0xAF, 0x75A1, 0x75A2, 0x8E, 0xC8, 0xEC, 0xBF, 0x5854),
    *(0x1A45DFA3, 0x1C53BB6B, 0x1254C367, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1043A770, 0x1941A469),
)
_LONGEST_HEAD = 12  # bytes of an element's identifier and size
_PAGE, _PAGE_HEAD, _LARGEST_PAGE = b"OggS", 27, 27 + 255 + 255 * 255
_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte from its other end
_CHUNK = re.compile(rb"[0-9]{2}[a-z]{2}", re.DOTALL)  # AVI: a piece of a track,
_OTHER_CHUNK = re.compile(rb"[A-Za-z0-9 ]{4}")  # and any other one
_LISTS = (b"RIFF", b"LIST")
_CODE, _END, _PACK, _FIRST_PACKET = b"\0\0\1", 0xB9, 0xBA, 0xBB  # MPEG: what a packet begins with; the kinds of them
_SECTOR = 2336  # bytes, up to which a writer may have filled up with zeros
_OFTEN = 1000  # elements between two signs of life
_MISSED = 0.2  # seconds from one packet of a track to the next in which there may have been others

Broken = Callable[[int, int], bool]


def broken_between(path: str | os.PathLike[str], container: str) -> Broken | None:
    """What tells whether the file is damaged between the bytes where two packets of a track lie; None: nothing does.

    Args:
        path: of the file.
        container: FFmpeg's name of the demuxer.
    """
    if container == "flac":
        return lambda before, after: True  # its frames are numbered, so that there are no pauses
    goes_on = _GOES_ON.get(container)
    return None if goes_on is None else _Broken(path, goes_on)


def suspicious(container: str) -> float:
    """Seconds between two packets of a track beyond which what lies between them is looked at."""
    return -math.inf if container == "avi" else _MISSED  # AVI's times count what is left


class _Broken:
    """Looks between packets of one file, which it opens once: some containers ask at every packet.

    Args:
        path: of the file.
        goes_on: whether packets follow one another, in an open file from one place to another.
    """

    def __init__(self, path: str | os.PathLike[str], goes_on: Callable[[int, int, int], bool]) -> None:
        self._path, self._goes_on = path, goes_on
        self._file: io.FileIO | None = None

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def __call__(self, before: int, after: int) -> bool:
        if not 0 <= before < after:
            return False
        with suppress(MediaError, OSError):  # whoever reads it meets the same, and says so
            if self._file is None:
                self._file = open_regular(self._path)
            return not self._goes_on(self._file.fileno(), before, after)
        return False


def _matroska_goes_on(file: int, before: int, after: int) -> bool:
    """Whether a block's content at one place is followed, element by element, by that at another place."""
    head = os.pread(file, min(before, _LONGEST_HEAD), max(0, before - _LONGEST_HEAD))
    ends = []
    for size in range(1, min(8, len(head) - 1) + 1):  # bytes of a size that would stand right before the place
        length = _number(head[-size:], keep_mark=False)
        if length is not None and length[1] == size and head[-size - 1] in _BLOCKS:
            ends.append(before + length[0])
    # Where no block begins like that, nothing is known.
    return not ends or any(_reaches(file, end, after) for end in ends)


def _reaches(file: int, at: int, after: int) -> bool:
    passed = 0
    while at < after:
        data = os.pread(file, _LONGEST_HEAD, at)
        kind = _number(data, keep_mark=True)
        size = None if kind is None else _number(data[kind[1] :], keep_mark=False)
        if kind is None or size is None:
            return False
        content = at + kind[1] + size[1]
        if kind[0] in _BLOCKS and content == after:
            return True
        if kind[0] not in (*_BLOCKS, *_OPENED, *_PASSED):
            return False
        at = content if kind[0] in _OPENED else content + size[0]
        passed += 1
        if passed % _OFTEN == 0:
            beat()
    return False


def _number(data: bytes, *, keep_mark: bool) -> tuple[int, int] | None:
    """A number of EBML (RFC 8794) and how many bytes it takes; None where none begins.

    Args:
        keep_mark: whether the bit that marks its length is part of it, as of identifiers.
    """
    if not data or not data[0]:
        return None
    size = 9 - data[0].bit_length()
    if size > len(data):
        return None
    value = int.from_bytes(data[:size], "big")
    return (value if keep_mark else value - (1 << 7 * size)), size


def _ogg_goes_on(file: int, before: int, after: int) -> bool:
    """Whether the page at one place is followed by others, all in order, up to the one at another place."""
    at, numbers = before, dict[bytes, int]()
    while at <= after:
        beat()
        page = os.pread(file, _LARGEST_PAGE, at)
        if len(page) < _PAGE_HEAD or page[:4] != _PAGE:
            return at == before  # a place that is no page's tells nothing
        stream, number = page[14:18], int.from_bytes(page[18:22], "little")
        begins = page[5] & 2
        if not begins and number != numbers.get(stream, number - 1) + 1:
            return False
        numbers[stream] = number
        if at == after:
            return True
        table = page[_PAGE_HEAD : _PAGE_HEAD + page[26]]
        page = page[: _PAGE_HEAD + len(table) + sum(table)]
        if _checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
            return False
        at += len(page)
    return False


def _avi_goes_on(file: int, before: int, after: int) -> bool:
    """Whether a piece at one place is followed, chunk by chunk, by that at another place."""
    at = before - 8
    if not _CHUNK.fullmatch(os.pread(file, 4, max(0, at))):
        return True  # part of a piece: nothing is known
    while at + 8 < after:
        head = os.pread(file, 8, at)
        if len(head) < 8 or not _OTHER_CHUNK.fullmatch(head[:4]):
            return False
        if head[:4] in _LISTS:
            at += 12
            continue
        size = int.from_bytes(head[4:], "little")
        at += 8 + size
        if size % 2 and (_CHUNK.fullmatch(os.pread(file, 4, at + 1)) or not _CHUNK.fullmatch(os.pread(file, 4, at))):
            at += 1  # sizes are made even, which some writers forget
        if not _OTHER_CHUNK.fullmatch(os.pread(file, 4, at)):
            at = _behind_zeros(file, at)
    return at + 8 == after


def _behind_zeros(file: int, at: int) -> int:
    """The first byte that is not 0 from a place on, as far as a sector reaches."""
    padding = os.pread(file, _SECTOR, at)
    return at + len(padding) - len(padding.lstrip(b"\0"))


def _program_goes_on(file: int, before: int, after: int) -> bool:
    """Whether a packet of an MPEG program stream at one place is followed by others up to another place."""
    at, passed = before, 0
    while at < after:
        head = os.pread(file, 14, at)
        if head[:3] == b"\0\0\0" and (code := _behind_zeros(file, at) - 2) < at + _SECTOR - 2:
            at = code
            continue
        if len(head) < 14 or head[:3] != _CODE:
            return at == before  # no packet begins there: nothing is known
        if head[3] == _PACK:
            at += 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12  # of MPEG-2, and of MPEG-1
        elif head[3] == _END:
            at += 4
        elif head[3] >= _FIRST_PACKET:
            at += 6 + int.from_bytes(head[4:6], "big")
        else:
            return False
        passed += 1
        if passed % _OFTEN == 0:
            beat()
    return True


def _checksum(page: bytes) -> int:
    """Ogg's CRC-32 (RFC 3533), which takes each byte's highest bit first, where zlib's takes its lowest."""
    found = zlib.crc32(page.translate(_TURNED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{found:032b}"[::-1], 2)


_GOES_ON = {
    "matroska,webm": _matroska_goes_on,
    "ogg": _ogg_goes_on,
    "avi": _avi_goes_on,
    "mpeg": _program_goes_on,
}
