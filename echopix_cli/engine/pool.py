"""The rows of all windows of a film, as one pool of which the highest are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.posing import Posed
from echopix_cli.model.positions import SpecialTokens


@dataclass
class Pool:
    """The highest rows of all windows seen so far, for one question. Rows are in no order."""

    scores: Tensor  # (n,)
    rows: Tensor  # (n, d)
    is_audio: Tensor  # (n,)
    windows: Tensor  # (n,)
    places: Tensor  # (n,) in the prompt of their window
    positions: Tensor  # (3, n) relative to the start of their window's block
    spans: Tensor  # (n, 2) seconds
    boxes: Tensor  # (n, 4) parts of the frame, as of Encoded.boxes; zeros for sound

    @classmethod
    def of(cls, encoded: Encoded, posed: Posed, special: SpecialTokens, ranking: Tensor, window: int) -> Pool:
        """The rows of one window that may be kept, with their ``ranking`` (L,).

        All of it is on the host: each question has one.
        """
        prompt = posed.prompt
        ids = prompt.input_ids[0]
        pool = special.in_pool(ids)
        places = (pool & ranking.isfinite()).nonzero()[:, 0]
        first = int(pool.nonzero()[0])
        positions = prompt.position_ids[:3, 0]
        relative = (positions[:, places] - positions[0, first - 1] - 1).cpu()
        is_audio = ids == special.audio
        shown, heard = encoded.spans
        picture, sound = (pool & ~is_audio).cpu().numpy(), is_audio.cpu().numpy()
        spans, boxes = np.zeros((len(ids), 2)), np.zeros((len(ids), 4))
        spans[picture], spans[sound], boxes[picture] = shown, heard, encoded.boxes
        return cls(
            scores=ranking[places].double().cpu(),
            rows=prompt.embeds[0, places].cpu(),
            is_audio=is_audio[places].cpu(),
            windows=torch.full((len(places),), window),
            places=places.cpu(),
            positions=relative,
            spans=torch.from_numpy(spans)[places.cpu()],
            boxes=torch.from_numpy(boxes)[places.cpu()],
        )

    def taken(self, index: Tensor) -> Pool:
        """Those of an index (m,), or of a mask (n,)."""
        return Pool(
            self.scores[index],
            self.rows[index],
            self.is_audio[index],
            self.windows[index],
            self.places[index],
            self.positions[:, index],
            self.spans[index],
            self.boxes[index],
        )

    def joined(self, other: Pool) -> Pool:
        """Both."""
        return Pool(
            torch.cat((self.scores, other.scores)),
            torch.cat((self.rows, other.rows)),
            torch.cat((self.is_audio, other.is_audio)),
            torch.cat((self.windows, other.windows)),
            torch.cat((self.places, other.places)),
            torch.cat((self.positions, other.positions), dim=1),
            torch.cat((self.spans, other.spans)),
            torch.cat((self.boxes, other.boxes)),
        )

    def best(self, count: int, audio: int | None = None) -> Pool:
        """The ``count`` highest, or so many of the picture and ``audio`` of the sound; earlier rows win ties."""
        if audio is not None:
            return self.taken(~self.is_audio).best(count).joined(self.taken(self.is_audio).best(audio))
        if len(self.scores) <= count:
            return self
        order = np.lexsort((self.places.numpy(), self.windows.numpy(), -self.scores.numpy()))
        return self.taken(torch.from_numpy(order[:count].copy()))
