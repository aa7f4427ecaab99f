"""How questions are answered, in one value from the command to the model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from echopix_cli.engine.sieves import SieveOptions
from echopix_cli.errors import UsageError
from echopix_cli.model.processing import DEFAULT_SYSTEM
from echopix_cli.results import Turn


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is made: longest length in tokens, temperature (0 is greedy), its seed, system prompt.

    Raises:
        UsageError: a length below 1, a temperature that is negative or not finite, or a seed beyond 64 bits.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = None
    system: str = DEFAULT_SYSTEM

    def __post_init__(self) -> None:
        if not self.max_new_tokens >= 1:
            raise UsageError(f"max_new_tokens {self.max_new_tokens} is below 1", "an answer has at least one token")
        if not 0.0 <= self.temperature < math.inf:
            raise UsageError(
                f"temperature {self.temperature:g} is negative or not finite", "0 always takes the likeliest token"
            )
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise UsageError(f"seed {self.seed} is no number of 64 bits with its sign", "choose a smaller one")


@dataclass(frozen=True)
class FilmOptions:
    """How a file is read that is longer than one window.

    ``window`` is the length of one in seconds, None what the checkpoint was trained on; ``look`` is how many of them
    are read again at the full rate for a question, where all were only glanced at.

    Raises:
        UsageError: a window that is no finite time above 0, or fewer looks than none.
    """

    window: float | None = None
    look: int = 4

    def __post_init__(self) -> None:
        if self.window is not None and not 0.0 < self.window < math.inf:
            raise UsageError(
                f"a window of {self.window:g} s is no finite time above 0", "leave it out for the model's own"
            )
        if not self.look >= 0:
            raise UsageError(f"look {self.look} is below 0", "0 reads no window again")


@dataclass(frozen=True)
class AskOptions:
    """How questions are answered.

    Attributes:
        budget: fraction of audio-visual tokens kept, in (0, 1]; None takes the checkpoint's own.
        generation: of the answer's text; choosing among options takes its system prompt alone.
        sieve: what chooses the tokens.
        list_kept: whether the answer lists every kept token.
        earlier: turns of the conversation before the question, in order; of which
            :meth:`~echopix_cli.model.processing.Processor.read_again` are read, by the sieve, too.
    """

    budget: float | None = None
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    sieve: SieveOptions = field(default_factory=SieveOptions)
    list_kept: bool = False
    earlier: tuple[Turn, ...] = ()
