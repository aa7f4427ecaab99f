"""Losses of one training step: answers, the towers' own labels, and what teaches the score head."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echopix_cli.model.attention import attention_of, attention_received
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.processing import normalise
from echopix_cli.model.sieve import pack_left
from echopix_cli.model.text import causal_mask
from echopix_cli.model.values import IGNORE, Prompt, Selection, Sieved
from echopix_cli.scenes import INSTRUMENTS, PICTURES, SURROUNDINGS
from echopix_cli.training.data import Batch
from echopix_cli.training.recipe import Recipe

_MOST_MOVED, _WIDEST = 3, 20  # mel bins


class AuxiliaryHeads(nn.Module):
    """Auxiliary linear heads, on tower features and on early rows of the decoder or CS2's; never shipped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hearing = nn.Linear(width, len(INSTRUMENTS))
        self.seeing = nn.Linear(width, len(PICTURES) + 1)
        self.binding = nn.Linear(width, SURROUNDINGS)
        self.meanwhile = nn.Linear(width, len(INSTRUMENTS))


@dataclass(frozen=True)
class Features:
    """Tower outputs of a batch: (video rows, d) and (audio rows, d)."""

    video: Tensor | None
    audio: Tensor | None


def hide_bands(mel: Tensor, frames: Tensor, share: float) -> Tensor:
    """Sounds with their frequencies moved a little and up to two bands of them hidden, for a share of the sounds.

    Timbre is what another instrument of the same name changes: who knows an instrument by one band, or by where
    exactly its partials lie, does not know it (SpecAugment, Park et al. 2019, with a shift).

    Args:
        mel: (sounds, 128, frames).
        frames: (sounds,) how many of the frames are real; a hidden band has the sound's own mean.
        share: of the sounds that are changed.
    """
    count, bins, _ = mel.shape
    device = mel.device
    where = torch.arange(bins, device=device)
    moved = (where + torch.randint(-_MOST_MOVED, _MOST_MOVED + 1, (count, 1), device=device)).clamp(0, bins - 1)
    first = torch.randint(0, bins, (count, 2, 1), device=device)
    width = torch.randint(0, _WIDEST, (count, 2, 1), device=device)
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
            video = thinker.encode_pixels(pixels, torch.tensor(_joined_grids(grids), device=pixels.device))
        if batch.mel is not None and batch.mel_frames is not None:
            audio = thinker.encode_mel(
                hide_bands(batch.mel, batch.mel_frames, hide) if hide else batch.mel, batch.mel_frames
            )
    prompt = thinker.place(
        batch.input_ids,
        attention_mask=batch.attention_mask,
        video_features=None if video is None else _per_row(video, batch.video_rows, batch.clips),
        audio_features=None if audio is None else _per_row(audio, batch.audio_rows, batch.clips),
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


def _per_row(features: Tensor, sizes: Sequence[int], clips: Sequence[int]) -> Tensor:
    """Features of clips, (sum of sizes, d), once for every prompt row that asks about a clip."""
    if list(clips) == list(range(len(sizes))):
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
    """Teacher-forced answers: ``loss`` weighted as the batch says, ``logits`` (answer rows, V) and their ``target``
    labels (B, K - 1).

    ``early`` is what enters the decoder's joint layer, (B, K, d), at ``positions`` (4, B, K). ``sieved`` is the
    sieve's part of it; around the sieve, K = L.
    """

    loss: Tensor
    logits: Tensor
    target: Tensor
    early: Tensor
    positions: Tensor
    sieved: Sieved | None = None

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
    thinker, sieved = model.thinker, None
    if budget is None:
        rows, labels = prompt.embeds, batch.labels
        mask, positions = prompt.attention_mask, prompt.position_ids
        if (apart := separate(batch.segments)) is not None:
            mask, positions = apart[0], positions - apart[1]
    else:
        sieved = thinker.sieve(prompt, budget, labels=batch.labels, selection=selection)
        assert sieved.labels is not None
        rows, labels = sieved.hidden, sieved.labels
        mask, positions = sieved.attention_mask, sieved.position_ids
    joint = joint_layer(model)
    early = thinker.model.run_layers(rows, positions, mask, end=joint)
    hidden = thinker.model.decode(early, positions, mask, start=joint)
    target = labels[:, 1:]
    logits = thinker.lm_head(hidden[:, :-1][target != IGNORE]).float()
    # Answers are never dropped, so that they stand in the order of the batch's own labels.
    loss = (F.cross_entropy(logits, target[target != IGNORE], reduction="none") * batch.weights).sum()
    return AnswerPass(loss, logits, target, early, positions, sieved)


def joint_layer(model: EchoingPixelsForConditionalGeneration) -> int:
    """The decoder layer that finds what a question names: its input is taught to know what each moment holds."""
    layers = len(model.thinker.model.layers)
    return min(-(-layers // 2), layers - 1)


def pointing(model: EchoingPixelsForConditionalGeneration, batch: Batch, answered: AnswerPass, pool: Tensor) -> Tensor:
    """How far the questions' attention, in the joint layer, is from what their answers depend on.

    Around the sieve the rows are asked that name what to look for, and of evidence in both senses only the sound's
    rows count: it is there that the two meet (``binding``), and a name is found in the picture without any notion
    of what sounds meanwhile. Through the sieve, where every row knows what goes on meanwhile, the rows are asked
    that answer, and all evidence that was kept counts.

    Args:
        model: the model.
        batch: with evidence.
        answered: its answers.
        pool: (B, L) bool, audio-visual rows.

    Returns:
        Mean over families, and in each over its questions, of -log of the share that the evidence has in what the
        asked row gives to audio-visual rows, averaged over heads.
    """
    asked = torch.tensor([len(families) for families in batch.families], device=pool.device)
    most = max(len(families) for families in batch.families)
    own = torch.arange(most, device=pool.device) < asked[:, None]
    evidence = batch.evidence & pool.repeat_interleave(asked, dim=0)
    if (sieved := answered.sieved) is None:
        # (B, questions): places beyond a row's own questions are the last row's, and are left out below.
        asking = torch.full(own.shape, pool.shape[1] - 1, device=pool.device).masked_scatter(own, batch.asking)
        heard = evidence & (batch.input_ids == model.thinker.special.audio).repeat_interleave(asked, dim=0)
        evidence = torch.where(heard.any(dim=1, keepdim=True), heard, evidence)
    else:
        pool, evidence = (
            pack_left([row[kept] for row, kept in zip(rows, sieved.kept, strict=True)]) for rows in (pool, evidence)
        )
        asking = (answered.target != IGNORE).int().argmax(dim=1, keepdim=True)
    seen = pool | ~pool.any(dim=1, keepdim=True)  # no row of a softmax may be empty
    text = model.thinker.model
    layer, turns = text.layers[joint_layer(model)], text.rotary(answered.positions, answered.early.dtype)
    weights = torch.cat([block for _, block in attention_of(layer, answered.early, turns, asking, seen)], dim=2)
    share = (weights.mean(dim=1)[own] * evidence).sum(dim=1)
    names = _questions(batch)
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    family = torch.tensor([number[name] for name in names], device=pool.device)
    known = evidence.any(dim=1).float()
    counts = torch.zeros(len(number), device=pool.device).index_add(0, family, known)
    sums = share.new_zeros(len(number)).index_add(0, family, -share.clamp(min=1e-6).log() * known)
    return (sums / counts.clamp(min=1.0)).sum() / (counts > 0).sum().clamp(min=1)


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


def _by_sense(evidence: Tensor, audio: Tensor) -> Tensor:
    """Evidence (B, L) weighted so that sound and picture count the same where both hold some.

    Else the sense with fewer rows is what a small budget leaves out, and the question needs both.
    """
    senses = (evidence & audio, evidence & ~audio)
    return torch.stack([sense / sense.sum(dim=1, keepdim=True).clamp(min=1) for sense in senses]).sum(dim=0)


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
        mask = causal_mask(valid)
        hidden, received = prompt.embeds, torch.zeros_like(pool, dtype=torch.float32)
        for layer in self.layers:
            received += attention_received(layer, hidden, rotary, asking, valid)
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        return received


def _known(head: nn.Linear, rows: Tensor, labels: Tensor) -> Tensor:
    """How far what a head reads off rows (n, d) is from their yes-or-no labels (n, labels): binary cross-entropy."""
    return F.binary_cross_entropy_with_logits(head(rows).float(), labels)


def losses(
    model: EchoingPixelsForConditionalGeneration,
    heads: AuxiliaryHeads,
    batch: Batch,
    recipe: Recipe,
    budget: float | None,
    teacher: AttentionTeacher | None = None,
) -> dict[str, Tensor]:
    """Every part of one step's loss, unweighted."""
    prompt, features = encode(model, batch, not recipe.freeze_towers, recipe.hide_bands)
    parts: dict[str, Tensor] = {}
    if features.audio is not None and recipe.hearing > 0 and batch.heard is not None:
        parts["hearing"] = _known(heads.hearing, features.audio, batch.heard)
    if features.video is not None and recipe.seeing > 0 and batch.seen is not None:
        seeing = heads.seeing(features.video).float()
        parts["seeing"] = F.cross_entropy(seeing, batch.seen + 1)
        pictures = batch.seen >= 0
        right = (seeing.argmax(dim=-1) == batch.seen + 1) & pictures
        parts["seen_right"] = right.sum() / pictures.sum().clamp(min=1)
    if recipe.stage == "towers":
        return parts
    answered = answer_pass(model, prompt, batch, budget)
    parts |= {"answer": answered.loss, "token_accuracy": answered.right.float().mean()}
    special = model.thinker.special
    pool = torch.isin(batch.input_ids, torch.tensor(special.placeholders, device=batch.labels.device))
    sieved, evident = answered.sieved, bool(batch.evidence.any())
    early = answered.early if sieved is None else sieved.encoded
    if recipe.binding > 0 and batch.around is not None:
        around = _per_row(batch.around, batch.audio_rows, batch.clips)
        parts["binding"] = _known(heads.binding, early[batch.input_ids == special.audio], around)
    if sieved is not None and recipe.binding > 0 and batch.meanwhile is not None:
        # Only CS2 can know it: in the decoder the sound of a moment comes after its picture.
        meanwhile = _per_row(batch.meanwhile, batch.video_rows, batch.clips)
        parts["meanwhile"] = _known(heads.meanwhile, early[batch.input_ids == special.video], meanwhile)
    if recipe.pointing > 0 and evident:
        parts["pointing"] = pointing(model, batch, answered, pool)
    if sieved is not None:
        if recipe.evidence > 0 and evident:
            parts["evidence"] = towards(
                sieved.scores, _by_sense(batch.evidence, batch.input_ids == special.audio), pool
            )
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
        "meanwhile": recipe.binding,
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
