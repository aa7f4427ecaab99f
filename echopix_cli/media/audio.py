"""The sound: decode a track in blocks, honour its timestamps, resample to 16 kHz mono."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain

import numpy as np

from echopix_cli.errors import MediaError
from echopix_cli.media.clock import Clock
from echopix_cli.media.cost import Meter
from echopix_cli.media.demux import Damage, audio_frames, packets, seek_before
from echopix_cli.media.downmix import Downmix
from echopix_cli.media.extent import MediaFile
from echopix_cli.media.hearing import Hearing
from echopix_cli.media.plan import DecodePlan
from echopix_cli.media.recall import leave, take
from echopix_cli.media.source import READ_ERRORS, audio_tracks, open_regular, opened, shown
from echopix_cli.media.timeline import Samples, Stretch, Timeline
from echopix_cli.media.values import SAMPLE_RATE, MediaInfo

_LONGEST_GAP = 600.0  # seconds; a longer one, past the declared end, is a damaged timestamp and not silence
_AGREEING = 0.05  # seconds by which two readers may see a different length
_ROUNDED = 0.001  # seconds; time stamps are no more exact
_LATE = 0.05  # seconds after the span's start at which a seek may have landed
_RUN_IN = 1.0  # seconds decoded before the span: codecs need a little past to sound right
_BLOCK = 65_536  # samples read at a time from plain audio files, all channels together,
_SMALLEST_BLOCK = 1024  # but not fewer than these in each
_SLACK = SAMPLE_RATE // 100  # 10 ms: a resampler's tail is no reason to report a cut
# Containers that libsndfile reads. Not mp3: soundfile seeks after each block, which costs an MP3 decoder its
# memory of the past, and the first 50 ms of every block come out wrong. Not ogg: it hears only the first of several
# recordings in a chain.
_PLAIN = ("wav", "w64", "aiff", "au", "caf", "flac")


@dataclass(frozen=True)
class Sound:
    """What came out of an audio track. ``waveform`` is None when there is no sound in the span."""

    waveform: Samples | None  # (n,)
    decodable: bool  # whether anything of the track could be decoded, or there was nothing to decode
    cut: bool  # whether max_audio_seconds left something out
    begin: float | None  # time of the first sound in the span, kept or not; None if there is none
    end: float | None  # time of the end of the last readable sample
    damaged: bool
    locked: bool = False  # whether all or some of it is encrypted
    cancelled: bool = False  # whether channels cancelled each other out, and one of them was taken


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
                if not _agree(file.frames, file.samplerate, file.channels, info):
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
    return _sound(timeline, plan, end=stretch.end, damaged=False, locked=False, cancelled=downmix.cancelled)


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
    elif half_heard is not None:
        half_heard.close()
    if sound is None and plan.start:
        sound = _heard(_Track(path, track, plan, clock, declared_end), path, track, plan, meter, sought=True)
    if sound is None:
        sound = _heard(_Track(path, track, plan, clock, declared_end), path, track, plan, meter, sought=False)
    return sound if sound is not None else Sound(None, False, False, None, None, False)


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
        self._over = False  # whether the track's end was reached
        self._open_file = ExitStack()
        self._container = self._open_file.enter_context(opened(path, plan.limits))
        self._stream = audio_tracks(self._container)[track]
        self._joins = clock.joins(self._stream)
        self._packets = chain(packets(self._container, self._stream, self._damage, clock), (None,))

    def close(self) -> None:
        """Close the file."""
        self._open_file.close()

    def go_on(self, timeline: Timeline) -> bool:
        """Turn to the span that follows; False if what was read cannot be put together with it."""
        self._timeline = self._timeline.following(timeline.start, timeline.limit)
        return self._hearing.go_on(self._timeline)

    def read(self, plan: DecodePlan, meter: Meter, name: str, *, seek: bool) -> Sound | None:
        """Decode the span; None if nothing can be decoded, or the asked-for seek was not sure to be right."""
        stream, timeline, hearing, damage = self._stream, self._timeline, self._hearing, self._damage
        if stream.codec_context is None or stream.time_base is None:
            return None
        if seek and not seek_before(self._container, stream, self._clock, plan.from_time - _RUN_IN):
            return None
        self.until, before = None, (damage.reads, damage.packets, damage.locked)
        while not timeline.full and not self._over:
            self._step(plan, meter, name)
        if self._over:
            hearing.close()
        damaged = (damage.reads, damage.packets) != before[:2]
        locked = damage.locked > before[2]
        if locked and hearing.begin is None:
            return Sound(None, False, False, None, None, False, locked=True)
        if hearing.begin is None or hearing.end is None:
            # A track without packets is silent, not broken; but after a seek this proves nothing.
            return Sound(None, True, False, None, None, damaged) if not self._seen and not seek else None
        if seek and hearing.begin > plan.from_time + _LATE:
            return None
        if plan.end is not None and timeline.limit == timeline.shift(plan.end):
            self.until = plan.end
        return _sound(
            timeline, plan, end=hearing.end, damaged=damaged, locked=locked, cancelled=hearing.downmix.cancelled
        )

    def _step(self, plan: DecodePlan, meter: Meter, name: str) -> None:
        """Decode one packet, or what the decoder still holds after the last one."""
        packet, hearing, clock = next(self._packets), self._hearing, self._clock
        self._seen += packet is not None
        self._over = packet is None
        frames = audio_frames(self._stream, packet, self._damage)
        self._silent += not frames
        if self._silent > plan.limits.max_packets:
            raise MediaError(
                f"{name} holds more than {plan.limits.max_packets} audio packets without sound",
                "choose a shorter span, or raise the setting limit_packets",
            )
        assert self._stream.time_base is not None
        numerator, denominator = self._stream.time_base.as_integer_ratio()
        for frame in frames:
            meter.sound(frame.samples, frame.layout.nb_channels)
            time = None if frame.pts is None else frame.pts * numerator / denominator - clock.origin
            reached = plan.from_time if hearing.end is None else hearing.end
            if time is not None and time > max(reached + _LONGEST_GAP, self._declared_end or 0.0):
                time = None
            joined = bool(self._joins) and time is not None and time >= self._joins[0] - _ROUNDED
            if joined:
                self._joins.pop(0)
            hearing.hear(frame, time, joined=joined)
        _check_length(self._timeline, plan, name)


def _timeline(plan: DecodePlan) -> Timeline:
    """An empty timeline for the span, with room to notice that sound was longer than asked for or allowed."""
    limits = [round(plan.limits.max_sound_seconds * SAMPLE_RATE) + _SLACK + 1]
    if plan.end is not None:
        limits.append(round((plan.end - plan.from_time) * SAMPLE_RATE))
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


def _sound(timeline: Timeline, plan: DecodePlan, *, end: float, damaged: bool, locked: bool, cancelled: bool) -> Sound:
    waveform: Samples | None = timeline.waveform() if timeline.length else None
    cut = False
    if plan.max_audio_seconds is not None:
        most = round(plan.max_audio_seconds * SAMPLE_RATE)
        # The span's end, if it comes first, leaves nothing out that was asked for.
        cut = timeline.limit > most and timeline.reached > most + _SLACK
        waveform = None if waveform is None else waveform[:most]
    begin = None if timeline.first is None else plan.from_time + timeline.first / SAMPLE_RATE
    return Sound(waveform, True, cut, begin, end, damaged, locked, cancelled)
