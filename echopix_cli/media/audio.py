"""The sound: decode a track in blocks, honour its timestamps, resample to 16 kHz mono."""

from __future__ import annotations

import os
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
    if plan.start:
        sound = _read_track(path, track, plan, clock, declared_end, meter, seek=True)
        if sound is not None:
            return sound
    sound = _read_track(path, track, plan, clock, declared_end, meter, seek=False)
    return sound if sound is not None else Sound(None, False, False, None, None, False)


def _read_track(
    path: str | os.PathLike[str],
    track: int,
    plan: DecodePlan,
    clock: Clock,
    declared_end: float | None,
    meter: Meter,
    *,
    seek: bool,
) -> Sound | None:
    """Decode the span; None if nothing can be decoded, or the asked-for seek was not sure to be right."""
    timeline, damage, name = _timeline(plan), Damage(), shown(path)
    hearing = Hearing(timeline, damage)
    seen = silent = 0  # packets, and those of which nothing came
    with opened(path, plan.limits) as container:
        stream = audio_tracks(container)[track]
        if stream.codec_context is None or stream.time_base is None:
            return None
        if seek and not seek_before(container, stream, clock, plan.from_time - _RUN_IN):
            return None
        numerator, denominator = stream.time_base.as_integer_ratio()
        joins = clock.joins(stream)
        for packet in chain(packets(container, stream, damage, clock), (None,)):
            seen += packet is not None
            frames = audio_frames(stream, packet, damage)
            silent += not frames
            if silent > plan.limits.max_packets:
                raise MediaError(
                    f"{name} holds more than {plan.limits.max_packets} audio packets without sound",
                    "choose a shorter span, or raise the setting limit_packets",
                )
            for frame in frames:
                meter.sound(frame.samples, frame.layout.nb_channels)
                time = None if frame.pts is None else frame.pts * numerator / denominator - clock.origin
                reached = plan.from_time if hearing.end is None else hearing.end
                if time is not None and time > max(reached + _LONGEST_GAP, declared_end or 0.0):
                    time = None
                joined = bool(joins) and time is not None and time >= joins[0] - _ROUNDED
                if joined:
                    joins.pop(0)
                hearing.hear(frame, time, joined=joined)
            _check_length(timeline, plan, name)
            if timeline.full:
                break
    hearing.close()
    if damage.locked and hearing.begin is None:
        return Sound(None, False, False, None, None, False, locked=True)
    if hearing.begin is None or hearing.end is None:
        # A track without packets is silent, not broken; but after a seek this proves nothing.
        return Sound(None, True, False, None, None, bool(damage)) if not seen and not seek else None
    if seek and hearing.begin > plan.from_time + _LATE:
        return None
    return _sound(
        timeline,
        plan,
        end=hearing.end,
        damaged=bool(damage),
        locked=bool(damage.locked),
        cancelled=hearing.downmix.cancelled,
    )


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
