"""Where an answer rests: spans of media time in which the kept tokens lie."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from echopix_cli.engine.encoded import Encoded, Spans
from echopix_cli.engine.posing import Sift
from echopix_cli.model.positions import SpecialTokens
from echopix_cli.results import Moment

_GAP = 1.0  # seconds between tokens of one moment


def moments_of(encoded: Encoded, sift: Sift, special: SpecialTokens) -> tuple[Moment, ...]:
    """The kept tokens as moments, those with the largest share first.

    A token counts as the sieve's softmax over the pool weighs it (paper, CS2: the weights of the straight-through
    choice). Tokens of one modality that are at most a second apart are one moment.
    """
    ids, kept = sift.prompt.input_ids[0], sift.sieved.kept[0]
    in_pool = torch.isin(ids, torch.tensor(special.placeholders, device=ids.device))
    kept = kept[in_pool[kept]]
    if not len(kept):
        return ()
    weights = sift.sieved.scores[0][kept].double().softmax(0).cpu().numpy()
    found = []
    spans_of = dict(zip(("video", "audio"), encoded.spans, strict=True))
    for modality, tokens in (("video", (special.video, special.image)), ("audio", (special.audio,))):
        mine = torch.isin(ids, torch.tensor(tokens, device=ids.device))
        places = _ordinals(mine)[kept].cpu().numpy()
        chosen = mine[kept].cpu().numpy()
        found += _merged(modality, spans_of[modality][places[chosen]], weights[chosen])
    return tuple(sorted(found, key=lambda moment: (-moment.share, moment.start, moment.modality)))


def _ordinals(mine: Tensor) -> Tensor:
    """The number of each row among those of its modality."""
    return mine.cumsum(0) - 1


def _merged(modality: str, spans: Spans, weights: Spans) -> list[Moment]:
    """Moments of tokens with their spans (n, 2) and weights (n,)."""
    order = np.argsort(spans[:, 0], kind="stable")
    moments: list[Moment] = []
    for (start, end), weight in zip(spans[order].tolist(), weights[order].tolist(), strict=True):
        if moments and start <= moments[-1].end + _GAP:
            last = moments[-1]
            moments[-1] = Moment(last.start, max(last.end, end), modality, last.share + weight)
        else:
            moments.append(Moment(start, end, modality, weight))
    return moments
