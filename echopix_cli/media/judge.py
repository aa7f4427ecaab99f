"""What became of a file's picture and sound, said plainly: audio status, notices, or an error."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from echopix_cli.errors import Hollow, MediaError, Nothing, PastEnd
from echopix_cli.media.audio import Sound
from echopix_cli.media.clock import Clock
from echopix_cli.media.heif import Still
from echopix_cli.media.plan import DecodePlan
from echopix_cli.media.stated import Stated
from echopix_cli.media.values import MediaInfo
from echopix_cli.media.video import Picture
from echopix_cli.results import AudioStatus
from echopix_cli.times import clock, stretch

_NAMED = 3  # damaged places that are named
_SHORTFALL = 0.5  # seconds that may be missing at the end; headers round generously
# Formats whose header states the duration. Others have it estimated from the bit rate.
_STATES_DURATION = (
    *("mov", "matroska", "avi", "flv", "asf", "nut", "mxf", "rm"),
    *("wav", "w64", "aiff", "au", "caf", "flac"),
)
# Formats whose header states the duration, or the number of frames, beside the size: both have to promise more.
_STATES_BOTH = ("mp3", "flv")


@dataclass(frozen=True)
class Layout:
    """What a file holds, and which of it to read. Times are seconds from the start of the media."""

    info: MediaInfo
    clock: Clock
    video: int | None  # position among the video tracks
    audio: int | None
    video_end: float | None  # where the header says that the track ends
    audio_end: float | None
    still: Still | None = None  # of a picture that is put together from several
    others: bool = False  # whether it holds tracks that are neither picture nor sound, such as subtitles
    holes: tuple[float, ...] = ()  # where the file is damaged, though the demuxer does not say so: shares of its bytes
    broken: bool = False  # whether it is damaged at its end, or cut there
    late: frozenset[str] = frozenset()  # kinds of tracks that turn up so late in the file that they are not read
    stated: Stated = field(default_factory=Stated)  # what the header states of the file's size


def require_something(
    name: str, plan: DecodePlan, layout: Layout, picture: Picture | None, sound: Sound | None
) -> None:
    """Check that there is something to look at or to listen to.

    Raises:
        MediaError: there is neither, with the reason.
    """
    if (picture is not None and picture.frames is not None) or (sound is not None and sound.waveform is not None):
        return
    if layout.video is None and layout.audio is None:
        raise MediaError(f"{name} holds no video or audio track that can be used", "convert it to MP4 or JPEG")
    if picture is None and sound is None:
        missing = "sound" if layout.audio is None else "picture" if layout.video is None else "picture and sound"
        raise MediaError(f"{name}: nothing is left to use ({missing} missing or switched off)", "switch it on")
    ends = [part.end for part in (picture, sound) if part is not None and part.end is not None]
    last = max(ends, default=None)
    if last is not None and plan.from_time >= last:
        raise PastEnd(
            f"the span starts at {clock(plan.from_time)}, but {name} ends at {clock(last)}",
            "choose an earlier start",
            last,
        )
    locked = [part is not None and part.locked for part in (picture, sound)]
    if any(locked):
        what = "picture and sound are" if all(locked) else "the picture is" if locked[0] else "the sound is"
        raise MediaError(f"{name}: {what} encrypted", "decrypt it, or use a copy without protection")
    if (picture is not None and not picture.decodable) or (sound is not None and not sound.decodable):
        raise MediaError(f"{name}: {_codecs(layout)} could not be decoded", "check that it plays in a video player")
    if sound is not None and sound.damaged is not None:
        raise Hollow(f"{name}: the sound is damaged ({_when(*sound.damaged)})", "choose another span")
    if sound is not None and sound.cut:
        raise MediaError(f"{name}: {_beyond(plan, sound)}", "choose a later start")
    raise Nothing(f"{name} shows and plays nothing between the chosen times", "choose a longer span")


def judge(
    plan: DecodePlan, layout: Layout, picture: Picture | None, sound: Sound | None
) -> tuple[AudioStatus, tuple[str, ...]]:
    """The audio status, and everything the user should know about what was not used."""
    status, of_sound = _judge_sound(plan, layout, sound)
    notices = [*_choices(plan, layout)]
    if picture is not None:
        notices += picture.notices
        if picture.locked:
            notices.append("the picture is encrypted; only the sound was used")
        elif not picture.decodable:
            codec = _codec(layout, "video", layout.video)
            notices.append(f"the picture could not be decoded ({codec}{_within(plan)}); only the sound was used")
        elif picture.frames is None and (picture.end or 0.0) <= plan.from_time:
            notices.append(f"the picture ends at {clock(picture.end or 0)}, before the span; only sound was used")
        elif picture.frames is None:
            until = "its end" if plan.end is None else clock(plan.end)
            notices.append(f"there is no picture between {clock(plan.from_time)} and {until}; only sound was used")
    if closed := layout.clock.closed:
        times = "once" if len(closed) == 1 else f"{len(closed)} times"
        notices.append(
            f"the file's clock jumps forward {times}, by {clock(round(sum(closed)))}; "
            "later times are that much earlier here"
        )
    notices += of_sound
    notices += _shortfall(plan, layout, picture, sound)
    if layout.stated.beyond:
        notices.append(
            f"the last {layout.stated.beyond:.0%} of the file lie behind the recording that its header describes, "
            "and were not read"
        )
    return status, tuple(notices)


def _judge_sound(plan: DecodePlan, layout: Layout, sound: Sound | None) -> tuple[AudioStatus, list[str]]:
    if layout.audio is None and "audio" in layout.late:
        return AudioStatus.UNDECODABLE, ["sound begins late in the file, and cannot be read; only the picture was used"]
    if layout.audio is None:
        return AudioStatus.ABSENT, []
    if sound is None:
        return AudioStatus.DISABLED, []
    if sound.locked and not sound.decodable:
        return AudioStatus.UNDECODABLE, ["the sound is encrypted; only the picture was used"]
    if not sound.decodable:
        codec = _codec(layout, "audio", layout.audio)
        return AudioStatus.UNDECODABLE, [f"the sound could not be decoded ({codec}); only the picture was used"]
    if sound.waveform is None and sound.damaged is not None:
        codec = _codec(layout, "audio", layout.audio)
        lost = f"the sound could not be decoded ({codec}, {_when(*sound.damaged)}); only the picture was used"
        return AudioStatus.UNDECODABLE, [lost]
    if sound.waveform is None and sound.end is not None and sound.end <= plan.from_time:
        return AudioStatus.ABSENT, [f"the sound ends at {clock(sound.end)}, before the span; only the picture was used"]
    if sound.waveform is None and not sound.cut:
        if plan.end is None:
            return AudioStatus.ABSENT, ["the audio track is silent throughout the span"]
        span = f"{clock(plan.from_time)} and {clock(plan.end)}"
        return AudioStatus.ABSENT, [f"there is no sound between {span}; only the picture was used"]
    notices = []
    if sound.damaged is not None:
        notices = [f"parts of the audio track are damaged and were skipped ({_when(*sound.damaged)})"]
    if sound.locked:
        notices.append("parts of the audio track are encrypted and were left out")
    if sound.cancelled:
        notices.append("the sound's channels cancel each other out; where they do, only the louder one was used")
    if sound.early:
        by = clock(round(sound.early))
        notices.append(f"the sound's times jump forward by {by}; what follows is heard that much earlier here")
    if not sound.cut:
        return AudioStatus.USED, notices
    used = plan.max_audio_seconds or 0.0
    until = layout.audio_end or layout.info.duration
    if plan.end is not None:
        until = min(plan.end, until or plan.end)
    left = 0.0 if until is None else until - plan.from_time - used
    rest = f"{clock(left)} were" if left > 0 else "the rest was"
    if sound.waveform is None:
        return AudioStatus.TRUNCATED, [*notices, f"{_beyond(plan, sound)}; it was left out"]
    return AudioStatus.TRUNCATED, [*notices, f"only the first {clock(used)} of sound were used; {rest} left out"]


def _when(first: float, last: float) -> str:
    return f"from {clock(first)} on" if math.isinf(last) else stretch(first, last)


def _within(plan: DecodePlan) -> str:
    """The span, in words that follow others; nothing where the whole file is read."""
    return "" if plan.end is None else f", {stretch(plan.from_time, plan.end)}"


def _beyond(plan: DecodePlan, sound: Sound) -> str:
    """That all sound of the span lies beyond the limit."""
    return f"the sound begins at {clock(sound.begin or 0)}, after the {clock(plan.max_audio_seconds or 0)} used of it"


def _choices(plan: DecodePlan, layout: Layout) -> list[str]:
    """Which track was taken, where the user did not say and there were several."""
    notices = []
    for kind, track, asked, wanted in (
        ("video", layout.video, plan.video_track, plan.video),
        ("audio", layout.audio, plan.audio_track, plan.audio),
    ):
        tracks = layout.info.of_kind(kind)
        if track is not None and wanted and asked is None and len(tracks) > 1:
            notices.append(f"the file has {len(tracks)} {kind} tracks; track {track} was used")
        if kind in layout.late and (track is not None or kind == "video"):
            more = "another" if track is not None else "a"
            notices.append(f"{more} {kind} track begins late in the file, and was not read")
    return notices


def _shortfall(plan: DecodePlan, layout: Layout, picture: Picture | None, sound: Sound | None) -> list[str]:
    """How much was read, if the file stops before the place that its header promises."""
    if (layout.broken or layout.holes) and (lost := _lost(plan, layout, picture, sound)):
        return lost
    promise = layout.stated.promise
    if promise is None and not layout.info.format.startswith(_STATES_DURATION):
        return []
    pairs = []
    if picture is not None and picture.reached is not None:
        pairs.append((picture.reached, layout.video_end))
    if sound is not None and sound.end is not None and not sound.cut:
        pairs.append((sound.end, layout.audio_end))
    if promise is not None and layout.stated.seconds is not None:
        pairs = [(max((read for read, _ in pairs), default=math.inf), layout.stated.seconds)]
    elif promise is not None:
        most = layout.info.duration if layout.info.format in _STATES_BOTH else None
        pairs = [(read, min(read * promise, most or math.inf)) for read, _ in pairs]
    elif len(pairs) == len(layout.info.tracks) and not layout.others and all(end is None for _, end in pairs):
        # Matroska and ASF state one duration for all tracks; it is kept if any track lasts that long. Most writers
        # count it from 0, some from the first picture or sound.
        last, late = max((read for read, _ in pairs), default=0.0), max(0.0, layout.clock.origin)
        stated = layout.info.duration
        pairs = [(last, None if stated is None else stated - late)]
    for read, promised in pairs:
        if promised is not None and read < min(promised, plan.end or promised) - _SHORTFALL:
            return [f"read {clock(read)} of {clock(promised)}; the rest is missing or damaged"]
    return []


def _lost(plan: DecodePlan, layout: Layout, picture: Picture | None, sound: Sound | None) -> list[str]:
    """What of a file without an index is damaged."""
    notices = []
    if layout.holes:
        places = " and ".join(f"{place:.0%}" for place in layout.holes[:_NAMED])
        more = ", among others" if len(layout.holes) > _NAMED else ""
        notices.append(f"the file is damaged {places} of the way through it{more}; what lies there was skipped")
    ends = [picture.reached if picture else None, sound.end if sound and not sound.cut else None]
    read = max((end for end in ends if end is not None), default=None)
    if layout.broken and read is not None and (plan.end is None or read < plan.end - _SHORTFALL):
        notices.append(f"read up to {clock(read)}; what follows is missing or damaged")
    return notices


def _codec(layout: Layout, kind: str, track: int | None) -> str:
    codec = None if track is None else layout.info.of_kind(kind)[track].codec
    return codec or "unknown codec"


def _codecs(layout: Layout) -> str:
    tracks = {"video": layout.video, "audio": layout.audio}
    return " and ".join(f"{k} ({_codec(layout, k, t)})" for k, t in tracks.items() if t is not None)
