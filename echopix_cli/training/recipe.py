"""What a training run does, as plain data that is written beside its checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass

from echopix_cli.model.values import Selection
from echopix_cli.scenes import FAMILIES

CONTROLS: tuple[Selection, ...] = ("random", "uniform")  # what any sieve has to beat


@dataclass(frozen=True)
class Recipe:
    """One stage of training.

    Args:
        stage: ``full`` trains towers and decoder on all tokens, around the sieve; ``sieve`` trains CS2,
            score head and decoder with a budget drawn per batch, log-uniform in [budget_low, budget_high]
            (paper; reference README, initialisation and step 7).
        batch_size: clips in a step. In the ``full`` stage every question that a clip answers is asked; in
            ``sieve``, ``questions`` of them.
        families: question families drawn from, a repeated name being drawn more often.
        hearing, seeing: weights of the towers' auxiliary losses (which instruments sound at this audio row,
            which picture lies on this video row); from scratch nothing is learned without them.
        evidence: weight of the loss that draws scores towards the rows an answer depends on. The
            straight-through gradient alone is divided by the pool's size and leaves the choice to chance.
        freeze_towers: leave towers and their features as they are, as for a real base model.
    """

    stage: str = "sieve"
    steps: int = 6000
    batch_size: int = 8
    questions: int = 2
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.25
    weight_decay: float = 0.05
    seed: int = 1
    side: int = 112
    families: tuple[str, ...] = FAMILIES
    budget_low: float = 0.05
    budget_high: float = 1.0
    hearing: float = 1.0
    seeing: float = 1.0
    evidence: float = 0.3
    freeze_towers: bool = False
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
        if self.stage == "full":
            return {"full": (None, "cs2")}
        return {
            **{f"cs2@{budget}": (budget, "cs2") for budget in (1.0, 0.2, 0.1, 0.05)},
            **{f"{control}@{budget}": (budget, control) for control in CONTROLS for budget in (0.1, 0.05)},
        }
