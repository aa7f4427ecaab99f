"""Where sprites are: in the scene's own frame, and in the picture that a camera makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from echopix_cli.scenes.script import Box, Evidence, Filming, Script, Span, Sprite

_EASE = 0.1  # seconds in which a hop leaves and returns
MOMENT = 1e-6  # seconds: just before


def centres(sprite: Sprite, times: np.ndarray) -> np.ndarray:
    """Where the sprite's centre is: float (len(times), 2), x and y in 0..1, whether visible or not."""
    start, end = sprite.show
    along = np.clip((times - start) / max(end - start, 1e-6), 0, 1)[:, None]
    begin, finish = np.array(sprite.path[:2]), np.array(sprite.path[2:])
    lift = np.zeros(len(times))
    for hop_start, hop_end in sprite.hops:
        lift = np.maximum(lift, np.clip(np.minimum(times - hop_start, hop_end - times) / _EASE, 0, 1))
    return np.asarray(begin + (finish - begin) * along + lift[:, None] * np.array(sprite.hop))


def visible(sprite: Sprite, times: np.ndarray) -> np.ndarray:
    """Whether the sprite is on screen: bool (len(times),)."""
    return np.asarray((times >= sprite.show[0]) & (times < sprite.show[1]))


def away(sprite: Sprite, times: np.ndarray) -> np.ndarray:
    """Whether the sprite is in the middle of a hop: bool (len(times),)."""
    inside = [(times >= start) & (times < end) for start, end in sprite.hops]
    return np.any(inside, axis=0) if inside else np.zeros(len(times), dtype=bool)


def placed(script: Script, sprite: Sprite, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the camera shows a sprite: its centre (len(times), 2), in 0..1, and the scale of its size (len(times),)."""
    if script.filming is None:
        return centres(sprite, times), np.ones(len(times))
    times = shown_times(script.filming, times)
    boxes = scene_boxes(script.filming, times, script.duration)
    edges = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + edges * centres(sprite, times), edges.min(axis=1)


def shown_times(filming: Filming, times: np.ndarray) -> np.ndarray:
    """When the frames were taken that are on screen at these times."""
    return np.asarray(np.floor(times * filming.fps + 1e-6) / filming.fps)


def shot_at(filming: Filming, times: np.ndarray) -> np.ndarray:
    """Which shot is on at each time."""
    return np.searchsorted([shot.start for shot in filming.shots], times, side="right") - 1


def scene_boxes(filming: Filming, times: np.ndarray, duration: float) -> np.ndarray:
    """Where in the picture the scene's own frame lies, float (len(times), 4) as (x0, y0, x1, y1)."""
    shots = filming.shots
    own = shot_at(filming, times)
    starts = np.array([*(shot.start for shot in shots), duration])
    along = ((times - starts[own]) / (starts[own + 1] - starts[own]))[:, None]
    begin, finish = np.array([shot.begin for shot in shots]), np.array([shot.finish for shot in shots])
    inside = begin[own] + along * (finish[own] - begin[own])
    x0, y0, x1, y1 = filming.viewport
    return np.asarray((x0, y0, x0, y0) + inside * (x1 - x0, y1 - y0, x1 - x0, y1 - y0))


def filmed(script: Script, evidence: Evidence) -> Evidence:
    """Evidence whose box lies in the scene's own frame, with the box that the camera makes of it."""
    filming = script.filming
    if filming is None or evidence.box is None:
        return evidence
    cuts = [shot.start for shot in filming.shots if evidence.start < shot.start < evidence.end]
    moments = [evidence.start, *cuts, *(at - MOMENT for at in (*cuts, evidence.end))]
    boxes = [_scene_box(filming, moment, script.duration) for moment in moments]  # a camera moves along straight lines
    x0, y0, x1, y1 = evidence.box
    return replace(
        evidence,
        box=(
            max(0.0, min(a + x0 * (c - a) for a, _, c, _ in boxes)),
            max(0.0, min(b + y0 * (d - b) for _, b, _, d in boxes)),
            min(1.0, max(a + x1 * (c - a) for a, _, c, _ in boxes)),
            min(1.0, max(b + y1 * (d - b) for _, b, _, d in boxes)),
        ),
    )


def _scene_box(filming: Filming, time: float, duration: float) -> Box:
    """``scene_boxes`` for one time, without the cost of NumPy."""
    shots = filming.shots
    number = max(place for place, shot in enumerate(shots) if place == 0 or shot.start <= time)
    shot = shots[number]
    end = shots[number + 1].start if number + 1 < len(shots) else duration
    along = (time - shot.start) / (end - shot.start)
    x0, y0, x1, y1 = (a + along * (b - a) for a, b in zip(shot.begin, shot.finish, strict=True))
    left, top, right, bottom = filming.viewport
    wide, high = right - left, bottom - top
    return left + x0 * wide, top + y0 * high, left + x1 * wide, top + y1 * high


def box_over(sprite: Sprite, span: Span) -> Box:
    """The smallest box that holds the sprite throughout the span, cut to the frame."""
    moments = [span[0], span[1]]
    for start, end in sprite.hops:
        if start < span[1] and end > span[0]:
            moments += [max(start, span[0]), max(span[0], min((start + end) / 2, span[1])), min(end, span[1])]
    places = [_centre(sprite, moment) for moment in moments]
    half = sprite.size / 2
    x, y = [place[0] for place in places], [place[1] for place in places]
    low, high = (min(x) - half, min(y) - half), (max(x) + half, max(y) + half)
    return (max(0.0, low[0]), max(0.0, low[1]), min(1.0, high[0]), min(1.0, high[1]))


def _centre(sprite: Sprite, time: float) -> tuple[float, float]:
    """``centres`` for one time, without the cost of NumPy: scripts are written by the thousand."""
    start, end = sprite.show
    along = min(max((time - start) / max(end - start, 1e-6), 0.0), 1.0)
    lift = max((min(time - a, b - time) / _EASE for a, b in sprite.hops), default=0.0)
    lift = min(max(lift, 0.0), 1.0)
    x0, y0, x1, y1 = sprite.path
    return x0 + (x1 - x0) * along + lift * sprite.hop[0], y0 + (y1 - y0) * along + lift * sprite.hop[1]
