"""The training loop: exact resume, metrics as JSONL, a loadable checkpoint in the authors' layout at every stop."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from echopix_cli.errors import EchopixError, MediaError
from echopix_cli.files import shown, write_whole
from echopix_cli.training import tiny
from echopix_cli.training.adapters import plain_tensors
from echopix_cli.training.batch import Batch, Unread
from echopix_cli.training.conversations import ConversationBatches, read_conversations
from echopix_cli.training.data import TRAINED_SPLITS, SceneBatches
from echopix_cli.training.forward import accuracy
from echopix_cli.training.losses import AuxiliaryHeads, losses, total_loss
from echopix_cli.training.muon import Muon
from echopix_cli.training.recipe import STATE, Recipe
from echopix_cli.training.sources import keep_sources
from echopix_cli.training.start import Start
from echopix_cli.training.teacher import AttentionTeacher
from echopix_cli.training.workers import prepared
from echopix_cli.weights.checkpoint import refusals, save_model, save_tensors
from echopix_cli.weights.stock import save_as_stock

METRICS = "metrics.jsonl"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")  # what the optimizers keep of a parameter
_IN_A_LAYER = re.compile(r"\.(layers|blocks)\.\d+\.")
_EMPTY = 100  # steps in a row without a single file that can be read: more is no accident
_DIVERGED = 20  # steps in a row whose gradient is no number: the run does not come back
_SCENES_OF_A_SEED, _SEEDS = 10_000_000, 2**20  # another seed trains on other scenes; seed 0 on the last ones


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done of how many, the step's losses, if it had a batch, and the seconds it took."""

    step: int
    steps: int
    losses: dict[str, float]
    step_seconds: float


class Trainer:
    """Runs a recipe in a folder: resumes from its last checkpoint, and leaves a loadable model at every stop.

    Args:
        start: from :func:`~echopix_cli.training.start.begin`.
        recipe: what to do.
        folder: of the run.
        watch: called after every step.
        workers: processes that prepare batches; by default one beside a CPU, and all cores but one beside a GPU.
        warn: told, once each, of files that cannot be used and of what was said of others as they were decoded.
    """

    def __init__(
        self,
        start: Start,
        recipe: Recipe,
        folder: Path,
        watch: Callable[[Progress], None] = lambda progress: None,
        workers: int | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model, self.processor, self.originals = start.model.train(), start.processor, start.originals
        self.recipe, self.folder, self.watch, self.warn = recipe, folder, watch, warn
        self.device = next(self.model.parameters()).device
        self.workers = workers or (1 if self.device.type == "cpu" else max(1, len(os.sched_getaffinity(0)) - 1))
        self.teacher = AttentionTeacher(self.model) if recipe.teacher == "attention" else None
        torch.manual_seed(recipe.seed)
        self.heads = AuxiliaryHeads(self.model.config.text.hidden_size).to(self.device)
        if recipe.checkpointing:
            self.model.recompute_activations()
        everything = [*self.model.named_parameters(), *((f"heads.{n}", p) for n, p in self.heads.named_parameters())]
        self.trained = {name: p for name, p in everything if p.requires_grad}
        self.optimizers = _optimizers(self.trained, recipe)
        self.step = 0
        self._empty = self._diverged = 0  # steps in a row without a batch, and with a gradient that is no number
        self._left_out, self._noticed = set[str](), set[str]()  # files of which something was said
        self._stopping = False
        if (folder / STATE).exists():
            self._restore()
        elif recipe.base and (Path(recipe.base) / STATE).exists():
            self._inherit_heads(load_file(Path(recipe.base) / STATE))

    def run(self, until: int | None = None, seconds: float | None = None) -> None:
        """Train to step ``until`` (default: the recipe's end), until ``seconds`` have passed, or to :meth:`stop`.

        The folder then holds a loadable model and what resuming needs; after a crash, the last checkpoint. A step of
        whose files none can be read, or whose gradient is not finite, changes nothing, and counts.

        Raises:
            MediaError: nothing could be read for as long as all files take, or for a hundred steps.
            EchopixError: twenty gradients in a row were not finite, or the folder cannot be written.
        """
        recipe, began = self.recipe, time.monotonic()
        end = recipe.steps if until is None else min(until, recipe.steps)
        with refusals(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        recipe.save(self.folder)  # first: a folder with a recipe is a run, which can be started again
        tiny.save_processor(self.processor, self.folder)
        if not self.step:
            keep_sources(recipe, self.folder)
        self._forget_later_metrics()
        data = self._data(recipe.steps * recipe.accumulate, recipe.splits and recipe.splits[0])
        order = range(self.step * recipe.accumulate, end * recipe.accumulate)
        batches = self._prepared(data, order)
        while self.step < end and not self._stopping:
            started = time.monotonic()
            usable = self._usable([next(batches) for _ in range(recipe.accumulate)])
            parts = self.update(usable) if usable else {}
            self.step += 1
            taken = round(time.monotonic() - started, 3)
            self._log({"step": self.step, "seconds": taken, **_noted(parts)})
            self.watch(Progress(self.step, end, parts, taken))
            self._require_progress(parts, self._most_empty(data))
            if self.step % recipe.validate_every == 0 or self.step == recipe.steps:
                self._log({"step": self.step, "validation": self.validate()})
            if self.step % recipe.checkpoint_every == 0:
                self._store()
            if seconds is not None and time.monotonic() - began > seconds:
                break
        self._store()
        self.export(self.folder)

    def stop(self) -> None:
        """End the run after the step that is being taken; safe to call from a signal handler."""
        self._stopping = True

    def export(self, folder: Path, dtype: torch.dtype | None = None, *, stock: bool = False) -> None:
        """Write the model as it stands, in the authors' layout, or without its sieve as a ``stock`` checkpoint.

        What is frozen is written as the base has it, whatever precision the run computes in.

        Raises:
            ModelError: no stock checkpoint can hold it.
        """
        save = save_as_stock if stock else save_model
        save(self.model, folder, dtype, plain_tensors(self.model, self.originals))

    def validate(self) -> dict[str, dict[str, float]]:
        """Accuracy on the validation split at several budgets, with controls beside the sieve; {} for other data."""
        splits = self.recipe.splits
        if splits is None or not self.recipe.validate_batches or not self.recipe.settings():
            return {}
        data = self._data(self.recipe.validate_batches, splits[1])
        # Begun outside: processes that are started under autocast prepare their data under it.
        made = self._prepared(data, range(len(data)))
        batches = (batch.to(self.device) for batch in made)
        with self._arithmetic():
            return accuracy(self.model, batches, self.recipe.settings())

    def _prepared(self, data: Any, order: range) -> Iterator[Any]:
        return prepared(data, order, self.workers, pinned=self.device.type != "cpu")

    def _data(self, length: int, split: str | None) -> Any:
        recipe = self.recipe
        pack = recipe.stage == "full"
        if split is None:
            conversations = read_conversations(Path(recipe.data))
            size, seed = recipe.batch_size, recipe.seed
            plan = recipe.plan(self.processor)
            return ConversationBatches(self.processor, conversations, plan, size, length, seed=seed, pack=pack)
        return SceneBatches(
            self.processor,
            split,
            recipe.batch_size,
            recipe.asked,
            length,
            pack=pack,
            questions=recipe.questions,
            sparse=recipe.stage == "towers",
            galleries=recipe.galleries if recipe.stage == "towers" else 0.0,
            films=recipe.films if recipe.stage == "sieve" and split in TRAINED_SPLITS else 0.0,
            letters=recipe.letters if split in TRAINED_SPLITS else 0.0,
            first=(recipe.seed - 1) % _SEEDS * _SCENES_OF_A_SEED if split in TRAINED_SPLITS else 0,
        )

    def _usable(self, drawn: Sequence[Batch | Unread]) -> list[Batch]:
        """The batches among what was drawn; files that are left out, and what is said of others, are said once."""
        for file in (file for one in drawn for file in one.left_out):
            if file.media not in self._left_out:
                self._left_out.add(file.media)
                self.warn(f"{file.reason}; training goes on without this file")
        usable = [one for one in drawn if isinstance(one, Batch)]
        for used in (file for one in usable for file in one.noticed):
            if used.media not in self._noticed:
                self._noticed.add(used.media)
                self.warn(f"{shown(used.media)}: {'; '.join(used.notices)}")
        return usable

    def _most_empty(self, data: Any) -> int:
        """Steps in a row without a batch after which it is clear that the run comes to nothing."""
        files = -(-data.cycle // self.recipe.accumulate) if isinstance(data, ConversationBatches) else _EMPTY
        return min(files, _EMPTY, self.recipe.steps)

    def _require_progress(self, parts: dict[str, float], most_empty: int) -> None:
        """Count steps in a row that changed nothing, and end what comes to nothing.

        Raises:
            MediaError, EchopixError: as :meth:`run`.
        """
        self._empty = 0 if parts else self._empty + 1
        self._diverged = 0 if _stepped(parts) else self._diverged + bool(parts)
        if self._diverged >= _DIVERGED:
            raise EchopixError(
                f"the gradients of {_DIVERGED} steps in a row, up to step {self.step}, are not finite",
                "train into another folder with a smaller --set learning_rate, or in --dtype float32",
            )
        if self._empty >= most_empty:
            self._store()
            raise MediaError(
                f"none of the files of {self._empty} steps in a row could be decoded",
                "try one of them with echopix ask",
            )

    def update(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One optimizer step over batches, of which there is at least one; their losses, averaged.

        A ``gradient`` that is not finite is not taken: weights would be no numbers for ever.
        """
        recipe = self.recipe
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(self.step)
            optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for micro, batch in enumerate(batch.to(self.device) for batch in batches):
            # One seed for the draw and for any noise in the pass, or a resumed run would take another path.
            source = np.random.default_rng((recipe.seed, self.step, micro))
            torch.manual_seed(int(source.integers(2**31)))
            budget = recipe.budget(float(source.random())) if recipe.stage == "sieve" else None
            with self._arithmetic():
                parts = losses(self.model, self.heads, batch, recipe, budget, self.teacher)
                loss = total_loss(parts, recipe)
            (loss / len(batches)).backward()  # type: ignore[no-untyped-call]
            for name, value in {**parts, "loss": loss, "budget": torch.tensor(budget or 1.0)}.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float().to(self.device) / len(batches)
        sums["gradient"] = nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        # All at once: every single number read from a GPU waits for what it still has to do.
        values = torch.stack(list(sums.values())).tolist()
        found = {name: round(value, 5) for name, value in zip(sums, values, strict=True)}
        if _stepped(found):
            for optimizer in self.optimizers:
                optimizer.step()
        return found

    def _arithmetic(self) -> torch.autocast:
        enabled = self.recipe.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _log(self, record: dict[str, Any]) -> None:
        path = self.folder / METRICS
        with refusals(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _store(self) -> None:
        """What exact resuming needs: every trained weight with its moments, at full precision."""
        tensors = {"step": torch.tensor(self.step)}
        for name, parameter in self.trained.items():
            tensors[f"value.{name}"] = parameter.detach()
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"{key}.{name}"] = value
        whole = {name: value.cpu().contiguous().clone() for name, value in tensors.items()}
        save_tensors(whole, self.folder / STATE)

    def _inherit_heads(self, state: dict[str, torch.Tensor]) -> None:
        """Auxiliary heads as the run that the base came from left them, as far as it had them."""
        with torch.no_grad():
            for name, parameter in self.heads.named_parameters():
                known = state.get(f"value.heads.{name}")
                if known is not None and known.shape == parameter.shape:
                    parameter.copy_(known)

    def _restore(self) -> None:
        tensors = load_file(self.folder / STATE)
        self.step = int(tensors["step"])
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(tensors[f"value.{name}"])
                # Parameters that no batch has used yet have no state.
                own = {key: tensors[f"{key}.{name}"] for key in _MOMENTS if f"{key}.{name}" in tensors}
                if own:
                    (optimizer,) = (o for o in self.optimizers if _holds(o, parameter))
                    # On a GPU everything of the fused AdamW is there, its count of steps as well.
                    optimizer.state[parameter] = {key: value.to(self.device) for key, value in own.items()}

    def _forget_later_metrics(self) -> None:
        """Drop metrics of steps that are taken again, and lines that a crash or a power cut left torn."""
        path = self.folder / METRICS
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            write_whole(path, b"".join(line for line in lines if _step_of(line) <= self.step))


def _step_of(line: bytes) -> float:
    """The step that a line of metrics is about; beyond all steps where the line is not whole."""
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf
    except (ValueError, TypeError, KeyError):
        return math.inf


def _stepped(parts: dict[str, float]) -> bool:
    """Whether a step with these losses changed the weights."""
    return math.isfinite(parts.get("gradient", math.nan))


def _noted(parts: dict[str, float]) -> dict[str, Any]:
    """What the metrics say of a step: its losses, or that it changed nothing, and why."""
    if _stepped(parts):
        return parts
    unfit = [name for name, value in parts.items() if not math.isfinite(value)]
    return {"not_finite": unfit} if parts else {"empty": True}


def _optimizers(trained: dict[str, nn.Parameter], recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or for all but the layers' matrices, which Muon then takes."""
    matrices = [p for name, p in trained.items() if p.ndim == 2 and _IN_A_LAYER.search(name)]
    by_muon = {id(p) for p in matrices} if recipe.optimizer == "muon" else set()
    others = [p for p in trained.values() if id(p) not in by_muon]
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=others[0].is_cuda)
    ]
    if by_muon:
        # Updates as large as AdamW's, so that one learning rate serves both.
        half = recipe.precision == "bfloat16" or others[0].is_cuda
        precision = torch.bfloat16 if half else torch.float32
        optimizers.append(Muon(matrices, recipe.learning_rate, recipe.weight_decay, precision=precision))
    return optimizers


def _holds(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> bool:
    return any(parameter is own for group in optimizer.param_groups for own in group["params"])
