"""Token generation on the shortened cache: token ids out, one per prompt and step."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from echopix_cli.model.finite import no_numbers, require_finite
from echopix_cli.model.stepping import FixedCache, Stepper, picked
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.model.values import Sieved


@dataclass(frozen=True)
class _Arriving:
    """Tokens, and what goes with them, on their way to the host."""

    tokens: Tensor
    event: torch.cuda.Event | None

    @classmethod
    def of(cls, tokens: Tensor) -> _Arriving:
        if not tokens.is_cuda:
            return cls(tokens.clone(), None)
        host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
        host.copy_(tokens, non_blocking=True)
        event = cast(Any, torch.cuda.Event)()
        event.record(torch.cuda.current_stream(tokens.device))  # not the current device's: there may be several
        return cls(host, event)

    def wait(self) -> Tensor:
        if self.event is not None:
            self.event.synchronize()
        return self.tokens


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Exponential noise for :func:`picked`, drawn on the host: the same on every device."""
    drawn = torch.empty(like.shape, dtype=torch.float64, pin_memory=like.is_cuda)
    return drawn.exponential_(generator=generator).to(like.device, non_blocking=True)


def pick(logits: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
    """Next tokens (B,) from logits (B, V): the likeliest at temperature 0, drawn above it."""
    return picked(logits, temperature, _noise(logits, generator) if temperature > 0 else None)


@torch.inference_mode()
def generate(
    thinker: EchoingPixelsThinker,
    sieved: Sieved,
    *,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    graphs: bool = True,
    cache: FixedCache | None = None,
) -> Iterator[Tensor]:
    """Yield the next token of every prompt, (B,) on the host, until all have stopped or ``max_new_tokens`` were made.

    Prefill runs at the first ``next()``. A prompt that has stopped goes on yielding its stop token. New tokens
    continue from the prompt's uncompressed end: position ``L + rope_delta``.

    Args:
        thinker: with the decoder.
        sieved: from its sieve.
        max_new_tokens: the most that are made.
        stop_ids: tokens that end an answer; they are yielded.
        temperature: 0 takes the likeliest token.
        generator: on the host, of what is drawn above temperature 0.
        graphs: on CUDA, record a step and replay it. The tokens are the same.
        cache: an empty one with room for ``max_new_tokens - 1`` steps, for a caller who reads it afterwards.

    Raises:
        ModelError: the logits of a prompt that has not stopped hold NaN or infinity.
    """
    temperature = max(temperature, 0.0)
    cache = cache or FixedCache(thinker.model, sieved, max_new_tokens - 1)
    logits = require_finite(thinker, thinker.prefill(sieved, cache), "logits")
    tokens = pick(logits, temperature, generator)
    stops = torch.tensor(sorted(stop_ids), dtype=torch.long)
    newest = _Arriving.of(tokens).wait()
    done = torch.isin(newest, stops)
    yield newest
    if max_new_tokens < 2 or bool(done.all()):
        return
    del logits
    steps = Stepper(thinker.model, thinker.lm_head, cache, sieved, tokens, temperature, graphs=graphs)

    def step() -> _Arriving:
        if steps.noise is not None:
            steps.noise.copy_(_noise(steps.noise, generator))
        steps.advance()
        return _Arriving.of(steps.made)

    arriving = step()
    for left in range(max_new_tokens - 2, -1, -1):
        # A recorded step is cheap to launch: the device goes on while the host looks at what it made.
        following = step() if left and steps.recorded else None
        made, broken = arriving.wait()
        if bool((~done & (broken != 0)).any()):
            raise no_numbers(thinker, "logits")
        newest = torch.where(done, newest, made)
        done = done | torch.isin(newest, stops)
        yield newest
        if bool(done.all()):
            return
        if left:
            arriving = following or step()
