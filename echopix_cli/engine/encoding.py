"""The towers over a clip, a slice at a time, as it is decoded.

Neither tower joins one stretch of time with the next: vision attention stays within a grid step (two frames), audio
attention within two seconds. So slices give what one pass over everything would, memory beside the features does not
grow with the clip, and the sound and the first frames can be encoded while later frames are still being decoded.
"""

from __future__ import annotations

import math
from contextlib import closing

import torch
from torch import Tensor

from echopix_cli.decoding.worker import Heard, Ready, borrowed
from echopix_cli.engine.meters import Clock
from echopix_cli.media import Clip, DecodePlan
from echopix_cli.media.sampling import Pixels
from echopix_cli.media.timeline import Samples
from echopix_cli.model.processing import ClipInputs, PixelRules, grid_end_of, grid_times_of, hear, patchify
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.model.values import audio_row_counts

_MEL_FRAMES_A_ROW = 4  # what the tower makes one row of


def slice_steps(device: torch.device) -> int:
    """Grid steps of the picture in one slice, four seconds or eight at two frames a second.

    A GPU takes more: what its launches cost the host is the same for any slice.
    """
    return 8 if device.type == "cpu" else 16


def slice_mel_frames(device: torch.device) -> int:
    """Log-mel frames of the sound in one slice: whole windows of the tower, of two seconds each."""
    return 1400 if device.type == "cpu" else 6000


class ClipEncoder:
    """The towers over the parts of a clip as they become ready; then the rest, and everything that was made.

    Args:
        thinker: with the towers.
        rules: how frames become patches.
        clock: takes the time of ``vision`` and ``audio``; patches and log-mel count as part of their towers, for
            they exist for nothing else.
    """

    def __init__(self, thinker: EchoingPixelsThinker, rules: PixelRules, clock: Clock) -> None:
        self.thinker, self._rules, self._clock, self._device = thinker, rules, clock, clock.device
        self._frames: Pixels | None = None
        self._seen: Tensor | None = None
        self._encoded = 0
        self._waveform: Samples | None = None
        self._heard: Tensor | None = None
        self._rows = 0

    def listen(self, waveform: Samples) -> None:
        """Encode a whole sound, 16 kHz (n,)."""
        with self._clock.stage("audio"):
            mel, self._rows = hear(waveform)
            self._heard = None if mel is None else encode_sound(self.thinker, mel, self._device)
            self._waveform = waveform

    def look(self, frames: Pixels, ready: int) -> None:
        """Encode every whole slice among the first ``ready`` of ``frames`` (T, 3, H, W) that is not encoded yet.

        Frames of another array than before are another picture, of which nothing is encoded yet.
        """
        if frames is not self._frames:
            self._frames, self._seen, self._encoded = frames, None, 0
        size = slice_steps(self._device) * self._rules.temporal_patch_size
        with self._clock.stage("vision"):
            while self._encoded < ready and (self._encoded + size <= ready or ready == len(frames)):
                self._slice(frames, self._encoded, min(self._encoded + size, ready))

    @torch.inference_mode()
    def _slice(self, frames: Pixels, begin: int, end: int) -> None:
        # As bytes to the device, and only there as floats: an eighth of the transfer, and none of the host's time.
        pixels, grid = patchify(torch.from_numpy(frames[begin:end]).to(self._device), self._rules)
        depth = self._rules.temporal_patch_size
        per_step = grid[1] * grid[2] // self._rules.merge_size**2
        if self._seen is None:
            count = -(-len(frames) // depth) * per_step
            self._seen = _features(self.thinker, count, self.thinker.visual.dtype, self._device)
        first = begin // depth * per_step
        rows = self.thinker.encode_pixels(pixels, torch.tensor([grid]))
        self._seen[first : first + len(rows)] = rows
        self._encoded = end

    def finish(self, clip: Clip) -> tuple[ClipInputs, Tensor | None, Tensor | None]:
        """A decoded clip's grid, times and rows, and its features of picture and sound, (rows, d) each.

        What was taken before counts where it is what the clip holds.
        """
        rules, video, audio, grid = self._rules, None, None, None
        if clip.waveform is not None:
            if clip.waveform is not self._waveform:
                self.listen(clip.waveform)
            audio = self._heard
        if clip.frames is not None:
            self.look(clip.frames, len(clip.frames))
            video = self._seen
            steps, _, height, width = clip.frames.shape
            grid = (-(-steps // rules.temporal_patch_size), height // rules.patch_size, width // rules.patch_size)
        rows = 0 if audio is None else self._rows
        inputs = ClipInputs(
            grid_thw=grid,
            grid_times=grid_times_of(clip, rules),
            grid_end=grid_end_of(clip),
            audio_rows=rows,
            merge_size=rules.merge_size,
        )
        return inputs, video, audio


@torch.inference_mode()
def encode_sound(thinker: EchoingPixelsThinker, mel: Tensor, device: torch.device) -> Tensor:
    """The audio tower over log-mel (128, frames) → features (rows, d), 25 rows a second."""
    count = int(audio_row_counts(torch.tensor(mel.shape[1])))
    features = _features(thinker, count, thinker.audio_tower.dtype, device)
    whole = math.lcm(2 * thinker.config.audio_config.n_window, _MEL_FRAMES_A_ROW)  # frames: windows, and rows
    size = max(1, slice_mel_frames(device) // whole) * whole
    for begin in range(0, mel.shape[1], size):
        part = mel[:, begin : begin + size]
        frames = torch.tensor([part.shape[1]])
        first = begin // _MEL_FRAMES_A_ROW
        if first < count:  # else what is left is too short for a row
            features[first : first + size // _MEL_FRAMES_A_ROW] = thinker.encode_mel(part[None].to(device), frames)
    return features


def _features(thinker: EchoingPixelsThinker, rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Room for what a tower makes: whole before the first slice, so that nothing is held twice when they are joined."""
    return torch.empty(rows, thinker.config.text_config.hidden_size, dtype=dtype, device=device)


def decode_beside(encoder: ClipEncoder, path: str, plan: DecodePlan, clock: Clock) -> Clip:
    """Decode a file in a process of its own, and encode here what is ready.

    On the clock, ``decode`` is the time spent waiting for something to encode: what towers and decoding hide of one
    another counts once.

    Args:
        encoder: takes sound and frames.
        path: of the file.
        plan: what to take from it.

    Raises:
        MediaError: as :func:`~echopix_cli.media.load_clip`; or the decoder crashed.
    """
    with borrowed() as worker, closing(worker.stream(path, plan)) as parts:
        while True:
            with clock.stage("decode"):
                part = next(parts)
            if isinstance(part, Heard):
                encoder.listen(part.waveform)
            elif isinstance(part, Ready):
                encoder.look(part.frames, part.count)
            else:
                return part.clip
