"""Opening one local file, safely, and reading what its header says.

FFmpeg opens playlists that name other files and hosts, patterns such as ``%03d.jpg`` and URLs. Three
walls keep it to the one file that was asked for: it reads from a file object and never learns a path,
only demuxers that keep everything in one file are allowed, and a nested open is refused.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NoReturn, cast

import av
from av.audio.stream import AudioStream
from av.container import Flags, InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from echopix_cli.errors import FileLost, MediaError
from echopix_cli.files import Look, look_at
from echopix_cli.files import shown as shown
from echopix_cli.media.extent import MediaFile
from echopix_cli.media.plan import Limits
from echopix_cli.media.recall import leave, take
from echopix_cli.media.values import MediaInfo, TrackInfo

# What reading damaged media may raise. FFmpeg's own errors all derive from FFmpegError.
READ_ERRORS = (av.FFmpegError, ValueError, OSError)

# Self-contained formats only. A format_whitelist is the one guard that the concat demuxer respects:
# it opens its parts behind the back of a custom io_open.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,av1,obu,ivf,"
    "ogg,nut,mxf,dv,rm,mjpeg,yuv4mpegpipe,gif,apng,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,"
    "jpegxl_pipe,ppm_pipe,pgm_pipe,wav,w64,aiff,au,caf,flac,mp3,aac,ac3,eac3,amr,ape,wv,tta,dts,truehd,"
    "dsf,tak,voc,loas,wtv,dhav"
)

# How files begin that name other files instead of holding media. Only for a clearer message.
_INDIRECT = (
    (b"#EXTM3U", "an m3u playlist"),
    (b"ffconcat", "an ffconcat list"),
    (b"[playlist]", "a pls playlist"),
    (b"[Reference]", "a reference playlist"),
    (b"v=0", "an SDP session description"),
    (b"<MPD", "a DASH manifest"),
    (b"<smil", "a SMIL playlist"),
    (b"<asx", "an asx playlist"),
)
_PROTOCOL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|(?:file|fd|pipe|data|concatf?|subfile|crypto|cache|async):)")
_ANIMATED = 2  # bit in the head of a WebP
_MOST_STREAMS = 1000  # of any kind, fonts and data too
# How files begin that hold media in containers which are not opened. Only for a clearer message.
_NOT_OPENED = (b"BIKi", b"BIKf", b"BIKb", b"KB2", b"SMK2", b"SMK4", b"MLVI", b"NSVf", b"NSVs", b"FWS", b"CWS")
# Codecs of which FFmpeg does not know in which order frames are shown: where a container stores no times of
# presentation, as AVI, those that it makes up on request, as PyAV does, are wrong.
_ORDER_UNKNOWN = ("h264", "hevc", "vvc")
# Bytes that are searched for tracks where some turn up behind the first megabytes, and the share of the memory limit.
_FAR, _FAR_SHARE = 2**28, 8
_LISTED = re.compile(r"^  Stream #0:(\d+)\S*: (Video|Audio):", re.MULTILINE)  # in FFmpeg's description of a file
_PROGRAMME = re.compile(r"^  Program ", re.MULTILINE)
_late: set[Look] = set()  # files that hold such tracks, as far as this process has read them
_renumbered: set[Look] = set()  # files whose tracks go on under other numbers, likewise
_AS_ONE = {"merge_pmt_versions": "1"}  # FFmpeg's option for taking these as the same tracks
_NO_PICTURE_TRACK = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent


def open_regular(path: str | os.PathLike[str]) -> io.FileIO:
    """Open a non-empty regular file for reading; symbolic links are followed.

    Raises:
        MediaError: it is missing, unreadable, empty, or not a regular file (a pipe is not waited for).
    """
    # O_NONBLOCK, because opening a FIFO for reading would otherwise wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise _cannot_open(path, error) from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size > 0:
        return io.FileIO(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISREG(status.st_mode):
        raise MediaError(f"{shown(path)} is empty", "copy or download it again")
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{shown(path)} is a folder", "name a media file in it")
    raise MediaError(f"{shown(path)} is a pipe, socket or device", "save it to a regular file first")


def _cannot_open(path: str | os.PathLike[str], error: OSError | ValueError) -> FileLost:
    name = shown(path)
    if isinstance(error, PermissionError):
        return FileLost(f"{name} cannot be read: permission denied", "check its permissions")
    if _PROTOCOL.match(name):
        return FileLost(f"{name} is not a local file", "download it, and give its plain path")
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return FileLost(f"{name} does not exist", "check the path")
    if getattr(error, "errno", None) in (errno.ENXIO, errno.EOPNOTSUPP):
        return FileLost(f"{name} is a pipe, socket or device", "save it to a regular file first")
    reason = getattr(error, "strerror", None) or str(error)
    return FileLost(f"{name} cannot be opened: {reason}", "check the path")


@contextmanager
def opened(path: str | os.PathLike[str], limits: Limits) -> Iterator[InputContainer]:
    """Open one local media file with the walls described above.

    Raises:
        MediaError: it is not a media file, or it declares more tracks of picture and sound than ``limits`` allows.
    """
    av.logging.set_level(None)  # FFmpeg's chatter would land in the user's terminal
    with open_regular(path) as file:
        head = file.read(4096) or b""
        file.seek(0)
        if head[8:16] == b"WEBPVP8X" and head[20:21] and head[20] & _ANIMATED:
            raise MediaError(f"{shown(path)} is an animated WebP, which cannot be read", "convert it to MP4 or GIF")
        medium = MediaFile(file)
        look = _look(path)
        probe = {**(_far(limits) if look in _late else {}), **(_AS_ONE if look in _renumbered else {})}
        try:
            container = _open(medium, limits, probe)
        except MemoryError as error:  # that is how FFmpeg says that there are too many streams, too
            if not _too_many(file, limits):
                raise
            raise MediaError(
                f"{shown(path)} declares more than {_MOST_STREAMS} tracks and attachments",
                "extract the tracks that matter into a new file",
            ) from error
        except READ_ERRORS as error:
            if (failure := medium.failure) is not None:
                raise MediaError(
                    f"{shown(path)} cannot be read: {failure.strerror or failure}", "copy it to another disk first"
                ) from error
            raise _not_media(path, head) from error
        with container:
            declared = len(video_tracks(container)) + len(audio_tracks(container))
            if declared > limits.max_tracks:
                raise MediaError(
                    f"{shown(path)} declares {declared} tracks; at most {limits.max_tracks} are read",
                    "extract the tracks that matter into a new file, or raise the setting limit_tracks",
                )
            yield container


@contextmanager
def again(path: str | os.PathLike[str], limits: Limits, *key: Hashable, moves: bool) -> Iterator[InputContainer]:
    """As :func:`opened`, for a purpose of its own: one that an earlier window was read from serves once more.

    Args:
        key: of the purpose.
        moves: whether the first thing that is done with it is to move to a place.

    Raises:
        MediaError: as :func:`opened`.
    """
    left = take(path, _Left, limits, *key) if moves else None
    if left is None:
        file = ExitStack()
        left = _Left(file.enter_context(opened(path, limits)), file)
    try:
        yield left.container
    except BaseException:
        left.file.close()
        raise
    if moves:
        leave(path, left, left.file.close, limits, *key)
    else:
        left.file.close()


@dataclass(frozen=True)
class _Left:
    """A container that is open, and what closes it."""

    container: InputContainer
    file: ExitStack


def search_far(path: str | os.PathLike[str]) -> bool:
    """From now on search the first 256 MiB of a file for tracks when it is opened; False if that was done before."""
    return _noted(path, _late)


def take_as_one(path: str | os.PathLike[str]) -> bool:
    """From now on take tracks of a transport stream that go on under another number as one; False as above."""
    return _noted(path, _renumbered)


def _noted(path: str | os.PathLike[str], files: set[Look]) -> bool:
    look = _look(path)
    if look is None or look in files:
        return False
    files.add(look)
    return True


def _look(path: str | os.PathLike[str]) -> Look | None:
    with suppress(OSError, ValueError):
        return look_at(path)
    return None


def _far(limits: Limits) -> dict[str, str]:
    """FFmpeg's options for searching far; it holds all packets up to there in memory."""
    reach = min(_FAR, limits.max_memory // _FAR_SHARE)
    return {"probesize": str(reach), "analyzeduration": str(10**12), "scan_all_pmts": "1"}


def _open(medium: MediaFile, limits: Limits, probe: Mapping[str, str] = MappingProxyType({})) -> InputContainer:
    container = av.open(
        medium,
        "r",
        container_options={
            "format_whitelist": _FORMATS,
            "protocol_whitelist": "file",
            "max_streams": str(_MOST_STREAMS),
            **probe,
        },
        # Probing decodes a frame. Far too large ones are refused before that; those a little too large pass, because
        # FFmpeg forgets the size of what it refuses, and we want to name it.
        options={"max_pixels": str(4 * limits.max_area)},
        metadata_errors="replace",
        buffer_size=65_536,
        io_open=_refuse,
    )
    if any(stream.codec_context and stream.codec_context.name in _ORDER_UNKNOWN for stream in container.streams.video):
        container.flags &= ~cast(int, Flags.gen_pts.value)
    return container


def _too_many(file: io.FileIO, limits: Limits) -> bool:
    """Whether a file cannot be opened because of its number of streams, which only FFmpeg's log tells."""
    with av.logging.Capture(local=False) as logs:
        av.logging.set_level(av.logging.ERROR)
        try:
            _open(MediaFile(file), limits).close()
        except READ_ERRORS:
            pass
        except MemoryError:
            pass
        finally:
            av.logging.set_level(None)
        return any("max_streams" in message for _, _, message in logs)


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("a media file may not open another one")


def _not_media(path: str | os.PathLike[str], head: bytes) -> MediaError:
    name, text = shown(path), head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for sign, what in _INDIRECT:
        found = sign.lower() in text.lower() if sign.startswith(b"<") else text.lower().startswith(sign.lower())
        if found and (text.startswith(b"<") or not sign.startswith(b"<")):
            return MediaError(f"{name} is {what}: it names other files, which are not opened", "give those instead")
    if head[4:8] == b"ftyp":
        return MediaError(f"{name} is damaged: the index of the MP4 is missing or broken", "copy it again")
    if head.startswith(_NOT_OPENED):
        return MediaError(f"{name} is not among the containers that are opened", "convert it to MP4")
    return MediaError(f"{name} is not a media file that can be read", "check that it plays in a video player")


def video_tracks(container: InputContainer) -> list[VideoStream]:
    """The video streams in file order, without cover art, thumbnails and tiles of a larger picture.

    Beside pictures that move, the still one of an animated AVIF, which has no duration, is such a thumbnail.
    """
    tracks = [stream for stream in container.streams.video if not stream.disposition & _NO_PICTURE_TRACK]
    if not container.format.name.startswith("mov") or all(stream.duration is None for stream in tracks):
        return tracks
    return [stream for stream in tracks if stream.duration is not None or stream.frames != 1]


def audio_tracks(container: InputContainer) -> list[AudioStream]:
    """The audio streams in file order."""
    return list(container.streams.audio)


def pick_track(
    container: InputContainer,
    kind: str,
    index: int | None,
    path: str | os.PathLike[str],
    related: VideoStream | None = None,
) -> int | None:
    """Choose a ``"video"`` or ``"audio"`` track: its position among those, or None if there is none.

    Without an ``index`` it is FFmpeg's own choice (default flag, then bit rate), where a transport stream holds several
    programmes among the tracks of the one that ``related`` belongs to. One without a decoder gives way to one with it.

    Raises:
        MediaError: ``index`` names a track that does not exist.
    """
    tracks = video_tracks(container) if kind == "video" else audio_tracks(container)
    if index is not None and not 0 <= index < len(tracks):
        listed = ", ".join(str(number) for number in range(len(tracks))) or "none"
        raise MediaError(f"{shown(path)} has no {kind} track {index}; it has: {listed}", "choose one of those")
    if index is not None or not tracks:
        return index
    kinds: Literal["video", "audio"] = "video" if kind == "video" else "audio"
    best = container.streams.best(kinds, related=related)
    if best is None and container.streams.best(kinds) is not None:
        return None  # the programme has none, others do
    places = [stream.index for stream in tracks]
    chosen = places.index(best.index) if best is not None and best.index in places else 0
    readable = [number for number, stream in enumerate(tracks) if stream.codec_context is not None]
    if chosen in readable or not readable or len(_PROGRAMME.findall(_listing(container))) > 1:
        return chosen  # which programme a track belongs to is not told, and another one's does not fit
    return max(readable, key=lambda number: _worth(tracks[number]))


def _worth(stream: VideoStream | AudioStream) -> tuple[bool, int]:
    """What FFmpeg chooses a track by."""
    return bool(stream.disposition & Disposition.default), stream.bit_rate or 0


def late_tracks(container: InputContainer) -> tuple[str, ...]:
    """The kinds, "video" or "audio", of the tracks that turned up while a file was read. PyAV knows none of them."""
    listed = _LISTED.findall(_listing(container))
    return tuple(kind.lower() for index, kind in listed if int(index) >= len(container.streams))


def _listing(container: InputContainer) -> str:
    """FFmpeg's description of a file, which it writes to its log."""
    av.logging.set_level(av.logging.INFO)
    try:
        return str(cast(Any, container).dumps_format())
    finally:
        av.logging.set_level(None)


def describe(container: InputContainer) -> MediaInfo:
    """What the header says about a container and its tracks."""
    tracks = [_video_info(number, stream) for number, stream in enumerate(video_tracks(container))]
    tracks += [_audio_info(number, stream) for number, stream in enumerate(audio_tracks(container))]
    duration = container.duration / av.time_base if container.duration else None
    return MediaInfo(container.format.name, duration, tuple(tracks))


def _video_info(number: int, stream: VideoStream) -> TrackInfo:
    codec = stream.codec_context  # None where this FFmpeg has no decoder
    return TrackInfo(
        kind="video",
        index=number,
        codec=codec.name if codec else None,
        width=(codec.width or None) if codec else None,
        height=(codec.height or None) if codec else None,
        fps=float(stream.average_rate) if stream.average_rate else None,
        duration=_seconds(stream, stream.duration),
        language=_language(stream),
        default=bool(stream.disposition & Disposition.default),
    )


def _audio_info(number: int, stream: AudioStream) -> TrackInfo:
    codec = stream.codec_context
    return TrackInfo(
        kind="audio",
        index=number,
        codec=codec.name if codec else None,
        sample_rate=(codec.sample_rate or None) if codec else None,
        channels=(codec.channels or None) if codec else None,
        duration=_seconds(stream, stream.duration),
        language=_language(stream),
        default=bool(stream.disposition & Disposition.default),
    )


def origin_of(container: InputContainer) -> float:
    """Container time, in seconds, that is time 0 of the media: the earliest start of its tracks."""
    starts = [start_of(stream) for stream in video_tracks(container)]
    for stream in audio_tracks(container):
        start = start_of(stream)
        # A codec's run-in lies before 0 and is never heard; it must not shift the picture.
        starts.append(start if start is None else max(start, 0.0))
    return min((start for start in starts if start is not None), default=0.0)


def start_of(stream: VideoStream | AudioStream) -> float | None:
    """Container time, in seconds, at which a stream starts, if its header tells."""
    return _seconds(stream, stream.start_time)


def _seconds(stream: VideoStream | AudioStream, ticks: int | None) -> float | None:
    return None if ticks is None or stream.time_base is None else float(ticks * stream.time_base)


def _language(stream: VideoStream | AudioStream) -> str | None:
    return None if stream.language in (None, "", "und") else stream.language
