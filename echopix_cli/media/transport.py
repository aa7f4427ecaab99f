"""What the packets of a transport stream tell of a jump in its times: whether the stream goes on, or another begins.

A muxer counts the packets of each stream by sixteens, and whoever lets the clock start anew has to announce it. So a
pause of picture and sound, however long, can be told from recordings that were joined.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

_SYNC, _NOTHING = 0x47, 0x1FFF  # how each packet begins; the stream that only fills up, which is not counted
_SIZES = (188, 192, 204)  # bytes of a packet: as broadcast, with a time in front, with a checksum behind
_ENOUGH = 8  # packets in a row that show where they begin
_MARGIN = 2**19  # bytes looked at on either side: tables and sound come a few times a second
_LONGEST = 2**24  # bytes looked at between
_MPEG_AUDIO = ("mp1", "mp2", "mp3")  # FFmpeg may take one for another, and its decoder of one reads the others


def in_place(container: InputContainer, *streams: Stream) -> Iterator[Packet[Any]]:
    """The packets of tracks, each track's in the order in which they stand in the file.

    Where a track goes on under another number, nothing tells FFmpeg that the last picture before is whole: it comes out
    at the end of the file, where no decoder could make anything of it, and is left out.
    """
    if container.format.name != "mpegts":
        yield from container.demux(*streams)
        return
    last: dict[int, int] = {}
    for packet in container.demux(*streams):
        index, place = packet.stream.index, packet.pos
        if place is not None:
            if place < last.get(index, place):
                continue
            last[index] = place
        yield packet


class Turns:
    """Tells whether the tracks that are read go on in others of the same kind, as where a programme gets new numbers.

    Args:
        container: a transport stream.
        chosen: tracks of it that are read.
    """

    def __init__(self, container: InputContainer, chosen: Sequence[Stream]) -> None:
        self._pairs = [
            (one, other) for one in chosen for other in container.streams if one != other and one.type == other.type
        ]
        self._reach: dict[int, tuple[int, int]] = {}  # where each track's first and last packet begin

    @property
    def others(self) -> list[Stream]:
        """The tracks that the chosen ones may go on in."""
        return [other for _, other in self._pairs]

    def see(self, packet: Packet[Any]) -> None:
        """Take the next packet of the file."""
        if packet.size > 0 and packet.pos is not None:
            first, _ = self._reach.get(packet.stream.index, (packet.pos, 0))
            self._reach[packet.stream.index] = first, packet.pos

    @property
    def taken(self) -> bool:
        """Whether a chosen track goes on in another one, and none in a track of another coding or language.

        FFmpeg takes as one what has the same place in two tables of the programme.
        """
        pairs = [pair for one in {one.index: one for one, _ in self._pairs}.values() for pair in self._followed(one)]
        return bool(pairs) and all(_alike(one, other) for one, other in pairs)

    def _followed(self, one: Stream) -> list[tuple[Stream, Stream]]:
        """A chosen track with each that it may go on in: those of its place where as many stand beside one another
        before as behind, else all that lie before or behind it."""
        others = [other for chosen, other in self._pairs if chosen == one and other.index in self._reach]
        apart = [other for other in others if self._apart(one.index, other.index)]
        beside = [other for other in others if other not in apart]
        place, count = sum(other.index < one.index for other in beside), len(beside) + 1
        return [(one, other) for other in (apart if len(apart) % count else apart[place::count])]

    def _apart(self, one: int, other: int) -> bool:
        if one not in self._reach:
            return False
        (first, last), (begin, end) = self._reach[one], self._reach[other]
        return last < begin or end < first


def _alike(one: Stream, other: Stream) -> bool:
    languages = {stream.metadata.get("language") for stream in (one, other)} - {None}
    return _coding(one) == _coding(other) and len(languages) < 2


def _coding(stream: Stream) -> str | None:
    name = stream.codec_context.name if stream.codec_context is not None else None
    return "mpeg" if name is not None and name.startswith(_MPEG_AUDIO) else name


def goes_on(file: io.FileIO, before: int, after: int) -> bool:
    """Whether one stream goes on over a jump, as far as its packets tell.

    Args:
        file: a transport stream.
        before: byte at which a track's last packet of picture or sound before the jump begins.
        after: the same of the first one after it.
    """
    begin = max(0, before - _MARGIN)
    file.seek(begin)
    data = file.read(min(max(after, before) - begin, _LONGEST) + _MARGIN) or b""
    size = next((size for size in _SIZES if _first(data, size) is not None), None)
    if size is None:
        return False
    counts: dict[int, int] = {}
    for at in range(_first(data, size) or 0, len(data) - 187, size):
        if data[at] != _SYNC:
            return False
        stream = (data[at + 1] & 0x1F) << 8 | data[at + 2]
        adapted, carries, count = data[at + 3] & 0x20, data[at + 3] & 0x10, data[at + 3] & 0x0F
        if begin + at >= before:
            if adapted and data[at + 4] and data[at + 5] & 0x80:  # a discontinuity is announced
                return False
            known = counts.get(stream, count)
            if carries and stream != _NOTHING and count not in (known, (known + 1) % 16):
                return False
        counts[stream] = count
    return True


def torn(file: io.FileIO, before: int, after: int) -> bool:
    """Whether what lies between two packets of picture or sound is no row of packets, but damaged.

    Args:
        file: a transport stream.
        before, after: bytes at which they begin.
    """
    file.seek(before)
    data = np.frombuffer(file.read(min(after - before, _LONGEST)) or b"", np.uint8)
    # FFmpeg tells the place before what stands around a packet, as much as that is.
    return not any((data[size - _SIZES[0] :: size] == _SYNC).all() for size in _SIZES)


def _first(data: bytes, size: int) -> int | None:
    """Where the first packet begins, if packets have a size; else None."""
    starts = range(min(size, len(data) - size * _ENOUGH))
    return next((at for at in starts if all(data[at + size * n] == _SYNC for n in range(_ENOUGH))), None)
