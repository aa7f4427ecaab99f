"""Losses of one training step: answers, auxiliary labels of towers and early layers, and targets of the scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echopix_cli.model.attention import attention_of
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.sieve import pack_left
from echopix_cli.model.values import IGNORE
from echopix_cli.scenes import INSTRUMENTS, PICTURES, SURROUNDINGS
from echopix_cli.training.batch import Batch
from echopix_cli.training.forward import AnswerPass, answer_pass, encode, families_of, joint_layer
from echopix_cli.training.recipe import Recipe
from echopix_cli.training.teacher import AttentionTeacher


class AuxiliaryHeads(nn.Module):
    """Auxiliary linear heads, on tower features and on early rows of the decoder or CS2's; never shipped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hearing = nn.Linear(width, len(INSTRUMENTS))
        self.seeing = nn.Linear(width, len(PICTURES) + 1)
        self.binding = nn.Linear(width, sum(SURROUNDINGS))
        self.hopping = nn.Linear(width, 1)
        self.meanwhile = nn.Linear(width, len(INSTRUMENTS))


def pointing(model: EchoingPixelsForConditionalGeneration, batch: Batch, answered: AnswerPass, pool: Tensor) -> Tensor:
    """Negative log share of attention that the questions' rows, in :func:`joint_layer`, give to their evidence.

    Around the sieve the asking row is the word that names what to look for (``Batch.asking``), and of evidence in
    both picture and sound only the sound's rows count: ``binding`` teaches those what is on screen meanwhile. Through
    the sieve the asking row is the last one before the answer, and all evidence that was kept counts.

    Args:
        model: the model.
        batch: with evidence.
        answered: the same batch's answer pass.
        pool: (B, L) bool, audio-visual rows.

    Returns:
        The mean over families, and in each over its questions, of -log of the evidence's share in the asking row's
        attention to audio-visual rows, which is averaged over heads.
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
        asking = (answered.labels != IGNORE).int().argmax(dim=1, keepdim=True)
    seen = pool | ~pool.any(dim=1, keepdim=True)  # no row of a softmax may be empty
    text = model.thinker.model
    layer, turns = text.layers[joint_layer(model)], text.rotary(answered.positions, answered.decoder_hidden.dtype)
    weights = torch.cat(
        [block for _, block in attention_of(layer, answered.decoder_hidden, turns, asking, seen)], dim=2
    )
    share = (weights.mean(dim=1)[own] * evidence).sum(dim=1)
    names = families_of(batch)
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    family = torch.tensor([number[name] for name in names], device=pool.device)
    known = evidence.any(dim=1).float()
    counts = torch.zeros(len(number), device=pool.device).index_add(0, family, known)
    sums = share.new_zeros(len(number)).index_add(0, family, -share.clamp(min=1e-6).log() * known)
    return (sums / counts.clamp(min=1.0)).sum() / (counts > 0).sum().clamp(min=1)


def kl_to_target(scores: Tensor, target: Tensor, pool: Tensor) -> Tensor:
    """KL divergence of a target from the softmax of the scores over each prompt's pool, averaged over prompts.

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


def balanced_by_modality(evidence: Tensor, audio: Tensor) -> Tensor:
    """Evidence (B, L) weighted so that the rows of sound sum to 1 and those of picture do, where there are any.

    Unweighted, the modality with fewer evidence rows would be the one that a small budget drops.
    """
    modalities = (evidence & audio, evidence & ~audio)
    return torch.stack([rows / rows.sum(dim=1, keepdim=True).clamp(min=1) for rows in modalities]).sum(dim=0)


def balanced(found: Tensor, yes: Tensor) -> Tensor:
    """The mean of losses where those that ``yes`` marks and the others, of which there are many more, weigh the same.

    Args:
        found: of any shape.
        yes: bool, of the same shape. Where it marks all or none, the mean is that of all.
    """
    halves = torch.stack((yes, ~yes)).flatten(1).float()
    counts = halves.sum(dim=1)  # of either kind there may be none, which is not asked of the device
    return ((halves @ found.flatten()) / counts.clamp(min=1)).sum() / (counts > 0).sum()


def told(head: nn.Linear, rows: Tensor, labels: Tensor, groups: Sequence[int] | None = None) -> Tensor:
    """Binary cross-entropy, :func:`balanced`, of a head's logits on rows (n, d) against labels (n, classes) of 0 and 1.

    The mean over ``groups`` of so many classes, within each of which everything weighs the same.
    """
    found = F.binary_cross_entropy_with_logits(head(rows).float(), labels, reduction="none")
    sizes = list(groups or [labels.shape[1]])
    parts = zip(torch.split(found, sizes, dim=1), torch.split(labels, sizes, dim=1), strict=True)
    return torch.stack([balanced(part, wanted.bool()) for part, wanted in parts]).mean()


def seeing(logits: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of which picture lies on each video row, :func:`balanced`, and the share of pictures told right.

    Args:
        logits: (n, pictures + 1), the first for nothing.
        seen: (n,) -1 for nothing.
    """
    found, pictures = F.cross_entropy(logits, seen + 1, reduction="none"), seen >= 0
    right = (logits.argmax(dim=-1) == seen + 1) & pictures
    return balanced(found, pictures), right.sum() / pictures.sum().clamp(min=1)


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
        parts["hearing"] = F.binary_cross_entropy_with_logits(heads.hearing(features.audio).float(), batch.heard)
    if features.video is not None and recipe.seeing > 0 and batch.seen is not None:
        parts["seeing"], parts["seen_right"] = seeing(heads.seeing(features.video).float(), batch.seen)
    if recipe.stage == "towers":
        return parts
    answered = answer_pass(model, prompt, batch.targets, budget)
    parts |= {"answer": answered.loss, "token_accuracy": answered.right.float().mean()}
    special = model.thinker.special
    pool = special.in_pool(batch.input_ids)
    sieved, evident = answered.sieved, bool(batch.evidence.any())
    early = answered.decoder_hidden if sieved is None else sieved.encoded
    if recipe.binding > 0 and batch.around is not None:
        around, heard = batch.around[batch.audio_index], early[batch.input_ids == special.audio]
        parts["binding"] = told(heads.binding, heard, around, SURROUNDINGS)
    if recipe.binding > 0 and batch.hopping is not None and batch.meanwhile is not None:
        seen = early[batch.input_ids == special.video]
        parts["hopping"] = told(heads.hopping, seen, batch.hopping[batch.video_index, None].float())
        if sieved is not None:  # only CS2 can know it: in the decoder the sound of a moment comes after its picture
            parts["meanwhile"] = told(heads.meanwhile, seen, batch.meanwhile[batch.video_index])
    if recipe.pointing > 0 and evident:
        parts["pointing"] = pointing(model, batch, answered, pool)
    if sieved is not None:
        if recipe.evidence > 0 and evident:
            parts["evidence"] = kl_to_target(
                sieved.scores, balanced_by_modality(batch.evidence, batch.input_ids == special.audio), pool
            )
        if teacher is not None:
            parts["teaching"] = kl_to_target(sieved.scores, teacher.target(prompt, pool), pool)
    return parts


def total_loss(parts: dict[str, Tensor], recipe: Recipe) -> Tensor:
    """The weighted sum that is minimised."""
    weights = {
        "answer": 1.0,
        "hearing": recipe.hearing,
        "seeing": recipe.seeing,
        "binding": recipe.binding,
        "hopping": recipe.binding,
        "meanwhile": recipe.binding,
        "pointing": recipe.pointing,
        "evidence": recipe.evidence,
        "teaching": recipe.teaching,
    }
    return torch.stack([weight * parts[name] for name, weight in weights.items() if name in parts]).sum()
