"""The note banks: recorded notes of ten instruments, decoded once and kept as int16."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from echopix_cli.errors import EchopixError
from echopix_cli.scenes.script import PlayedNote
from echopix_cli.settings import cache_dir

ASSETS = Path(__file__).parent / "assets"
FONTS: tuple[str, ...] = ("fluid", "musescore")
# Fonts of the wide splits, which play those above too. No part but "font" plays the last one.
WIDE_FONTS: tuple[str, ...] = ("fluid-extra", "musescore-extra", "synth", "gmbank")
UNSEEN_FONT = "timgm"
UNSEEN_FONT_VARIABLE = "ECHOPIX_UNSEEN_FONT"
BUILD_COMMAND = (
    "apt-get install fluidsynth timgm6mb-soundfont; then, in a checkout of echopix's repository: "
    "python tests/tools/scene_assets.py --unseen-font"
)

# General MIDI drum keys: bass drums, snare and toms. Training hears the first row only.
DRUM_KEYS: tuple[int, ...] = (35, 36, 38, 41, 45, 48)
HELD_OUT_DRUM_KEYS: tuple[int, ...] = (40, 43, 50)


def is_held_out(instrument: str, pitch: int) -> bool:
    """Whether a MIDI pitch (of the drum: a key) is kept from training, and is what the test splits play."""
    return pitch in HELD_OUT_DRUM_KEYS if instrument == "drum" else pitch % 7 == 3


@dataclass(frozen=True)
class Recording:
    """Where one recorded note lies in its bank, in samples, and how long it can be heard, in seconds."""

    font: str
    instrument: str
    pitch: int
    velocity: int
    start: int
    length: int
    audible: float
    rms: float


def unseen_font_path() -> Path:
    """Where the unseen font's bank is looked for: $ECHOPIX_UNSEEN_FONT, or the folder of the setting ``cache_dir``.

    Raises:
        UsageError: the config file cannot be read.
    """
    if named := os.environ.get(UNSEEN_FONT_VARIABLE):
        return Path(named)
    return cache_dir() / "unseen-font.ogg"


def bank_path(font: str) -> Path:
    """The file that holds a font's notes.

    Raises:
        EchopixError: the bank is the unseen font's, and nobody has built it here.
    """
    if font in FONTS:
        return ASSETS / "notes.ogg"
    if font in WIDE_FONTS:
        return ASSETS / "notes-wide.ogg"
    path = unseen_font_path()
    if not path.exists() or not path.with_suffix(".json").exists():
        message = f"the split unseen-font needs a note bank, and {path} does not exist"
        raise EchopixError(message, BUILD_COMMAND)
    return path


def find(font: str, instrument: str, pitch: int, velocity: int) -> Recording:
    """The recording of one note; KeyError when the bank has none such."""
    return _index(bank_path(font))[font, instrument, pitch, velocity]


@cache
def sources(font: str, instrument: str) -> tuple[tuple[int, int], ...]:
    """The (pitch, velocity) pairs that a bank holds for an instrument, sorted."""
    return tuple(sorted(key[2:] for key in _index(bank_path(font)) if key[:2] == (font, instrument)))


@cache
def recordings() -> dict[tuple[str, str, int, int], tuple[str, str]]:
    """By (font, instrument, pitch, velocity): the recorded sample that a note plays, and the part it belongs to.

    Notes at several pitches play one sample at several speeds. The parts are train, val, test and font.
    """
    held = json.loads((ASSETS / "recordings.json").read_text())
    notes = ((key.split(" "), recording) for key, recording in held["notes"].items())
    return {
        (font, instrument, int(pitch), int(velocity)): (recording, held["parts"][recording])
        for (font, instrument, pitch, velocity), recording in notes
    }


def recording_of(note: PlayedNote) -> str:
    """The recorded sample that a note plays; of a font whose samples nobody listed, the note of its bank."""
    key = (note.font, note.instrument, note.source, note.velocity)
    sample, _ = recordings().get(key, (f"{note.instrument} {note.source} {note.velocity}", ""))
    return f"{note.font} {sample}"


@cache
def of_part(instrument: str, part: str) -> dict[str, tuple[tuple[int, int], ...]]:
    """By font, the (pitch, velocity) pairs of an instrument whose recording belongs to a part."""
    found: dict[str, list[tuple[int, int]]] = {}
    for (font, of, pitch, velocity), (_, held) in recordings().items():
        if (of, held) == (instrument, part):
            found.setdefault(font, []).append((pitch, velocity))
    return {font: tuple(pairs) for font, pairs in found.items()}


def samples(recording: Recording) -> np.ndarray:
    """The note itself: int16 (recording.length,) at 16 kHz, with a peak near 0.8 of full scale."""
    row = _row(bank_path(recording.font))
    return row[recording.start : recording.start + recording.length]


@lru_cache(maxsize=4)
def _index(path: Path) -> dict[tuple[str, str, int, int], Recording]:
    entries = [Recording(**entry) for entry in json.loads(path.with_suffix(".json").read_text())]
    return {(e.font, e.instrument, e.pitch, e.velocity): e for e in entries}


@lru_cache(maxsize=4)
def _row(path: Path) -> np.ndarray:
    import soundfile

    row, _ = soundfile.read(path, dtype="int16")
    row.setflags(write=False)
    return np.asarray(row)
