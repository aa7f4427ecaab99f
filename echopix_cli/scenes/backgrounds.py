"""What lies behind the sprites. Some generators and hues are kept from training."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np

from echopix_cli.scenes.script import Background

Array = np.ndarray


def _plain(u: Array, v: Array, bg: Background) -> Array:
    return np.zeros_like(u)


def _gradient(u: Array, v: Array, bg: Background) -> Array:
    return np.asarray(0.5 + u * math.cos(math.tau * bg.angle) + v * math.sin(math.tau * bg.angle))


def _stripes(u: Array, v: Array, bg: Background) -> Array:
    along = u * math.cos(math.pi * bg.angle) + v * math.sin(math.pi * bg.angle)
    return np.asarray(np.floor((3 + 7 * bg.scale) * along + bg.phase) % 2)


def _blobs(u: Array, v: Array, bg: Background) -> Array:
    total = np.zeros_like(u)
    for k in range(1, 5):  # a few incommensurate plane waves look like clouds and cost next to nothing
        turn = 2.4 * k + 6.28 * bg.angle
        wave = (1.5 + bg.scale * k) * math.tau * (u * math.cos(turn) + v * math.sin(turn))
        total += np.sin(wave + 6.28 * bg.phase * k * k)
    return np.asarray(0.5 + total / 5)


def _dots(u: Array, v: Array, bg: Background) -> Array:
    n = 4 + 5 * bg.scale
    across, down = (u * n + bg.phase) % 1 - 0.5, (v * n + bg.angle) % 1 - 0.5
    return np.asarray(across**2 + down**2 < 0.05, dtype=u.dtype)


def _checker(u: Array, v: Array, bg: Background) -> Array:
    n = 3 + 5 * bg.scale
    return np.asarray((np.floor(u * n + bg.phase) + np.floor(v * n + bg.angle)) % 2)


def _rings(u: Array, v: Array, bg: Background) -> Array:
    radius = np.hypot(u + 0.4 * (bg.angle - 0.5), v + 0.4 * (bg.phase - 0.5))
    return np.asarray(0.5 + 0.5 * np.sin(math.tau * (2 + 4 * bg.scale) * radius))


def _waves(u: Array, v: Array, bg: Background) -> Array:
    bend = 0.06 * np.sin(math.tau * ((2 + 2 * bg.scale) * u + bg.phase))
    return np.asarray(np.floor((4 + 5 * bg.angle) * (v + bend)) % 2)


GENERATORS: dict[str, Callable[[Array, Array, Background], Array]] = {
    "plain": _plain, "gradient": _gradient, "stripes": _stripes, "blobs": _blobs, "dots": _dots,
    "checker": _checker, "rings": _rings, "waves": _waves,
}  # fmt: skip
HELD_OUT_GENERATORS: tuple[str, ...] = ("checker", "rings", "waves")
TRAINED_GENERATORS: tuple[str, ...] = tuple(k for k in GENERATORS if k not in HELD_OUT_GENERATORS)
HELD_OUT_HUES: tuple[tuple[float, float], ...] = ((0.42, 0.54), (0.80, 0.90))


def paint(background: Background, height: int, width: int) -> np.ndarray:
    """The still background: uint8 (3, height, width)."""
    scale = min(height, width)
    u = ((np.arange(width, dtype=np.float32) - width / 2 + 0.5) / scale)[None, :]
    v = ((np.arange(height, dtype=np.float32) - height / 2 + 0.5) / scale)[:, None]
    u, v = np.broadcast_to(u, (height, width)), np.broadcast_to(v, (height, width))
    mix = np.clip(GENERATORS[background.kind](u, v, background), 0, 1).astype(np.float32)
    first, second = (np.array(c, dtype=np.float32)[:, None, None] for c in background.colours)
    return np.asarray(np.clip(255 * (first + (second - first) * mix), 0, 255).astype(np.uint8))


def draw_background(rng: np.random.Generator, held_out: bool, specks: bool) -> Background:
    """Draw a background from the trained kinds and hues, or from the held-out ones."""
    kinds = HELD_OUT_GENERATORS if held_out else TRAINED_GENERATORS
    hues = (_hue(rng, held_out), _hue(rng, held_out))
    light = rng.uniform(0.25, 0.95)
    lights = (light, float(np.clip(light + rng.uniform(-0.25, 0.25), 0.2, 1.0)))
    saturation = rng.uniform(0.1, 0.6)
    return Background(
        kind=kinds[int(rng.integers(len(kinds)))],
        colours=(_rgb(hues[0], saturation, lights[0]), _rgb(hues[1], saturation, lights[1])),
        hues=hues,
        scale=float(rng.random()),
        angle=float(rng.random()),
        phase=float(rng.random()),
        noise=int(rng.integers(0, 15)),
        specks=int(rng.integers(1, 7)) if specks else 0,
    )


def hue_is_held_out(hue: float) -> bool:
    """Whether a hue lies in a band that training never sees."""
    return any(low <= hue <= high for low, high in HELD_OUT_HUES)


def _hue(rng: np.random.Generator, held_out: bool) -> float:
    if held_out:
        low, high = HELD_OUT_HUES[int(rng.integers(len(HELD_OUT_HUES)))]
        return float(rng.uniform(low, high))
    while True:
        hue = float(rng.random())
        if not hue_is_held_out(hue):
            return hue


def _rgb(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(hue, saturation, value)
