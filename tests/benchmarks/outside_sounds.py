"""Ten instruments by arithmetic alone, for ``outside.py``: added partials, frequency modulation, plucked strings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RATE = 44_100
Rng = np.random.Generator


def _times(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * RATE)) / RATE


def _partials(
    hertz: float, seconds: float, ratios: np.ndarray, levels: np.ndarray, halves: np.ndarray | float
) -> np.ndarray:
    """Sine waves; each loses half its level in ``halves`` seconds."""
    times, lives = _times(seconds), np.broadcast_to(halves, ratios.shape)
    wave = np.zeros(len(times))
    for number, (ratio, level, half) in enumerate(zip(ratios, levels, lives, strict=True)):
        if hertz * ratio < RATE / 2.2:
            wave += level * np.sin(2 * np.pi * hertz * ratio * times + 1.7 * number) * 0.5 ** (times / half)
    return wave


def _plucked(hertz: float, seconds: float, rng: Rng, bright: float, loss: float) -> np.ndarray:
    """Karplus and Strong's string: noise that goes round a delay, a little duller each time."""
    period = round(RATE / hertz)
    line = rng.uniform(-1, 1, period)
    for _ in range(round(8 * (1 - bright))):  # a softer plectrum
        line = (line + np.roll(line, 1)) / 2
    turns = []
    for _ in range(-(-round(seconds * RATE) // period)):
        turns.append(line)
        line = loss * (0.5 * line + 0.5 * np.roll(line, 1))
    return np.concatenate(turns)[: round(seconds * RATE)]


def _swelling(seconds: float, attack: float) -> np.ndarray:
    return np.minimum(1.0, _times(seconds) / attack)


def _vibrato(hertz: float, seconds: float, rate: float, depth: float) -> np.ndarray:
    """Phases of a tone that wavers, more so after its beginning."""
    times = _times(seconds)
    wavering = depth * np.minimum(1.0, times / 0.3) * np.sin(2 * np.pi * rate * times)
    return 2 * np.pi * np.cumsum(hertz * (1 + wavering)) / RATE


def _harmonics(phases: np.ndarray, levels: np.ndarray, hertz: float) -> np.ndarray:
    wave = np.zeros(len(phases))
    for number, level in enumerate(levels, 1):
        if hertz * number < RATE / 2.2:
            wave += level * np.sin(number * phases)
    return wave


def piano(hertz: float, seconds: float, rng: Rng) -> np.ndarray:
    order = np.arange(1, 17)
    stretched = order * np.sqrt(1 + 4e-4 * order**2)
    wave = _partials(hertz, seconds, stretched, 1 / order**1.3, 0.9 / order**0.6)
    thump = rng.normal(0, 0.25, len(wave)) * 0.5 ** (_times(seconds) / 0.008)
    return (wave + thump) * _swelling(seconds, 0.003)


def xylophone(hertz: float, seconds: float, rng: Rng) -> np.ndarray:
    wave = _partials(hertz * 2, seconds, np.array([1, 3.0, 6.1, 10.2]), np.array([1, 0.5, 0.3, 0.15]), 0.07)
    return wave + rng.normal(0, 0.4, len(wave)) * 0.5 ** (_times(seconds) / 0.004)


def organ(hertz: float, seconds: float, rng: Rng) -> np.ndarray:
    drawbars = np.array([0.5, 1, 1.5, 2, 3, 4, 6, 8])
    levels = np.array([0.6, 1.0, 0.3, 0.8, 0.5, 0.6, 0.2, 0.4])
    return _partials(hertz, seconds, drawbars, levels, 1e9) * _swelling(seconds, 0.015)


def guitar(hertz: float, seconds: float, rng: Rng) -> np.ndarray:
    return _plucked(hertz / 2, seconds, rng, 0.9, 0.997)


def harp(hertz: float, seconds: float, rng: Rng) -> np.ndarray:
    body = _partials(hertz, seconds, np.arange(1.0, 6.0), np.array([1, 0.5, 0.2, 0.1, 0.05]), 0.35)
    return _plucked(hertz, seconds, rng, 0.2, 0.999) + 0.5 * body * _swelling(seconds, 0.004)


def violin(hertz: float, seconds: float, rng: Rng) -> np.ndarray:
    order = np.arange(1, 25)
    body = 1 + 1.5 * np.exp(-(((hertz * order - 1500) / 700) ** 2))  # resonances of the box
    wave = _harmonics(_vibrato(hertz, seconds, 5.8, 0.007), body / order, hertz)
    scrape = 0.06 * np.convolve(rng.normal(0, 1, len(wave)), [1, -0.9], "same")
    return (wave + scrape) * _swelling(seconds, 0.09)


def trumpet(hertz: float, seconds: float, rng: Rng) -> np.ndarray:
    """Frequency modulation whose depth follows the loudness, as a horn grows brighter."""
    loud = _swelling(seconds, 0.04) * (0.8 + 0.2 * 0.5 ** (_times(seconds) / 0.1))
    phases = _vibrato(hertz, seconds, 5.0, 0.002)
    return loud * np.sin(phases + 4.5 * loud * np.sin(phases))


def flute(hertz: float, seconds: float, rng: Rng) -> np.ndarray:
    wave = _harmonics(_vibrato(hertz * 2, seconds, 4.8, 0.004), np.array([1, 0.3, 0.08, 0.02]), hertz * 2)
    breath = np.convolve(rng.normal(0, 0.12, len(wave)), np.ones(6) / 6, "same")
    return (wave + breath) * _swelling(seconds, 0.06)


def drum(hertz: float, seconds: float, rng: Rng) -> np.ndarray:
    times = _times(seconds)
    falling = 2 * np.pi * np.cumsum(70 + 160 * 0.5 ** (times / 0.03)) / RATE
    snare = rng.normal(0, 0.5, len(times)) * 0.5 ** (times / 0.05)
    return np.sin(falling) * 0.5 ** (times / 0.08) + snare


def bell(hertz: float, seconds: float, rng: Rng) -> np.ndarray:
    ratios = np.array([0.5, 1, 1.19, 1.5, 2, 2.74, 3.76, 5.4])
    levels = np.array([0.5, 0.8, 0.6, 0.4, 1.0, 0.5, 0.3, 0.2])
    return _partials(hertz * 2, seconds, ratios, levels, 1.2 / ratios)


SOUNDS: dict[str, Callable[[float, float, Rng], np.ndarray]] = {
    play.__name__: play
    for play in (piano, xylophone, organ, guitar, violin, harp, trumpet, flute, drum, bell)
}  # fmt: skip


def played(name: str, key: int, seconds: float, rng: Rng) -> np.ndarray:
    """One note at a loudness of its own: float64 (samples,), its end faded over 40 ms.

    Args:
        name: one of SOUNDS.
        key: MIDI pitch; a drum has none.
        seconds: how long it sounds.
        rng: of noise and loudness.
    """
    wave = SOUNDS[name](440.0 * 2 ** ((key - 69) / 12), seconds, rng)
    fade = min(len(wave), round(0.04 * RATE))
    wave[-fade:] *= np.linspace(1, 0, fade)
    loudest = np.sqrt(np.convolve(wave**2, np.ones(2000) / 2000, "same").max())
    return np.asarray(wave / loudest * rng.uniform(0.5, 1.0))
