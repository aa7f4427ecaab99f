"""What the decoder's attention finds, between clips before its softmax and within one after it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prompts import Media, inputs_of, prompt_of
from reference_layers import run_theirs

from echopix_cli.model.attention import attention_of
from echopix_cli.model.decoding import generate
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.relevance import last_attention, relevance
from echopix_cli.model.stepping import FixedCache
from echopix_cli.model.text import causal_mask
from echopix_cli.model.values import FirstLayers
from echopix_cli.weights.checkpoint import load_model

BOTH = Media((6, 2, 3), 0.96, 600)


@pytest.fixture(scope="module", params=["random_checkpoint", "stock_checkpoint"])
def model(request: pytest.FixtureRequest) -> EchoingPixelsForConditionalGeneration:
    folder: Path = request.getfixturevalue(request.param)
    return load_model(folder, dtype=torch.float32)


@torch.inference_mode()
@pytest.mark.parametrize("budget", [0.2, 1.0])
def test_the_highest_logit_of_every_head(model: EchoingPixelsForConditionalGeneration, budget: float) -> None:
    """Against transformers' layers over the same rows, and products of queries and keys written out."""
    thinker, text = model.thinker, model.thinker.model
    prompt = prompt_of(model, **inputs_of(model, BOTH))
    sieved = thinker.keep(prompt, thinker.score(prompt, first_layers=FirstLayers(0)), budget)
    in_pool = thinker.special.in_pool(prompt.input_ids[0, sieved.kept[0]])
    visible = causal_mask(torch.ones(sieved.hidden.shape[:2], dtype=torch.bool))
    seen = run_theirs(text, sieved.hidden.clone(), sieved.position_ids, visible)
    rotary = text.rotary(sieved.position_ids, torch.float32)
    peaks = []
    for before, layer in zip([sieved.hidden, *(one.hidden for one in seen)], text.layers, strict=False):
        query, key, _ = layer.self_attn.project(layer.input_layernorm(before), rotary)
        key = key.repeat_interleave(query.shape[2] // key.shape[2], dim=2)
        logits = torch.einsum("hd,khd->hk", query[0, -1], key[0]) * query.shape[-1] ** -0.5
        peaks.append(logits[:, in_pool].max(dim=1).values.mean())
    assert relevance(text, sieved, in_pool) == pytest.approx(float(torch.stack(peaks).mean()), abs=1e-5)


@torch.inference_mode()
def test_nothing_to_look_at(model: EchoingPixelsForConditionalGeneration) -> None:
    thinker = model.thinker
    prompt = prompt_of(model, **inputs_of(model, BOTH))
    sieved = thinker.keep(prompt, thinker.score(prompt), 0.2, selection="none")
    in_pool = thinker.special.in_pool(prompt.input_ids[0, sieved.kept[0]])
    assert relevance(thinker.model, sieved, in_pool) == -torch.inf


@torch.inference_mode()
def test_shares_of_the_score(model: EchoingPixelsForConditionalGeneration) -> None:
    """They sum to one, and keep the order of scores; parts of attention stay parts."""
    thinker = model.thinker
    prompt = prompt_of(model, **inputs_of(model, BOTH))
    scored = thinker.score(prompt)
    shares = thinker.log_shares(scored)[0].exp()
    own = scored.scores[0][scored.candidates[0]].double()
    assert float(shares.sum()) == pytest.approx(1.0, abs=1e-5)
    assert not shares[~scored.candidates[0]].any()
    expected = own / own.sum() if thinker.model.compressor is None else own.softmax(0)
    assert torch.allclose(shares[scored.candidates[0]].double(), expected, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("first_layers", [FirstLayers(0), FirstLayers(2)])
def test_the_last_rows_attention(model: EchoingPixelsForConditionalGeneration, first_layers: FirstLayers) -> None:
    """One step over the cache finds what attention over all rows at once gives, whatever was generated since."""
    thinker, text = model.thinker, model.thinker.model
    prompt = prompt_of(model, **inputs_of(model, BOTH))
    sieved = thinker.keep(prompt, thinker.score(prompt, first_layers=first_layers), 0.3)
    hidden, rotary = sieved.hidden, text.rotary(sieved.position_ids, torch.float32)
    last, seen = torch.tensor([[hidden.shape[1] - 1]]), torch.ones(hidden.shape[:2], dtype=torch.bool)
    parts = []
    for number in range(sieved.start, len(text.layers)):
        ((_, weights),) = attention_of(text.layers[number], hidden, rotary, last, seen)
        if number >= len(text.layers) // 2:
            parts.append(weights[0, :, 0].mean(dim=0))
        hidden = text.layers[number](hidden, rotary)
    cache = FixedCache(text, sieved, 3)
    assert len(list(generate(thinker, sieved, max_new_tokens=4, cache=cache))) == 4
    found = last_attention(text, sieved, cache)
    torch.testing.assert_close(found, torch.stack(parts).mean(dim=0), atol=1e-5, rtol=1e-4)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float((found - 1 / len(found)).abs().max()) > 1e-4  # ten times what is tolerated
