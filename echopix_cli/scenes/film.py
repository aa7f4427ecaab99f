"""Render the picture of a filmed scene: shots, camera movements, a viewport and what surrounds it."""

from __future__ import annotations

import numpy as np

from echopix_cli.scenes.backgrounds import paint
from echopix_cli.scenes.geometry import placed, scene_boxes, shot_at, shown_times, visible
from echopix_cli.scenes.pictures import stencil
from echopix_cli.scenes.script import WHOLE, Filming, Script, Shot, Sprite
from echopix_cli.scenes.video import add_noise, draw_specks, stamp, turned

_MARGIN = 0.5  # of a frame, painted on every side of the scene's own
_FINE = 0.75  # pixels of that canvas for one of the picture


def render_film(script: Script, times: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Render the picture of a filmed scene.

    Args:
        script: with its filming.
        times: seconds.
        size: (height, width).

    Returns:
        uint8 (len(times), 3, height, width).
    """
    filming = script.filming
    assert filming is not None
    height, width = size
    frames = np.empty((len(times), 3, height, width), dtype=np.uint8)
    times = shown_times(filming, times)
    boxes = scene_boxes(filming, times, script.duration)
    shots = shot_at(filming, times)
    for number in np.unique(shots):
        own = np.nonzero(shots == number)[0]
        _paint_shot(frames, own, boxes[own], filming.shots[number])
    if script.background.specks:
        draw_specks(frames, script.background, times)
    for sprite in script.sprites:
        _draw(frames, script, sprite, times)
    if filming.viewport != WHOLE:
        _surround(frames, filming)
    if filming.gain != 1 or filming.gamma != 1:
        frames = _graded(filming)[frames]
    if script.background.noise > 0:
        add_noise(frames, script, times)
    return frames


def _paint_shot(frames: np.ndarray, own: np.ndarray, boxes: np.ndarray, shot: Shot) -> None:
    """A background that moves with the camera: each frame shows a window of one canvas."""
    height, width = frames.shape[2:]
    if (boxes == WHOLE).all():
        frames[own] = paint(shot.background, height, width)
        return
    rows, columns = (round((1 + 2 * _MARGIN) * _FINE * edge) for edge in (height, width))
    canvas = paint(shot.background, rows, columns)
    moving = bool((boxes != boxes[0]).any())
    for place, box in enumerate(boxes if moving else boxes[:1]):
        down = _window(height, rows, box[1], box[3])
        across = _window(width, columns, box[0], box[2])
        window = canvas.take(down, axis=1).take(across, axis=2)
        frames[own[place] if moving else own] = window


def _window(pixels: int, cells: int, low: float, high: float) -> np.ndarray:
    """Which cell of the canvas each pixel along one edge shows, where the scene's own frame lies from low to high."""
    inside = ((np.arange(pixels) + 0.5) / pixels - low) / (high - low)
    return np.clip((inside + _MARGIN) / (1 + 2 * _MARGIN) * cells, 0, cells - 1).astype(np.intp)


def _draw(frames: np.ndarray, script: Script, sprite: Sprite, times: np.ndarray) -> None:
    height, width = frames.shape[2:]
    centre, scale = placed(script, sprite, times)
    halves = np.round(sprite.size * scale * min(height, width) / 2).astype(int)
    edges = np.maximum(2, 2 * halves)  # even: few sizes to prepare
    corner = np.round(centre * (width, height) - edges[:, None] / 2).astype(int)
    ready = {
        edge: turned(stencil(sprite.drawing, sprite.look, sprite.angle, edge), sprite) for edge in set(edges.tolist())
    }
    for t in np.nonzero(visible(sprite, times))[0]:
        stamp(frames[t], ready[int(edges[t])], *corner[t])


def _surround(frames: np.ndarray, filming: Filming) -> None:
    height, width = frames.shape[2:]
    x0, y0, x1, y1 = (round(at * edge) for at, edge in zip(filming.viewport, (width, height) * 2, strict=True))
    around = np.zeros((3, height, width), dtype=np.uint8)
    if filming.surround is not None:
        around[:] = paint(filming.surround, height, width)
    outside = np.ones((height, width), dtype=bool)
    outside[y0:y1, x0:x1] = False
    frames[:, :, outside] = around[:, outside]


def _graded(filming: Filming) -> np.ndarray:
    """What each of the 256 levels becomes."""
    levels = filming.gain * (np.arange(256) / 255) ** filming.gamma
    return np.asarray(np.clip(np.round(255 * levels), 0, 255), dtype=np.uint8)
