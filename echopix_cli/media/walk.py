"""Packets of chosen places in a track, without reading all that lies between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import NamedTuple

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from echopix_cli.media.clock import Clock
from echopix_cli.media.demux import (
    Damage,
    by_bytes,
    by_decoding_times,
    open_decoder,
    packets,
    seek_before,
    seek_to,
    seek_to_byte,
)
from echopix_cli.media.plan import DecodePlan
from echopix_cli.media.recall import leave, take
from echopix_cli.media.scan import Scan
from echopix_cli.media.source import opened, video_tracks

_WORTH_A_SEEK = 32  # packets; fewer are read through as fast


class _Left(NamedTuple):
    """What an earlier window was read with: an open container, a stream and its decoder, and what closes them."""

    container: InputContainer
    stream: VideoStream
    decoder: VideoCodecContext | None
    file: ExitStack
    packets: Iterator[Packet[VideoStream]]
    number: int | None  # of the next packet among the track's; None where that is not known
    seeks: bool


class Walk:
    """A way through the packets of a video track, forwards, from one run of them to the next.

    Where many packets lie between two runs it seeks, and looks whether the packet found there is one that the scan
    has seen. If it is not, the file is opened again and read through.

    Args:
        track: position among the file's usable video tracks.
        clock: of the file.
        scan: of the same track.
        strict: whether the decoder refuses what is damaged, as of :func:`~echopix_cli.media.demux.open_decoder`.

    Raises:
        MediaError: on entering; the file cannot be opened any more.
    """

    # Another stream and decoder may have taken their places when a run begins.
    stream: VideoStream
    decoder: VideoCodecContext | None  # of the stream; None where there is none for it

    def __init__(
        self,
        path: str | os.PathLike[str],
        track: int,
        plan: DecodePlan,
        clock: Clock,
        scan: Scan,
        *,
        strict: bool = False,
    ) -> None:
        self._path, self._track, self._plan, self._clock, self._scan = path, track, plan, clock, scan
        self._strict = strict
        self._open_file = ExitStack()
        # Whether the next window can go on with what is open here: from any place, or from its own place on.
        self._keeps = scan.sought == scan.indexed
        self._container: InputContainer
        self._packets: Iterator[Packet[VideoStream]]
        self._seeks: bool  # whether packets can be gone to
        self._place: int  # of the next packet, in the scan

    def __enter__(self) -> Walk:
        left = take(self._path, _Left, self._plan.limits, self._track, self._strict) if self._keeps else None
        if left is not None:
            self._container, self.stream, self.decoder, self._open_file, self._packets, number, self._seeks = left
            if self._scan.sought and self._seek(0):
                return self
            if not self._scan.sought and number is not None:
                self._place = number - self._scan.before
                return self
            self._open_file.close()
        try:
            self._open()
            self._seeks = self._scan.indexed or by_bytes(self._container) or by_decoding_times(self._container)
        except BaseException:
            self._open_file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeps and kind is None:
            number = None if self._scan.sought else self._scan.before + self._place
            left = _Left(
                self._container, self.stream, self.decoder, self._open_file, self._packets, number, self._seeks
            )
            leave(self._path, left, self._open_file.close, self._plan.limits, self._track, self._strict)
        else:
            self._open_file.close()

    def run(self, first: int, last: int) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """Go to packet ``first``, which lies not before the end of the last run: it and all up to ``last``, numbered.

        :attr:`decoder` decodes them. A run may be left before its end.
        """
        ahead = first - self._place
        if (ahead < 0 or (ahead > _WORTH_A_SEEK and self._seeks)) and not (self._seeks and self._seek(first)):
            self._seeks, self._keeps = False, self._keeps and not self._scan.sought
            self._open_file.close()
            self._open()
        return self._read(first, last)

    def _open(self) -> None:
        self._container = container = self._open_file.enter_context(opened(self._path, self._plan.limits))
        self.stream = video_tracks(container)[self._track]
        self.decoder = open_decoder(self.stream, self._plan.limits.max_area, strict=self._strict)
        if self._scan.sought:
            seek_before(container, self.stream, self._clock, self._plan.from_time)
        self._packets = packets(
            container, self.stream, Damage(), self._clock
        )  # the scan has counted these places already
        self._place = -self._scan.before

    def _seek(self, first: int) -> bool:
        """Move to packet ``first`` or to one before it; False where that did not lead to a place that is known."""
        scan, number = self._scan, 0
        retimed = not scan.indexed and by_decoding_times(self._container)
        if scan.indexed or retimed:
            ticks = scan.decoding if retimed else scan.ticks
            if not seek_to(self._container, self.stream, int(ticks[first])):
                return False
        elif not seek_to_byte(self._container, int(scan.places[first])):
            return False
        else:
            number = scan.before + first  # which tells the packet's clock
        following = packets(self._container, self.stream, Damage(), self._clock, number)
        landing = next(following, None)
        if landing is None:
            return False
        same = scan.places == landing.pos if retimed else (scan.ticks == landing.pts) & (scan.places == landing.pos)
        found = np.flatnonzero(same)
        if len(found) != 1 or found[0] > first or (found[0] < first and not scan.indexed and not retimed):
            return False
        self._packets, self._place = chain([landing], following), int(found[0])
        return True

    def _read(self, first: int, last: int) -> Iterator[tuple[int, Packet[VideoStream]]]:
        scan = self._scan
        # Behind a place that was found by its decoding time, times of presentation may be others at first.
        retimed = scan.timed and not scan.indexed and by_decoding_times(self._container)
        while self._place <= last:
            packet = next(self._packets, None)
            if packet is None:
                return
            if retimed and packet.pts is not None and self._place >= 0:
                packet.pts = int(scan.ticks[self._place])
            self._place += 1
            if self._place > first:
                yield self._place - 1, packet
