"""Token generation on the shortened cache: token ids out, one per prompt and step."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor
from transformers import DynamicCache

from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.model.values import Sieved


def pick(logits: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
    """Next tokens (B,) from logits (B, V): the likeliest at temperature 0, sampled above it."""
    if temperature <= 0.0:
        return logits.argmax(dim=-1)
    # The likeliest at 0, so that no temperature, however small, overflows.
    weights = ((logits - logits.amax(dim=-1, keepdim=True)).double() / temperature).softmax(dim=-1)
    return torch.multinomial(weights.cpu(), 1, generator=generator).squeeze(-1).to(logits.device)


@torch.inference_mode()
def generate(
    thinker: EchoingPixelsThinker,
    sieved: Sieved,
    *,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield the next token of every prompt, (B,), until all have stopped or ``max_new_tokens`` were made.

    Prefill runs at the first ``next()``. A prompt that has stopped goes on yielding its stop token. New
    tokens continue from the prompt's uncompressed end: position ``L + rope_delta`` (reference README step 2).
    """
    cache = DynamicCache(config=thinker.config.text_config)
    stops = torch.tensor(sorted(stop_ids), dtype=torch.long, device=sieved.hidden.device)
    tokens = pick(thinker.prefill(sieved, cache), temperature, generator)
    mask, positions = sieved.attention_mask, sieved.next_position
    done = torch.isin(tokens, stops)
    yield tokens
    for _ in range(max_new_tokens - 1):
        if bool(done.all()):
            return
        if mask is not None:
            mask = torch.cat((mask, mask.new_ones(mask.shape[0], 1)), dim=1)
        following = pick(thinker.step(tokens, positions, mask, cache), temperature, generator)
        tokens = torch.where(done, tokens, following)
        positions = positions + 1
        done = done | torch.isin(tokens, stops)
        yield tokens
