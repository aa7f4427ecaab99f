"""When sampling looks at a scene."""

from __future__ import annotations

import numpy as np

FRAMES = 16
SOURCE_FPS = 25.0  # frames of a rendered mp4; sampling takes the first and the last of them


def sample_times(duration: float, jitter: float = 0.0) -> np.ndarray:
    """Times of the frames that sampling takes from a rendered file, (FRAMES,) seconds."""
    last = duration - 1.0 / SOURCE_FPS
    return np.clip(np.linspace(0.0, last, FRAMES) + jitter, 0.0, last)
