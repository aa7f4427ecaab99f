"""How far the media in a file reach: without the tags, or a photo's other pictures, behind them."""

from __future__ import annotations

import errno
import io
import os
import re
import struct

from echopix_cli.media.boxes import filled_holes, read_boxes
from echopix_cli.media.pulse import beat
from echopix_cli.media.refusals import count_refusal

_READINGS = 4  # how often all bytes of a file may be read before that is no sign any more that reading it goes on
_FIRST_LYRICS = 5_100  # bytes that the oldest kind of lyrics may take at most
_LARGEST_PHOTO = 2**28  # bytes; larger ones are read as they are
# JPEG's marks of what is followed by a picture's data, and of its end; and what may stand before any mark.
_SCAN, _END, _FILL = 0xDA, 0xD9, 0xFF
_MARK = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # one in that data
# Segments of a photo in front of a gain map, a depth map or a second view, and what they hold: CIPA DC-007, and XMP.
_SEVERAL = {0xE2: b"MPF\0", 0xE1: b"Container:Directory"}


class MediaFile:
    """A readable, seekable file that does not tell FFmpeg its name, ends before the tags and never raises on seeking.

    Of a fragmented MP4 what is damaged seems to be a box that nobody need read.

    Given a name, FFmpeg would prefer by its extension the image2 demuxer, which expands patterns and opens files by
    itself. An exception would be printed by whoever called from C.
    """

    name = "media"

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        boxes = read_boxes(file)
        self._holes = boxes.holes
        self.size = min(media_size(file), boxes.end)
        self.tell = file.tell
        self.failures = 0  # readings that failed,
        self.failure: OSError | None = None  # and why the last of them did
        self.over = False  # whether the last one was at the end
        self._progress = _READINGS * self.size  # bytes left whose reading counts as progress

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; none at the end."""
        at = self._file.tell()
        left = max(0, self.size - at)
        try:
            found = self._file.read(left if size < 0 else min(size, left)) or b""
        except OSError as error:
            self.failures, self.failure = self.failures + 1, error
            count_refusal()
            raise
        self.over = not found
        if self._progress > 0:
            self._progress -= len(found)
            beat()
        return filled_holes(found, at, self._holes) if self._holes else found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, and return the new place; a negative error number where there is no such place."""
        try:
            if whence == os.SEEK_END:
                offset, whence = self.size + offset, os.SEEK_SET
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError) as error:
            return -(getattr(error, "errno", None) or errno.EINVAL)


def media_size(file: io.FileIO) -> int:
    """Bytes up to what stands behind the media: tags behind MPEG audio, which its decoder would take for damage, or a
    photo's other pictures, which would be taken for more frames.
    """
    size = os.fstat(file.fileno()).st_size
    head = bytes_at(file, 0, 4)
    if head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        while (length := _tag_length(file, size)) and length < size:
            size -= length
    elif head[:2] == b"\xff\xd8":
        size = _photo_end(file) or size
    file.seek(0)
    return size


def _photo_end(file: io.FileIO) -> int | None:
    """Where a JPEG ends that tells of other pictures behind it; None if it does not, or where that is not found."""
    at, several = 2, False
    while (head := bytes_at(file, at, 4))[:1] == b"\xff" and len(head) == 4:
        mark, length = head[1], int.from_bytes(head[2:], "big")
        if mark == _SCAN:
            break
        if mark == _FILL:
            at += 1
            continue
        if not several and mark in _SEVERAL:
            several = _SEVERAL[mark] in bytes_at(file, at + 4, max(0, length - 2))
        at += 2 + length
    if not several:
        return None
    data = bytes_at(file, at, _LARGEST_PHOTO)
    end = 0
    while found := _MARK.search(data, end):
        beat()
        begin = found.start()
        if data[begin + 1] == _END:
            return at + begin + 2
        end = begin + 2 + int.from_bytes(data[begin + 2 : begin + 4], "big")
    return None


def _tag_length(file: io.FileIO, size: int) -> int:
    """Bytes of the tag that ends at a place in the file; 0 where none does."""
    if bytes_at(file, size - 128, 3) == b"TAG":  # ID3v1
        return 128
    tail = bytes_at(file, size - 32, 32)
    if tail[:8] == b"APETAGEX":
        length, _, flags = struct.unpack_from("<III", tail, 12)
        return int(length) + (32 if flags >> 31 else 0)
    if tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
        return int(tail[-15:-9]) + 15
    if tail[-9:] == b"LYRICSEND":
        begin = bytes_at(file, max(0, size - _FIRST_LYRICS), min(size, _FIRST_LYRICS)).rfind(b"LYRICSBEGIN")
        return min(size, _FIRST_LYRICS) - begin if begin >= 0 else 0
    if tail[-10:-7] == b"3DI":  # ID3v2 with a footer: its header, what it holds, and the footer
        return sum((byte & 127) << shift for byte, shift in zip(tail[-4:], (21, 14, 7, 0), strict=True)) + 20
    return 0


def bytes_at(file: io.FileIO, place: int, count: int) -> bytes:
    """At most so many bytes from a place on; none where there is no such place."""
    if place < 0:
        return b""
    file.seek(place)
    return file.read(count) or b""


def holds_several(file: io.FileIO) -> bool:
    """Whether a Matroska file is followed by another one: two that were joined."""
    size, at = os.fstat(file.fileno()).st_size, 0
    for identity in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):  # the header, and the segment behind it
        head = bytes_at(file, at, 12)
        if head[:4] != identity or not head[4]:
            return False
        width = 9 - head[4].bit_length()
        length = int.from_bytes(head[4 : 4 + width], "big") - (1 << 7 * width)
        at += 4 + width + length
    return at + 8 <= size and bytes_at(file, at, 4) == b"\x1a\x45\xdf\xa3"
