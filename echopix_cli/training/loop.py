"""The training loop: exact resume, metrics as JSONL, checkpoints in the authors' layout."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.processing import Processor
from echopix_cli.model.values import IGNORE, Prompt, Selection, Sieved
from echopix_cli.scenes import INSTRUMENTS, PICTURES
from echopix_cli.training.data import Batch, SceneBatches
from echopix_cli.training.recipe import Recipe

_STATE = "training_state.safetensors"


class TowerHeads(nn.Module):
    """Auxiliary linear heads on tower features; used in training only and never shipped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hearing = nn.Linear(width, len(INSTRUMENTS))
        self.seeing = nn.Linear(width, len(PICTURES) + 1)


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
        first = torch.searchsorted(segments[row].contiguous(), torch.arange(1, int(segments[row].max()) + 1))
        moved[row, asked] = first[segments[row, asked] - 1] - first[0]
    return seen[:, None], moved


def answer_pass(
    model: EchoingPixelsForConditionalGeneration,
    prompt: Prompt,
    batch: Batch,
    budget: float | None,
    selection: Selection = "cs2",
) -> tuple[Tensor, Tensor, Tensor, Sieved | None]:
    """Teacher-forced answers: mean loss, (answer rows, V) logits, their labels, and the sieve's part.

    ``budget`` None goes around the sieve: raw embeddings of all rows into the decoder, where a row may
    pack several questions.
    """
    thinker = model.thinker
    if budget is None:
        sieved, kept_labels = None, batch.labels
        mask, positions = prompt.attention_mask, prompt.position_ids
        if (apart := separate(batch.segments)) is not None:
            mask, positions = apart[0], positions - apart[1]
        hidden = thinker.model.decode(prompt.embeds, positions, mask)
    else:
        sieved = thinker.sieve(prompt, budget, labels=batch.labels, selection=selection)
        assert sieved.labels is not None
        kept_labels = sieved.labels
        hidden = thinker.model.decode(sieved.hidden, sieved.position_ids, sieved.attention_mask)
    target = kept_labels[:, 1:]
    logits = thinker.lm_head(hidden[:, :-1][target != IGNORE]).float()
    return F.cross_entropy(logits, target[target != IGNORE]), logits, target, sieved


def evidence_loss(scores: Tensor, evidence: Tensor, pool: Tensor) -> Tensor:
    """Cross-entropy between each prompt's softmax over its pool and an even spread over its evidence rows."""
    has = (evidence & pool).any(dim=1)
    if not bool(has.any()):
        return scores.sum() * 0.0
    log_share = scores.masked_fill(~pool, -torch.inf).log_softmax(dim=1)
    target = (evidence & pool).float()
    target = target / target.sum(dim=1, keepdim=True).clamp(min=1.0)
    losses = -(target * log_share.masked_fill(~pool, 0.0)).sum(dim=1)
    # Less the smallest possible value, so that the figure reads as distance from the target.
    floor = -(target * target.clamp(min=1e-9).log()).sum(dim=1)
    return (losses - floor)[has].mean()


def losses(
    model: EchoingPixelsForConditionalGeneration, heads: TowerHeads, batch: Batch, recipe: Recipe, budget: float | None
) -> dict[str, Tensor]:
    """Every part of one step's loss, unweighted."""
    prompt, features = encode(model, batch, train_towers=not recipe.freeze_towers)
    answer, logits, target, sieved = answer_pass(model, prompt, batch, budget)
    right = logits.argmax(dim=-1) == target[target != IGNORE]
    parts = {"answer": answer, "token_accuracy": right.float().mean()}
    if features.audio is not None and recipe.hearing > 0:
        parts["hearing"] = F.binary_cross_entropy_with_logits(heads.hearing(features.audio), batch.heard)
    if features.video is not None and recipe.seeing > 0:
        parts["seeing"] = F.cross_entropy(heads.seeing(features.video), batch.seen + 1)
    if sieved is not None and recipe.evidence > 0:
        special = torch.tensor(model.thinker.special.placeholders)
        parts["evidence"] = evidence_loss(sieved.scores, batch.evidence, torch.isin(batch.input_ids, special))
    return parts


def total_loss(parts: dict[str, Tensor], recipe: Recipe) -> Tensor:
    """The weighted sum that is minimised."""
    weights = {"answer": 1.0, "hearing": recipe.hearing, "seeing": recipe.seeing, "evidence": recipe.evidence}
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
            _, logits, target, _ = answer_pass(model, prompt, batch, budget, selection)
            wrong = logits.argmax(dim=-1) != target[target != IGNORE]
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


class Trainer:
    """Runs a recipe in a folder: resumes from its last checkpoint, and always leaves a loadable model there."""

    def __init__(
        self,
        model: EchoingPixelsForConditionalGeneration,
        processor: Processor,
        recipe: Recipe,
        folder: Path,
        save: Callable[[Path], None],
    ) -> None:
        self.model, self.processor, self.recipe, self.folder, self.save = model, processor, recipe, folder, save
        torch.manual_seed(recipe.seed)
        self.heads = TowerHeads(model.config.text.hidden_size)
        if recipe.freeze_towers:
            model.thinker.visual.requires_grad_(False)
            model.thinker.audio_tower.requires_grad_(False)
        everything = [*model.named_parameters(), *((f"heads.{n}", p) for n, p in self.heads.named_parameters())]
        self.trained = {name: p for name, p in everything if p.requires_grad}
        decayed = [p for p in self.trained.values() if p.ndim >= 2]
        plain = [p for p in self.trained.values() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(0.9, 0.95),
        )
        self.step = 0
        if (folder / _STATE).exists():
            self._restore()

    def run(self, until: int | None = None, seconds: float | None = None) -> None:
        """Train to step ``until`` (default: the recipe's end), or until ``seconds`` have passed."""
        recipe, began = self.recipe, time.monotonic()
        end = recipe.steps if until is None else min(until, recipe.steps)
        data = self._scenes("train", recipe.steps)
        loader = DataLoader(
            data,
            batch_size=None,
            sampler=range(self.step, end),
            num_workers=1,
            prefetch_factor=4,
        )
        self.model.train()
        for batch in loader:
            started = time.monotonic()
            parts = self._update(batch)
            self.step += 1
            self._log({"step": self.step, "seconds": round(time.monotonic() - started, 3), **parts})
            if self.step % recipe.validate_every == 0 or self.step == recipe.steps:
                self._log({"step": self.step, "validation": self.validate()})
            out_of_time = seconds is not None and time.monotonic() - began > seconds
            if self.step % recipe.checkpoint_every == 0 or self.step == end or out_of_time:
                self._store()
            if out_of_time:
                return

    def validate(self) -> dict[str, dict[str, float]]:
        """Accuracy on the ``val`` split at several budgets, with the controls beside the sieve."""
        data = self._scenes("val", self.recipe.validate_batches)
        return accuracy(self.model, (data[index] for index in range(len(data))), self.recipe.settings())

    def _scenes(self, split: str, length: int) -> SceneBatches:
        recipe = self.recipe
        full = recipe.stage == "full"
        return SceneBatches(
            self.processor,
            split,
            recipe.batch_size,
            recipe.families,
            recipe.side,
            length,
            pack=full,
            questions=recipe.questions,
        )

    def _update(self, batch: Batch) -> dict[str, float]:
        recipe = self.recipe
        draw = float(np.random.default_rng((recipe.seed, self.step)).random())
        budget = recipe.budget(draw) if recipe.stage == "sieve" else None
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(self.step)
        parts = losses(self.model, self.heads, batch, recipe, budget)
        loss = total_loss(parts, recipe)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        self.optimizer.step()
        numbers = {name: round(value.item(), 5) for name, value in parts.items()}
        return {**numbers, "loss": round(loss.item(), 5), "gradient": round(norm.item(), 4), "budget": budget or 1.0}

    def _log(self, record: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _store(self) -> None:
        """Model in its final form, and beside it what exact resuming needs."""
        self.save(self.folder)
        (self.folder / "recipe.json").write_text(json.dumps(asdict(self.recipe), indent=2) + "\n", encoding="utf-8")
        tensors = {"step": torch.tensor(self.step)}
        for name, parameter in self.trained.items():
            tensors[f"value.{name}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = value
        partial = self.folder / (_STATE + ".partial")
        save_file({name: value.contiguous().clone() for name, value in tensors.items()}, partial)
        partial.replace(self.folder / _STATE)

    def _restore(self) -> None:
        tensors = load_file(self.folder / _STATE)
        self.step = int(tensors["step"])
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(tensors[f"value.{name}"])
                if f"step.{name}" in tensors:  # parameters that no batch has used yet have no state
                    self.optimizer.state[parameter] = {
                        key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
                    }
