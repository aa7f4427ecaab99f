"""Render the sound of a script, and say which instruments sound when."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from echopix_cli.scenes.beds import bed_wave
from echopix_cli.scenes.notes import find, samples
from echopix_cli.scenes.script import INSTRUMENTS, SAMPLE_RATE, PlayedNote, Script, Sound

EQ_HZ: tuple[float, ...] = tuple(80.0 * 1.51**k for k in range(12))  # 80 Hz to 7.4 kHz
_FADE = 0.04  # seconds over which a note that is cut short dies away
_RISE = SAMPLE_RATE // 100
# 8 s and this make 2^17 samples, a fast transform. Notes end 0.2 s before the clip does, so what little of a
# room's tail wraps round to the start is 50 dB down.
_TAIL = 3072
ROOMS = 32
SILENCE_DB = -200.0  # a noise level that stands for exact zeros


def heard(script: Script, times: np.ndarray) -> np.ndarray:
    """Which instruments sound at each time: bool (len(times), len(INSTRUMENTS))."""
    times = np.asarray(times, dtype=np.float64)
    sounding = np.zeros((len(times), len(INSTRUMENTS)), dtype=bool)
    for note in script.notes:
        sounding[:, INSTRUMENTS.index(note.instrument)] |= (times >= note.start) & (times < note.end)
    return sounding


def render_audio(script: Script, sample_rate: int = SAMPLE_RATE) -> np.ndarray | None:
    """Render the sound of a scene, with its room, noise, clipping and codec.

    Args:
        script: the scene.
        sample_rate: of the result; the recordings are 16 kHz, other rates are resampled from it.

    Returns:
        float32 (round(duration * sample_rate),) in -1..1, or None when the clip has no audio track.
    """
    if not script.sound.track:
        return None
    n = round(script.duration * SAMPLE_RATE)
    if not script.notes and script.sound.noise_db <= SILENCE_DB:
        return np.zeros(round(script.duration * sample_rate), dtype=np.float32)
    dry = np.zeros(n + _TAIL, dtype=np.float32)
    for note in script.notes:
        _add_note(dry, note)
    if script.bed is not None and script.notes:
        dry[:n] += bed_wave(script.bed, float(np.sqrt(np.dot(dry, dry) / n)), n)
    wet = _filtered(dry, script)[:n]
    wave = _degraded(wet, script)
    if sample_rate != SAMPLE_RATE:
        wave = _resampled(wave, round(script.duration * sample_rate))
    return wave


def _add_note(row: np.ndarray, note: PlayedNote) -> None:
    recording = find(note.font, note.instrument, note.source, note.velocity)
    source = samples(recording)[round(note.skip * SAMPLE_RATE) :]
    ratio = 2.0 ** ((note.pitch - note.source + note.cents / 100) / 12)
    length = min(int(len(source) / ratio) - 1, round((note.end - note.start) * SAMPLE_RATE))
    at = np.arange(length, dtype=np.float32) * np.float32(ratio)
    left = at.astype(np.int32)
    part = at - left
    below = source[left].astype(np.float32)
    wave = below + (source[left + 1] - below) * part
    if note.swell:
        wave *= _swell(note.swell)[:length]
    if note.skip:  # the cut must not click
        wave[:_RISE] *= _fade_out(_RISE)[::-1]
    fade = min(length, round(_FADE * SAMPLE_RATE))
    wave[length - fade :] *= _fade_out(fade)
    begin = round(note.start * SAMPLE_RATE)
    row[begin : begin + length] += wave * np.float32(note.gain / recording.rms / 32768)


@lru_cache(maxsize=64)
def _swell(decibels: int) -> np.ndarray:
    """A gain that changes by so many decibels a second, for two seconds."""
    return np.asarray(10 ** (decibels / 20 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE), dtype=np.float32)


@lru_cache(maxsize=64)
def _fade_out(n: int) -> np.ndarray:
    return (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, n))).astype(np.float32)


def _filtered(dry: np.ndarray, script: Script) -> np.ndarray:
    """Equaliser, band limit, room, background noise and hum, all in one trip through the spectrum."""
    sound, n = script.sound, len(dry)
    # norm="ortho" is not cosmetic: NumPy's default scales a forward transform by the integer 1, which
    # promotes float32 input to float64 and costs three times as much.
    spectrum = np.fft.rfft(dry, norm="ortho")
    spectrum *= _response(sound, n)
    if sound.room_mix > 0:
        spectrum *= 1 + np.float32(sound.room_mix) * _room(sound.room, n)
    loudness = float(np.sqrt(np.dot(dry, dry) / n)) if script.notes else 1.0
    spectrum += _noise(script, n, loudness * 10 ** (sound.noise_db / 20))
    if sound.hum_hz > 0:
        level = loudness * 10 ** (sound.hum_db / 20) * float(np.sqrt(n / 2))
        for k in (1, 2, 3):
            spectrum[round(k * sound.hum_hz / SAMPLE_RATE * n)] += level / k
    return np.fft.irfft(spectrum, n, norm="ortho").astype(np.float32, copy=False)


@lru_cache(maxsize=4)
def _octaves(n: int) -> np.ndarray:
    """The bins of an n-point transform, in octaves above 50 Hz."""
    hertz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    return np.asarray(np.log2(np.maximum(hertz, 50) / 50), dtype=np.float32)


# A curve of 257 points is smooth enough for an equaliser, and saves 67,000 powers of ten a scene.
_CURVE_HZ = np.geomspace(50, SAMPLE_RATE / 2, 257)


@lru_cache(maxsize=4)
def _curve_place(n: int) -> np.ndarray:
    octave = _octaves(n)
    return np.asarray(np.round(octave * (256 / octave[-1])), dtype=np.intp)


def _response(sound: Sound, n: int) -> np.ndarray:
    curve = np.interp(np.log(_CURVE_HZ), np.log(EQ_HZ), sound.eq_db)
    gain = 10 ** (curve / 20) / (1 + (_CURVE_HZ / sound.lowpass_hz) ** 12)
    return np.asarray(gain.astype(np.float32)[_curve_place(n)])


@lru_cache(maxsize=ROOMS)
def _room(number: int, n: int) -> np.ndarray:
    """The spectrum of a room's reverberation: an exponentially decaying burst of noise, of energy one."""
    rng = np.random.default_rng([0, number])
    decay_s = 0.1 * 4.3 ** (number / (ROOMS - 1))  # 0.1 to 0.43 s, for a fall by 60 dB
    length = round(decay_s * SAMPLE_RATE)
    impulse = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    impulse[: SAMPLE_RATE // 250] = 0  # the first reflection comes after 4 ms
    impulse /= np.sqrt((impulse**2).sum())
    return np.asarray(np.fft.rfft(impulse, n), dtype=np.complex64)


def _noise(script: Script, n: int, level: float) -> np.ndarray:
    """The spectrum of background noise whose wave has a root mean square of ``level``."""
    bins = n // 2 + 1
    pool = _noise_pool(4 * bins)
    start = int(np.random.default_rng([*script.key, 1]).integers(3 * bins))
    shape = _noise_shape(round(script.sound.noise_tilt, 1), n) * np.float32(level)
    return np.asarray(pool[start : start + bins] * shape)


@lru_cache(maxsize=1)
def _noise_pool(size: int) -> np.ndarray:
    """Gaussian numbers drawn once: a slice from anywhere, as a spectrum, is noise like no other slice's."""
    numbers = np.random.default_rng(size).standard_normal(2 * size, dtype=np.float32)
    return np.asarray(numbers.view(np.complex64))


@lru_cache(maxsize=32)
def _noise_shape(tilt: float, n: int) -> np.ndarray:
    shape = 2.0 ** (tilt * _octaves(n))
    # A bin has variance 2 * shape^2, and the unitary transform keeps the energy of both its halves.
    return np.asarray(shape * np.sqrt(n / (4 * (shape**2).sum())), dtype=np.float32)


def _degraded(wave: np.ndarray, script: Script) -> np.ndarray:
    """Clip, set the level, and pass through a coarse codec."""
    sound = script.sound
    if not script.notes:  # nothing to scale by: the noise level is absolute
        return np.asarray(np.clip(wave, -1, 1))
    peak = float(max(wave.max(), -wave.min()))
    wave = wave * np.float32(max(sound.drive, 1.0) / max(peak, 1e-6))
    if sound.drive > 1:
        wave = np.clip(wave, -1, 1)
    if sound.codec != "none":
        wave = _codec_table(sound.codec)[(wave * 32767).astype(np.int16).view(np.uint16)]
    return np.asarray(wave * np.float32(10 ** (sound.level_db / 20)))


@lru_cache(maxsize=2)
def _codec_table(codec: str) -> np.ndarray:
    """What each 16-bit sample (read as uint16) comes back as."""
    value = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.float64) / 32767
    if codec == "bits":  # nine bits
        return np.asarray(np.round(value * 256) / 256, dtype=np.float32)
    squeezed = np.sign(value) * np.log1p(255 * np.abs(value)) / np.log(256)
    squeezed = np.round(squeezed * 127) / 127
    return np.asarray(np.sign(squeezed) * (256 ** np.abs(squeezed) - 1) / 255, dtype=np.float32)


def _resampled(wave: np.ndarray, n: int) -> np.ndarray:
    spectrum = np.fft.rfft(wave) * (n / len(wave))
    wanted = np.zeros(n // 2 + 1, dtype=spectrum.dtype)
    bins = min(len(wanted), len(spectrum))
    wanted[:bins] = spectrum[:bins]
    return np.clip(np.fft.irfft(wanted, n), -1, 1).astype(np.float32)
