"""The drawings of the wide splits: several of each picture in several styles, and what training changes in them."""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np

from echopix_cli.scenes.notes import ASSETS
from echopix_cli.scenes.script import Look
from echopix_cli.scenes.video import Stencil, to_stencil

_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=np.float32)
_FROM_YIQ = np.linalg.inv(_TO_YIQ).astype(np.float32)


@cache
def drawings(name: str, part: str) -> tuple[str, ...]:
    """The drawings of a picture that belong to a part (train, val, test or style), as "style/slug", sorted.

    The flute has none of its own for ``val``, which then shows those of ``train``.
    """
    own = tuple(sorted(key for key, (_, held, of) in _bank().items() if of == name and held == part))
    return own if own or part != "val" else drawings(name, "train")


def part_of(name: str, drawing: str) -> str:
    """The part that a picture's drawing belongs to; KeyError where there is none such."""
    _, part, of = _bank()[drawing]
    if of != name:
        raise KeyError(drawing)
    return part


@cache
def _bank() -> dict[str, tuple[np.ndarray, str, str]]:
    """By "style/slug": uint8 RGBA (edge, edge, 4), part and name."""
    bank = {}
    for file in ("drawings.npz", "drawings-style.npz"):
        with np.load(ASSETS / file) as packed:
            columns = (packed[key].tolist() for key in ("styles", "slugs", "parts", "names"))
            for style, slug, part, name, rgba in zip(*columns, packed["rgba"], strict=True):
                bank[f"{style}/{slug}"] = (rgba, part, name)
    return bank


@lru_cache(maxsize=1024)
def stencil(drawing: str, look: Look, angle: int, edge: int) -> Stencil:
    """A drawing with its look, turned by an angle, at its final size; neither mirrored nor tinted."""
    return to_stencil(_changed(drawing, look, angle), edge)


@lru_cache(maxsize=64)
def _changed(drawing: str, look: Look, angle: int) -> np.ndarray:
    """A drawing with its look, turned: premultiplied float32 (4, edge, edge)."""
    rgba: np.ndarray = _bank()[drawing][0].astype(np.float32)
    colour: np.ndarray = rgba[..., :3]
    alpha = rgba[..., 3:]
    turn = math.tau * look.hue
    rotation = np.array(
        [[1, 0, 0], [0, math.cos(turn), -math.sin(turn)], [0, math.sin(turn), math.cos(turn)]], dtype=np.float32
    )
    rotation[1:] *= look.colour
    colour = colour @ (_FROM_YIQ @ rotation @ _TO_YIQ).T.astype(np.float32)
    colour = 128 + look.contrast * (colour - 128)
    if look.texture:
        colour = colour * (1 + look.depth * _texture(look, len(colour)))[..., None]
    picture = np.concatenate([np.clip(colour, 0, 255) * (alpha / 255), alpha], axis=2).transpose(2, 0, 1)
    if angle or look.shear or look.stretch != 1:
        picture = _warped(picture, look, math.radians(angle))
    return np.ascontiguousarray(picture, dtype=np.float32)


def _texture(look: Look, edge: int) -> np.ndarray:
    """A pattern (edge, edge) between -1 and 1, of which the look's own numbers choose one."""
    v, u = np.mgrid[:edge, :edge].astype(np.float32) / edge
    turn = 40 * look.hue + 90 * look.depth
    along = u * math.cos(turn) + v * math.sin(turn)
    if look.texture == "stripes":
        return np.asarray(np.sign(np.sin(math.tau * (4 + 5 * look.colour) * along)))
    if look.texture == "blobs":
        across = v * math.cos(turn) - u * math.sin(turn)
        return np.asarray(np.sin(9 * along + turn) * np.sin(13 * across) + 0.5 * np.sin(23 * u)) / 1.5
    return np.asarray(np.random.default_rng(edge).uniform(-1, 1, (edge, edge)).astype(np.float32))


def _warped(picture: np.ndarray, look: Look, turn: float) -> np.ndarray:
    """A picture turned, stretched and sheared about its middle, small enough to stay in its square."""
    edge = picture.shape[1]
    middle = (edge - 1) / 2
    y, x = np.mgrid[:edge, :edge].astype(np.float32) - np.float32(middle)
    wide, high = (look.stretch, 1.0) if look.stretch < 1 else (1.0, 1 / look.stretch)
    zoom = math.cos(turn) + 0.5 * abs(math.sin(turn)) + 0.5 * abs(look.shear)
    u, v = (math.cos(turn) * x + math.sin(turn) * y) * zoom, (math.cos(turn) * y - math.sin(turn) * x) * zoom
    u, v = (u + look.shear * v) / wide + middle, v / high + middle
    u, v = np.clip(u, -1, edge).ravel(), np.clip(v, -1, edge).ravel()  # beyond the edge there is nothing
    row, column = np.floor(v), np.floor(u)
    below, right = (v - row)[:, None], (u - column)[:, None]
    padded = np.zeros((edge + 3, edge + 3, 4), dtype=np.float32)  # channels last: neighbours lie side by side
    padded[1 : edge + 1, 1 : edge + 1] = picture.transpose(1, 2, 0)
    flat, first = padded.reshape(-1, 4), ((row + 1) * (edge + 3) + column + 1).astype(np.intp)
    corners = [flat.take(first + step, axis=0) for step in (0, 1, edge + 3, edge + 4)]
    above = corners[0] + (corners[1] - corners[0]) * right
    under = corners[2] + (corners[3] - corners[2]) * right
    return np.asarray((above + (under - above) * below).T.reshape(4, edge, edge))
