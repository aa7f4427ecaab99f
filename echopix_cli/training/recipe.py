"""What a training run does, as plain data that is written beside its checkpoints."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from echopix_cli.errors import UsageError
from echopix_cli.files import write_whole
from echopix_cli.media import DecodePlan
from echopix_cli.model.processing import Processor
from echopix_cli.model.values import Selection
from echopix_cli.scenes import FAMILIES

STAGES = ("towers", "full", "sieve")
VIEWS = ("whole", "causal", "no-question")
TEACHERS = ("none", "attention")
QUANTIZATIONS = ("none", "nf4")
OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("float32", "bfloat16")
CONTROLS: tuple[Selection, ...] = ("random", "uniform")  # what any sieve has to beat
_FILE = "recipe.json"


@dataclass(frozen=True)
class Recipe:
    """One stage of training.

    Args:
        base: folder of the checkpoint that the run starts from; empty builds the bundled model's shape from
            random weights. A stock base gets a CS2 copied from its first decoder layers.
        data: ``scenes`` renders them on the fly; otherwise a JSONL file of messages and videos.
        fps, max_frames, max_pixels: how files are decoded; None takes the program's or the checkpoint's default.
        stage: ``towers`` trains the towers alone on their auxiliary losses, a few frames of many scenes: seeing
            and hearing come several times faster than beside a decoder. ``full`` trains on all tokens, around
            the sieve; ``sieve`` trains CS2, score head and decoder
            with a budget drawn per batch, log-uniform in [budget_low, budget_high] (paper; reference README,
            initialisation and step 7).
        steps: optimizer steps of ``accumulate`` batches of ``batch_size`` clips. Of a scene the ``full`` stage
            asks every question that it answers, ``sieve`` asks ``questions``.
        optimizer: ``muon`` orthogonalises the updates of the layers' matrices (Jordan et al. 2024) and leaves the rest
            to AdamW.
        decay: share of the steps, at the end, over which the learning rate falls to zero.
        families: question families that scenes are made for, a repeated name being drawn more often.
        hearing, seeing: weights of the towers' auxiliary losses (which instruments sound at this audio row,
            which picture lies on this video row); from scratch nothing is learned without them. Scenes only.
        binding: weight of what the decoder's first half, and in the ``sieve`` stage CS2, learns to know at every
            audio row: what is on screen meanwhile, what has moved, how many notes have begun; and CS2 at every
            video row: what sounds meanwhile. Questions that join picture and sound stay at chance for very long
            without it. Scenes only.
        pointing: weight of the loss that draws a question's attention, in the layer after that half, to the rows
            its answer depends on. Scenes only.
        evidence: weight of the loss that draws scores towards the rows an answer depends on. Scenes only.
            The straight-through gradient alone is divided by the pool's size and leaves the choice to chance.
        hide_bands: share of the sounds whose frequencies are moved a little and hidden in part, so that an
            instrument is known by more than one recording's timbre.
        teacher: ``attention`` draws scores towards what the base's own decoder attends to, with ``teaching``
            as the weight; needs no labels, so it serves real data.
        freeze_towers: leave the towers as they are, as for a real base model.
        adapters: rank of the decoder's LoRA adapters; 0 trains the decoder whole.
        quantize: ``nf4`` keeps the decoder's linear layers in four bits under the adapters.
        precision: of the arithmetic; trained weights stay float32.
        checkpointing: recompute activations in the backward pass instead of keeping them.
        sieve_layers: CS2 layers given to a base that has none.
        sieve_view, rope_axes: ablations, written into the checkpoint's configuration: what CS2 may see, and
            3 for the family's M-RoPE in place of Sync-RoPE.
    """

    base: str = ""
    data: str = "scenes"
    fps: float | None = None
    max_frames: int | None = None
    max_pixels: int | None = None
    stage: str = "sieve"
    steps: int = 6000
    batch_size: int = 8
    accumulate: int = 1
    questions: int = 2
    optimizer: str = "adamw"
    learning_rate: float = 8e-4
    warmup: int = 200
    decay: float = 0.25
    weight_decay: float = 0.05
    seed: int = 1
    families: tuple[str, ...] = FAMILIES
    budget_low: float = 0.05
    budget_high: float = 1.0
    hearing: float = 4.0
    seeing: float = 1.0
    binding: float = 4.0
    pointing: float = 0.3
    evidence: float = 0.3
    hide_bands: float = 0.0
    teacher: str = "none"
    teaching: float = 0.3
    freeze_towers: bool = False
    adapters: int = 0
    quantize: str = "none"
    precision: str = "float32"
    checkpointing: bool = False
    sieve_layers: int = 4
    sieve_view: str = "whole"
    rope_axes: int = 4
    checkpoint_every: int = 250
    validate_every: int = 500
    validate_batches: int = 16

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, constant, and linear to zero over the last ``decay`` of the run.

        A run can be made longer while it is still in its constant part.
        """
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup), left)

    def budget(self, draw: float) -> float:
        """A budget from a uniform draw in [0, 1)."""
        low, high = math.log(self.budget_low), math.log(self.budget_high)
        return min(1.0, math.exp(low + draw * (high - low)))

    def settings(self) -> dict[str, tuple[float | None, Selection]]:
        """What validation measures: budgets of the sieve, with the controls beside it."""
        if self.stage == "towers":
            return {}
        if self.stage == "full":
            return {"full": (None, "cs2")}
        return {
            **{f"cs2@{budget}": (budget, "cs2") for budget in (1.0, 0.2, 0.1, 0.05)},
            **{f"{control}@{budget}": (budget, control) for control in CONTROLS for budget in (0.1, 0.05)},
        }

    def plan(self, processor: Processor) -> DecodePlan:
        """How files are decoded."""
        default = DecodePlan()
        wanted = replace(default, fps=self.fps or default.fps, max_frames=self.max_frames or default.max_frames)
        return processor.plan(wanted, self.max_pixels)

    def save(self, folder: Path) -> None:
        """Write ``recipe.json``."""
        write_whole(folder / _FILE, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Recipe | None:
        """The recipe of the run in a folder, None where no run was started.

        Raises:
            UsageError: ``recipe.json`` is damaged, or of a version of the tool with other fields.
        """
        path = folder / _FILE
        try:
            raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**raw, "families": tuple(raw["families"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(f"cannot read {path}: {error}", "train into another folder with --out") from None

    def resumed_with(self, wanted: dict[str, Any]) -> Recipe:
        """This recipe with another length; whatever else is asked for must be what the run was started with.

        Raises:
            UsageError: a field that cannot change in mid-run.
        """
        own = asdict(self)
        for name, value in wanted.items():
            if name != "steps" and value != own[name]:
                raise UsageError(
                    f"this run was started with {name.replace('_', ' ')} {own[name]!r}, not {value!r}",
                    "leave the option out to go on, or train into another folder with --out",
                )
        return Recipe(**{**own, "steps": wanted.get("steps", self.steps)})
