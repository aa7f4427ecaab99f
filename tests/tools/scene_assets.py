"""Rebuild the packed notes and sprites from Debian packages.

    apt-get install fluidsynth fluid-soundfont-gm musescore-general-soundfont-small fonts-noto-color-emoji
    pip install pillow
    python tests/tools/scene_assets.py                        # writes echopix_cli/scenes/assets
    python tests/tools/scene_assets.py --unseen-font PATH     # only the bank of the split unseen-font

The second form needs timgm6mb-soundfont and writes ``PATH`` (without PATH: the cache folder where the
``unseen-font`` split looks). That soundfont is GPL, so its notes are never part of this repository.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from echopix_cli.errors import EchopixError
from echopix_cli.scenes.notes import ASSETS, DRUM_KEYS, HELD_OUT_DRUM_KEYS, is_held_out, unseen_font_path
from echopix_cli.scenes.script import INSTRUMENTS, PICTURES, SAMPLE_RATE

FONTS = {
    "fluid": "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "musescore": "/usr/share/sounds/sf3/MuseScore_General_Lite.sf3",
}
UNSEEN = {"timgm": "/usr/share/sounds/sf2/TimGM6mb.sf2"}
EMOJI_FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
EMOJI = dict(zip(PICTURES, "🐶🐱🐸🐷🐯🚗⚽🌳⭐🍎🎹🎸🎻🎺🪈🥁🔔", strict=True))
SPRITE_SIZE = 128  # the font's bitmaps are 136 x 128

# General MIDI programs, counted from 0, and the range of pitches in which the instrument sounds like itself.
PROGRAMS: dict[str, tuple[tuple[int, ...], int, int]] = {
    "piano": ((0, 1, 3), 36, 86),
    "xylophone": ((13,), 65, 96),
    "organ": ((16, 17, 18, 19), 41, 80),
    "guitar": ((24, 25, 26), 40, 76),
    "violin": ((40, 110), 55, 90),
    "harp": ((46,), 40, 80),
    "trumpet": ((56, 59), 54, 82),
    "flute": ((73, 72), 60, 92),
    "bell": ((14,), 60, 84),
}
DRUM_KITS = (0, 8, 16, 48)  # standard, room, power, orchestra
VELOCITIES = (64, 112)
TRAINED_PITCHES, TEST_PITCHES = 12, 3
SYNTH_RATE = 48000  # decimated afterwards: the synthesiser's interpolation does not guard against aliasing
KEY_DOWN, SLOT = 1.65, 3.5
TICKS = 960  # per second: 480 per quarter note at 120 beats a minute
DRUM_CHANNEL = 9


def wanted_notes(with_training: bool) -> Iterator[tuple[str, int, int, int]]:
    """Yield (instrument, program, pitch or drum key, velocity) of every recording wanted from a font.

    Without training only the held-out ones, but each with the very program that it has in the full list.
    """
    for instrument in INSTRUMENTS:
        programs: tuple[int, ...]
        if instrument == "drum":
            programs, pitches = DRUM_KITS, [*DRUM_KEYS, *HELD_OUT_DRUM_KEYS]
        else:
            programs, low, high = PROGRAMS[instrument]
            pitches = _pitches(instrument, low, high)
        for i, pitch in enumerate(pitches):
            if not with_training and not is_held_out(instrument, pitch):
                continue
            for j, velocity in enumerate(VELOCITIES):  # the second velocity moves on: more kinds per class
                yield instrument, programs[(i + j) % len(programs)], pitch, velocity


def _pitches(instrument: str, low: int, high: int) -> list[int]:
    reserved = [p for p in range(low, high + 1) if is_held_out(instrument, p)]
    middle = np.linspace(0, len(reserved) - 1, TEST_PITCHES).round().astype(int)
    spread = np.linspace(low, high, TRAINED_PITCHES).round().astype(int).tolist()
    trained = [p - 1 if is_held_out(instrument, p) else p for p in spread]
    return trained + [reserved[i] for i in middle]


def write_midi(path: Path, notes: list[tuple[str, int, int, int]]) -> None:
    """Write a one-track MIDI file that plays one note every SLOT seconds."""
    track = bytearray()

    def event(delta: int, *message: int) -> None:
        stack = [delta & 0x7F]
        while delta := delta >> 7:
            stack.append(0x80 | (delta & 0x7F))
        track.extend(reversed(stack))
        track.extend(message)

    down = round(KEY_DOWN * TICKS)
    for instrument, program, pitch, velocity in notes:
        channel = DRUM_CHANNEL if instrument == "drum" else 0
        event(0, 0xC0 | channel, program)
        event(0, 0x90 | channel, pitch, velocity)
        event(down, 0x80 | channel, pitch, 0)
        event(round(SLOT * TICKS) - down, 0xB0 | channel, 120, 0)  # all sound off: no bleeding into the next
    event(TICKS, 0xFF, 0x2F, 0)
    head = b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS // 2)
    path.write_bytes(head + b"MTrk" + struct.pack(">I", len(track)) + bytes(track))


def synthesise(font: str, notes: list[tuple[str, int, int, int]]) -> np.ndarray:
    """Play the notes on a soundfont; float32 (len(notes), samples of one slot) at SAMPLE_RATE."""
    import soundfile

    if shutil.which("fluidsynth") is None or not Path(font).exists():
        raise EchopixError(f"fluidsynth or the soundfont {font} is not installed", _install_hint(font))
    with tempfile.TemporaryDirectory() as folder:
        midi, wave = Path(folder, "notes.mid"), Path(folder, "notes.wav")
        write_midi(midi, notes)
        command = ["fluidsynth", "-ni", "-R", "0", "-C", "0", "-g", "0.6", "-r", str(SYNTH_RATE), "-T", "wav"]
        subprocess.run([*command, "-F", str(wave), font, str(midi)], check=True, capture_output=True)
        stereo, rate = soundfile.read(wave, dtype="float32", always_2d=True)
    if rate != SYNTH_RATE:
        raise EchopixError(f"fluidsynth wrote {rate} Hz instead of {SYNTH_RATE} Hz")
    slot = round(SLOT * SYNTH_RATE)
    mono = stereo.mean(axis=1)[: len(notes) * slot]
    mono = np.pad(mono, (0, len(notes) * slot - len(mono))).reshape(len(notes), slot)
    return np.stack([resampled(row, SYNTH_RATE) for row in mono])


def resampled(row: np.ndarray, rate: int) -> np.ndarray:
    """A row of samples at a higher rate, at SAMPLE_RATE."""
    spectrum = np.fft.rfft(row)
    n = len(row) * SAMPLE_RATE // rate
    spectrum = spectrum[: n // 2 + 1] * (n / len(row))
    edge = len(spectrum) // 20
    spectrum[-edge:] *= np.linspace(1, 0, edge)
    return np.fft.irfft(spectrum, n).astype(np.float32)


def trim(row: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Cut a recorded slot to the note.

    Returns:
        The note with a peak of 0.8 and a faded end; the seconds for which it stays above -30 dB of its
        loudest part; and the root mean square of that loudest part.
    """
    hop = SAMPLE_RATE // 100
    energy = np.sqrt((row[: len(row) // hop * hop].reshape(-1, hop) ** 2).mean(axis=1))
    if energy.max() < 1e-4:
        raise EchopixError("a soundfont left a note silent")
    first = max(0, int(np.argmax(np.abs(row) > 0.02 * np.abs(row).max())) - SAMPLE_RATE // 400)
    loud = np.nonzero(energy > energy.max() * 10 ** (-30 / 20))[0]
    last = min((int(loud[-1]) + 1) * hop, first + round(KEY_DOWN * SAMPLE_RATE))
    note = row[first:last] * (0.8 / np.abs(row).max())
    fade = min(len(note) // 4, SAMPLE_RATE // 50)
    note[-fade:] *= np.linspace(1, 0, fade)
    window = SAMPLE_RATE // 10
    power = np.convolve(note**2, np.full(window, 1 / window), "same") if len(note) > window else note**2
    return note, len(note) / SAMPLE_RATE, float(np.sqrt(power.max()))


def build_bank(fonts: dict[str, str], path: Path, with_training: bool) -> None:
    """Write ``path`` (Ogg Vorbis, all notes in one row) and ``path`` with .json: where each note lies."""
    notes = list(wanted_notes(with_training))
    write_bank(
        {font: list(zip(notes, synthesise(soundfont, notes), strict=True)) for font, soundfont in fonts.items()}, path
    )


def write_bank(played: dict[str, list[tuple[tuple[str, int, int, int], np.ndarray]]], path: Path) -> None:
    """Trim each font's notes, and write them with their index as :func:`build_bank` does."""
    gap = np.zeros(SAMPLE_RATE // 20, dtype=np.float32)  # keeps the codec's pre-echo out of the neighbour
    parts: list[np.ndarray] = []
    index: list[dict[str, Any]] = []
    at = 0
    for font, notes in played.items():
        for (instrument, _, pitch, velocity), row in notes:
            note, seconds, rms = trim(row)
            index.append(
                {"font": font, "instrument": instrument, "pitch": pitch, "velocity": velocity,
                 "start": at, "length": len(note), "audible": round(seconds, 3), "rms": round(rms, 4)}
            )  # fmt: skip
            parts += [note, gap]
            at += len(note) + len(gap)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_ogg(np.concatenate(parts), path)
    lines = ",\n".join(json.dumps(entry) for entry in index)
    path.with_suffix(".json").write_text(f"[\n{lines}\n]\n")


def write_ogg(row: np.ndarray, path: Path) -> None:
    """A row of samples at SAMPLE_RATE as Ogg Vorbis."""
    import soundfile

    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, format="OGG", subtype="VORBIS", compression_level=0.45) as out:
        for i in range(0, len(row), SAMPLE_RATE):  # libsndfile's Vorbis encoder overflows on one big write
            out.write(row[i : i + SAMPLE_RATE])


def build_sprites(path: Path) -> None:
    """Draw every picture from the emoji font into one .npz: uint8 (n, SPRITE_SIZE, SPRITE_SIZE, 4) RGBA."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise EchopixError("drawing the sprites needs pillow", "pip install pillow") from error
    if not Path(EMOJI_FONT).exists():
        raise EchopixError(f"{EMOJI_FONT} is missing", _install_hint(EMOJI_FONT))
    font = ImageFont.truetype(EMOJI_FONT, 109)  # the only size at which the font holds bitmaps
    sprites = []
    for name in PICTURES:
        canvas = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(canvas).text((8, 8), EMOJI[name], font=font, embedded_color=True)
        picture = canvas.crop(canvas.getbbox())
        edge = max(picture.size)
        square = Image.new("RGBA", (edge, edge))
        square.paste(picture, ((edge - picture.width) // 2, (edge - picture.height) // 2))
        sprites.append(np.asarray(square.resize((SPRITE_SIZE, SPRITE_SIZE), Image.Resampling.LANCZOS)))
    np.savez_compressed(path, names=np.array(PICTURES), rgba=np.stack(sprites))


def _install_hint(path: str) -> str:
    package = {
        FONTS["fluid"]: "fluidsynth fluid-soundfont-gm",
        FONTS["musescore"]: "fluidsynth musescore-general-soundfont-small",
        UNSEEN["timgm"]: "fluidsynth timgm6mb-soundfont",
        EMOJI_FONT: "fonts-noto-color-emoji",
    }[path]
    return f"apt-get install {package}"


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--unseen-font",
        metavar="PATH",
        nargs="?",
        const=unseen_font_path(),
        type=Path,
        help="write only the bank of the split unseen-font, to PATH (an .ogg; default: %(const)s)",
    )
    wanted = parser.parse_args(arguments)
    try:
        if wanted.unseen_font:
            build_bank(UNSEEN, wanted.unseen_font, with_training=False)
        else:
            build_bank(FONTS, ASSETS / "notes.ogg", with_training=True)
            build_sprites(ASSETS / "sprites.npz")
    except EchopixError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
