"""Rebuild what the wide scenes show and play, from Debian packages and packages of the npm registry.

    apt-get install fluidsynth fluid-soundfont-gm musescore-general-soundfont-small csound-soundfont espeak-ng \\
        librsvg2-bin npm
    pip install pillow
    python tests/tools/wide_assets.py                    # writes into echopix_cli/scenes/assets
    python tests/tools/wide_assets.py --only drawings    # or notes, or speech

Notes are added to those of scene_assets.py, whose file is only read. Every note of both is listed with the recorded
sample that it plays, and every sample belongs to one part: train, val, test, or font (a soundfont never trained on).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scene_assets
import training_drawings
import voices
from soundfont import SoundFont

from echopix_cli.errors import EchopixError
from echopix_cli.scenes.notes import ASSETS
from echopix_cli.scenes.script import INSTRUMENTS, PICTURES, SAMPLE_RATE

SHIFT_FONT = "/usr/share/sounds/sf2/sf_GMbank.sf2"
# A second recording of a bell: the fonts that are trained on have only one of tubular bells.
TINKER_BELL, TINKER_PITCHES = 112, (72, 76, 79, 84)
SYNTH_NOTES, SHIFT_NOTES = 15, 6
_SLOT = scene_assets.SLOT

Note = tuple[str, int, int, int]  # instrument, program (of a drum: kit), pitch or drum key, velocity
# One recording has two names where MuseScore's font renamed what it took from Fluid's.
_RENAMED = (("trumpet", ""), ("tp_", ""), ("gtr", ""), ("(l", ""), ("(r", ""), ("bells", "bell"))

# Each picture's drawings, as the icon sets name them.
DRAWINGS: dict[str, tuple[str, ...]] = {
    "dog": ("dog-face", "dog", "poodle", "guide-dog", "service-dog"),
    "cat": ("cat-face", "cat", "black-cat", "grinning-cat"),
    "frog": ("frog",),
    "pig": ("pig-face", "pig"),
    "tiger": ("tiger-face", "tiger"),
    "car": ("automobile", "oncoming-automobile", "taxi", "sport-utility-vehicle", "racing-car", "police-car"),
    "ball": ("soccer-ball", "basketball", "volleyball", "baseball", "softball"),
    "tree": ("deciduous-tree", "evergreen-tree", "palm-tree"),
    "star": ("star", "glowing-star"),
    "apple": ("red-apple", "green-apple"),
    "piano": ("musical-keyboard",),
    "guitar": ("guitar",),
    "violin": ("violin",),
    "trumpet": ("trumpet",),
    "flute": ("flute",),
    "drum": ("drum", "long-drum"),
    "bell": ("bell", "bellhop-bell"),
}
# Icon sets of the scope @iconify-json, and which version of each.
STYLES = {
    "noto": "1.2.9", "noto-v1": "1.2.5", "twemoji": "1.2.5", "fluent-emoji": "1.2.7", "fluent-emoji-flat": "1.2.6",
    "fxemoji": "1.2.2", "emojione": "1.2.3", "openmoji": "1.2.29",
}  # fmt: skip
SHIFT_STYLE = "openmoji"
EDGE = 96
_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'

# What somebody says beside the notes: nothing that is asked about. (text, voice, words a minute, pitch 0 to 99)
SPEECH: dict[str, tuple[tuple[str, str, int, int], ...]] = {
    "train": (
        ("and then we all went home together", "en-us", 160, 45),
        ("she said it would be ready by the evening", "en-us+f2", 170, 60),
        ("nobody told me about any of this before", "en-gb", 165, 35),
        ("that is a very good question indeed", "en-gb+f3", 150, 55),
        ("let me show you how it works", "en-us+m3", 175, 30),
        ("we have been waiting here since morning", "en-gb+m2", 160, 50),
        ("welcome back everybody and thank you for watching", "en-us+f4", 185, 65),
        ("please remember to close the window", "en-gb+m4", 155, 40),
        ("it took much longer than we expected", "en-us+m1", 165, 55),
        ("most people would have given up by now", "en-gb+f1", 170, 50),
    ),
    "test": (
        ("the weather will be better next week", "en-gb-scotland", 160, 45),
        ("I would rather talk about something else", "en-us+f5", 165, 60),
        ("there is nothing left to say about it", "en-gb-x-rp", 150, 35),
        ("come over here and have a look at this", "en-us+m7", 175, 40),
    ),
}


def part(place: int) -> str:
    """Of things in a row, two in five are kept from training."""
    return {2: "test", 4: "val"}.get(place % 5, "train")


def name_of(sample: str) -> str:
    """A recorded sample's name, the same in both fonts."""
    name = sample.lower()
    for old, new in _RENAMED:
        name = name.replace(old, new)
    return name


def samples_of(font: SoundFont, note: Note) -> tuple[str, ...]:
    """Names of the samples that a note plays."""
    instrument, program, pitch, velocity = note
    bank = 128 if instrument == "drum" else 0
    return tuple(name_of(sample) for sample in font.samples(bank, program, pitch, velocity))


def recordings(notes: Iterable[tuple[str, tuple[str, ...]]]) -> dict[tuple[str, ...], str]:
    """What each set of an instrument's samples is called: sets that share one sample are the same recording.

    Args:
        notes: instruments, with the samples of a note.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    sets = list({(instrument, own) for instrument, own in notes})
    for instrument, own in sets:
        for sample in own:
            first, other = sorted((root(f"{instrument} {own[0]}"), root(f"{instrument} {sample}")))
            parent[other] = first
    return {(instrument, *own): root(f"{instrument} {own[0]}") for instrument, own in sets}


def _key(font: str, instrument: str, pitch: int, velocity: int) -> str:
    return f"{font} {instrument} {pitch} {velocity}"


def build_notes(folder: Path) -> None:
    """Write ``notes-wide.ogg`` with its index, and ``recordings.json`` about the notes of both banks."""
    played: dict[str, list[tuple[Note, np.ndarray]]] = defaultdict(list)
    owners: list[tuple[str, Note, tuple[str, ...]]] = []
    for name, path in scene_assets.FONTS.items():
        font = SoundFont(path)
        owners += [(name, note, samples_of(font, note)) for note in scene_assets.wanted_notes(with_training=True)]
        extra: list[Note] = [("bell", TINKER_BELL, pitch, 112) for pitch in TINKER_PITCHES]
        owners += [(f"{name}-extra", note, samples_of(font, note)) for note in extra]
        played[f"{name}-extra"] = list(zip(extra, scene_assets.synthesise(path, extra), strict=True))
    names = recordings((note[0], own) for _, note, own in owners)
    of_note = {_key(font, note[0], *note[2:]): names[note[0], *own] for font, note, own in owners}
    parts: dict[str, str] = {}
    for instrument in INSTRUMENTS:
        pitches, programs = defaultdict(list), defaultdict(set)
        for _, note, own in owners:
            if note[0] == instrument:
                pitches[names[instrument, *own]].append(note[2])
                programs[names[instrument, *own]].add(note[1])
        ordered = sorted(pitches, key=lambda name: (min(programs[name]), np.mean(pitches[name]), name))
        if len(ordered) < 3:  # the bell: one recording with many pitches is trained on, the other tests
            ordered = sorted(pitches, key=lambda name: -len(pitches[name]))
            parts |= {name: "test" if place else "train" for place, name in enumerate(ordered)}
        else:
            parts |= {name: part(place) for place, name in enumerate(ordered)}
    rng = np.random.default_rng(18)
    for instrument in INSTRUMENTS:
        _, low, high = scene_assets.PROGRAMS.get(instrument, ((), 35, 35 + SYNTH_NOTES - 1))
        for place, pitch in enumerate(np.linspace(low, high, SYNTH_NOTES).round().astype(int).tolist()):
            recording = f"{instrument} synth {pitch}"
            of_note[_key("synth", instrument, pitch, 100)], parts[recording] = recording, part(place)
            played["synth"].append(((instrument, 0, pitch, 100), _slot(voices.play(instrument, pitch, rng))))
    shift = list(_shift_notes())
    played["gmbank"] = list(zip(shift, scene_assets.synthesise(SHIFT_FONT, shift), strict=True))
    font = SoundFont(SHIFT_FONT)
    for note in shift:
        recording = f"{note[0]} gmbank {samples_of(font, note)[0]}"
        of_note[_key("gmbank", note[0], *note[2:])], parts[recording] = recording, "font"
    scene_assets.write_bank(played, folder / "notes-wide.ogg")
    _write_json(folder / "recordings.json", {"notes": of_note, "parts": parts})


def _shift_notes() -> Iterable[Note]:
    for instrument in INSTRUMENTS:
        if instrument == "drum":
            keys = (*scene_assets.DRUM_KEYS, *scene_assets.HELD_OUT_DRUM_KEYS)
            yield from (
                (instrument, kit, key, 100) for kit, key in zip((0, 48, 0, 48, 0, 48, 0, 48, 0), keys, strict=True)
            )
            continue
        programs, low, high = scene_assets.PROGRAMS[instrument]
        for place, pitch in enumerate(np.linspace(low, high, SHIFT_NOTES).round().astype(int).tolist()):
            yield instrument, programs[place % len(programs)], pitch, 100


def _slot(wave: np.ndarray) -> np.ndarray:
    return np.pad(wave, (800, round(_SLOT * SAMPLE_RATE) - len(wave) - 800))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=0, separators=(",", ":")) + "\n")


def part_of(key: tuple[str, str, str], drawn: Iterable[tuple[str, str, str]]) -> str:
    """The part of a drawing (name, slug, style); the flat and the shaded Fluent are one drawing."""

    def design(key: tuple[str, str, str]) -> tuple[str, str]:
        return key[1], key[2].removesuffix("-flat")

    own = sorted({design(other) for other in drawn if other[0] == key[0] and other[2] != SHIFT_STYLE})
    place = own.index(design(key))
    if len(own) < 4:
        return "test" if place == 1 else "train"
    return {1: "test", 3: "val"}.get(place if len(own) < 8 else place % 7, "train")


def build_drawings(folder: Path) -> None:
    """Write ``drawings.npz`` and, of the style that is never trained on, ``drawings-style.npz``.

    Each holds ``names``, ``styles``, ``slugs`` and ``parts`` (n,), and ``rgba`` (n, EDGE, EDGE, 4) uint8.
    """
    drawn: dict[tuple[str, str, str], np.ndarray] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for style, version in STYLES.items():
            icons = _icons(style, version, Path(temporary))
            for name in PICTURES:
                for slug in DRAWINGS[name]:
                    if (svg := icons(slug)) is not None:
                        drawn[name, slug, style] = _rasterised(svg)
        parts = {key: "style" if key[2] == SHIFT_STYLE else part_of(key, drawn) for key in drawn}
        for style, version in training_drawings.VERSIONS.items():
            icons = _icons(style, version, Path(temporary))
            for name, slugs in training_drawings.DRAWINGS[style].items():
                for slug in slugs.split():
                    svg, key = icons(slug), (name, slug, style)
                    assert svg is not None, key
                    drawn[key], parts[key] = _rasterised(svg), "train"
    for file, wanted in (("drawings.npz", {"train", "val", "test"}), ("drawings-style.npz", {"style"})):
        keys = sorted(key for key in drawn if parts[key] in wanted)
        columns = {column: np.array([key[i] for key in keys]) for i, column in enumerate(("names", "slugs", "styles"))}
        rgba = np.stack([drawn[key] for key in keys])
        rgba[rgba[..., 3] == 0] = 0  # what is behind nothing takes no space
        np.savez_compressed(folder / file, **columns, parts=np.array([parts[key] for key in keys]), rgba=rgba)


def _icons(style: str, version: str, folder: Path) -> Callable[[str], str | None]:
    """The drawings of an icon set, as SVG by name; what has no colour of its own has one of several."""
    ran = subprocess.run(
        ["npm", "pack", "--silent", f"@iconify-json/{style}@{version}"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    with tarfile.open(folder / ran.stdout.split()[-1]) as packed:
        member = packed.extractfile("package/icons.json")
        assert member is not None
        icons = json.load(member)
    width, height = icons.get("width", 16), icons.get("height", 16)

    def svg(slug: str) -> str | None:
        for name in (slug, f"{slug}-face") if slug == "frog" else (slug,):
            alias = icons.get("aliases", {}).get(name, {}).get("parent", name)
            if (icon := icons["icons"].get(alias)) is not None:
                sides = (("left", 0), ("top", 0), ("width", width), ("height", height))
                box = " ".join(str(icon.get(side, default)) for side, default in sides)
                colour = training_drawings.COLOURS[sum(map(ord, style + slug)) % len(training_drawings.COLOURS)]
                return f'<svg {_NAMESPACES} color="{colour}" viewBox="{box}">{icon["body"]}</svg>'
        return None

    return svg


def _rasterised(svg: str) -> np.ndarray:
    """A drawing cut to its outline and fitted into a square of EDGE: uint8 RGBA."""
    import io

    from PIL import Image

    command = ["rsvg-convert", "--width", str(3 * EDGE), "--height", str(3 * EDGE), "--keep-aspect-ratio"]
    drawn = subprocess.run(command, input=svg.encode(), check=True, capture_output=True).stdout
    picture = Image.open(io.BytesIO(drawn)).convert("RGBA")
    picture = picture.crop(picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    edge = max(picture.size)
    square = Image.new("RGBA", (edge, edge))
    square.paste(picture, ((edge - picture.width) // 2, (edge - picture.height) // 2))
    return np.asarray(square.resize((EDGE, EDGE), Image.Resampling.LANCZOS)).copy()


def build_speech(folder: Path) -> None:
    """Write ``speech.ogg``, all phrases in one row, and ``speech.json``: where each lies and which part it is of."""
    import soundfile

    row, index = list[np.ndarray](), list[dict[str, Any]]()
    for own, phrases in SPEECH.items():
        for text, voice, speed, pitch in phrases:
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary, "said.wav")
                command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(path), text]
                subprocess.run(command, check=True, capture_output=True)
                wave, rate = soundfile.read(path, dtype="float32")
            said = scene_assets.resampled(wave, rate)
            loud = np.nonzero(np.abs(said) > 0.01)[0]
            said = said[loud[0] : loud[-1]]
            said = (said * (0.8 / np.abs(said).max())).astype(np.float32)
            index.append({"part": own, "text": text, "start": sum(map(len, row)), "length": len(said)})
            row.append(said)
    scene_assets.write_ogg(np.concatenate(row), folder / "speech.ogg")
    _write_json(folder / "speech.json", index)


BUILDERS: dict[str, Callable[[Path], None]] = {"notes": build_notes, "drawings": build_drawings, "speech": build_speech}


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=BUILDERS, action="append", help="build this part only; may be repeated")
    parser.add_argument("--into", type=Path, default=ASSETS, metavar="DIR", help="default: %(default)s")
    wanted = parser.parse_args(arguments)
    try:
        for name in wanted.only or BUILDERS:
            BUILDERS[name](wanted.into)
    except (EchopixError, OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error}\n{__doc__}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
