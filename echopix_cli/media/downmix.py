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
_EQUAL = 0.98  # of the loudest channel's energy: of channels as loud as that the first is taken
_STEPS = 50  # a second: how often it is decided
_WINDOW = 0.25  # seconds, up to each step, that decide: two tones a hertz apart cancel each other for moments only

Planes = np.ndarray[Any, np.dtype[np.float32]]


class Downmix:
    """Averages channels and takes one of them where they cancel each other out, whatever blocks they come in."""

    def __init__(self) -> None:
        self._cancelled = False  # whether that happened, by a whole window
        self._so_far = False  # the same of what was heard before there was a whole one
        self._louder: int | None = None  # the channel that was taken
        self._kind: tuple[int, int] | None = None  # channels and rate of what was heard last
        self._heard = 0  # samples of that kind
        self._lengths = np.zeros(0, np.int64)  # (steps,) samples in each of the last steps, a window's at most
        self._energies = np.zeros((0, 0))  # (1 + channels, steps) squares summed: the mix, and each weighted channel

    @property
    def cancelled(self) -> bool:
        """Whether channels cancelled each other out, and one of them was taken."""
        return self._cancelled or self._so_far

    def forget_cancelled(self) -> None:
        """Let :attr:`cancelled` tell only of what comes from here on."""
        self._cancelled = self._so_far = False

    def mix(self, planes: Planes, rate: int, speakers: Sequence[str] = ()) -> Samples:
        """One channel, float32 ``(n,)``, of a block, float32 ``(channels, n)``.

        Args:
            rate: samples per second.
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
        if not mixed.size:
            return mixed
        lengths, opposite = self._opposite(mixed, planes, weights, rate)
        if not opposite.any():
            return mixed
        apart = self._energies[1:].sum(axis=1)
        before = self._louder  # it is kept, or two equal ones would take turns
        if before is None or before >= len(apart) or apart[before] < apart.max() / 2:
            before = self._louder = int(np.argmax(apart >= _EQUAL * apart.max()))
        louder: Samples = np.where(np.repeat(opposite, lengths), planes[before], mixed)
        return louder

    def _opposite(
        self, mixed: Samples, planes: Planes, weights: Samples, rate: int
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.bool_]]]:
        """Samples in each step of a block, and whether channels cancelled out in the window that ends with it."""
        if self._kind != (len(planes), rate):
            self._kind, self._heard = (len(planes), rate), 0
            self._lengths, self._energies = np.zeros(0, np.int64), np.zeros((1 + len(planes), 0))
        step = max(1, rate // _STEPS)
        fresh = np.diff(np.append(np.arange(0, mixed.size, step), mixed.size))
        with np.errstate(invalid="ignore", over="ignore"):
            energies = np.stack([_energies(samples, step) for samples in (mixed, *planes)])
            energies[1:] *= np.square(weights)[:, None]
        energies[:, ~np.isfinite(energies).all(axis=0)] = 0.0
        lengths = np.concatenate((self._lengths, fresh))
        energies = np.concatenate((self._energies, energies), axis=1)
        ends, window = np.cumsum(lengths), round(_WINDOW * rate)
        first = np.searchsorted(ends - lengths, ends - window)  # of each step's window; a step longer than it: itself
        first = np.minimum(first, np.arange(len(ends)))
        sums = np.concatenate((np.zeros((len(energies), 1)), np.cumsum(energies, axis=1)), axis=1)
        sums = sums[:, 1:] - sums[:, first]
        apart = sums[1:].sum(axis=0)
        audible = apart > _AUDIBLE * (ends - (ends - lengths)[first])
        opposite = (audible & (sums[0] < _CANCELLED * apart))[-len(fresh) :]
        complete = self._heard + np.cumsum(fresh) >= window
        self._cancelled |= bool(opposite[complete].any())
        self._so_far = not complete[-1] and bool(opposite[-1])
        self._heard += mixed.size
        self._lengths, self._energies = lengths[first[-1] :], energies[:, first[-1] :]
        return fresh, opposite


def _energies(samples: Samples, step: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The squares summed, float64 ``(steps,)``, of each so many samples, of which the last may be fewer."""
    whole = samples.size // step * step
    parts, rest = samples[:whole].reshape(-1, step), samples[whole:]
    sums = np.einsum("ij,ij->i", parts, parts)
    return np.append(sums, np.dot(rest, rest)).astype(np.float64) if rest.size else sums.astype(np.float64)
