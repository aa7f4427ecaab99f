"""Paint the picture of a script, and say where each sprite is."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from echopix_cli.scenes.backgrounds import paint
from echopix_cli.scenes.geometry import away, centres, placed, shown_times, visible
from echopix_cli.scenes.notes import ASSETS
from echopix_cli.scenes.script import PICTURES, Background, Script, Sprite


def seen(script: Script, times: np.ndarray, grid: tuple[int, int], *, hopping: bool = False) -> np.ndarray:
    """Which picture fills each cell of a grid over the frame; ``hopping``: of those in the middle of a hop.

    Returns:
        int8 (len(times), rows, columns): index into PICTURES of the sprite that covers most of the cell, or
        -1 where none covers a seventh of it or has its centre there.
    """
    rows, columns = grid
    times = np.asarray(times, dtype=np.float64)
    if script.filming is not None:
        times = shown_times(script.filming, times)
    label = np.full((len(times), rows, columns), -1, dtype=np.int8)
    best = np.full(label.shape, 1 / 7)
    every = np.arange(len(times))
    for sprite in script.sprites:
        centre, scale = placed(script, sprite, times)
        width = 0.85 * sprite.size * scale  # most pictures are round: the corners of their squares are empty
        across = _overlap(centre[:, 0], width, columns)  # (T, columns)
        down = _overlap(centre[:, 1], width, rows)  # (T, rows)
        share = down[:, :, None] * across[:, None, :]
        home = np.clip((centre * (columns, rows)).astype(int), 0, (columns - 1, rows - 1))
        share[every, home[:, 1], home[:, 0]] += 1 / 7
        shown = visible(sprite, times) & away(sprite, times) if hopping else visible(sprite, times)
        share *= shown[:, None, None]
        label[share > best] = PICTURES.index(sprite.name)
        best = np.maximum(best, share)
    return label


def _overlap(centre: np.ndarray, size: np.ndarray, cells: int) -> np.ndarray:
    edges = np.arange(cells) / cells
    low = np.maximum((centre - size / 2)[:, None], edges)
    high = np.minimum((centre + size / 2)[:, None], edges + 1 / cells)
    return np.asarray(np.clip(high - low, 0, None) * cells)


def render_plain(script: Script, times: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Render the picture of a scene without filming.

    Args:
        script: the scene.
        times: seconds.
        size: (height, width).

    Returns:
        uint8 (len(times), 3, height, width).
    """
    height, width = size
    frames = np.empty((len(times), 3, height, width), dtype=np.uint8)
    frames[:] = paint(script.background, height, width)
    if script.background.specks:
        draw_specks(frames, script.background, times)
    for sprite in script.sprites:
        _draw_sprite(frames, sprite, times)
    if script.background.noise > 0:
        add_noise(frames, script, times)
    return frames


def _draw_sprite(frames: np.ndarray, sprite: Sprite, times: np.ndarray) -> None:
    height, width = frames.shape[2:]
    edge = max(1, round(sprite.size * min(height, width)))
    stencil = turned(_stencil(sprite.name, edge, sprite.angle), sprite)
    corner = np.round(centres(sprite, times) * (width, height) - edge / 2).astype(int)
    for t in np.nonzero(visible(sprite, times))[0]:
        stamp(frames[t], stencil, *corner[t])


Stencil = tuple[np.ndarray, np.ndarray]  # premultiplied colour (3, edge, edge), 256 - alpha (edge, edge); uint16


def turned(stencil: Stencil, sprite: Sprite) -> Stencil:
    """A stencil mirrored and tinted as its sprite is."""
    colour, clear = stencil
    if sprite.flip:
        colour, clear = colour[:, :, ::-1], clear[:, ::-1]
    if sprite.tint != (1.0, 1.0, 1.0):
        gains = (256 * np.array(sprite.tint)).astype(np.uint32)[:, None, None]
        colour = np.minimum(colour * gains >> 8, 255 * 256).astype(np.uint16)
    return colour, clear


def stamp(frame: np.ndarray, stencil: Stencil, x: int, y: int) -> None:
    """Blend a stencil into a frame (3, height, width) in place; x and y are its corner, which may lie outside."""
    colour, clear = stencil
    height, width, edge = *frame.shape[1:], len(clear)
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + edge, width), min(y + edge, height)
    if x0 >= x1 or y0 >= y1:
        return
    cut = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
    region = frame[:, y0:y1, x0:x1]
    # uint16 is enough: colour <= 255 * alpha, so the sum stays below 256 * 256.
    region[...] = (region * clear[cut] + colour[(slice(None), *cut)]) >> 8


def draw_specks(frames: np.ndarray, background: Background, times: np.ndarray) -> None:
    height, width = frames.shape[2:]
    scale = min(height, width)
    radius = max(1, round(0.022 * scale))
    disc = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius + 0.3
    shade = np.array(background.colours[1]) * 255
    for k in range(background.specks):
        # Golden-ratio steps scatter the discs and their speeds without a generator of their own.
        spread = (background.phase + 0.618 * (k + 1)) % 1, (background.angle + 0.755 * (k + 1)) % 1
        velocity = 0.06 * np.cos(6.28 * spread[0]), 0.06 * np.sin(6.28 * spread[1])
        colour = (shade + 90 * (1 if (k % 2) == 0 else -1)).clip(0, 255).astype(np.uint8)[:, None]
        for t, now in enumerate(times):
            x = int((spread[0] + velocity[0] * now) % 1 * (width - 2 * radius - 1))
            y = int((spread[1] + velocity[1] * now) % 1 * (height - 2 * radius - 1))
            frames[t, :, y : y + 2 * radius + 1, x : x + 2 * radius + 1][:, disc] = colour


def add_noise(frames: np.ndarray, script: Script, times: np.ndarray) -> None:
    height, width = frames.shape[2:]
    grain = _grain(max(height, width) + 128, script.background.noise)
    most = 3 * script.background.noise
    # Headroom first, so that adding modulo 256 can never wrap: bytes are several times faster than int16.
    np.maximum(frames, np.uint8(most), out=frames)
    np.minimum(frames, np.uint8(255 - most), out=frames)
    room = len(grain) - max(height, width)
    for t, now in enumerate(times):
        # The window depends on the time alone, so that a frame looks the same however it is asked for.
        place = (round(now * 1000) * 7919 + script.seed * 104729) & 0x7FFFFFFF
        y, x = place % room, (place // room) % room
        frames[t] += grain[y : y + height, x : x + width]


@lru_cache(maxsize=32)
def _grain(edge: int, deviation: int) -> np.ndarray:
    """Noise drawn once, of which frames show windows: bytes (edge, edge) to be added modulo 256."""
    tile = np.random.default_rng(edge).standard_normal((edge, edge), dtype=np.float32) * deviation
    return np.clip(np.round(tile), -3 * deviation, 3 * deviation).astype(np.int8).view(np.uint8)


@lru_cache(maxsize=1)
def _pictures() -> dict[str, np.ndarray]:
    with np.load(ASSETS / "sprites.npz") as packed:
        return dict(zip(packed["names"].tolist(), packed["rgba"], strict=True))


@lru_cache(maxsize=4096)
def _stencil(name: str, edge: int, angle: int) -> Stencil:
    return to_stencil(_tilted(name, angle).astype(np.float32), edge)


def to_stencil(rgba: np.ndarray, edge: int) -> Stencil:
    """A picture, premultiplied float32 (4, n, n), at its final size."""
    weights = _resampling(rgba.shape[1], edge)
    small = weights @ rgba @ weights.T  # (4, edge, edge)
    alpha = np.clip(small[3], 0, 255).round().astype(np.uint16)
    colour = np.minimum((np.clip(small[:3], 0, 255) * 256).astype(np.uint32), alpha.astype(np.uint32) * 255)
    return colour.astype(np.uint16), (256 - alpha).astype(np.uint16)


@lru_cache(maxsize=256)
def _resampling(source: int, target: int) -> np.ndarray:
    """Rows of a triangle filter that is wide enough not to alias: float32 (target, source)."""
    ratio = source / target
    centre = (np.arange(target) + 0.5) * ratio - 0.5
    distance = np.abs(np.arange(source)[None, :] - centre[:, None]) / max(1.0, ratio)
    weights = np.clip(1 - distance, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


@lru_cache(maxsize=256)
def _tilted(name: str, angle: int) -> np.ndarray:
    """A picture turned by some degrees: uint8 (4, edge, edge), premultiplied RGB and alpha."""
    rgba = _pictures()[name].transpose(2, 0, 1).astype(np.float32)
    rgba[:3] *= rgba[3] / 255
    if angle == 0:
        return rgba.round().astype(np.uint8)
    edge = rgba.shape[1]
    turn, middle = math.radians(angle), (edge - 1) / 2
    y, x = np.mgrid[:edge, :edge] - middle
    # A little smaller than life, so that the turned picture keeps inside its square.
    zoom = math.cos(turn) + 0.5 * abs(math.sin(turn))
    v = (math.cos(turn) * y - math.sin(turn) * x) * zoom + middle
    u = (math.sin(turn) * y + math.cos(turn) * x) * zoom + middle
    row, column = np.floor(v).astype(int), np.floor(u).astype(int)
    below, right = v - row, u - column
    padded = np.pad(rgba, ((0, 0), (1, 2), (1, 2)))

    def at(i: int, j: int) -> np.ndarray:
        return np.asarray(padded[:, np.clip(row + i + 1, 0, edge + 2), np.clip(column + j + 1, 0, edge + 2)])

    top = at(0, 0) * (1 - right) + at(0, 1) * right
    bottom = at(1, 0) * (1 - right) + at(1, 1) * right
    return np.asarray((top * (1 - below) + bottom * below).round().astype(np.uint8))
