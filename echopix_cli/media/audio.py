"""The sound: decode a track in blocks, honour its timestamps, resample to 16 kHz mono."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet

from echopix_cli.errors import MediaError
from echopix_cli.media.clock import Clock
from echopix_cli.media.cost import Meter
from echopix_cli.media.demux import Damage, audio_frames, indexed, packets, seek_before
from echopix_cli.media.downmix import Downmix
from echopix_cli.media.extent import MediaFile
from echopix_cli.media.hearing import Hearing
from echopix_cli.media.plan import DecodePlan
from echopix_cli.media.recall import leave, take
from echopix_cli.media.source import READ_ERRORS, audio_tracks, open_regular, opened, shown, start_of
from echopix_cli.media.timeline import Samples, Stretch, Timeline
from echopix_cli.media.values import SAMPLE_RATE, MediaInfo

_LONGEST_GAP = 600.0  # seconds; a longer one, past the declared end, is a damaged timestamp and not silence
_AGREEING = 0.05  # seconds by which two readers may see a different length
_ROUNDED = 0.001  # seconds; time stamps are no more exact
_LATE = 0.05  # seconds after the span's start at which a seek may have landed
_DOUBTED = 100  # frames, some seconds
_RUN_IN = 1.0  # seconds decoded before the span: codecs need a little past to sound right
_BLOCK = 65_536  # samples read at a time from plain audio files, all channels together,
_SMALLEST_BLOCK = 1024  # but not fewer than these in each
_SLACK = SAMPLE_RATE // 100  # 10 ms: a resampler's tail is no reason to report a cut
# Containers without an index whose packets have the same times wherever reading them begins to be decoded.
_COUNTED = ("mpegts", "mp3", "aac", "flv", "ogg", "mpeg", "avi", "asf")
# Containers that libsndfile reads. Not mp3: soundfile seeks after each block, which costs an MP3 decoder its
# memory of the past, and the first 50 ms of every block come out wrong. Not ogg: it hears only the first of several
# recordings in a chain.
_PLAIN = ("wav", "w64", "aiff", "au", "caf", "flac")
# What FFmpeg's names of codecs begin with where libsndfile sees plain samples. Others are coded sound, such as AC-3,
# between the marks of a digital cable: to libsndfile, and to the ear, it is noise.
_SAMPLES = ("pcm_", "flac")


@dataclass(frozen=True)
class Sound:
    """What came out of an audio track. ``waveform`` is None when there is no sound in the span."""

    waveform: Samples | None  # (n,)
    decodable: bool  # whether anything of the track could be decoded, or there was nothing to decode
    cut: bool  # whether max_audio_seconds left something out
    begin: float | None  # time of the first sound in the span, kept or not; None if there is none
    end: float | None  # time of the end of the last readable sample
    damaged: tuple[float, float] | None  # between which times (inf: the end) parts could not be used, if there are any
    locked: bool = False  # whether all or some of it is encrypted
    cancelled: bool = False  # whether channels cancelled each other out, and one of them was taken
    early: float = 0.0  # seconds by which sound is laid before its own times, since a gap was too long to be one


def is_plain(info: MediaInfo) -> bool:
    """Whether a file is better read by libsndfile, which knows neither other tracks nor where speakers stand."""
    return info.format in _PLAIN and len(info.tracks) == 1 and (info.tracks[0].channels or 0) <= 2


def read_plain(path: str | os.PathLike[str], plan: DecodePlan, info: MediaInfo, meter: Meter) -> Sound | None:
    """Read an audio file with libsndfile; None when it is not up to it, or the file is damaged.

    Args:
        info: what FFmpeg says of the file; where libsndfile sees another one, the answer is None.

    Raises:
        MediaError: the sound is longer than ``plan.limits`` allows, or too much is decoded.
    """
    import soundfile

    timeline, downmix, name = _timeline(plan), Downmix(), shown(path)
    with open_regular(path) as raw:
        try:
            with soundfile.SoundFile(MediaFile(raw)) as file:
                coded = file.subtype.startswith("PCM_") and not (info.tracks[0].codec or "").startswith(_SAMPLES)
                if coded or not _agree(file.frames, file.samplerate, file.channels, info):
                    return None
                first = min(round(max(0.0, plan.from_time - _RUN_IN) * file.samplerate), file.frames)
                stretch = Stretch(timeline, file.samplerate, file.seek(first) / file.samplerate)
                step = max(_SMALLEST_BLOCK, _BLOCK // file.channels)
                until = timeline.start + timeline.limit / SAMPLE_RATE
                while not timeline.full:
                    # What lies behind the span is not judged: the channels may cancel each other out there only.
                    left = max(_SMALLEST_BLOCK, round((until - stretch.end) * file.samplerate))
                    block = file.read(min(step, left), dtype="float32", always_2d=True)  # (n, channels)
                    if not len(block):
                        break
                    meter.sound(*block.shape)
                    stretch.push(downmix.mix(np.ascontiguousarray(block.T), file.samplerate))
                    _check_length(timeline, plan, name)
                stretch.close()
                complete = timeline.full or first + stretch.pushed >= file.frames
        except (soundfile.SoundFileError, RuntimeError, *READ_ERRORS):
            return None
    if not complete:
        return None
    return _sound(timeline, plan, end=stretch.end, damaged=None, locked=False, cancelled=downmix.cancelled)


def _agree(frames: int, rate: int, channels: int, info: MediaInfo) -> bool:
    """Whether libsndfile, which tells the numbers, and FFmpeg mean the same sound."""
    track = info.tracks[0]
    same = (rate, channels) == (track.sample_rate, track.channels)
    return same and info.duration is not None and abs(frames / rate - info.duration) < _AGREEING


def read_track(
    path: str | os.PathLike[str],
    track: int,
    plan: DecodePlan,
    clock: Clock,
    declared_end: float | None,
    meter: Meter,
) -> Sound:
    """Read an audio track of a container, each piece at its own time.

    Args:
        track: position among the file's audio tracks.
        clock: of the file.
        declared_end: when the track ends according to its header.
        meter: counts what is decoded.

    Raises:
        MediaError: the sound is longer than ``plan.limits`` allows, or too much is decoded.
    """
    sound = None
    half_heard = take(path, _Track, track, plan.limits)
    if half_heard is not None and half_heard.until == plan.from_time and half_heard.go_on(_timeline(plan)):
        sound = _heard(half_heard, path, track, plan, meter, sought=False)
    elif half_heard is not None and half_heard.begin_anew(_timeline(plan), plan.from_time):
        sound = _heard(half_heard, path, track, plan, meter, sought=True)
    elif half_heard is not None:
        half_heard.close()
    if sound is None and plan.from_time > _RUN_IN:
        sound = _heard(_Track(path, track, plan, clock, declared_end), path, track, plan, meter, sought=True)
    if sound is None:
        sound = _heard(_Track(path, track, plan, clock, declared_end), path, track, plan, meter, sought=False)
    return sound if sound is not None else Sound(None, False, False, None, None, None)


def _heard(
    listening: _Track, path: str | os.PathLike[str], track: int, plan: DecodePlan, meter: Meter, *, sought: bool
) -> Sound | None:
    """What a track holds of the span; it is left for the span that follows."""
    try:
        sound = listening.read(plan, meter, shown(path), seek=sought)
    except BaseException:
        listening.close()
        raise
    if sound is None or listening.until is None:
        listening.close()
    else:
        leave(path, listening, listening.close, track, plan.limits)
    return sound


class _Track:
    """A sound track on its way through its decoder, read for one span after another.

    Args:
        track, plan, clock, declared_end: as of :func:`read_track`.

    Raises:
        MediaError: the file cannot be opened any more.
    """

    def __init__(
        self, path: str | os.PathLike[str], track: int, plan: DecodePlan, clock: Clock, declared_end: float | None
    ) -> None:
        self.until: float | None = None  # seconds; end of the last span, if one that follows it can be read from here
        self._clock, self._declared_end = clock, declared_end
        self._damage, self._timeline = Damage(), _timeline(plan)
        self._hearing = Hearing(self._timeline, self._damage)
        self._seen = self._silent = 0  # packets, and those of which nothing came
        self._holes: list[tuple[float, float]] = []  # from where to where sound could not be used
        self._hole: float | None = None  # where that began, and has not ended yet
        self._doubted = 0  # frames left after damage whose times are held against what was heard
        self._astray = 0  # frames in a row whose times lie too far ahead,
        self._early = 0.0  # and by how many seconds, where there are so many that it is no damaged time
        self._over = False  # whether the track's end was reached
        self._open_file = ExitStack()
        self._container = self._open_file.enter_context(opened(path, plan.limits))
        self._stream = audio_tracks(self._container)[track]
        self._decoder = self._stream.codec_context  # None where this FFmpeg has none
        self._unit = (self._stream.time_base or Fraction(0)).as_integer_ratio()  # seconds, as a fraction
        self._joins = clock.joins(self._stream)
        self._packets = chain(packets(self._container, self._stream, self._damage, clock), (None,))
        self._passed: float | None = None  # seconds; time of the last packet
        self._landed: float | None = None  # seconds; time of the first packet since the beginning, or a seek
        self._nearly = -math.inf  # seconds; what lies before is not decoded

    def close(self) -> None:
        """Close the file."""
        self._open_file.close()

    def go_on(self, timeline: Timeline) -> bool:
        """Turn to the span that follows; False if what was read cannot be put together with it."""
        self._timeline = self._timeline.following(timeline.start, timeline.limit)
        return self._hearing.go_on(self._timeline)

    def begin_anew(self, timeline: Timeline, start: float) -> bool:
        """Turn to a span elsewhere, which is sought next; False if it cannot be reached from here."""
        if start <= _RUN_IN or self._decoder is None:
            return False
        if indexed(self._container, self._clock):
            self._packets = chain(packets(self._container, self._stream, self._damage, self._clock), (None,))
        elif self._over or self._passed is None or self._passed > start - _RUN_IN:
            return False
        self._decoder.flush_buffers()
        self._timeline, self._over, self._seen, self._silent, self._landed = timeline, False, 0, 0, None
        return True

    def _seek(self, start: float) -> bool:
        """Make the next packet that is decoded one a little before a time; False if that is not sure to be right."""
        moved = seek_before(self._container, self._stream, self._clock, start - _RUN_IN)
        if not moved and self._container.format.name not in _COUNTED:
            return False
        self._nearly = start - _RUN_IN
        begin = start_of(self._stream)
        origin = None if self._clock.jumps else 0.0 if begin is None else begin - self._clock.origin
        self._hearing = Hearing(self._timeline, self._damage, origin, float(self._stream.time_base or 0))
        return True

    def read(self, plan: DecodePlan, meter: Meter, name: str, *, seek: bool) -> Sound | None:
        """Decode the span; None if nothing can be decoded, or the asked-for seek was not sure to be right."""
        timeline, damage = self._timeline, self._damage
        if self._decoder is None or self._stream.time_base is None:
            return None
        if seek and not self._seek(plan.from_time):
            return None
        self.until, before, hearing = None, replace(damage), self._hearing
        while not timeline.full and not self._over:
            self._step(plan, meter, name, timed=seek)
        if self._over:
            hearing.close()
        end = hearing.end
        if seek and damage.given_up and hearing.begin is None:
            return None  # a place that cannot be read is stepped over from what stands before it
        if damage.given_up:  # of what follows nothing is known here; whoever wants it seeks
            heard = plan.from_time if end is None else end
            end = max(heard, plan.end or self._declared_end or heard)
            self._holes.append((heard, end))
        locked = damage.locked > before.locked
        damaged = self._holes_in(plan)
        if locked and hearing.begin is None:
            return Sound(None, False, False, None, None, None, locked=True)
        landed = self._landed is not None and self._landed <= plan.from_time + _LATE
        if hearing.begin is None or end is None:
            # A track without packets is silent, not broken; but after a seek this proves nothing.
            proven = (landed and damaged is not None) if seek else damage.given_up or not self._seen
            return Sound(None, True, False, None, None, damaged) if proven else None
        if seek and not landed and hearing.begin > plan.from_time + _LATE:
            return None
        if plan.end is not None and timeline.limit == timeline.shift(plan.end) and not damage.given_up:
            self.until = plan.end
        sound = _sound(timeline, plan, end=end, damaged=damaged, locked=locked, cancelled=hearing.downmix.cancelled)
        return replace(sound, early=self._early)

    def _holes_in(self, plan: DecodePlan) -> tuple[float, float] | None:
        """Between which times of a span sound could not be used; None where all of it could."""
        start, end = plan.from_time, math.inf if plan.end is None else plan.end
        if self._hole is not None:
            until = math.inf if self._over else max(self._hole, min(end, self._hearing.end or end))
            self._holes.append((self._hole, until))
        found = [
            (max(start, first), last if last == math.inf else min(end, last))
            for first, last in self._holes
            if first < end and last >= start
        ]
        return (min(first for first, _ in found), max(last for _, last in found)) if found else None

    def _next(self) -> Iterator[Packet[AudioStream] | None]:
        """The next packet that is to be decoded, or None after the last one: that comes after it, wherever it lies."""
        last = None
        for packet in self._packets:
            if packet is None:
                self._over = True
                yield from (None,) if last is None else (last, None)
                return
            self._seen += 1
            time = self._time(packet.pts)
            self._passed = time if time is not None else self._passed
            self._landed = time if self._landed is None else self._landed
            if time is None or time >= self._nearly:
                yield packet
                return
            last = packet

    def _time(self, ticks: int | None) -> float | None:
        """Seconds from the start of the media."""
        return None if ticks is None else ticks * self._unit[0] / self._unit[1] - self._clock.origin

    def _step(self, plan: DecodePlan, meter: Meter, name: str, *, timed: bool) -> None:
        """Decode one packet, or what the decoder still holds after the last one.

        Args:
            timed: sound whose time is not known is of no use.
        """
        hearing, known = self._hearing, self._damage.places
        frames: list[AudioFrame] = []
        for packet in self._next():
            if self._decoder is not None:
                found, self._decoder = audio_frames(self._decoder, packet, self._damage)
                frames += found
        self._silent += not frames
        if self._silent > plan.limits.max_packets:
            raise MediaError(
                f"{name} holds more than {plan.limits.max_packets} audio packets without sound",
                "choose a shorter span, or raise the setting limit_packets",
            )
        if self._damage.places > known and self._hole is None:
            unheard = -math.inf if timed else plan.from_time  # damage before the span is none of it
            self._hole = unheard if hearing.end is None else hearing.end
        for frame in frames:
            meter.sound(frame.samples, frame.layout.nb_channels)
            time = self._time(frame.pts)
            if timed and time is None and hearing.begin is None:
                continue
            reached = plan.from_time if hearing.end is None else hearing.end
            if time is not None and time > max(reached + _LONGEST_GAP, self._declared_end or 0.0):
                self._astray += 1
                if self._astray == _DOUBTED and time - reached < plan.limits.max_sound_seconds:
                    self._early = time - reached
                time = None
            elif time is not None:
                self._astray = 0
            joined = bool(self._joins) and time is not None and time >= self._joins[0] - _ROUNDED
            if joined:
                self._joins.pop(0)
            if self._hole is not None:
                self._holes.append((self._hole, max(self._hole, reached if time is None else time)))
                self._hole = None
                self._doubted = _DOUBTED
            if self._doubted and time is not None and hearing.end is not None:
                # What the decoder made of the damage may be longer or shorter than what it stands for.
                joined = joined or abs(time - hearing.end) > float(self._stream.time_base or 0) + _ROUNDED
                self._doubted -= 1
            known = self._damage.places
            hearing.hear(frame, time, joined=joined)
            if self._damage.places > known:
                self._hole = reached
        _check_length(self._timeline, plan, name)


def _timeline(plan: DecodePlan) -> Timeline:
    """An empty timeline for the span, with room to notice that sound was longer than asked for or allowed."""
    limits = [round(plan.limits.max_sound_seconds * SAMPLE_RATE) + _SLACK + 1]
    if plan.end is not None:
        # So that spans which follow one another share no sample, and leave none out.
        limits.append(Timeline(plan.from_time, 0).shift(plan.end))
    if plan.max_audio_seconds is not None:
        limits.append(round(plan.max_audio_seconds * SAMPLE_RATE) + _SLACK + 1)
    return Timeline(plan.from_time, min(limits))


def _check_length(timeline: Timeline, plan: DecodePlan, name: str) -> None:
    most = plan.limits.max_sound_seconds * SAMPLE_RATE
    if timeline.reached > most and timeline.limit > most:
        raise MediaError(
            f"{name}: the sound is longer than {plan.limits.max_sound_seconds / 3600:g} h",
            "choose a shorter span, or raise the setting limit_sound_seconds",
        )


def _sound(
    timeline: Timeline,
    plan: DecodePlan,
    *,
    end: float,
    damaged: tuple[float, float] | None,
    locked: bool,
    cancelled: bool,
) -> Sound:
    waveform: Samples | None = timeline.waveform() if timeline.length else None
    cut = False
    if plan.max_audio_seconds is not None:
        most = round(plan.max_audio_seconds * SAMPLE_RATE)
        # The span's end, if it comes first, leaves nothing out that was asked for.
        cut = timeline.limit > most and timeline.reached > most + _SLACK
        waveform = None if waveform is None else waveform[:most]
    begin = None if timeline.first is None else plan.from_time + timeline.first / SAMPLE_RATE
    return Sound(waveform, True, cut, begin, end, damaged, locked, cancelled)
