"""What the wide splits draw from: notes, drawings, wordings, backgrounds and rules, each apart from training's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from echopix_cli.scenes.script import Span


@dataclass(frozen=True)
class World:
    """What the scenes of a split are made of.

    Attributes:
        number: of its scenes; splits of one number have the same scenes.
        notes: the part of the note banks, by recorded sample: train, val, test, or font (another soundfont).
        drawings: the part of the drawings: train, val, test, or style (a style never trained on).
        words: the part of the wordings and of music and speech: train or test.
        held_out: backgrounds have the kinds and hues that training never sees.
        strong: drawings are changed in colour, texture and shape.
        other_rules: what the composer does that it never does in training: cuts, picture-in-picture, bars at the
            sides, other frame rates, and the widest ranges of hops and camera movements.
        hop: seconds of a hop; hops: how many, fewest and most.
        fps: frame rates of the recording.
    """

    number: int
    notes: Literal["train", "val", "test", "font"]
    drawings: Literal["train", "val", "test", "style"]
    words: Literal["train", "test"] = "test"
    held_out: bool = True
    strong: bool = False
    other_rules: bool = False
    hop: Span = (0.4, 0.9)
    hops: tuple[int, int] = (2, 5)
    fps: tuple[int, ...] = (15, 24, 25, 30)


# The three shifts stand beside wide-test: the first two repeat its scenes note by note and picture by picture.
WORLDS: dict[str, World] = {
    "wide-train": World(11, "train", "train", words="train", held_out=False, strong=True),
    "wide-val": World(12, "val", "val", words="train", held_out=False),
    "wide-test": World(13, "test", "test"),
    "wide-font": World(13, "font", "test"),
    "wide-style": World(13, "test", "style"),
    "wide-composer": World(14, "test", "test", other_rules=True, hop=(0.3, 1.0), hops=(1, 6), fps=(12, 20, 48, 50, 60)),
}
