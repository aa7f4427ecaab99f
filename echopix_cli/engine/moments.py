"""Where an answer rests: spans of media time in which the kept tokens lie, weighed by what the answer was read from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from echopix_cli.engine.encoded import Encoded, Spans
from echopix_cli.engine.posing import Sift
from echopix_cli.model.positions import SpecialTokens
from echopix_cli.results import KeptToken, Moment

_GAP = 1.0  # seconds between tokens of one moment
_BRIGHT = 0.25  # of the weight of the weightiest second: seconds of less and of more do not share a moment


def moments_of(encoded: Encoded, sift: Sift, attention: Tensor, special: SpecialTokens) -> tuple[Moment, ...]:
    """The kept tokens as moments, those with the largest share first.

    Tokens of one modality that are at most a second apart are one moment, unless one lies in a second that got little
    attention and the other in one that got much. A moment's share is the sum of its tokens'.

    Args:
        encoded: what was asked about.
        sift: what was kept of it.
        attention: (K,) that the kept rows get, from :func:`~echopix_cli.model.relevance.last_attention`.
        special: ids of the placeholders.
    """
    spans_of = dict(zip(("video", "audio"), encoded.spans, strict=True))
    found = []
    for modality, places, shares in _kept(sift, attention, special):
        found += _merged(modality, spans_of[modality][places], shares)
    return tuple(sorted(found, key=lambda moment: (-moment.share, moment.start, moment.modality)))


def kept_tokens_of(encoded: Encoded, sift: Sift, attention: Tensor, special: SpecialTokens) -> tuple[KeptToken, ...]:
    """The kept tokens one by one: those of the picture in order of time, then those of the sound."""
    shown, heard = encoded.spans
    boxes = encoded.boxes
    tokens = []
    for modality, places, shares in _kept(sift, attention, special):
        spans = (shown if modality == "video" else heard)[places].tolist()
        edges = boxes[places].tolist() if modality == "video" else [None] * len(spans)
        for (start, end), share, box in zip(spans, shares.tolist(), edges, strict=True):
            tokens.append(KeptToken(start, end, modality, share, None if box is None else tuple(box)))
    return tuple(sorted(tokens, key=lambda token: (token.modality == "audio", token.start)))


def _kept(sift: Sift, attention: Tensor, special: SpecialTokens) -> Iterator[tuple[str, Spans, Spans]]:
    """Of each modality its name, the places (n,) of kept tokens among its rows, and their shares (n,).

    A token's share is its part of the attention to all kept tokens of picture and sound.
    """
    ids, kept = sift.prompt.input_ids[0], sift.sieved.kept[0]
    in_pool = special.in_pool(ids[kept])
    kept, found = kept[in_pool], attention[in_pool].double()
    if not len(kept):
        return
    shares = (found / found.sum()).cpu().numpy()
    for modality, tokens in (("video", (special.video, special.image)), ("audio", (special.audio,))):
        mine = torch.isin(ids, torch.tensor(tokens, device=ids.device))
        chosen = mine[kept].cpu().numpy()
        yield modality, _ordinals(mine)[kept].cpu().numpy()[chosen], shares[chosen]


def _ordinals(mine: Tensor) -> Tensor:
    """The number of each row among those of its modality."""
    return mine.cumsum(0) - 1


def _merged(modality: str, spans: Spans, weights: Spans) -> list[Moment]:
    """Moments of tokens with their spans (n, 2) and weights (n,): joined where they are close and alike in weight."""
    if not len(spans):
        return []
    seconds = spans[:, 0].astype(np.int64)
    by_second = np.bincount(seconds, weights)
    bright = by_second[seconds] >= _BRIGHT * by_second.max()
    order = np.argsort(spans[:, 0], kind="stable")
    moments: list[Moment] = []
    last_bright = False
    for place in order.tolist():
        (start, end), weight, lit = spans[place].tolist(), float(weights[place]), bool(bright[place])
        if moments and start <= moments[-1].end + _GAP and lit == last_bright:
            last = moments[-1]
            moments[-1] = Moment(last.start, max(last.end, end), modality, last.share + weight)
        else:
            moments.append(Moment(start, end, modality, weight))
        last_bright = lit
    return moments
