"""Media room: a path goes in, a ``Clip`` (frames, waveform, true timestamps, notices) comes out.

The only room that imports ``av`` and ``soundfile``. Importing it is cheap: plans, which settings are made of,
come eagerly; everything else is imported when it is first used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from echopix_cli.media.plan import DecodePlan, Limits, parse_time

if TYPE_CHECKING:
    from echopix_cli.media.sampling import Pixels, frame_indices, resize_frames, smart_nframes, smart_resize
    from echopix_cli.media.timeline import Samples
    from echopix_cli.media.values import Clip, MediaInfo, TrackInfo

__all__ = [
    "Clip",
    "DecodePlan",
    "Limits",
    "MediaInfo",
    "TrackInfo",
    "frame_indices",
    "load_clip",
    "parse_time",
    "probe",
    "require_file",
    "resize_frames",
    "smart_nframes",
    "smart_resize",
]

_OWN = ("/dev/stdin", "/dev/fd/", "/proc/self/", "/proc/thread-self/")  # what lies there is each process's own
_HOMES = {
    **dict.fromkeys(("Clip", "MediaInfo", "TrackInfo"), "echopix_cli.media.values"),
    **dict.fromkeys(("frame_indices", "resize_frames", "smart_nframes", "smart_resize"), "echopix_cli.media.sampling"),
}


def load_clip(
    path: str | os.PathLike[str],
    plan: DecodePlan | None = None,
    *,
    heard: Callable[[Samples], None] | None = None,
    arrived: Callable[[Pixels, int], None] | None = None,
) -> Clip:
    """Decode what ``plan`` asks for (default: ``DecodePlan()``) from one local media file.

    The callbacks let work on the clip begin while it is still being decoded. They are called by the thread that
    decodes, which waits for them; what they take counts towards ``plan.limits.max_memory``, as all that the process
    takes meanwhile. What one raises ends the decoding, and is raised here as it is.

    Args:
        heard: is called with the clip's own ``waveform``, complete, before the first frame is decoded; not if there
            is no sound.
        arrived: is called with ``frames``, uint8 ``(T, 3, H, W)``, and ``ready``, each time that ``ready`` has grown:
            so many frames, from the first one on, are final; what lies behind them is undefined. It is always the
            same array. Where nothing is lost, ``ready`` ends at ``T``, and the array is the clip's: ``clip.frames is
            frames``. Where frames could not be decoded, ``clip.frames`` is another, shorter array that begins with
            the same ``ready`` frames; where no clip comes of it, an error is raised after calls were made.

    Raises:
        MediaError: the file cannot be opened, exceeds a limit, or nothing of the span can be used.
    """
    from echopix_cli.media.load import load_clip as load

    return load(path, plan or DecodePlan(), heard=heard, arrived=arrived)


def require_file(path: str | os.PathLike[str]) -> None:
    """Check that there is a regular, readable, non-empty file, without looking into it.

    Raises:
        MediaError: there is not, or it has no name of its own.
    """
    from echopix_cli.errors import MediaError
    from echopix_cli.media.source import open_regular

    open_regular(path).close()
    if (name := os.fsdecode(path)).startswith(_OWN):  # others read the file, for whom that is another one, or none
        raise MediaError(f"{name} is an open file of this process", "give the file's own name")


def probe(path: str | os.PathLike[str], limits: Limits = Limits()) -> MediaInfo:  # noqa: B008 - frozen
    """Describe a media file without decoding more than one frame of each video track.

    Raises:
        MediaError: the file cannot be opened as media, or exceeds a limit.
    """
    from echopix_cli.media.load import probe as look

    return look(path, limits)


def __getattr__(name: str) -> object:
    """Import values and the numpy-based helpers on first use, so that ``--help`` stays instant (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
