"""A scene rendered: its script together with the arrays made from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from echopix_cli.scenes.audio import render_audio
from echopix_cli.scenes.script import Script
from echopix_cli.scenes.video import render_frames


@dataclass(frozen=True, eq=False)
class Scene:
    """What a model is given, and the script that it was made from.

    Attributes:
        script: the symbolic scene, with its questions and answers.
        times: seconds, float64 (T,).
        frames: uint8 (T, 3, H, W), one per time.
        audio: float32 (n,) in -1..1 at 16 kHz, or None without an audio track.
    """

    script: Script
    times: np.ndarray
    frames: np.ndarray
    audio: np.ndarray | None


def render(script: Script, fps: float = 2.0, size: int | tuple[int, int] = 112) -> Scene:
    """Render the whole scene at ``fps`` frames a second; ``size`` as in ``render_frames``."""
    times = np.arange(0, script.duration, 1 / fps)
    return Scene(script, times, render_frames(script, times, size), render_audio(script))
