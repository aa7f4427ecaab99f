"""One training pass: a batch through towers, sieve and decoder to the logits and the loss of its answers.

Trainer, validation and the check against the authors' vectors all run :func:`answer_pass`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.processing import normalise
from echopix_cli.model.values import IGNORE, Prompt, Selection, Sieved
from echopix_cli.training.batch import Batch, Targets

_LARGEST_SHIFT, _WIDEST_BAND = 3, 20  # mel bins


@dataclass(frozen=True)
class Features:
    """Tower outputs of a batch: (video rows, d) and (audio rows, d)."""

    video: Tensor | None
    audio: Tensor | None


def hide_bands(mel: Tensor, frames: Tensor, share: float) -> Tensor:
    """SpecAugment (Park et al. 2019) with a shift: a share of the sounds is moved by up to 3 mel bins, and up to two
    bands of each are replaced by the sound's mean, so that no single band identifies an instrument.

    Args:
        mel: (sounds, 128, frames).
        frames: (sounds,) how many of the frames are real; a hidden band has the sound's own mean.
        share: of the sounds that are changed.
    """
    count, bins, _ = mel.shape
    device = mel.device
    where = torch.arange(bins, device=device)
    moved = (where + torch.randint(-_LARGEST_SHIFT, _LARGEST_SHIFT + 1, (count, 1), device=device)).clamp(0, bins - 1)
    first = torch.randint(0, bins, (count, 2, 1), device=device)
    width = torch.randint(0, _WIDEST_BAND, (count, 2, 1), device=device)
    hidden = ((where >= first) & (where < first + width)).any(dim=1)
    changed = mel.gather(1, moved[:, :, None].expand_as(mel))
    mean = changed.sum(dim=(1, 2), keepdim=True) / (bins * frames[:, None, None])  # what is not real is 0
    changed = torch.where(hidden[:, :, None], mean, changed)
    return torch.where(torch.rand(count, 1, 1, device=device) < share, changed, mel)


def encode(
    model: EchoingPixelsForConditionalGeneration, batch: Batch, train_towers: bool = True, hide: float = 0.0
) -> tuple[Prompt, Features]:
    """Towers and embeddings of a batch, with its positions; without ``train_towers`` no gradient reaches the towers.

    ``hide`` is the share of sounds that :func:`hide_bands` changes.
    """
    thinker, video, audio = model.thinker, None, None
    grids = [grid for grid in batch.grids if grid is not None]
    with torch.set_grad_enabled(train_towers and torch.is_grad_enabled()):
        if batch.patches is not None:
            pixels = normalise(batch.patches, batch.rules)
            video = thinker.encode_pixels(pixels, torch.tensor(_joined_grids(grids)))
        if batch.mel is not None and batch.mel_frames is not None:
            audio = thinker.encode_mel(
                hide_bands(batch.mel, batch.mel_frames, hide) if hide else batch.mel, batch.mel_frames
            )
    prompt = thinker.place(
        batch.input_ids,
        attention_mask=batch.attention_mask,
        video_features=None if video is None else video.index_select(0, batch.video_index),
        audio_features=None if audio is None else audio.index_select(0, batch.audio_index),
        positions=(batch.positions, batch.rope_deltas),
    )
    return prompt, Features(video, audio)


def _joined_grids(grids: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Grids of one size after another as one grid that is as long as all of them.

    No attention crosses a step of the grid, so the tower makes the same of it, without going from clip to clip.
    """
    joined: list[tuple[int, int, int]] = []
    for t, h, w in grids:
        if joined and joined[-1][1:] == (h, w):
            joined[-1] = (joined[-1][0] + t, h, w)
        else:
            joined.append((t, h, w))
    return joined


def packed_attention_mask(segments: Tensor) -> tuple[Tensor, Tensor] | None:
    """Attention mask and position shifts for rows that pack several questions; None where no row does.

    Args:
        segments: (B, L); -1 padding, 0 shared, 1, 2, … the questions.

    Returns:
        bool mask (B, 1, L, L), causal, in which a question sees what is shared and itself; and how much
        (B, L) each row's position is to be moved back, so that every question starts right after the clip.
    """
    if int(segments.max()) <= 1:
        return None
    length = segments.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    same = segments[:, :, None] == segments[:, None, :]
    seen = lower & (same | ((segments == 0)[:, None, :] & (segments >= 0)[:, :, None]))
    places = torch.arange(length, device=segments.device).expand_as(segments)
    parts = segments.clamp(min=0)
    first = torch.full_like(segments, length).scatter_reduce(1, parts, places, "amin")  # where each segment begins
    moved = (first.gather(1, parts) - first[:, 1:2]) * (segments > 0)
    return seen[:, None], moved


@dataclass(frozen=True)
class AnswerPass:
    """Teacher-forced answers: ``loss``, ``logits`` (answer tokens, V) and the ``labels`` they belong to, (B, K - 1).

    ``decoder_hidden`` (B, K, d) is what enters :func:`joint_layer`, at ``positions`` (4, B, K). ``sieved`` is the
    sieve's output, None for a pass around it, where K = L.
    """

    loss: Tensor
    logits: Tensor
    labels: Tensor
    decoder_hidden: Tensor
    positions: Tensor
    sieved: Sieved | None = None

    @property
    def right(self) -> Tensor:
        """(answer tokens,) bool: whether the likeliest token is the label."""
        return self.logits.argmax(dim=-1) == self.labels[self.labels != IGNORE]


def answer_pass(
    model: EchoingPixelsForConditionalGeneration,
    prompt: Prompt,
    targets: Targets,
    budget: float | None,
    selection: Selection = "cs2",
) -> AnswerPass:
    """Run prompts with their answers through sieve and decoder (paper: CS2, Sync-RoPE and training).

    The loss is the cross-entropy of answer tokens, each weighted as ``targets`` say; without weights it is their
    mean, which is the authors' loss.

    Args:
        model: in training mode, or not.
        prompt: embedded and placed.
        targets: the prompt's labels.
        budget: fraction of audio-visual rows that the sieve keeps; None goes around the sieve: raw embeddings of all
            rows into the decoder, where a row may pack several questions.
        selection: what chooses the rows.
    """
    thinker, sieved = model.thinker, None
    if budget is None:
        hidden, labels = prompt.embeds, targets.labels
        mask, positions = prompt.attention_mask, prompt.position_ids
        packed = None if targets.segments is None else packed_attention_mask(targets.segments)
        if packed is not None:
            mask, positions = packed[0], positions - packed[1]
    else:
        sieved = thinker.sieve(prompt, budget, labels=targets.labels, selection=selection)
        assert sieved.labels is not None
        hidden, labels = sieved.hidden, sieved.labels
        mask, positions = sieved.attention_mask, sieved.position_ids
    joint = joint_layer(model)
    decoder_hidden = thinker.model.run_layers(hidden, positions, mask, end=joint)
    hidden = thinker.model.decode(decoder_hidden, positions, mask, start=joint)
    labels = labels[:, 1:]  # each row predicts the next one
    known = labels != IGNORE
    logits = thinker.lm_head(hidden[:, :-1][known]).float()
    # The sieve drops no answer row, so the weights' order is that of the labels.
    if targets.weights is None:
        loss = F.cross_entropy(logits, labels[known])
    else:
        loss = (F.cross_entropy(logits, labels[known], reduction="none") * targets.weights).sum()
    return AnswerPass(loss, logits, labels, decoder_hidden, positions, sieved)


def joint_layer(model: EchoingPixelsForConditionalGeneration) -> int:
    """Index of the decoder layer at the middle, whose input ``binding`` and whose attention ``pointing`` supervise."""
    layers = len(model.thinker.model.layers)
    return min(-(-layers // 2), layers - 1)


@torch.inference_mode()
def accuracy(
    model: EchoingPixelsForConditionalGeneration,
    batches: Iterator[Batch],
    settings: Mapping[str, tuple[float | None, Selection]],
) -> dict[str, dict[str, float]]:
    """Share of answers whose every token is the likeliest one (what greedy decoding would say), by setting
    and question family; ``all`` is the mean over families."""
    model.eval()
    tally: dict[str, dict[str, list[bool]]] = {name: defaultdict(list) for name in settings}
    for batch in batches:
        prompt, _ = encode(model, batch)
        for name, (budget, selection) in settings.items():
            wrong = ~answer_pass(model, prompt, batch.targets, budget, selection).right
            for family, right in zip(families_of(batch), _all_tokens_right(wrong, batch), strict=True):
                tally[name][family].append(right)
    model.train()
    result = {}
    for name, families in tally.items():
        shares = {family: float(np.mean(hits)) for family, hits in sorted(families.items())}
        result[name] = {"all": float(np.mean(list(shares.values()))), **shares}
    return result


def families_of(batch: Batch) -> list[str]:
    """Family of each question, row by row."""
    return [family for families in batch.families for family in families]


def _all_tokens_right(wrong: Tensor, batch: Batch) -> list[bool]:
    """For each question, in the order of :func:`families_of`, whether all its answer tokens are right."""
    row, place = (batch.labels[:, 1:] != IGNORE).nonzero(as_tuple=True)
    failed = {(int(r), int(batch.segments[r, p + 1])) for r, p, bad in zip(row, place, wrong, strict=True) if bad}
    return [(r, i + 1) not in failed for r, families in enumerate(batch.families) for i in range(len(families))]
