"""One file, one plan → one ``Clip``: the whole of this room in order."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable
from typing import ParamSpec

from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from echopix_cli.errors import MediaError
from echopix_cli.media.audio import Sound, is_plain, read_plain, read_track
from echopix_cli.media.boxes import Boxes, read_boxes
from echopix_cli.media.clock import Clock, read_clock
from echopix_cli.media.cost import Meter
from echopix_cli.media.demux import Damage, open_decoder, packets, video_frames
from echopix_cli.media.extent import holds_several
from echopix_cli.media.heif import describe_still, read_still
from echopix_cli.media.judge import Layout, judge, require_something
from echopix_cli.media.memory import bounded_memory
from echopix_cli.media.plan import DecodePlan, Limits
from echopix_cli.media.recall import leave, take
from echopix_cli.media.refusals import watched
from echopix_cli.media.slots import Arrived
from echopix_cli.media.source import (
    audio_tracks,
    describe,
    open_regular,
    opened,
    pick_track,
    search_far,
    shown,
    start_of,
    take_as_one,
    video_tracks,
)
from echopix_cli.media.stated import read_stated
from echopix_cli.media.timeline import Samples
from echopix_cli.media.values import Clip, MediaInfo, TrackInfo
from echopix_cli.media.video import Picture, read_picture, read_still_picture

Heard = Callable[[Samples], None]
_Arguments = ParamSpec("_Arguments")
_ONE_DURATION = ("matroska", "asf")  # formats of which FFmpeg tells the duration of the whole file for each track
_TAG = re.compile(r"([0-9]+):([0-9]{2}):([0-9]{2}(?:\.[0-9]+)?)")


def probe(path: str | os.PathLike[str], limits: Limits) -> MediaInfo:
    """Describe a media file: its header, and the rotation that the first frames carry.

    Raises:
        MediaError: the file cannot be opened as media.
    """
    with bounded_memory(shown(path), limits.max_memory):
        still = read_still(path)
        with opened(path, limits) as container:
            if still is not None:
                return describe_still(container, still)
            info = describe(container)
        tracks = tuple(
            dataclasses.replace(track, rotation=_rotation(path, track, limits)) if track.kind == "video" else track
            for track in info.tracks
        )
    return dataclasses.replace(info, tracks=tracks)


def _rotation(path: str | os.PathLike[str], track: TrackInfo, limits: Limits) -> int | None:
    """Degrees clockwise, from the first frame that can be decoded. PyAV shows no stream side data."""
    if max(track.width or 0, track.height or 0) > limits.max_side:
        return None
    with opened(path, limits) as container:
        stream = video_tracks(container)[track.index]
        decoder = open_decoder(stream, limits.max_area)
        if decoder is None:
            return None
        damage = Damage()
        for packet in packets(container, stream, damage, Clock()):
            for frame in video_frames(decoder, packet, damage):
                return -frame.rotation % 360
        return next((-frame.rotation % 360 for frame in video_frames(decoder, None, damage)), None)


class _Refused(BaseException):
    """Carries what a callback raised past everything that treats errors in here as those of the file."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _carried(call: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """A callback whose exceptions come out as :class:`_Refused`."""

    def carrying(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> None:
        try:
            call(*arguments, **named)
        except Exception as error:
            raise _Refused(error) from None

    return carrying


def load_clip(
    path: str | os.PathLike[str], plan: DecodePlan, *, heard: Heard | None = None, arrived: Arrived | None = None
) -> Clip:
    """Decode what the plan asks for from one local media file: :func:`echopix_cli.media.load_clip`."""
    heard = None if heard is None else _carried(heard)
    arrived = None if arrived is None else _carried(arrived)
    try:
        with bounded_memory(shown(path), plan.limits.max_memory):
            with watched(path) as reading:
                clip = _load(path, plan, heard, arrived)
            return dataclasses.replace(clip, refused=reading.refused)
    except _Refused as refused:
        error = refused.error
    raise error


def _load(path: str | os.PathLike[str], plan: DecodePlan, heard: Heard | None, arrived: Arrived | None) -> Clip:
    layout = _lay_out(path, plan)
    meter = Meter(shown(path), plan.limits)
    sound = None  # comes first: it takes less time, and whoever listens can begin with it
    if layout.audio is not None and plan.audio:
        sound = _read_sound(path, layout.audio, layout, plan, meter)
        if heard is not None and sound.waveform is not None:
            heard(sound.waveform)
    picture = None
    if layout.video is not None and plan.video:
        if layout.still is None:
            picture = read_picture(path, layout.video, plan, layout.clock, meter, arrived)
        else:
            picture = read_still_picture(path, layout.still, plan, meter, arrived)
    require_something(shown(path), plan, layout, picture, sound)
    status, notices = judge(plan, layout, picture, sound)
    ends = [part.end for part in (picture, sound) if part is not None and part.end is not None]
    taken = picture or Picture()
    return Clip(
        path=os.fsdecode(path),
        frames=taken.frames,
        frame_times=taken.times,
        waveform=None if sound is None else sound.waveform,
        audio_status=status,
        start=plan.from_time,
        end=min(max(ends), plan.end or math.inf) if ends else plan.end,
        info=_with_rotation(layout, taken.rotation),
        shown_until=None if taken.until is None else min(taken.until, plan.end or math.inf),
        source_fps=taken.fps,
        source_size=taken.size,
        asked_fps=plan.fps,
        notices=notices,
    )


def _lay_out(path: str | os.PathLike[str], plan: DecodePlan) -> Layout:
    """Read the header and choose the tracks, if that was not done for the last window."""
    key = (plan.limits, plan.video and (plan.video_track,), plan.audio and (plan.audio_track,))
    layout = take(path, Layout, *key) or _read_layout(path, plan)
    leave(path, layout, lambda: None, *key)
    return layout


def _read_layout(path: str | os.PathLike[str], plan: DecodePlan) -> Layout:
    with open_regular(path) as file:
        stated, joined, boxes = read_stated(file), holds_several(file), read_boxes(file)
    still = read_still(path)
    if still is not None:
        if plan.video_track not in (None, 0):
            raise MediaError(f"{shown(path)} has no video track {plan.video_track}; it has: 0", "choose one of those")
        with opened(path, plan.limits) as container:
            info = describe_still(container, still)
        return Layout(info=info, clock=Clock(), video=0, audio=None, video_end=None, audio_end=None, still=still)
    with opened(path, plan.limits) as container:
        video = pick_track(container, "video", plan.video_track if plan.video else None, path)
        seen = None if video is None else video_tracks(container)[video]
        audio = pick_track(container, "audio", plan.audio_track if plan.audio else None, path, related=seen)
        heard = None if audio is None else audio_tracks(container)[audio]
        info = describe(container)
        tracks = [track for track in (seen, heard) if track is not None]
        clock = read_clock(path, container, tracks, plan.limits.max_packets, joined=joined)
        late = {kind for kind, wanted in (("video", plan.video), ("audio", plan.audio)) if wanted} & {*clock.late}
        layout = Layout(
            info=info,
            clock=clock,
            video=video,
            audio=audio,
            video_end=None if seen is None else _declared_end(seen, clock, boxes),
            audio_end=None if heard is None else _declared_end(heard, clock, boxes),
            stated=stated,
            holes=tuple(begin / boxes.size for begin, _ in boxes.holes),
            broken=boxes.broken,
            others=len(container.streams) > len(info.tracks),
            late=frozenset(late),
        )
    first = not (plan.video_track or plan.audio_track)  # another one than the first is gone where they are taken as one
    again = (late and search_far(path)) or (clock.renumbered and first and take_as_one(path))
    return _read_layout(path, plan) if again else layout


def _declared_end(stream: VideoStream | AudioStream, clock: Clock, boxes: Boxes) -> float | None:
    """When a track ends according to its header, in seconds from the start of the media."""
    if clock.jumps:
        return None
    whole = stream.container.format.name.startswith(_ONE_DURATION)
    if stream.duration is None or stream.time_base is None or whole:
        tag = _TAG.fullmatch(stream.metadata.get("DURATION", ""))  # Matroska's, written by most programs
        return None if tag is None else int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - clock.origin
    end = float(stream.duration * stream.time_base)
    if not boxes.fragmented:  # of fragments FFmpeg tells when the last one ends
        end = min(end + (start_of(stream) or 0.0), boxes.ends.get(stream.id, math.inf))
    return end - clock.origin


def _read_sound(path: str | os.PathLike[str], track: int, layout: Layout, plan: DecodePlan, meter: Meter) -> Sound:
    """Plain audio files through libsndfile where it can, everything else through FFmpeg."""
    if is_plain(layout.info):
        sound = read_plain(path, plan, layout.info, meter)
        if sound is not None:
            return sound
    declared_end = layout.audio_end if layout.audio_end is not None else layout.info.duration
    return read_track(path, track, plan, layout.clock, declared_end, meter)


def _with_rotation(layout: Layout, rotation: int | None) -> MediaInfo:
    """The header's facts, completed by what the decoded frames told."""
    tracks = tuple(
        dataclasses.replace(track, rotation=rotation)
        if track.kind == "video" and track.index == layout.video
        else track
        for track in layout.info.tracks
    )
    return dataclasses.replace(layout.info, tracks=tracks)
