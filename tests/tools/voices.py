"""Ten instruments made by arithmetic: notes of another origin than any soundfont's, each from numbers of its own.

The models are textbook ones: plucked strings (Karplus and Strong 1983), bells and bars as sums of inharmonic
partials (Risset 1969), brass by frequency modulation (Chowning 1973), and additive organs, pianos, flutes and violins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RATE = 16_000
SECONDS = 1.7
_LENGTH = round(SECONDS * RATE)
_TIME = np.arange(_LENGTH) / RATE

Rng = np.random.Generator


def play(instrument: str, pitch: int, rng: Rng) -> np.ndarray:
    """One note: float32 (1.7 s at 16 kHz,) with a peak of one. Two calls with other numbers are two recordings."""
    hertz = 440.0 * 2 ** ((pitch - 69) / 12)
    wave = _VOICES[instrument](hertz, rng)
    fade = np.minimum(1, (SECONDS - _TIME) / 0.05)
    return np.asarray(wave * fade / np.abs(wave).max(), dtype=np.float32)


def _partials(hertz: float, ratios: np.ndarray, levels: np.ndarray, falls: np.ndarray, rng: Rng) -> np.ndarray:
    """Sines that die away; ``falls`` are the seconds in which each falls by 60 dB."""
    wave = np.zeros(_LENGTH)
    for ratio, level, fall in zip(ratios, levels, falls, strict=True):
        if ratio * hertz < 0.46 * RATE:
            wave += (
                level
                * np.exp(-6.9 * _TIME / fall)
                * np.sin(2 * np.pi * ratio * hertz * _TIME + rng.uniform(0, 2 * np.pi))
            )
    return wave


def _struck(rng: Rng, seconds: float, level: float) -> np.ndarray:
    """The knock of what strikes: a short burst of noise."""
    return np.asarray(level * rng.standard_normal(_LENGTH) * np.exp(-_TIME / seconds))


def _swell(rise: float, fall: float = 0.0) -> np.ndarray:
    return np.asarray(np.minimum(1, _TIME / rise) * np.exp(-fall * _TIME))


def _piano(hertz: float, rng: Rng) -> np.ndarray:
    n = np.arange(1, 16)
    stiff = rng.uniform(1e-4, 8e-4)
    wave = np.zeros(_LENGTH)
    for cents in rng.normal(0, 1.2, 2):  # two strings a note
        levels = n ** -rng.uniform(0.9, 1.6) * (0.3 + np.abs(np.sin(np.pi * n * rng.uniform(0.1, 0.14))))
        falls = rng.uniform(2.5, 6) / (1 + 0.25 * n) * (260 / hertz) ** 0.4
        wave += _partials(hertz * 2 ** (cents / 1200), n * np.sqrt(1 + stiff * n**2), levels, falls, rng)
    return wave + _struck(rng, 0.006, 0.3)


def _bar(hertz: float, rng: Rng) -> np.ndarray:
    ratios = np.array([1, 3 * rng.uniform(0.99, 1.01), 6.2 * rng.uniform(0.95, 1.05), 9.9])
    levels = np.array([1, rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.4), rng.uniform(0, 0.2)])
    falls = rng.uniform(0.25, 0.6) / np.array([1, 2, 3.5, 5])
    return _partials(hertz, ratios, levels, falls, rng) + _struck(rng, 0.004, rng.uniform(0.2, 0.6))


def _organ(hertz: float, rng: Rng) -> np.ndarray:
    bars = np.array([0.5, 1, 1.5, 2, 3, 4, 5, 6, 8])
    drawn = rng.uniform(0, 1, 9) ** 1.5 * np.array([1, 1, 0.6, 1, 0.8, 0.8, 0.4, 0.4, 0.5]) + np.eye(9)[1]
    wave = _partials(hertz, bars, drawn, np.full(9, 1e6), rng)
    wave *= 1 + rng.uniform(0, 0.15) * np.sin(2 * np.pi * rng.uniform(5.5, 7) * _TIME)
    return np.asarray(wave * _swell(rng.uniform(0.005, 0.04)))


def _string(hertz: float, rng: Rng, bright: float, keeps: float) -> np.ndarray:
    """A delay line that a plucked string's noise runs round in, a little duller each time."""
    period = RATE / hertz
    length = int(period)
    line = rng.uniform(-1, 1, length)
    for _ in range(int(4 * (1 - bright)) + 1):
        line = 0.5 * (line + np.roll(line, 1))
    where = max(1, round(length * rng.uniform(0.12, 0.4)))  # where it is plucked: a comb
    line = line - np.roll(line, where)
    out = np.zeros(_LENGTH + length)
    out[:length] = line
    last = 0.0
    for at in range(length, len(out), length):
        before = out[at - length : at]
        mixed = np.concatenate([[last], before[:-1]])
        size = min(length, len(out) - at)
        out[at : at + size] = keeps * (bright * before + (1 - bright) * mixed)[:size]
        last = before[-1]
    # The line holds whole samples: what it is out of tune by is taken back here.
    drift = period / (length + (1 - bright))
    return np.interp(np.arange(_LENGTH) / drift, np.arange(_LENGTH), out[:_LENGTH])


def _guitar(hertz: float, rng: Rng) -> np.ndarray:
    wave = _string(hertz, rng, rng.uniform(0.55, 0.8), rng.uniform(0.985, 0.996))
    body = rng.uniform(95, 120)
    return wave + _partials(body, np.array([1, 1.9]), np.array([0.15, 0.1]), np.array([0.25, 0.2]), rng)


def _harp(hertz: float, rng: Rng) -> np.ndarray:
    wave = _string(hertz, rng, rng.uniform(0.5, 0.6), rng.uniform(0.994, 0.999))
    return wave + 0.3 * _partials(hertz, np.array([1, 2]), np.array([1, 0.4]), np.array([1.6, 0.9]), rng)


def _violin(hertz: float, rng: Rng) -> np.ndarray:
    n = np.arange(1, max(2, int(0.45 * RATE / hertz)) + 1)[:24]
    depth = rng.uniform(0.002, 0.008) * np.minimum(1, _TIME / 0.3)
    turn = 2 * np.pi * rng.uniform(4.8, 6.6)
    phase = 2 * np.pi * hertz * (_TIME - depth / turn * np.cos(turn * _TIME))
    body = [(rng.uniform(270, 320), 60, 1.5), (rng.uniform(430, 560), 90, 1.5), (rng.uniform(2200, 3200), 700, 1.0)]
    wave = np.zeros(_LENGTH)
    for k in n:
        tone = 0.25 + sum(gain / (1 + ((k * hertz - f) / w) ** 2) for f, w, gain in body)
        wave += tone / k * np.sin(k * phase + rng.uniform(0, 0.4))
    bow = rng.uniform(0.02, 0.08) * np.abs(wave).max() * rng.standard_normal(_LENGTH)
    return np.asarray((wave + bow) * _swell(rng.uniform(0.05, 0.14)))


def _trumpet(hertz: float, rng: Rng) -> np.ndarray:
    rise = rng.uniform(0.02, 0.06)
    index = rng.uniform(2.5, 5.0) * _swell(rise) * (0.85 + 0.15 * np.exp(-_TIME / 0.1))
    vibrato = 1 + rng.uniform(0, 0.004) * np.sin(2 * np.pi * rng.uniform(4.5, 6) * _TIME) * (_TIME > 0.35)
    phase = 2 * np.pi * hertz * np.cumsum(vibrato) / RATE
    return np.asarray(np.sin(phase + index * np.sin(phase)) * _swell(rise, 0.15))


def _flute(hertz: float, rng: Rng) -> np.ndarray:
    levels = np.array([1, rng.uniform(0.15, 0.6), rng.uniform(0.03, 0.3), rng.uniform(0.01, 0.1)])
    depth, turn = rng.uniform(0.001, 0.004), 2 * np.pi * rng.uniform(4.5, 6)
    phase = 2 * np.pi * hertz * (_TIME - depth / turn * np.cos(turn * _TIME))
    wave = sum(level * np.sin(k * phase) for k, level in enumerate(levels, 1) if k * hertz < 7400)
    wave = wave * (1 + rng.uniform(0.05, 0.25) * np.sin(turn * _TIME))
    breath = np.convolve(rng.standard_normal(_LENGTH), np.ones(4) / 4, "same")
    return np.asarray((wave + rng.uniform(0.03, 0.15) * breath) * _swell(rng.uniform(0.03, 0.09)))


def _drum(hertz: float, rng: Rng) -> np.ndarray:
    """Bass drum, tom or snare: a membrane whose pitch falls, with or without rattling wires."""
    low = rng.uniform(50, 190)
    fall = rng.uniform(0.12, 0.5)
    sweep = low * (1 + rng.uniform(0.3, 1.5) * np.exp(-_TIME / rng.uniform(0.01, 0.04)))
    phase = 2 * np.pi * np.cumsum(sweep) / RATE
    wave = np.exp(-6.9 * _TIME / fall) * (np.sin(phase) + 0.5 * np.sin(1.59 * phase) + 0.3 * np.sin(2.14 * phase))
    if rng.random() < 0.4:
        wires = np.diff(rng.standard_normal(_LENGTH + 1))
        wave += rng.uniform(0.4, 1.0) * wires * np.exp(-6.9 * _TIME / rng.uniform(0.12, 0.3))
    return np.asarray(wave + _struck(rng, 0.003, 0.4))


def _bell(hertz: float, rng: Rng) -> np.ndarray:
    ratios = np.array([0.5, 1, 1.19, 1.5, 2, 2.67, 3, 4.07]) * (1 + rng.normal(0, 0.01, 8))
    levels = np.array([0.6, 1, 0.8, 0.4, 1, 0.5, 0.35, 0.3]) * rng.uniform(0.3, 1.2, 8)
    falls = rng.uniform(2.5, 6.0) / np.array([0.8, 1, 1.3, 1.6, 1.8, 2.6, 3, 4])
    return _partials(hertz, ratios, levels, falls, rng) + _struck(rng, 0.004, 0.25)


_VOICES: dict[str, Callable[[float, Rng], np.ndarray]] = {
    "piano": _piano, "xylophone": _bar, "organ": _organ, "guitar": _guitar, "violin": _violin, "harp": _harp,
    "trumpet": _trumpet, "flute": _flute, "drum": _drum, "bell": _bell,
}  # fmt: skip
