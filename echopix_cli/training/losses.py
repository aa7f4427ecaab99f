"""Losses of one training step: answers, the towers' own labels, and what teaches the score head."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echopix_cli.model.attention import attention_of, attention_received
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.question_attention import scoring_layer
from echopix_cli.model.values import IGNORE, Prompt, Selection, Sieved
from echopix_cli.scenes import INSTRUMENTS, PICTURES, SURROUNDINGS
from echopix_cli.training.data import Batch
from echopix_cli.training.recipe import Recipe


class AuxiliaryHeads(nn.Module):
    """Auxiliary linear heads, on tower features and on the decoder's early rows; never shipped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hearing = nn.Linear(width, len(INSTRUMENTS))
        self.seeing = nn.Linear(width, len(PICTURES) + 1)
        self.binding = nn.Linear(width, SURROUNDINGS)


@dataclass(frozen=True)
class Features:
    """Tower outputs of a batch: (video rows, d) and (audio rows, d)."""

    video: Tensor | None
    audio: Tensor | None


def encode(
    model: EchoingPixelsForConditionalGeneration, batch: Batch, train_towers: bool = True
) -> tuple[Prompt, Features]:
    """Towers, embeddings and positions of a batch; without ``train_towers`` no gradient reaches the towers."""
    thinker, video, audio = model.thinker, None, None
    grids = [grid for grid in batch.grids if grid is not None]
    with torch.set_grad_enabled(train_towers and torch.is_grad_enabled()):
        if batch.pixel_values is not None:
            video = thinker.encode_pixels(batch.pixel_values, torch.tensor(grids, device=batch.pixel_values.device))
        if batch.mel is not None and batch.mel_frames is not None:
            audio = thinker.encode_mel(batch.mel, batch.mel_frames)
    merged = thinker.config.vision_config.spatial_merge_size**2
    shown = [0 if grid is None else math.prod(grid) // merged for grid in batch.grids]
    of_rows = [batch.grids[clip] for clip in batch.clips]
    prompt = thinker.place(
        batch.input_ids,
        attention_mask=batch.attention_mask,
        video_features=_per_row(video, shown, batch.clips),
        video_grid_thw=torch.tensor([grid for grid in of_rows if grid is not None]) if grids else None,
        video_grid_times=[batch.grid_times[clip] for clip in batch.clips if batch.grids[clip] is not None],
        audio_features=_per_row(audio, batch.audio_rows, batch.clips),
        audio_rows=[batch.audio_rows[clip] for clip in batch.clips if batch.audio_rows[clip]],
    )
    return prompt, Features(video, audio)


def _per_row(features: Tensor | None, sizes: Sequence[int], clips: Sequence[int]) -> Tensor | None:
    """Features of clips, (sum of sizes, d), once for every prompt row that asks about a clip."""
    if features is None or list(clips) == list(range(len(sizes))):
        return features
    parts = torch.split(features, list(sizes))
    return torch.cat([parts[clip] for clip in clips])


def separate(segments: Tensor) -> tuple[Tensor, Tensor] | None:
    """Attention mask and positions that keep packed questions apart; None where no row packs several.

    Args:
        segments: (B, L); -1 padding, 0 shared, 1, 2, … the questions.

    Returns:
        bool mask (B, 1, L, L), causal, in which a question sees what is shared and itself; and how much
        (B, L) each row's position is to be moved back, so that every question starts right after the clip.
    """
    if int(segments.max()) <= 1:
        return None
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    same = segments[:, :, None] == segments[:, None, :]
    seen = causal & (same | ((segments == 0)[:, None, :] & (segments >= 0)[:, :, None]))
    moved = torch.zeros_like(segments)
    for row in range(segments.shape[0]):
        asked = segments[row] > 0
        # Segments are contiguous and ascending: the first place of each is where it is first found.
        first = torch.searchsorted(
            segments[row].contiguous(), torch.arange(1, int(segments[row].max()) + 1, device=segments.device)
        )
        moved[row, asked] = first[segments[row, asked] - 1] - first[0]
    return seen[:, None], moved


@dataclass(frozen=True)
class AnswerPass:
    """Teacher-forced answers: mean ``loss``, ``logits`` (answer rows, V) and their ``target`` labels (B, K - 1).

    ``sieved`` is the sieve's part of it. Around the sieve, ``early`` is what enters the decoder's scoring layer,
    (B, L, d), at ``positions`` (4, B, L).
    """

    loss: Tensor
    logits: Tensor
    target: Tensor
    sieved: Sieved | None = None
    early: Tensor | None = None
    positions: Tensor | None = None

    @property
    def right(self) -> Tensor:
        """(answer rows,) bool: whether the likeliest token is the label."""
        return self.logits.argmax(dim=-1) == self.target[self.target != IGNORE]


def answer_pass(
    model: EchoingPixelsForConditionalGeneration,
    prompt: Prompt,
    batch: Batch,
    budget: float | None,
    selection: Selection = "cs2",
) -> AnswerPass:
    """Run the model over prompts with their answers.

    ``budget`` None goes around the sieve: raw embeddings of all rows into the decoder, where a row may
    pack several questions.
    """
    thinker, sieved, early = model.thinker, None, None
    if budget is None:
        kept_labels = batch.labels
        mask, positions = prompt.attention_mask, prompt.position_ids
        if (apart := separate(batch.segments)) is not None:
            mask, positions = apart[0], positions - apart[1]
        scoring = scoring_layer(len(thinker.model.layers), None)
        early = thinker.model.run_layers(prompt.embeds, positions, mask, end=scoring)
        hidden = thinker.model.decode(early, positions, mask, start=scoring)
    else:
        sieved = thinker.sieve(prompt, budget, labels=batch.labels, selection=selection)
        assert sieved.labels is not None
        kept_labels, positions = sieved.labels, sieved.position_ids
        hidden = thinker.model.decode(sieved.hidden, positions, sieved.attention_mask)
    target = kept_labels[:, 1:]
    logits = thinker.lm_head(hidden[:, :-1][target != IGNORE]).float()
    loss = F.cross_entropy(logits, target[target != IGNORE])
    return AnswerPass(loss, logits, target, sieved, early, positions)


def pointing(
    model: EchoingPixelsForConditionalGeneration, batch: Batch, early: Tensor, positions: Tensor, pool: Tensor
) -> Tensor:
    """How far the questions' attention, in the scoring layer, is from what their answers depend on.

    Args:
        model: the model.
        batch: with evidence.
        early: (B, L, d) input of that layer.
        positions: (4, B, L).
        pool: (B, L) bool, audio-visual rows.

    Returns:
        Mean over questions of -log of the share that the evidence has in what the asking row gives to audio-visual
        rows, averaged over heads.
    """
    text = model.thinker.model
    layer = text.layers[scoring_layer(len(text.layers), None)]
    cosine, sine = text.rotary(positions, early.dtype)
    shares, done = [], 0
    for row, families in enumerate(batch.families):
        own = slice(done, done + len(families))
        done += len(families)
        asking, evidence = batch.asking[own], batch.evidence[own] & pool[row]
        if not bool(pool[row].any()):
            continue
        for block, weights in attention_of(layer, early[row], (cosine[row], sine[row]), asking, pool[row]):
            share = (weights.mean(dim=0) * evidence[block]).sum(dim=1)
            shares.append(share[evidence[block].any(dim=1)])
    known = torch.cat(shares) if shares else early.new_zeros(0)
    return -known.clamp(min=1e-6).log().mean() if len(known) else early.sum() * 0.0


def towards(scores: Tensor, target: Tensor, pool: Tensor) -> Tensor:
    """Distance of each prompt's softmax over its pool from a target distribution: mean KL divergence.

    Args:
        scores: (B, L) of every row.
        target: (B, L), not negative; scaled here to sum to 1 over the pool. Prompts without any do not count.
        pool: (B, L) bool, audio-visual rows.
    """
    target = target.float() * pool
    total = target.sum(dim=1, keepdim=True)
    has = total.squeeze(1) > 0
    if not bool(has.any()):
        return scores.sum() * 0.0
    target = target / total.clamp(min=1e-9)
    log_share = scores.masked_fill(~pool, -torch.inf).log_softmax(dim=1).masked_fill(~pool, 0.0)
    return (torch.xlogy(target, target) - target * log_share).sum(dim=1)[has].mean()


class AttentionTeacher:
    """What a full-token decoder attends to when it reads the question and gives the answer.

    A frozen copy of the decoder that the run starts from, run causally over all tokens with the right answer;
    the target is the attention that audio-visual rows receive from all rows after them, averaged over layers.
    """

    def __init__(self, model: EchoingPixelsForConditionalGeneration) -> None:
        text = model.thinker.model
        self.layers = copy.deepcopy(text.layers).requires_grad_(False).eval()
        self.rotary = text.rotary

    @torch.no_grad()
    def target(self, prompt: Prompt, pool: Tensor) -> Tensor:
        """(B, L): attention received."""
        length = pool.shape[1]
        places = torch.arange(length, device=pool.device)
        valid = torch.ones_like(pool) if prompt.attention_mask is None else prompt.attention_mask.bool()
        asking = valid & (places > (pool * places).amax(dim=1, keepdim=True))
        rotary = self.rotary(prompt.position_ids, prompt.embeds.dtype)
        # Padding rows, which see nothing, see themselves: no row of a softmax may be empty.
        alone = torch.eye(length, dtype=torch.bool, device=pool.device)
        mask = (places[None, :] <= places[:, None]) & valid[:, None, None, :] | alone
        hidden, received = prompt.embeds, torch.zeros_like(pool, dtype=torch.float32)
        for layer in self.layers:
            received += attention_received(layer, hidden, rotary, asking, valid)
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        return received


def losses(
    model: EchoingPixelsForConditionalGeneration,
    heads: AuxiliaryHeads,
    batch: Batch,
    recipe: Recipe,
    budget: float | None,
    teacher: AttentionTeacher | None = None,
) -> dict[str, Tensor]:
    """Every part of one step's loss, unweighted."""
    prompt, features = encode(model, batch, train_towers=not recipe.freeze_towers)
    parts: dict[str, Tensor] = {}
    if features.audio is not None and recipe.hearing > 0 and batch.heard is not None:
        parts["hearing"] = F.binary_cross_entropy_with_logits(heads.hearing(features.audio).float(), batch.heard)
    if features.video is not None and recipe.seeing > 0 and batch.seen is not None:
        seeing = heads.seeing(features.video).float()
        parts["seeing"] = F.cross_entropy(seeing, batch.seen + 1)
        if bool((pictures := batch.seen >= 0).any()):
            parts["seen_right"] = (seeing.argmax(dim=-1) == batch.seen + 1)[pictures].float().mean()
    if recipe.stage == "towers":
        return parts
    answered = answer_pass(model, prompt, batch, budget)
    parts |= {"answer": answered.loss, "token_accuracy": answered.right.float().mean()}
    special = model.thinker.special
    pool = torch.isin(batch.input_ids, torch.tensor(special.placeholders, device=batch.labels.device))
    if answered.early is not None and answered.positions is not None:
        if recipe.binding > 0 and batch.around is not None:
            sound = answered.early[batch.input_ids == special.audio]
            parts["binding"] = F.binary_cross_entropy_with_logits(heads.binding(sound).float(), batch.around)
        if recipe.pointing > 0 and bool(batch.evidence.any()):
            parts["pointing"] = pointing(model, batch, answered.early, answered.positions, pool)
    if (sieved := answered.sieved) is not None:
        if recipe.evidence > 0 and bool(batch.evidence.any()):
            parts["evidence"] = towards(sieved.scores, batch.evidence, pool)
        if teacher is not None:
            parts["teaching"] = towards(sieved.scores, teacher.target(prompt, pool), pool)
    return parts


def total_loss(parts: dict[str, Tensor], recipe: Recipe) -> Tensor:
    """The weighted sum that is minimised."""
    weights = {
        "answer": 1.0,
        "hearing": recipe.hearing,
        "seeing": recipe.seeing,
        "binding": recipe.binding,
        "pointing": recipe.pointing,
        "evidence": recipe.evidence,
        "teaching": recipe.teaching,
    }
    return torch.stack([weight * parts[name] for name, weight in weights.items() if name in parts]).sum()


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
            wrong = ~answer_pass(model, prompt, batch, budget, selection).right
            for family, right in zip(_questions(batch), _whole(wrong, batch), strict=True):
                tally[name][family].append(right)
    model.train()
    result = {}
    for name, families in tally.items():
        shares = {family: float(np.mean(hits)) for family, hits in sorted(families.items())}
        result[name] = {"all": float(np.mean(list(shares.values()))), **shares}
    return result


def _questions(batch: Batch) -> list[str]:
    """Families of all questions, row by row."""
    return [family for families in batch.families for family in families]


def _whole(wrong: Tensor, batch: Batch) -> list[bool]:
    """Which questions, in the order of :func:`_questions`, have no wrong answer token."""
    row, place = (batch.labels[:, 1:] != IGNORE).nonzero(as_tuple=True)
    failed = {(int(r), int(batch.segments[r, p + 1])) for r, p, bad in zip(row, place, wrong, strict=True) if bad}
    return [(r, i + 1) not in failed for r, families in enumerate(batch.families) for i in range(len(families))]
