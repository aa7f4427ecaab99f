"""Flat drawings with an outline, made of polygons and ellipses with Pillow, for ``outside.py``.

Pillow comes with matplotlib, so that the tests have it anyway; cairo would need a compiler and its library.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

SIDE = 240  # pixels of the square that a drawing is made in; twice what a clip shows at most
LINE = 6
INK = (35, 30, 40)
Colour = tuple[int, int, int]
Pen = ImageDraw.ImageDraw


def oval(pen: Pen, x: float, y: float, rx: float, ry: float, fill: Colour, line: int = LINE) -> None:
    """An ellipse around a centre."""
    pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill, outline=INK if line else None, width=line)


def shape(pen: Pen, points: list[tuple[float, float]], fill: Colour, line: int = LINE) -> None:
    """A closed polygon with a rounded outline."""
    pen.polygon(points, fill=fill)
    if line:
        pen.line([*points, points[0], points[1]], fill=INK, width=line, joint="curve")


def box(pen: Pen, x0: float, y0: float, x1: float, y1: float, fill: Colour, round: int = 8, line: int = LINE) -> None:
    """A rectangle with rounded corners."""
    pen.rounded_rectangle((x0, y0, x1, y1), round, fill=fill, outline=INK if line else None, width=line)


def eyes(pen: Pen, x: float, y: float, size: float = 11) -> None:
    """Two eyes, mirrored in the middle."""
    for side in (x, SIDE - x):
        oval(pen, side, y, size, size * 1.2, (255, 255, 255), 3)
        oval(pen, side, y + 2, size * 0.5, size * 0.6, INK, 0)


def dog(pen: Pen) -> None:
    fur, dark = (196, 142, 88), (112, 70, 40)
    oval(pen, 120, 122, 78, 86, fur)
    for x in (42, 198):
        oval(pen, x, 108, 28, 66, dark)
    oval(pen, 120, 166, 46, 38, (238, 212, 176))
    oval(pen, 120, 200, 14, 22, (236, 96, 112), 4)
    oval(pen, 120, 148, 20, 14, INK, 0)
    eyes(pen, 88, 100)


def cat(pen: Pen) -> None:
    fur = (150, 152, 164)
    for side in (1, -1):
        shape(pen, [(120 - side * 90, 96), (120 - side * 82, 18), (120 - side * 34, 66)], fur)
    oval(pen, 120, 134, 86, 76, fur)
    for side in (84, 156):
        oval(pen, side, 120, 15, 15, (180, 220, 90), 3)
        oval(pen, side, 120, 4, 13, INK, 0)
    shape(pen, [(108, 148), (132, 148), (120, 162)], (240, 140, 150), 3)
    for x0, x1 in ((96, 22), (144, 218)):
        for y in (150, 164, 178):
            pen.line([(x0, 162), (x1, y)], fill=INK, width=4)


def frog(pen: Pen) -> None:
    green = (96, 186, 78)
    for x in (66, 174):
        oval(pen, x, 66, 36, 36, green)
        oval(pen, x, 64, 20, 20, (255, 255, 255), 3)
        oval(pen, x, 64, 9, 9, INK, 0)
    oval(pen, 120, 140, 100, 72, green)
    pen.arc((42, 80, 198, 188), 20, 160, fill=INK, width=7)
    for x in (108, 132):
        oval(pen, x, 120, 4, 4, INK, 0)


def pig(pen: Pen) -> None:
    pink = (246, 168, 182)
    for side in (1, -1):
        shape(pen, [(120 - side * 86, 84), (120 - side * 86, 24), (120 - side * 24, 58)], (232, 138, 156))
    oval(pen, 120, 128, 92, 86, pink)
    oval(pen, 120, 146, 44, 32, (236, 130, 152))
    for x in (104, 136):
        oval(pen, x, 146, 8, 13, (120, 50, 70), 0)
    eyes(pen, 80, 98, 10)


def tiger(pen: Pen) -> None:
    orange = (240, 146, 44)
    for x in (50, 190):
        oval(pen, x, 62, 30, 30, orange)
        oval(pen, x, 62, 14, 14, (250, 220, 190), 0)
    oval(pen, 120, 128, 92, 88, orange)
    oval(pen, 120, 170, 50, 36, (255, 244, 226))
    for x in (120, 96, 144):
        shape(pen, [(x - 7, 44), (x + 7, 44), (x, 80 if x == 120 else 68)], INK, 0)
    for y in (112, 138, 164):
        shape(pen, [(28, y - 8), (28, y + 8), (66, y)], INK, 0)
        shape(pen, [(212, y - 8), (212, y + 8), (174, y)], INK, 0)
    shape(pen, [(102, 146), (138, 146), (120, 166)], (230, 110, 120), 3)
    eyes(pen, 86, 106)


def car(pen: Pen) -> None:
    red = (216, 50, 52)
    shape(pen, [(58, 116), (86, 66), (158, 66), (192, 116)], red)
    shape(pen, [(72, 112), (92, 78), (116, 78), (116, 112)], (186, 224, 240), 4)
    shape(pen, [(126, 112), (126, 78), (152, 78), (176, 112)], (186, 224, 240), 4)
    box(pen, 18, 112, 222, 168, red, 22)
    oval(pen, 208, 134, 10, 10, (255, 232, 120), 4)
    for x in (66, 174):
        oval(pen, x, 170, 28, 28, (50, 50, 56))
        oval(pen, x, 170, 12, 12, (190, 190, 200), 0)


def ball(pen: Pen) -> None:
    oval(pen, 120, 120, 94, 94, (250, 250, 250))
    shape(pen, _around(120, 120, 34, 5, -90), INK, 0)
    for turn in range(5):
        angle = math.radians(72 * turn - 90)
        x, y = 120 + math.cos(angle) * 84, 120 + math.sin(angle) * 84
        pen.line([(120 + math.cos(angle) * 30, 120 + math.sin(angle) * 30), (x, y)], fill=INK, width=5)
        shape(pen, _around(x, y, 18, 5, 72 * turn + 90), INK, 0)


def tree(pen: Pen) -> None:
    box(pen, 102, 146, 138, 228, (128, 84, 46))
    for x, y, size in ((76, 116, 50), (164, 116, 50), (120, 74, 58), (120, 130, 52)):
        oval(pen, x, y, size, size * 0.9, (58, 148, 62))
    oval(pen, 120, 104, 66, 50, (58, 148, 62), 0)


def star(pen: Pen) -> None:
    points = []
    for turn in range(10):
        reach, angle = (104, 44)[turn % 2], math.radians(36 * turn - 90)
        points.append((120 + reach * math.cos(angle), 126 + reach * math.sin(angle)))
    shape(pen, points, (252, 206, 48))


def apple(pen: Pen) -> None:
    red = (206, 40, 52)
    for x in (88, 152):
        oval(pen, x, 142, 58, 72, red)
    oval(pen, 120, 146, 62, 62, red, 0)
    pen.line([(120, 84), (128, 34)], fill=(100, 62, 34), width=11)
    shape(pen, [(130, 58), (158, 30), (192, 38), (164, 66)], (92, 176, 68), 4)
    oval(pen, 78, 116, 12, 20, (244, 150, 150), 0)


def piano(pen: Pen) -> None:
    box(pen, 14, 64, 226, 186, (60, 56, 64), 10)
    for key in range(7):
        box(pen, 26 + 27 * key, 88, 51 + 27 * key, 174, (250, 250, 246), 3, 3)
    for key in (0, 1, 3, 4, 5):
        box(pen, 44 + 27 * key, 88, 60 + 27 * key, 138, (24, 22, 28), 2, 0)


def _strings(pen: Pen, wood: Colour, waist: int) -> None:
    box(pen, 112, 14, 128, 120, (92, 58, 36), 4, 4)
    box(pen, 106, 8, 134, 34, (70, 44, 30), 4, 4)
    oval(pen, 120, 112, waist, 38, wood)
    oval(pen, 120, 174, waist + 18, 54, wood)
    oval(pen, 120, 140, waist - 12, 34, wood, 0)


def guitar(pen: Pen) -> None:
    _strings(pen, (216, 150, 74), 44)
    oval(pen, 120, 138, 20, 20, (60, 40, 28), 3)
    box(pen, 94, 184, 146, 196, (70, 44, 30), 2, 0)
    for x in (113, 118, 123, 128):
        pen.line([(x, 22), (x, 190)], fill=(236, 226, 206), width=2)


def violin(pen: Pen) -> None:
    _strings(pen, (160, 78, 40), 38)
    for x in (62, 178):
        oval(pen, x + (6 if x < 120 else -6), 138, 13, 17, (255, 255, 255), 0)
    shape(pen, [(114, 34), (126, 34), (130, 156), (110, 156)], INK, 0)
    for x in (96, 144):
        pen.arc((x - 8, 140, x + 8, 164), 90, 270, fill=INK, width=5)
        pen.arc((x - 8, 160, x + 8, 184), 270, 90, fill=INK, width=5)
    pen.line([(196, 20), (226, 214)], fill=(122, 84, 50), width=9)
    pen.line([(206, 20), (234, 208)], fill=(240, 236, 224), width=4)


def trumpet(pen: Pen) -> None:
    gold = (238, 186, 54)
    shape(pen, [(148, 108), (222, 62), (222, 166), (148, 122)], gold)
    box(pen, 24, 106, 160, 124, gold, 4, 5)
    box(pen, 58, 122, 140, 166, (255, 255, 255), 18, 0)
    pen.rounded_rectangle((56, 112, 142, 170), 20, outline=INK, width=22)
    pen.rounded_rectangle((60, 116, 138, 166), 18, outline=gold, width=13)
    for x in (80, 99, 118):
        box(pen, x - 6, 78, x + 6, 164, gold, 3, 4)
        oval(pen, x, 76, 9, 6, gold, 4)
    box(pen, 14, 100, 30, 130, gold, 4, 4)


def flute(pen: Pen) -> None:
    shape(pen, [(18, 196), (200, 22), (222, 44), (40, 218)], (196, 202, 214))
    for step in range(6):
        oval(pen, 62 + 20 * step, 176 - 19.2 * step, 8, 8, (70, 74, 86), 0)
    oval(pen, 198, 48, 12, 8, (70, 74, 86), 3)


def drum(pen: Pen) -> None:
    red = (204, 52, 60)
    box(pen, 36, 104, 204, 200, red, 30)
    for x in range(48, 204, 39):
        pen.line([(x, 116), (x + 20, 196), (x + 39, 116)], fill=(250, 226, 150), width=5)
    oval(pen, 120, 104, 84, 34, (246, 240, 228))
    for x0, x1 in ((34, 108), (206, 132)):
        pen.line([(x0, 24), (x1, 100)], fill=(150, 100, 56), width=10)
        oval(pen, x1, 100, 10, 9, (206, 160, 104), 3)


def bell(pen: Pen) -> None:
    gold = (246, 196, 58)
    oval(pen, 120, 198, 20, 20, (176, 126, 36))
    oval(pen, 120, 34, 15, 15, gold)
    pen.pieslice((60, 36, 180, 170), 180, 360, fill=gold, outline=INK, width=LINE)
    shape(pen, [(60, 102), (180, 102), (194, 160), (218, 190), (22, 190), (46, 160)], gold)
    pen.rectangle((66, 94, 174, 112), fill=gold)


DRAWINGS: dict[str, Callable[[Pen], None]] = {
    draw.__name__: draw
    for draw in (
        dog, cat, frog, pig, tiger, car, ball, tree, star, apple, piano, guitar, violin, trumpet, flute, drum, bell,
    )
}  # fmt: skip


def drawn(name: str, pixels: int, tilt: float, mirrored: bool) -> Image.Image:
    """A drawing with a transparent ground, at most ``pixels`` wide and high.

    Args:
        name: one of DRAWINGS.
        pixels: edge of the square it fits into.
        tilt: in degrees.
        mirrored: left and right exchanged.
    """
    large = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    DRAWINGS[name](ImageDraw.Draw(large))
    if name == "violin":  # the waist's cuts show the ground
        cut = np.array(large)
        cut[(cut[..., :3] == 255).all(axis=-1) & (np.abs(np.arange(SIDE) - 138)[:, None] < 18), 3] = 0
        large = Image.fromarray(cut)
    if mirrored:
        large = large.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return large.rotate(tilt, Image.Resampling.BICUBIC).resize((pixels, pixels), Image.Resampling.LANCZOS)


def _around(x: float, y: float, reach: float, corners: int, turn: float) -> list[tuple[float, float]]:
    """A regular polygon."""
    angles = [math.radians(turn + 360 * corner / corners) for corner in range(corners)]
    return [(x + reach * math.cos(angle), y + reach * math.sin(angle)) for angle in angles]
