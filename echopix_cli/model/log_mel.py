"""Sound as the family's audio tower hears it: log-mel as Whisper's, of any length."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from echopix_cli.media.values import SAMPLE_RATE

BINS = 128
_WINDOW, _HOP = 400, 160  # samples: 25 ms, every 10 ms
_HIGHEST = 8000.0  # Hz of the last bin's end
_RANGE = 8.0  # powers of ten below the loudest, at which quieter is cut off


def log_mel(waveform: npt.NDArray[np.float32]) -> Tensor:
    """16 kHz waveform (n,) → log-mel (128, ceil(n / 160)), 100 frames a second, of any length.

    The family pads every sound with silence to 300 s and cuts it there. Only the silence within reach of
    the last window matters, so that much is added and no more, and nothing is cut.
    """
    frames = -(-len(waveform) // _HOP)
    padded = torch.from_numpy(np.pad(waveform, (0, _WINDOW + _HOP)).astype(np.float32, copy=False))
    spectrum = torch.stft(padded, _WINDOW, _HOP, window=torch.hann_window(_WINDOW), return_complex=True)
    power = (spectrum[:, :-1].abs() ** 2).contiguous()
    logarithm = (_mel_filters() @ power).clamp(min=1e-10).log10()
    return ((torch.maximum(logarithm, logarithm.max() - _RANGE) + 4.0) / 4.0)[:, :frames]


@cache
def _mel_filters() -> Tensor:
    """Triangles (128, 201) over the frequencies of a spectrum, spaced and normalised as in Slaney's Auditory Toolbox.

    Mels are linear in Hz up to 1000 Hz (15 mels), and logarithmic above.
    """
    step = np.log(6.4) / 27.0
    mels = np.linspace(0.0, 15.0 + np.log(_HIGHEST / 1000.0) / step, BINS + 2)
    edges = np.where(mels < 15.0, 200.0 * mels / 3.0, 1000.0 * np.exp(step * (mels - 15.0)))
    slopes = edges[None, :] - np.linspace(0, SAMPLE_RATE // 2, _WINDOW // 2 + 1)[:, None]
    widths = np.diff(edges)
    triangles = np.maximum(0.0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    triangles *= 2.0 / (edges[2:] - edges[:-2])
    return torch.from_numpy(triangles).to(torch.float32).T
