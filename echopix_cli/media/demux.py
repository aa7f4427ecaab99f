"""Packets and frames out of one track, stepping over what is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import CodecContext
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from echopix_cli.media.clock import Clock
from echopix_cli.media.extent import MediaFile
from echopix_cli.media.memory import require_memory
from echopix_cli.media.pulse import beat
from echopix_cli.media.resync import suspicious
from echopix_cli.media.source import READ_ERRORS, video_tracks
from echopix_cli.media.transport import in_place

_MAX_READ_ERRORS = 32  # in a row: a demuxer that cannot step over a broken place would report it for ever
_TRIES = 3  # errors in a row, from which what cannot be read is stepped over,
_STEP, _GROWTH, _LONGEST_STEP = 0.1, 1.25, 10.0  # by seconds; so many times more each time; but no more seconds
_RATE = 2**19  # bytes that stand for a second, where there is no index of times
_SEEKABLE = ("mov", "matroska")  # containers with an index of true timestamps; others guess
_BY_BYTES = ("mpegts",)  # containers without an index that can be read from any packet on
# Containers whose index tells decoding times: those of a packet are right after a seek, and nothing else need be.
_BY_DECODING = ("avi",)
# Decoders that are certain which frames nothing refers to. HEVC's is not: higher temporal layers may.
_KNOW_REFERENCES = ("h264",)
_THREADS = 4  # decoding threads: more would mostly buy memory
# Decoders that one damaged frame can crash when several frames are decoded at once.
_THREAD_TYPES = {"vp9": "SLICE"}
# FFmpeg's own decoders of these pass over the alpha channel, which WebM keeps beside each packet.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

# Decoders that what they take for sound sets up for other channels, without an end: after damage all would be silent.
_SET_UP_BY_SOUND = ("aac",)

# What tags begin with, which stand between bare MPEG recordings that were joined.
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")

_UNIT, _IDR = b"\0\0\1", 5  # what a unit of H.264 begins with; the kind of those that depend on nothing before

_Track = TypeVar("_Track", VideoStream, AudioStream)


@dataclass
class Damage:
    """Counts what could not be read, while reading goes on."""

    reads: int = 0  # places where the container itself was broken
    packets: int = 0  # packets that the decoder refused
    locked: int = 0  # packets that are encrypted, and were left out
    given_up: bool = field(default=False, compare=False)  # whether reading ended at a broken place, with more behind it
    ticks: list[int] = field(default_factory=list, compare=False)  # when damaged pictures are shown, where that is told

    @property
    def places(self) -> int:
        """How many places could not be read or decoded."""
        return self.reads + self.packets

    def __bool__(self) -> bool:
        return bool(self.places)

    def since(self, before: Damage) -> Damage:
        """What was counted after a moment, as a copy taken then tells."""
        return Damage(self.reads - before.reads, self.packets - before.packets, self.locked - before.locked)

    def add(self, other: Damage) -> None:
        """Count what was counted elsewhere, too."""
        self.reads, self.packets, self.locked = (
            self.reads + other.reads,
            self.packets + other.packets,
            self.locked + other.locked,
        )
        self.ticks += other.ticks


def packets(
    container: InputContainer, stream: _Track, damage: Damage, clock: Clock, first: int = 0
) -> Iterator[Packet[_Track]]:
    """All packets of one stream that carry readable data, in file order. The final flush packet is left out.

    Args:
        first: number of the packet, among all of the stream, that the container stands before.
    """
    cut, torn = False, clock.torn.get(stream.index, ())
    broken, unit, missed = clock.broken, float(stream.time_base or 0), suspicious(container.format.name)
    time, before, place = None, -1, -1
    read = _packets(container, stream, damage, seekable=indexed(container, clock))
    for number, packet in enumerate(clock.straightened(stream, read, first), first):
        damage.reads += number in torn
        if broken is not None and packet.pts is not None and packet.pos is not None:
            if packet.pos != place:  # the packets of an Ogg page have one place, and the last of them tells the time
                before, place = place, packet.pos
            if time is not None and (packet.pts - time) * unit > missed:
                damage.reads += broken(before, place)
            time = packet.pts
        damage.packets += cut  # the last packet is cut short wherever a header does not tell the size
        cut = packet.is_corrupt
        yield packet


def _packets(container: InputContainer, stream: _Track, damage: Damage, *, seekable: bool) -> Iterator[Packet[_Track]]:
    """All packets of one stream, past places that cannot be read.

    Some demuxers try such a place again and again, so in a container that finds times reading goes on behind it.
    """
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all  # indexed containers then skip its bytes altogether
    locked = "enc_key_id" in stream.metadata  # as WebM says it
    unit = float(stream.time_base or 0)
    errors, last = 0, None  # errors since the last packet; its decoding time
    target = 0.0  # where to go on: a time in units, or a place in the file
    medium: MediaFile = cast(Any, container.file).file
    failures = 0  # of the medium, up to the last packet
    while True:
        try:
            for packet in in_place(container, stream):
                beat()
                if errors and last is not None and packet.dts is not None and packet.dts <= last:
                    continue
                errors, last, failures = 0, packet.dts, medium.failures
                if packet.size > 0 and (locked or packet.has_sidedata("encryption_info")):
                    damage.locked += 1
                elif packet.size > 0:
                    yield packet
            return
        except IndexError:
            return  # PyAV 18 can trip over tracks that turn up late, after the last packet; see source.late_tracks
        except READ_ERRORS as error:
            require_memory(error)
            errors += 1
            nothing_more = medium.over
            step = min(_LONGEST_STEP, _STEP * _GROWTH ** (errors - _TRIES))
            if errors < _TRIES:
                pass
            elif seekable and unit and last is not None:
                target = (last if errors == _TRIES else target) + step / unit
                nothing_more |= not seek_to(container, stream, int(target), backward=False)
            elif by_bytes(container):
                target = (medium.tell() if errors == _TRIES else target) + step * _RATE
                seek_to_byte(container, int(target))
            if nothing_more and medium.failures == failures > 0:
                damage.reads -= errors - 1  # an earlier failure, which FFmpeg gives for why nothing is left
                return
            damage.reads += 1
            if errors == _MAX_READ_ERRORS:
                damage.given_up = True
                return


def indexed(container: InputContainer, clock: Clock) -> bool:
    """Whether this container finds a time reliably."""
    return container.format.name.startswith(_SEEKABLE) and not clock.jumps


def seek_before(container: InputContainer, stream: VideoStream | AudioStream, clock: Clock, seconds: float) -> bool:
    """Move to the keyframe before a time of the media; False if this container cannot do so reliably."""
    if stream.time_base is None or not indexed(container, clock):
        return False
    return seek_to(container, stream, int((seconds + clock.origin) / stream.time_base))


def seek_to(container: InputContainer, stream: VideoStream | AudioStream, ticks: int, *, backward: bool = True) -> bool:
    """Move to the keyframe at a time in the stream's units, or before, or behind it; False if that fails."""
    # Matroska lists places of the picture. Those of other tracks it knows as far as it has been read.
    pictures = video_tracks(container) if container.format.name.startswith("matroska") else []
    if stream.type == "audio" and pictures and pictures[0].time_base and stream.time_base:
        own = int(ticks * stream.time_base / pictures[0].time_base)
        if _moved(partial(container.seek, own, backward=backward, stream=pictures[0])):
            return True
    return _moved(partial(container.seek, ticks, backward=backward, stream=stream))


def by_bytes(container: InputContainer) -> bool:
    """Whether this container can be read from the place of any packet on."""
    return container.format.name in _BY_BYTES


def by_decoding_times(container: InputContainer) -> bool:
    """Whether this container finds a decoding time reliably, if it finds it."""
    return container.format.name in _BY_DECODING


def begins_anew(stream: VideoStream, packet: Packet[VideoStream]) -> bool:
    """Whether it is sure that a packet parts all before it from it and all that follows, as decoded and as shown.

    That is told by H.264 alone, where units begin with a mark, as in AVI.
    """
    if not packet.is_keyframe or stream.codec_context is None or stream.codec_context.name != "h264":
        return False
    return any(unit[:1] and unit[0] & 0x1F == _IDR for unit in bytes(packet).split(_UNIT)[1:])


def seek_to_byte(container: InputContainer, place: int) -> bool:
    """Move to a place in the file where a packet begins; False where that is not known, or fails."""
    return place >= 0 and _moved(partial(container.seek, place, unsupported_byte_offset=True))


def _moved(seek: Callable[[], None]) -> bool:
    try:
        seek()
    except READ_ERRORS as error:
        require_memory(error)
        return False
    return True


def open_decoder(stream: VideoStream, max_area: int, *, strict: bool = False) -> VideoCodecContext | None:
    """The decoder of a track, which uses a few threads; None where this FFmpeg has none.

    It refuses frames that outgrow the header before it allocates. Decoders count whole blocks, of up to 64 × 64
    pixels, and what they refuse they do not name. So they are given room, and whoever takes a frame checks its size.
    If ``strict``, whatever is damaged is refused as well, where a decoder would otherwise guess what is missing.
    """
    decoder = stream.codec_context
    if decoder is None:
        return None
    if stream.metadata.get("alpha_mode") == "1" and decoder.name in _WITH_ALPHA:
        decoder = cast(VideoCodecContext, CodecContext.create(_WITH_ALPHA[decoder.name], "r"))
    decoder.thread_type = _THREAD_TYPES.get(decoder.name, "AUTO")
    decoder.thread_count = _THREADS
    strictness = {"err_detect": "explode"} if strict else {}
    decoder.options = {"max_pixels": str(2 * max_area), **strictness}
    return decoder


def can_omit(stream: VideoStream) -> bool:
    """Whether :func:`omit_unreferenced` leaves all other frames exactly as they are."""
    return stream.codec_context is not None and stream.codec_context.name in _KNOW_REFERENCES


def omit_unreferenced(decoder: VideoCodecContext, omit: bool) -> None:
    """From the next packet on, let the decoder pass over frames that no other frame refers to, or let it not."""
    decoder.skip_frame = "NONREF" if omit else "DEFAULT"


def video_frames(decoder: VideoCodecContext, packet: Packet[VideoStream] | None, damage: Damage) -> list[VideoFrame]:
    """Decode one packet, or what the decoder still holds if ``packet`` is None."""
    try:
        return decoder.decode(packet)
    except READ_ERRORS as error:
        require_memory(error)
        damage.packets += 1
        if packet is not None and packet.pts is not None:
            damage.ticks.append(packet.pts)
        return []


def audio_frames(
    decoder: AudioCodecContext, packet: Packet[AudioStream] | None, damage: Damage
) -> tuple[list[AudioFrame], AudioCodecContext]:
    """Decode one packet, or what the decoder still holds if ``packet`` is None; and with what to decode the next."""
    try:
        return decoder.decode(packet), decoder
    except READ_ERRORS as error:
        require_memory(error)
        damage.packets += packet is None or not bytes(packet).startswith(_TAGS)
    if packet is not None and decoder.name in _SET_UP_BY_SOUND:
        renewed = cast(AudioCodecContext, CodecContext.create(decoder.codec, "r"))
        renewed.extradata = decoder.extradata
        return [], renewed
    return [], decoder
