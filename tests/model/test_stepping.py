"""A step over the cache of fixed size gives what the layers give over a growing one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prompts import Media, inputs_of, prompt_of
from transformers import DynamicCache

from echopix_cli.errors import ModelError
from echopix_cli.model import stepping
from echopix_cli.model.decoding import generate
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.stepping import FixedCache, Stepper
from echopix_cli.weights.checkpoint import load_model


@pytest.fixture(scope="module", params=["random_checkpoint", "stock_checkpoint"])
def model(request: pytest.FixtureRequest) -> EchoingPixelsForConditionalGeneration:
    folder: Path = request.getfixturevalue(request.param)
    return load_model(folder, dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_is_the_layers_over_a_growing_cache(
    model: EchoingPixelsForConditionalGeneration, dtype: torch.dtype
) -> None:
    """Also where the first layers' keys come from the sieve; in bfloat16 to its own precision."""
    thinker = model.to(dtype).thinker
    logits: list[torch.Tensor] = []
    try:
        with torch.inference_mode():
            sieved = thinker.sieve(prompt_of(model, **inputs_of(model, Media((4, 2, 3), 0.96, 400))), 0.3)
            growing, fixed = DynamicCache(), FixedCache(thinker.model, sieved, 5)
            tokens = thinker.prefill(sieved, growing).argmax(-1)
            thinker.prefill(sieved, fixed)
            steps = Stepper(thinker.model, thinker.lm_head, fixed, sieved, tokens)
            hook = thinker.lm_head.register_forward_hook(lambda module, given, found: logits.append(found.float()))
            for number in range(5):
                steps.advance()
                embeds = thinker.model.embed_tokens(tokens[:, None])
                positions = (sieved.next_position + number).expand(4, -1, -1)
                hidden = thinker.model.decode(embeds, positions, None, growing)
                tokens = thinker.lm_head(hidden[:, -1]).argmax(-1)
                exact = 1e-4 if dtype == torch.float32 else 0.15
                torch.testing.assert_close(logits[-2], logits[-1], atol=exact, rtol=exact)
                steps.tokens.copy_(tokens)
            hook.remove()
    finally:
        model.float()


def test_a_seed_draws_the_same_and_tokens_arrive_on_the_host(model: EchoingPixelsForConditionalGeneration) -> None:
    with torch.inference_mode():
        sieved = model.thinker.sieve(prompt_of(model, **inputs_of(model, Media((4, 2, 3), 0.96, 400))), 0.3)

    def drawn(seed: int) -> list[int]:
        source = torch.Generator().manual_seed(seed)
        tokens = list(generate(model.thinker, sieved, max_new_tokens=8, temperature=1.5, generator=source))
        assert all(token.device.type == "cpu" for token in tokens)
        return [int(token) for token in tokens]

    assert drawn(3) == drawn(3)
    assert len({tuple(drawn(seed)) for seed in range(6)}) > 1


def test_logits_that_are_no_numbers_end_an_answer_at_any_token(model: EchoingPixelsForConditionalGeneration) -> None:
    thinker = model.thinker
    with torch.inference_mode():
        one = prompt_of(model, **inputs_of(model, Media((4, 2, 3), 0.96, 400)))
        sieved = thinker.sieve(one, 0.3)
    first, second = (int(token) for token in generate(thinker, sieved, max_new_tokens=2))
    row = thinker.model.embed_tokens.weight.data[second]
    assert second != first and second not in one.input_ids
    kept = row.clone()
    try:
        row[0] = torch.inf
        tokens = generate(thinker, sieved, max_new_tokens=4)
        assert [int(next(tokens)), int(next(tokens))] == [first, second]
        with pytest.raises(ModelError, match="the logits of this model are NaN or infinite"):
            next(tokens)
        assert len(list(generate(thinker, sieved, max_new_tokens=4, stop_ids=[second]))) == 2
    finally:
        row.copy_(kept)


def test_layers_that_wait_for_the_device_are_not_recorded(model: EchoingPixelsForConditionalGeneration) -> None:
    """An attempt would spoil the process's allocator: bitsandbytes' int8 asks the device whether there are outliers."""

    class Linear8bitLt(torch.nn.Linear):
        pass

    assert stepping._recordable(model.thinker.model)
    assert not stepping._recordable(torch.nn.Sequential(torch.nn.Linear(2, 2), Linear8bitLt(2, 2)))
