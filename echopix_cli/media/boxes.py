"""The boxes that an MP4 consists of: a fragmented one can be read on behind a damaged box, at the next fragment.

FFmpeg follows the boxes from one to the next. It stops, without a word, at what it takes for the last one, and refuses
the file where the first fragments' heads are broken.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from echopix_cli.media.pulse import beat

_NAME = re.compile(rb"[\x20-\x7e\xa9][\x20-\x7e]{3}")
_FRAGMENT = re.compile(rb"moof.{4}mfhd", re.DOTALL)  # how fragments begin, behind their size
_SEEN_TWICE = 11  # bytes of that which may stand at the end of a block
_MOST_BOXES, _MOST_PARTS = 500_000, 10_000  # in a file and in a fragment's head: what follows is not looked at
_BLOCK = 2**20  # bytes that are searched at a time
_LARGEST_HEAD = 2**22  # bytes of a fragment's head or a film's; longer ones are not looked into
_MOST_HOLES = 100
_OFTEN = 1000  # boxes between two signs of life
_HEAD = 16  # bytes of a box's size and name, at most
_NESTED = (b"traf",)
_remembered: dict[tuple[int, ...], Boxes] = {}


@dataclass(frozen=True)
class Boxes:
    """What of an MP4 can be read.

    Args:
        size: bytes of the file.
        end: bytes up to which it can be read.
        holes: from where to where it is damaged before that: each ends with a fragment.
        broken: whether it is damaged, or cut, from ``end`` on.
        another: byte at which another MP4 begins, which stands behind the first; None where none does.
        fragmented: whether it consists of fragments.
        ends: seconds at which tracks end, by their numbers, where an edit list tells.
    """

    size: int
    end: int
    holes: tuple[tuple[int, int], ...] = ()
    broken: bool = False
    another: int | None = None
    fragmented: bool = False
    ends: Mapping[int, float] = field(default_factory=dict)


def read_boxes(file: io.FileIO) -> Boxes:
    """Look at all boxes of a file; only the damage of fragmented ones is told, others have an index."""
    status = os.fstat(file.fileno())
    key = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    if key not in _remembered:
        if len(_remembered) > _MOST_HOLES:
            _remembered.clear()
        whole = os.pread(file.fileno(), 8, 0)[4:] != b"ftyp"
        _remembered[key] = Boxes(status.st_size, status.st_size) if whole else _walk(file.fileno(), status.st_size)
    return _remembered[key]


def _walk(file: int, size: int) -> Boxes:
    at, passed, films, another = 0, 0, list[tuple[int, int]](), None
    holes: list[tuple[int, int]] = []
    fragments = False
    while at + 8 <= size and passed < _MOST_BOXES:
        name, length = _head(os.pread(file, _HEAD, at), size - at)
        whole = length and at + length <= size and (name != b"moof" or _fragment(file, at, length))
        if whole:
            fragments |= name == b"moof"
            if name == b"ftyp" and films and another is None:
                another = at
            if name == b"moov":
                films.append((at, length))
            at += length
            passed += 1
            if passed % _OFTEN == 0:
                beat()
            continue
        if not fragments and not any(_expects_fragments(file, *film) for film in films):
            break
        following = None if len(holes) == _MOST_HOLES else _next_fragment(file, at + _HEAD + 4, size)
        if following is None:
            cut = name == b"mdat" and length > 0  # what there is of it can be read
            return Boxes(size, size if cut else at, tuple(holes), broken=True, fragmented=True)
        holes.append((at, following))
        at, fragments = following, True
    if fragments:
        return Boxes(size, size, tuple(holes), fragmented=True)
    ends = _ends(file, *films[0]) if films else {}
    return Boxes(size, size, another=another if len(films) > 1 else None, ends=ends)


def _head(head: bytes, left: int) -> tuple[bytes, int]:
    """The name and the length of a box; 0 where none begins."""
    name, length, least = head[4:8], int.from_bytes(head[:4], "big"), 8
    if length == 1:
        length, least = int.from_bytes(head[8:16], "big"), 16
    elif length == 0:
        length = left  # it reaches to the end
    return (name, length) if _NAME.fullmatch(name) and length >= least else (name, 0)


def _inside(file: int, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Names of the boxes between two places, and from where to where what each of them holds reaches."""
    for _ in range(_MOST_PARTS):
        head = os.pread(file, _HEAD, at) if at + 8 <= end else b""
        name, length = _head(head, end - at)
        if not length or at + length > end:
            return
        yield name, at + (_HEAD if head[:4] == b"\0\0\0\1" else 8), at + length
        at += length


def _ends(file: int, at: int, length: int) -> dict[int, float]:
    """When the tracks of a film end, their delays included, by their numbers, where edit lists tell."""
    unit, ends = 0, dict[int, int]()
    for name, begin, end in _inside(file, at + 8, at + length):
        if name == b"mvhd":
            unit = _number(file, begin)
        elif name == b"trak":
            parts = {part: (first, last) for part, first, last in _inside(file, begin, end)}
            edits = {part: (first, last) for part, first, last in _inside(file, *parts.get(b"edts", (0, 0)))}
            if b"tkhd" in parts and b"elst" in edits:
                first, last = edits[b"elst"]
                content = os.pread(file, min(last - first, _LARGEST_HEAD), first)
                entry = struct.Struct(">QqI" if content[:1] == b"\1" else ">IiI")
                content = content[8 : 8 + (len(content) - 8) // entry.size * entry.size]
                ends[_number(file, parts[b"tkhd"][0])] = sum(lasts for lasts, _, _ in entry.iter_unpack(content))
    return {number: ticks / unit for number, ticks in ends.items() if ticks and unit}


def _number(file: int, at: int) -> int:
    """What stands behind the times when a film, or a track of it, was made and changed: its unit, or its number."""
    head = os.pread(file, 24, at)
    return int.from_bytes(head[20:24] if head[:1] == b"\1" else head[12:16], "big")


def _fragment(file: int, at: int, length: int) -> bool:
    """Whether a fragment's head is whole: boxes that fill it."""
    return length > _LARGEST_HEAD or _filled(os.pread(file, length, at)[8:])


def _filled(content: bytes) -> bool:
    at = 0
    for _ in range(_MOST_PARTS):
        if at == len(content):
            break
        name, length = _head(content[at : at + _HEAD], 0)
        if not length or at + length > len(content):
            return False
        if name in _NESTED and not _filled(content[at + 8 : at + length]):
            return False
        at += length
    return True


def _expects_fragments(file: int, at: int, length: int) -> bool:
    return length <= _LARGEST_HEAD and b"mvex" in os.pread(file, length, at)


def _next_fragment(file: int, at: int, size: int) -> int | None:
    """Where the next whole fragment begins from a place on."""
    while block := os.pread(file, _BLOCK, at):
        beat()
        for found in _FRAGMENT.finditer(block):
            begin = at + found.start() - 4
            _, length = _head(os.pread(file, _HEAD, begin), 0)
            if 0 < length <= size - begin and _fragment(file, begin, length):
                return begin
        if len(block) <= _SEEN_TWICE:
            break
        at += len(block) - _SEEN_TWICE
    return None


def filled_holes(data: bytes, at: int, holes: tuple[tuple[int, int], ...]) -> bytes:
    """Bytes that were read at a place, with the beginning of each hole as that of a box which is passed over."""
    for begin, end in holes:
        head = b"\0\0\0\1free" + (end - begin).to_bytes(8, "big")
        if begin < at + len(data) and at < begin + len(head):
            first, last = max(begin, at), min(begin + len(head), at + len(data))
            data = data[: first - at] + head[first - begin : last - begin] + data[last - at :]
    return data
