"""Which sieve chooses, how, and what a choice is told that the model at hand cannot make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from echopix_cli.errors import UsageError
from echopix_cli.model.question_attention import scoring_layer
from echopix_cli.model.redundancy import SHARE
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.model.values import FirstLayers, Selection

AUTO = "auto"
# Measured on a stock-like model: at 20 % the redundancy stage costs two points, at 10 and 5 % nothing that shows,
# and half of the first layers' work is saved.
PREFILTERED_BELOW = 0.2


@dataclass(frozen=True)
class SieveOptions:
    """What is wanted of the sieve.

    ``name`` is ``auto`` (the model's own) or a selection; ``layer`` that of ``question-attention``, None for a
    third of the layers; ``prefilter`` puts the redundancy stage before it, None where the budget is below
    :data:`PREFILTERED_BELOW`; ``seed`` is that of ``random``.
    """

    name: str = AUTO
    layer: int | None = None
    prefilter: bool | None = None
    seed: int = 0


def seed_of(seed: int, number: int) -> int:
    """A seed for each question of an evaluation, or window of a film, from one of them all."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class SieveChoice:
    """What chooses the rows of one answer. ``layer`` and ``prefilter`` (the share that it leaves) are None where
    there is no such layer or stage."""

    selection: Selection
    layer: int | None = None
    prefilter: float | None = None

    @property
    def first_layers(self) -> FirstLayers:
        """The same, as the thinker takes it."""
        return FirstLayers(self.layer, 1.0 if self.prefilter is None else self.prefilter)


def choose(thinker: EchoingPixelsThinker, wanted: SieveOptions, budget: float) -> SieveChoice:
    """What is wanted, as far as this model goes.

    The redundancy stage leaves half of the pool, or the budget where that is more; a budget of 1 leaves it out.

    Raises:
        UsageError: no such sieve, layer or stage here, with the right names.
    """
    names: tuple[Selection, ...] = thinker.selections
    own = names[0]
    selection = next((name for name in names if name == wanted.name), own if wanted.name == AUTO else None)
    if selection is None:
        why = "it has no CS2" if own != "cs2" else "its sieve is cs2"
        raise UsageError(
            f"this model cannot sieve by {wanted.name}: {why}", f"choose from: {', '.join((AUTO, *names))}"
        )
    if own == "cs2":
        if wanted.layer is not None or wanted.prefilter:
            option = "--prefilter" if wanted.layer is None else "--question-layer"
            raise UsageError(f"{option} is for models without CS2, and this one has it", f"leave {option} out")
        return SieveChoice(selection)
    try:
        layer = scoring_layer(len(thinker.model.layers), wanted.layer)
    except ValueError as error:
        raise UsageError(f"--question-layer: {error}", "without it a third of the layers run before") from None
    if wanted.prefilter and selection != own:
        raise UsageError(
            f"--prefilter goes before {own}, and {selection} chooses without it", "leave --prefilter or --sieve out"
        )
    filters = selection == own and (budget < PREFILTERED_BELOW if wanted.prefilter is None else wanted.prefilter)
    return SieveChoice(selection, layer, max(SHARE, budget) if filters and budget < 1.0 else None)
