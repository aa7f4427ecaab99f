"""Render the picture of any script."""

from __future__ import annotations

import numpy as np

from echopix_cli.scenes.film import render_film
from echopix_cli.scenes.script import Script
from echopix_cli.scenes.video import render_plain


def render_frames(script: Script, times: np.ndarray, size: int | tuple[int, int] = 112) -> np.ndarray:
    """Render the picture at the given times.

    Args:
        script: the scene.
        times: seconds, any number in any order; the same time always gives the same frame.
        size: edge length of a square frame, or (height, width).

    Returns:
        uint8 (len(times), 3, height, width).
    """
    edges = (size, size) if isinstance(size, int) else size
    render = render_plain if script.filming is None else render_film
    return render(script, np.asarray(times, dtype=np.float64), edges)
