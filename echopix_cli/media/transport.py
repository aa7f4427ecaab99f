"""What the packets of a transport stream tell of a jump in its times: whether the stream goes on, or another begins.

A muxer counts the packets of each stream by sixteens, and whoever lets the clock start anew has to announce it. So a
pause of picture and sound, however long, can be told from recordings that were joined.
"""

from __future__ import annotations

import io

import numpy as np

_SYNC, _NOTHING = 0x47, 0x1FFF  # how each packet begins; the stream that only fills up, which is not counted
_SIZES = (188, 192, 204)  # bytes of a packet: as broadcast, with a time in front, with a checksum behind
_ENOUGH = 8  # packets in a row that show where they begin
_MARGIN = 2**19  # bytes looked at on either side: tables and sound come a few times a second
_LONGEST = 2**24  # bytes looked at between


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
