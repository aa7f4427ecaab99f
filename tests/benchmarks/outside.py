"""Clips with questions from a renderer of its own: ``python tests/benchmarks/outside.py OUT --count 400 --seed 1``.

Nothing here is shared with ``echopix_cli/scenes``: pictures are drawn by Pillow, instruments made by arithmetic, clips
composed by other rules (picture sizes, frame rates, lengths of notes and hops, notes that ring on), and answers known
from how a clip was composed. Only the names of things and the ten families are the same, and the wordings unless
``--wordings other`` is given. OUT gets clips and ``questions.jsonl`` for ``echopix eval --data``; the same seed gives
the same clips. What is there already is not made again, so that the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from outside_drawings import DRAWINGS, drawn
from outside_sounds import RATE, SOUNDS, played
from PIL import Image, ImageDraw

SECONDS = 8.0
RAISED = 0.2  # of the height, by which a hop lifts a picture
INSTRUMENTS, PICTURES = tuple(SOUNDS), tuple(DRAWINGS)
SEEN_ONLY = tuple(name for name in PICTURES if name not in INSTRUMENTS)
NUMBERS = ("one", "two", "three", "four", "five", "six")
NOTHING = "nothing"
Rng = np.random.Generator
Span = tuple[float, float]
# Of each kind a wording that the bundled model was trained on, and one that it was not.
WORDINGS = {
    "instrument": ("What instrument is playing?", "Name the instrument in this recording."),
    "side": ("What is {0}?", "Name the thing {0} of the picture."),
    "shown": ("What is on the screen?", "Name what this clip shows."),
    "notes": ("How many notes are played?", "Count the notes of this clip."),
    "own notes": ("How many times does the {0} play?", "Count the notes that the {0} plays."),
    "things": ("How many things are on the screen?", "Count the things in the picture."),
    "sync": ("Which one moves with the sound?", "Which of them jumps at every note?"),
    "first": ("Which instrument plays first?", "Name the instrument that opens the clip."),
    "last": ("Which instrument plays last?", "Name the instrument that closes the clip."),
    "when": ("What is on the screen when the {0} plays?", "Name what is visible during the {0}'s notes."),
    "heard": ("What plays while the {0} is on the screen?", "Name the instrument that accompanies the {0}."),
    "seen": ("Do you see {1} {0}?", "Does this clip show {1} {0}?"),
    "sounding": ("Do you hear {1} {0}?", "Can {1} {0} be heard in this clip?"),
}


@dataclass(frozen=True)
class Note:
    """One note, from when to when it sounds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Picture:
    """A picture around (x, y), fractions of the frame, ``size`` of its shorter side, shown and lifted in spans."""

    name: str
    x: float
    y: float
    size: float
    show: Span = (0.0, SECONDS)
    hops: tuple[Span, ...] = ()


@dataclass
class Composed:
    """What happens in a clip, and what is asked of it: (kind of wording, name in it, answer)."""

    notes: list[Note] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    dark: bool = False


def some(rng: Rng, names: Sequence[str], count: int) -> list[str]:
    """As many different ones."""
    return [names[place] for place in rng.permutation(len(names))[:count]]


def spans(rng: Rng, count: int, begin: float, end: float, shortest: float, longest: float) -> list[Span]:
    """Spans in order, each alone in its share of the time, at least an eighth of a second apart."""
    share = (end - begin) / max(1, count)
    made = []
    for number in range(count):
        length = min(float(rng.uniform(shortest, longest)), share - 0.15)
        start = begin + number * share + float(rng.uniform(0, share - 0.13 - length))
        made.append((start, start + length))
    return made


def notes_of(rng: Rng, names: Sequence[str], begin: float = 0.1, end: float = SECONDS - 0.1) -> list[Note]:
    return [Note(name, *span) for name, span in zip(names, spans(rng, len(names), begin, end, 0.3, 1.4), strict=True)]


def beside(rng: Rng, names: Sequence[str], upright: bool = True) -> list[Picture]:
    """Pictures side by side, or one above the other."""
    made = []
    for number, name in enumerate(names):
        along, across = (number + 0.5) / len(names), float(rng.uniform(0.35, 0.65))
        size = float(rng.uniform(0.28, 0.42)) * (0.75 if len(names) > 2 else 1.0)
        made.append(Picture(name, *((along, across) if upright else (across, along)), size))
    return made


def bystanders(rng: Rng) -> list[Picture]:
    """What is seen where the question is about what is heard: often an instrument that may well be silent."""
    count = int(rng.integers(0, 3))
    return beside(rng, [some(rng, PICTURES if rng.random() < 0.5 else SEEN_ONLY, 1)[0] for _ in range(count)])


def instrument(rng: Rng) -> Composed:
    (name,) = some(rng, INSTRUMENTS, 1)
    notes = notes_of(rng, [name] * int(rng.integers(2, 7)))
    return Composed(notes, bystanders(rng), [("instrument", "", name)])


def object(rng: Rng) -> Composed:
    notes = notes_of(rng, some(rng, INSTRUMENTS, int(rng.integers(0, 3))))
    if rng.random() < 0.3:
        (name,) = some(rng, PICTURES, 1)
        alone = Picture(name, *rng.uniform(0.3, 0.7, 2).tolist(), float(rng.uniform(0.3, 0.5)))
        return Composed(notes, [alone], [("shown", "", name)])
    upright, pair = bool(rng.random() < 0.6), some(rng, PICTURES, 2)
    sides = ("on the left", "on the right") if upright else ("at the top", "at the bottom")
    asked = [("side", side, name) for side, name in zip(sides, pair, strict=True)]
    return Composed(notes, beside(rng, pair, upright), asked)


def count(rng: Rng) -> Composed:
    how_many, kind = int(rng.integers(1, 6)), rng.random()
    if kind < 0.35:
        places = rng.permutation(6)[:how_many]
        names = [some(rng, PICTURES, 1)[0] for _ in places]
        pictures = [
            Picture(name, (place % 3 + 0.5) / 3, (place // 3 + 0.5) / 2, float(rng.uniform(0.2, 0.26)))
            for name, place in zip(names, places, strict=True)
        ]
        return Composed(notes_of(rng, some(rng, INSTRUMENTS, 1)), pictures, [("things", "", NUMBERS[how_many - 1])])
    if kind < 0.7 or how_many == 1:
        notes = notes_of(rng, some(rng, INSTRUMENTS, 1) * how_many)
        return Composed(notes, bystanders(rng), [("notes", "", NUMBERS[how_many - 1])])
    first, second = some(rng, INSTRUMENTS, 2)
    own = int(rng.integers(1, how_many))
    names = [first] * own + [second] * (how_many - own)
    notes = notes_of(rng, [names[place] for place in rng.permutation(how_many)])
    asked = [("own notes", first, NUMBERS[own - 1]), ("own notes", second, NUMBERS[how_many - own - 1])]
    return Composed(notes, bystanders(rng), asked)


def sync(rng: Rng) -> Composed:
    """One leaves its place at every note, another in between, and a third may stand by."""
    hops = spans(rng, int(rng.integers(2, 9)), 0.2, SECONDS - 0.2, 0.3, 1.0)
    with_note = rng.permutation([place % 2 == 0 for place in range(len(hops))])
    pictures = beside(rng, some(rng, PICTURES, 3 if rng.random() < 0.3 else 2))
    mover, decoy = rng.permutation(len(pictures))[:2]
    for place, wanted in ((mover, True), (decoy, False)):
        own = tuple(hop for hop, sounds in zip(hops, with_note, strict=True) if bool(sounds) == wanted)
        old = pictures[place]
        pictures[place] = Picture(old.name, old.x, 0.6, old.size, hops=own)
    (name,) = some(rng, INSTRUMENTS, 1)
    rings = float(rng.uniform(0, 0.25)) if rng.random() < 0.3 else 0.0  # beyond the hop
    notes = [Note(name, a, b + rings) for (a, b), sounds in zip(hops, with_note, strict=True) if sounds]
    return Composed(notes, pictures, [("sync", "", pictures[mover].name)])


def order(rng: Rng) -> Composed:
    names = some(rng, INSTRUMENTS, int(rng.integers(2, 4)))
    notes = notes_of(rng, [name for name in names for _ in range(int(rng.integers(1, 3)))])
    return Composed(notes, bystanders(rng), [("first", "", names[0]), ("last", "", names[-1])])


def _scenes(rng: Rng) -> tuple[Composed, list[tuple[str, str]]]:
    """Pictures one after another, each with an instrument of its own; and (picture, instrument) of each."""
    parts = int(rng.integers(2, 4))
    pairs = list(zip(some(rng, PICTURES, parts), some(rng, INSTRUMENTS, parts), strict=True))
    made = Composed()
    for number, (picture, name) in enumerate(pairs):
        begin, end = SECONDS * number / parts, SECONDS * (number + 1) / parts
        x, y, size = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.32, 0.5))
        made.pictures.append(Picture(picture, x, y, size, (begin + 0.05, end - 0.05)))
        made.notes += notes_of(rng, [name] * int(rng.integers(1, 3)), begin + 0.25, end - 0.25)
    return made, [pairs[place] for place in rng.permutation(parts)[:2]]


def when(rng: Rng) -> Composed:
    made, pairs = _scenes(rng)
    made.asked = [("when", name, picture) for picture, name in pairs]
    return made


def heard(rng: Rng) -> Composed:
    made, pairs = _scenes(rng)
    made.asked = [("heard", picture, name) for picture, name in pairs]
    return made


def exists(rng: Rng) -> Composed:
    names = some(rng, INSTRUMENTS, int(rng.integers(1, 4)))
    shown = some(rng, PICTURES, int(rng.integers(1, 3)))
    made = Composed(notes_of(rng, names), beside(rng, shown))
    for kind, all_names, there, elsewhere in (
        ("seen", PICTURES, shown, names),
        ("sounding", INSTRUMENTS, names, shown),
    ):
        tempting = [name for name in all_names if name in elsewhere and name not in there]
        absent = tempting or [name for name in all_names if name not in there]
        yes = bool(rng.random() < 0.5)
        made.asked.append((kind, some(rng, there if yes else absent, 1)[0], "yes" if yes else "no"))
    return made


def silent(rng: Rng) -> Composed:
    made = Composed(pictures=beside(rng, some(rng, PICTURES, int(rng.integers(1, 3)))))
    (name,) = some(rng, INSTRUMENTS, 1)
    choices = [("instrument", "", NOTHING), ("first", "", NOTHING), ("sounding", name, "no"),
               ("heard", made.pictures[0].name, NOTHING)]  # fmt: skip
    made.asked = [choices[place] for place in rng.permutation(len(choices))[:2]]
    return made


def dark(rng: Rng) -> Composed:
    names = some(rng, INSTRUMENTS, int(rng.integers(1, 3)))
    (name,) = some(rng, PICTURES, 1)
    choices = [
        ("shown", "", NOTHING),
        ("side", "on the left", NOTHING),
        ("seen", name, "no"),
        ("when", names[0], NOTHING),
    ]
    asked = [choices[place] for place in rng.permutation(len(choices))[:2]]
    return Composed(notes_of(rng, names), [], asked, dark=True)


FAMILIES: dict[str, Callable[[Rng], Composed]] = {
    compose.__name__: compose
    for compose in (instrument, object, count, sync, order, when, heard, exists, silent, dark)
}  # fmt: skip


def frames(rng: Rng, made: Composed, width: int, height: int, fps: float) -> list[np.ndarray]:
    """Every frame, (height, width, 3) uint8: pictures on a ground of stripes, or of nothing where it is dark."""
    ground = Image.new("RGB", (width, height), (0, 0, 0))
    if not made.dark:
        first, second = (tuple(int(part) for part in rng.integers(60, 240, 3)) for _ in range(2))
        ground = Image.new("RGB", (width, height), first)
        if rng.random() < 0.6:
            pen, step, lean = ImageDraw.Draw(ground), int(rng.integers(18, 60)), int(rng.integers(-height, height))
            mixed = tuple((2 * a + b) // 3 for a, b in zip(first, second, strict=True))  # never louder than a picture
            for x in range(-height, width + height, 2 * step):
                pen.polygon([(x, 0), (x + step, 0), (x + step + lean, height), (x + lean, height)], fill=mixed)
    short = min(width, height)
    cut = [
        drawn(one.name, round(one.size * short), float(rng.uniform(-14, 14)), bool(rng.random() < 0.5))
        for one in made.pictures
    ]
    shown = []
    for number in range(round(SECONDS * fps)):
        now, picture = number / fps, ground.copy()
        for one, drawing in zip(made.pictures, cut, strict=True):
            if one.show[0] <= now < one.show[1]:
                lift = RAISED * height * max((_lifted(now, hop) for hop in one.hops), default=0.0)
                place = round(one.x * width - drawing.width / 2), round(one.y * height - drawing.height / 2 - lift)
                picture.paste(drawing, place, drawing)
        shown.append(np.asarray(picture))
    return shown


def _lifted(now: float, hop: Span) -> float:
    """From 0 to 1 within 60 ms of a hop's beginning, and back at its end."""
    return max(0.0, min(1.0, (now - hop[0]) / 0.06, (hop[1] - now) / 0.06))


def sound(rng: Rng, made: Composed) -> np.ndarray:
    """float32 (samples,): the notes over faint noise, at a level of its own."""
    wave = np.zeros(round((SECONDS + 1) * RATE))
    keys = {note.name: int(rng.integers(55, 75)) for note in made.notes}
    for note in made.notes:
        tone = played(note.name, keys[note.name] + int(rng.integers(-3, 4)), note.end - note.start, rng)
        begin = round(note.start * RATE)
        wave[begin : begin + len(tone)] += tone
    wave = wave[: round(SECONDS * RATE)]
    peak = float(np.abs(wave).max()) or 1.0
    level = 10 ** (float(rng.uniform(-18, -2)) / 20)
    noise = 10 ** (float(rng.uniform(-60, -40)) / 20) * level if made.notes else 0.0
    return np.asarray(wave / peak * level + rng.normal(0, 1, len(wave)) * noise, np.float32).clip(-1, 1)


def write(path: Path, pictures: Sequence[np.ndarray], wave: np.ndarray, fps: int) -> None:
    """H.264 and AAC in mp4; the file appears under its name when it is whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            video = container.add_stream("libx264", rate=fps, options={"crf": "23", "preset": "fast", "mbtree": "0"})
            video.height, video.width, video.pix_fmt = *pictures[0].shape[:2], "yuv420p"
            video.thread_count = 1
            audio = container.add_stream("aac", rate=RATE, layout="mono")
            for picture in pictures:
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            for begin in range(0, len(wave), 1024):
                frame = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = RATE, begin
                container.mux(audio.encode(frame))
            for stream in (video, audio):
                container.mux(stream.encode(None))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def lines_of(made: Composed, family: str, name: str, wording: int) -> list[dict[str, str]]:
    """A clip's questions, as ``echopix eval --data`` reads them."""
    lines = []
    for number, (kind, slot, answer) in enumerate(made.asked):
        article = "an" if slot[:1] in tuple("aeiou") else "a"
        question = WORDINGS[kind][wording].format(slot, article)
        lines.append({"media": f"{name}.mp4", "question": question, "answer": answer, "family": family,
                      "id": f"{name}-{number}"})  # fmt: skip
    return lines


def clip(seed: int, number: int) -> tuple[str, Composed, Rng]:
    """The family of a clip, what happens in it, and what its pixels and samples are drawn from."""
    family = list(FAMILIES)[number % len(FAMILIES)]
    return family, FAMILIES[family](np.random.default_rng([seed, number, 0])), np.random.default_rng([seed, number, 1])


def make(out: Path, wanted: int, seed: int, wording: int = 0) -> Path:
    """Clips until there are enough questions, as many of each family; returns the questions' file.

    Args:
        out: folder, made where it is missing.
        wanted: how many questions.
        seed: of everything.
        wording: 0 for those of the bundled model's training, 1 for others.
    """
    out.mkdir(parents=True, exist_ok=True)
    left = {family: (wanted + place) // len(FAMILIES) for place, family in enumerate(reversed(FAMILIES))}
    lines: list[dict[str, str]] = []
    number = 0
    while any(left.values()):
        family, made, rng = clip(seed, number)
        if left[family]:
            name = f"outside-{seed}-{number:04d}"
            path = out / f"{name}.mp4"
            if not path.exists():
                width, height = ((320, 240), (240, 240), (240, 320), (384, 216))[int(rng.integers(4))]
                fps = int((12, 15, 24, 25, 30)[int(rng.integers(5))])
                write(path, frames(rng, made, width, height, fps), sound(rng, made), fps)
            own = lines_of(made, family, name, wording)[: left[family]]
            left[family] -= len(own)
            lines += own
        number += 1
    target = out / ("questions.jsonl" if wording == 0 else "questions-other.jsonl")
    partial = target.with_name(f".{target.name}.part")
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    partial.replace(target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder, made where it is missing")
    parser.add_argument("--count", type=int, default=400, help="questions (default 400)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wordings", choices=("known", "other"), default="known")
    chosen = parser.parse_args()
    print(make(chosen.out, chosen.count, chosen.seed, ("known", "other").index(chosen.wordings)))


if __name__ == "__main__":
    main()
