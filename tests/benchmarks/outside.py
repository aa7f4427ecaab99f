"""Clips with questions from a renderer of its own: ``python tests/benchmarks/outside.py OUT --count 400 --seed 1``.

Nothing here is shared with ``echopix_cli/scenes``: pictures are drawn by Pillow, instruments made by arithmetic, clips
composed by other rules (picture sizes, frame rates, lengths of notes and hops, notes that ring on), and answers known
from how a clip was composed. Only the names of things and the families are the same, and the wordings unless
``--wordings other`` or ``strangers`` is given: the thirteen families of the wide splits, or with ``--narrow`` the ten
of the others.
OUT gets clips and ``questions.jsonl`` for ``echopix eval --data``; the same seed gives the same clips. What is there
already is not made again, so that the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from outside_drawings import drawn
from outside_scenes import FAMILIES, NARROW, SECONDS, Composed, Families, Rng, Span
from outside_sounds import RATE, played
from outside_wordings import NARROW_WORDINGS, STRANGERS, WORDINGS
from PIL import Image, ImageDraw

RAISED = 0.2  # of the height, by which a hop lifts a picture


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


def lines_of(made: Composed, family: str, name: str, wordings: str, narrow: bool = False) -> list[dict[str, str]]:
    """A clip's questions, as ``echopix eval --data`` reads them."""
    known = {kind: words[:1] for kind, words in WORDINGS.items()}
    known |= {kind: (word,) for kind, word in NARROW_WORDINGS.items() if narrow}
    others = {kind: words[1:] for kind, words in WORDINGS.items()}
    asked = {"known": known, "other": others, "strangers": STRANGERS}[wordings]
    lines = []
    for number, (kind, slot, answer) in enumerate(made.asked):
        article = "an" if slot[:1] in tuple("aeiou") else "a"
        texts = asked[kind]
        question = texts[(sum(name.encode()) + number) % len(texts)].format(slot, article)
        lines.append({"media": f"{name}.mp4", "question": question, "answer": answer, "family": family,
                      "id": f"{name}-{number}"})  # fmt: skip
    return lines


def clip(seed: int, number: int, families: Families = FAMILIES) -> tuple[str, Composed, Rng]:
    """The family of a clip, what happens in it, and what its pixels and samples are drawn from."""
    family = list(families)[number % len(families)]
    return family, families[family](np.random.default_rng([seed, number, 0])), np.random.default_rng([seed, number, 1])


def make(out: Path, wanted: int, seed: int, wordings: str = "known", narrow: bool = False) -> Path:
    """Clips until there are enough questions, as many of each family; returns the questions' file.

    Args:
        out: folder, made where it is missing.
        wanted: how many questions.
        seed: of everything.
        wordings: known, as training's; other; or those of strangers, three of a kind.
        narrow: the ten families, counts and wordings of scenes that are not wide.
    """
    out.mkdir(parents=True, exist_ok=True)
    families = NARROW if narrow else FAMILIES
    left = {family: (wanted + place) // len(families) for place, family in enumerate(reversed(families))}
    lines: list[dict[str, str]] = []
    number = 0
    while any(left.values()):
        family, made, rng = clip(seed, number, families)
        if left[family]:
            name = f"outside-{seed}-{number:04d}"
            path = out / f"{name}.mp4"
            if not path.exists():
                width, height = ((320, 240), (240, 240), (240, 320), (384, 216))[int(rng.integers(4))]
                fps = int((12, 15, 24, 25, 30)[int(rng.integers(5))])
                write(path, frames(rng, made, width, height, fps), sound(rng, made), fps)
            own = lines_of(made, family, name, wordings, narrow)[: left[family]]
            left[family] -= len(own)
            lines += own
        number += 1
    target = out / ("questions.jsonl" if wordings == "known" else f"questions-{wordings}.jsonl")
    partial = target.with_name(f".{target.name}.part")
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    partial.replace(target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder, made where it is missing")
    parser.add_argument("--count", type=int, default=400, help="questions (default 400)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wordings", choices=("known", "other", "strangers"), default="known")
    parser.add_argument("--narrow", action="store_true", help="the ten families of scenes that are not wide")
    chosen = parser.parse_args()
    print(make(chosen.out, chosen.count, chosen.seed, chosen.wordings, chosen.narrow))


if __name__ == "__main__":
    main()
