"""Several channels of sound as one.

Two are averaged, as the model family does (librosa's ``to_mono``). FFmpeg's own downmix to float does not normalise:
sound that is equal in both channels would come out 1.41 times too loud. Of more, each has the weight that FFmpeg gives
it, normalised: speech is in the centre, and the low-frequency channel only doubles what the others hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from echopix_cli.media.timeline import Samples

_FRONT, _CENTRE, _AROUND = 0.5**0.5, 1.0, 0.5
_WEIGHTS = {
    **dict.fromkeys(("FL", "FR", "FLC", "FRC", "DL", "DR", "WL", "WR"), _FRONT),
    **dict.fromkeys(("LFE", "LFE2"), 0.0),
    "FC": _CENTRE,
}
_CANCELLED = 0.01  # of the energy that unrelated channels would keep: by 20 dB less comes from opposite phase
_AUDIBLE = 1e-10  # mean square, full scale at ±1

Planes = np.ndarray[Any, np.dtype[np.float32]]


class Downmix:
    """Averages channels, block by block, and takes one of them where they cancel each other out."""

    def __init__(self) -> None:
        self.cancelled = False  # whether that happened
        self._louder: int | None = None  # the channel that was taken

    def mix(self, planes: Planes, speakers: Sequence[str] = ()) -> Samples:
        """One channel, float32 ``(n,)``, of a block, float32 ``(channels, n)``.

        Args:
            speakers: FFmpeg's short names of the channels' places; none if they are unknown.
        """
        if len(planes) < 2:
            only: Samples = np.ascontiguousarray(planes[0])
            return only
        if len(planes) == 2 or not speakers:
            weights = np.full(len(planes), 1 / len(planes), np.float32)
            with np.errstate(invalid="ignore", over="ignore"):  # damaged float sound holds anything
                mixed: Samples = planes.mean(axis=0, dtype=np.float32)
        else:
            weights = np.array([_WEIGHTS.get(name, _AROUND) for name in speakers], np.float32)
            weights /= weights.sum() or 1.0
            with np.errstate(invalid="ignore", over="ignore"):
                mixed = weights @ planes
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.square(weights) * np.array([_energy(plane) for plane in planes])
            if not (apart.sum() > _AUDIBLE and _energy(mixed) < _CANCELLED * apart.sum()):
                return mixed
        self.cancelled = True
        before = self._louder  # it is kept, or two equal ones would take turns
        if before is None or before >= len(apart) or apart[before] < apart.max() / 2:
            before = self._louder = int(apart.argmax())
        louder: Samples = np.ascontiguousarray(planes[before])
        return louder


def _energy(samples: Samples) -> float:
    """The mean square of a block."""
    return float(np.dot(samples, samples)) / max(1, samples.size)
