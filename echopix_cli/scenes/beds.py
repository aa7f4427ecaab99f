"""What sounds beside the notes: background music, and somebody who speaks. No question is about either."""

from __future__ import annotations

import json
from functools import cache, lru_cache

import numpy as np

from echopix_cli.scenes.notes import ASSETS
from echopix_cli.scenes.script import SAMPLE_RATE, Bed

MUSIC: dict[str, tuple[int, ...]] = {"train": tuple(range(12)), "test": tuple(range(12, 18))}
_BAR = 2  # seconds
_CHORDS = ((0, 4, 7), (0, 3, 7), (0, 5, 9), (2, 7, 11), (0, 4, 9), (2, 5, 9))


def bed_wave(bed: Bed, loudness: float, samples: int) -> np.ndarray:
    """The sound of a bed: float32 (samples,).

    Args:
        bed: what there is.
        loudness: root mean square of the notes, which levels are relative to.
        samples: at 16 kHz.
    """
    row = np.zeros(samples, dtype=np.float32)
    if bed.music is not None:
        music = _music(bed.music, samples)
        row += music * np.float32(loudness * 10 ** (bed.music_db / 20))
    for number, start in bed.speech:
        said = _phrase(number)
        begin = round(start * SAMPLE_RATE)
        said = said[: max(0, samples - begin)]
        row[begin : begin + len(said)] += said * np.float32(loudness * 10 ** (bed.speech_db / 20))
    return row


@lru_cache(maxsize=24)
def _music(number: int, samples: int) -> np.ndarray:
    """Chords of soft sines, one a bar, with or without a figure of short tones: no instrument's sound."""
    rng = np.random.default_rng((number, 4))
    key = rng.integers(45, 57)
    time = np.arange(samples) / SAMPLE_RATE
    row = np.zeros(samples)
    for bar in range(-(-samples // (_BAR * SAMPLE_RATE))):
        inside = time - bar * _BAR
        envelope = np.clip(np.minimum(inside / 0.5, (_BAR + 0.4 - inside) / 0.5), 0, 1)
        heard = np.nonzero(envelope)[0]
        chord = _CHORDS[int(rng.integers(len(_CHORDS)))]
        for step in (chord[0] - 12, *chord):
            hertz = 440 * 2 ** ((key + step - 69 + rng.normal(0, 0.03)) / 12)
            row[heard] += envelope[heard] * np.sin(2 * np.pi * hertz * time[heard] + rng.uniform(0, 6.28))
    if rng.random() < 0.5:
        beat = float(rng.choice((0.25, 0.333, 0.5)))
        for place in range(int(samples / SAMPLE_RATE / beat)):
            begin, length = round(place * beat * SAMPLE_RATE), round(0.9 * beat * SAMPLE_RATE)
            tone = time[:length]
            hertz = 440 * 2 ** ((key + 12 + int(rng.choice((0, 4, 7, 12))) - 69) / 12)
            shape = np.minimum(1, tone / 0.03) * np.clip((0.9 * beat - tone) / 0.06, 0, 1)
            piece = row[begin : begin + length]
            piece += (0.5 * shape * np.sin(2 * np.pi * hertz * tone))[: len(piece)]
    return np.asarray(row / np.sqrt((row**2).mean()), dtype=np.float32)


@cache
def phrases(part: str) -> tuple[int, ...]:
    """Numbers of the phrases that a part (train or test) hears."""
    return tuple(number for number, entry in enumerate(_index()) if entry["part"] == part)


def seconds_of(number: int) -> float:
    """How long a phrase takes."""
    return float(_index()[number]["length"]) / SAMPLE_RATE


@cache
def _index() -> tuple[dict[str, str | int], ...]:
    return tuple(json.loads((ASSETS / "speech.json").read_text()))


@cache
def _phrase(number: int) -> np.ndarray:
    import soundfile

    entry = _index()[number]
    begin, length = int(entry["start"]), int(entry["length"])
    wave, _ = soundfile.read(ASSETS / "speech.ogg", dtype="float32", start=begin, stop=begin + length)
    return np.asarray(wave / np.sqrt((wave**2).mean()), dtype=np.float32)
