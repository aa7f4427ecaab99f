"""How a scene of the wide splits is played, drawn, filmed and accompanied; who plays and is seen is composed before."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from echopix_cli.scenes.backgrounds import draw_background
from echopix_cli.scenes.beds import MUSIC, phrases, seconds_of
from echopix_cli.scenes.draws import pick
from echopix_cli.scenes.layout import SUSTAINED, PlannedNote, within_recording
from echopix_cli.scenes.notes import of_part
from echopix_cli.scenes.pictures import drawings
from echopix_cli.scenes.script import (
    DURATION,
    WHOLE,
    Background,
    Bed,
    Box,
    Filming,
    Look,
    PlayedNote,
    Shot,
    Sprite,
)
from echopix_cli.scenes.worlds import World

_SMALLEST = 0.18  # edge of a sprite in the picture, as a share of the picture's
_TEXTURES: tuple[Literal["", "stripes", "blobs", "grain"], ...] = ("", "", "stripes", "blobs", "grain")

Rng = np.random.Generator


def play_wide(rng: Rng, key: tuple[int, int], plans: list[PlannedNote], world: World) -> tuple[PlayedNote, ...]:
    """Choose a recording of the world's part for every planned note.

    Choices have random generators of their own, one a note: what is drawn from ``rng`` is the same whatever notes a
    part has, so that worlds of one number differ in nothing else.
    """
    notes = []
    for number, plan in enumerate(plans):
        shift, cents, gain = int(rng.integers(-2, 3)), float(rng.uniform(-30, 30)), float(rng.uniform(0.35, 1.0))
        skip, swell = float(rng.uniform(0, 0.15)), int(rng.integers(-6, 9))
        late, changed = rng.random(2)
        own = np.random.default_rng((*key, 5, number))
        by_font = of_part(plan.instrument, world.notes)
        voice = np.random.default_rng((*key, 6, sum(map(ord, plan.instrument))))  # one font an instrument
        font = pick(voice, sorted(by_font))
        source, velocity = pick(own, by_font[font])
        if plan.instrument == "drum":
            shift, cents = 0, 4 * cents
        if not world.strong or plan.instrument not in SUSTAINED or late < 0.5:
            skip = 0.0
        if not world.strong or changed < 0.3:
            swell = 0
        made = (font, source, velocity, source + shift, cents, gain, skip, swell)
        notes.append(within_recording(PlayedNote(plan.instrument, plan.start, plan.end, *made)))
    return tuple(sorted(notes, key=lambda note: note.start))


def dress(rng: Rng, key: tuple[int, int], sprites: list[Sprite], world: World) -> tuple[Sprite, ...]:
    """Choose a drawing of the world's part for every picture, and how it is changed for the whole scene."""
    dressed: dict[str, Sprite] = {}
    made = []
    for sprite in sprites:
        look, angle, tint = _look(rng, world)
        if sprite.name not in dressed:
            voice = np.random.default_rng((*key, 7, sum(map(ord, sprite.name))))
            drawing = pick(voice, drawings(sprite.name, world.drawings))
            dressed[sprite.name] = replace(sprite, drawing=drawing, look=look, angle=angle, tint=tint)
        as_before = dressed[sprite.name]
        made.append(
            replace(
                sprite, drawing=as_before.drawing, look=as_before.look, angle=as_before.angle, tint=as_before.tint,
                flip=as_before.flip,
            )
        )  # fmt: skip
    return tuple(made)


def _look(rng: Rng, world: World) -> tuple[Look, int, tuple[float, float, float]]:
    turned, grey, textured, bent = rng.random(4)
    hue, colour, contrast = float(rng.random()), float(rng.uniform(0.5, 1.5)), float(rng.uniform(0.6, 1.2))
    texture, depth = pick(rng, _TEXTURES), float(rng.uniform(0.1, 0.4))
    stretch, shear, angle = float(rng.uniform(0.8, 1.25)), float(rng.uniform(-0.25, 0.25)), int(rng.integers(-24, 25))
    tint = (float(rng.uniform(0.85, 1.1)), float(rng.uniform(0.85, 1.1)), float(rng.uniform(0.85, 1.1)))
    if not world.strong:
        return Look(), angle // 2, tint
    return (
        Look(
            hue=hue if turned < 0.4 else (hue - 0.5) / 10,
            colour=colour if grey > 0.12 else 0.0,
            contrast=contrast,
            texture=texture if textured < 0.5 else "",
            depth=depth,
            stretch=stretch if bent < 0.6 else 1.0,
            shear=shear if bent < 0.4 else 0.0,
        ),
        angle,
        tint,
    )


def film(rng: Rng, world: World, background: Background, sprites: tuple[Sprite, ...], calm: bool) -> Filming:
    """How a scene is filmed.

    Args:
        rng: source of all choices.
        world: what may be done.
        background: of the first shot.
        sprites: none of which may become too small to be known.
        calm: the camera keeps still and shows the whole scene.
    """
    framed, moved, cut, inset = rng.random(4)
    viewport, surround = WHOLE, None
    bar = float(rng.uniform(0.06, 0.13))
    place = rng.uniform(0, 1, 2)
    around = draw_background(rng, world.held_out, specks=False)
    if world.other_rules and inset < 0.3:
        edge = 0.72 + 0.16 * float(place[0])
        x, y = float(place[0] * (1 - edge)), float(place[1] * (1 - edge))
        viewport, surround = (x, y, x + edge, y + edge), around
    elif framed < 0.25:
        viewport = (bar, 0.0, 1 - bar, 1.0) if world.other_rules else (0.0, bar, 1.0, 1 - bar)
    smallest = min((sprite.size for sprite in sprites), default=1.0)
    room = min(viewport[2] - viewport[0], viewport[3] - viewport[1])
    closest = min(1.0, max(_SMALLEST / (smallest * room), 0.6 if world.other_rules else 0.72))
    cuts = [0.0]
    if world.other_rules and cut < 0.4:
        cuts += sorted(float(at) for at in rng.uniform(1.5, DURATION - 1.5, 1 + (cut < 0.15)))
    share = 0.7 if world.other_rules else 0.5
    shots = []
    for number, start in enumerate(cuts):
        begin, finish = _camera(rng, closest), _camera(rng, closest)
        still = rng.random() < 0.4
        other = draw_background(rng, world.held_out, specks=False)
        if calm or moved > share:
            begin = finish = WHOLE
        elif still:
            finish = begin
        shots.append(Shot(start, replace(other, noise=0) if number else background, begin, finish))
    gain, gamma = float(rng.uniform(0.7, 1.1)), float(np.exp(rng.uniform(-0.35, 0.35)))
    graded = rng.random() < 0.5
    return Filming(
        tuple(shots), viewport, surround, pick(rng, world.fps), gain if graded else 1.0, gamma if graded else 1.0
    )


def _camera(rng: Rng, closest: float) -> Box:
    """Where in the viewport the whole scene lies: smaller and to one side, where the camera has drawn back."""
    edge = float(rng.uniform(closest, 1.0))
    x, y = (float(at) for at in rng.uniform(0, 1 - edge, 2))
    return (x, y, x + edge, y + edge)


def accompany(rng: Rng, world: World) -> Bed | None:
    """Background music, somebody who speaks, both or neither."""
    musical, spoken = rng.random(2)
    number, level = int(rng.integers(2**16)), float(rng.uniform(-20, -6))
    said, start, loud = int(rng.integers(2**16)), float(rng.random()), float(rng.uniform(-14, -2))
    more = 0.5 if world.other_rules else 0.25
    music = MUSIC[world.words][number % len(MUSIC[world.words])] if musical < more else None
    known = phrases(world.words)
    phrase = known[said % len(known)]
    speech = ((phrase, start * (DURATION - 0.2 - seconds_of(phrase))),) if spoken < more else ()
    return Bed(music, level, speech, loud) if music is not None or speech else None
