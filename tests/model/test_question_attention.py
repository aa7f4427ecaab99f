"""The training-free sieve: what it scores, what it carries over, what it costs, and that it says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from prompts import Media, inputs_of, make_media, padded, prompt_of
from reference_layers import run_theirs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from echopix_cli.model.attention import attention_received
from echopix_cli.model.decoding import generate
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.question_attention import asking_rows, scoring_layer
from echopix_cli.model.sieve import keep_count, spread_order
from echopix_cli.model.text import causal_mask
from echopix_cli.model.values import FirstLayers, Prompt, Selection
from echopix_cli.settings import SIEVES
from echopix_cli.weights.checkpoint import load_model

BOTH = Media((6, 2, 3), 0.96, 600)


@pytest.fixture(scope="module")
def model(stock_checkpoint: Path) -> EchoingPixelsForConditionalGeneration:
    return load_model(stock_checkpoint, dtype=torch.float32)


@pytest.fixture(scope="module")
def prompt(model: EchoingPixelsForConditionalGeneration) -> Prompt:
    with torch.inference_mode():
        return prompt_of(model, **inputs_of(model, BOTH))


def in_pool(model: EchoingPixelsForConditionalGeneration, prompt: Prompt) -> Tensor:
    return torch.isin(prompt.input_ids[0], torch.tensor(model.thinker.special.placeholders))


def test_a_third_of_the_layers() -> None:
    assert [scoring_layer(layers, None) for layers in (1, 3, 4, 28, 36)] == [0, 1, 2, 10, 12]
    assert scoring_layer(28, 27) == 27
    for wanted in (-1, 28):
        with pytest.raises(ValueError, match="numbered 0 to 27"):
            scoring_layer(28, wanted)


def test_settings_know_every_sieve() -> None:
    assert set(SIEVES) == {"auto", *get_args(Selection)}


def test_who_asks(model: EchoingPixelsForConditionalGeneration, prompt: Prompt) -> None:
    """The nine words after the media, not the two borders that close it; in a text prompt nobody."""
    ids, special = prompt.input_ids, model.thinker.special
    length = ids.shape[1]
    asking = asking_rows(ids, torch.ones_like(ids, dtype=torch.bool), special)
    assert asking[0].nonzero().flatten().tolist() == list(range(length - 9, length))
    text = torch.arange(40, 50)[None]
    assert not asking_rows(text, torch.ones_like(text, dtype=torch.bool), special).any()
    bare = ids[:, : length - 11]  # ends in media: the last row alone
    assert asking_rows(bare, torch.ones_like(bare, dtype=torch.bool), special)[0].nonzero().tolist() == [[length - 12]]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_scores_are_the_attention_that_transformers_would_show(
    model: EchoingPixelsForConditionalGeneration, prompt: Prompt, layer: int
) -> None:
    """Against the whole map of eager attention, which only a test may make."""
    visible = causal_mask(torch.ones_like(prompt.input_ids, dtype=torch.bool))
    seen = run_theirs(model.thinker.model, prompt.embeds.clone(), prompt.position_ids.clone(), visible)
    with torch.inference_mode():
        scored = model.thinker.score(prompt, first_layers=FirstLayers(layer))
    expected = seen[layer].weights[0, :, -9:].mean(dim=(0, 1))
    assert torch.allclose(scored.scores[0], expected, atol=1e-6)
    assert scored.scores.sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("asked", [1, 31, 32, 33, 100])
def test_blocks_of_asking_rows_add_up(model: EchoingPixelsForConditionalGeneration, asked: int) -> None:
    hidden = torch.randn(1, 120, 192, generator=torch.Generator().manual_seed(1))
    layer = model.thinker.model.layers[0]
    rotary = model.thinker.model.rotary(torch.arange(120).expand(4, 1, -1), torch.float32)
    valid = torch.ones(1, 120, dtype=torch.bool)
    single = []
    with torch.inference_mode():
        for row in range(120 - asked, 120):
            asking = torch.zeros_like(valid)
            asking[0, row] = True
            single.append(attention_received(layer, hidden, rotary, asking, valid))
        asking = torch.arange(120)[None] >= 120 - asked
        together = attention_received(layer, hidden, rotary, asking, valid)
    assert torch.allclose(together, torch.stack(single).mean(dim=0), atol=1e-6)


@pytest.mark.parametrize("budget", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_at_layer_zero_it_is_plain_gathering(
    model: EchoingPixelsForConditionalGeneration, prompt: Prompt, budget: float, share: float
) -> None:
    """Rows chosen before any layer has run: the decoder over the kept embeddings alone."""
    thinker = model.thinker
    with torch.inference_mode():
        sieved = thinker.sieve(prompt, budget, first_layers=FirstLayers(0, max(share, budget)))
        (kept,) = sieved.kept
        assert (sieved.start, sieved.first) == (0, ())
        assert torch.equal(sieved.hidden, prompt.embeds[:, kept])
        cache, plain = DynamicCache(), DynamicCache()
        logits = thinker.prefill(sieved, cache)
        hidden = thinker.model.decode(prompt.embeds[:, kept], prompt.position_ids[..., kept], None, plain)
        assert torch.equal(logits, thinker.lm_head(hidden[:, -1]))
    for ours, theirs in zip(cache.layers, plain.layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_first_layers_rows_are_those_of_kept_rows(
    model: EchoingPixelsForConditionalGeneration, prompt: Prompt, layer: int, share: float
) -> None:
    """Keys, values and hidden states are the ones that the whole run over what was left gave these rows."""
    thinker = model.thinker
    with torch.inference_mode():
        scored = thinker.score(prompt, first_layers=FirstLayers(layer, share))
        sieved = thinker.keep(prompt, scored, 0.2)
        left = (scored.candidates | ~scored.in_pool)[0].nonzero().flatten()
        cache = DynamicCache()
        hidden = thinker.model.run_layers(prompt.embeds[:, left], prompt.position_ids[..., left], None, cache, 0, layer)
        places = torch.searchsorted(left, sieved.kept[0])
        assert len(left) == prompt.input_ids.shape[1] if share == 1.0 else len(left) < prompt.input_ids.shape[1]
        assert torch.equal(left[places], sieved.kept[0])
        assert torch.equal(sieved.hidden, hidden[:, places])
        assert len(sieved.first) == layer
        for (keys, values), made in zip(sieved.first, cache.layers, strict=False):
            assert torch.equal(keys, made.keys[:, :, places])
            assert torch.equal(values, made.values[:, :, places])
        filled = DynamicCache()
        thinker.prefill(sieved, filled)
    assert {made.keys.shape[2] for made in filled.layers} == {len(places)}
    assert torch.equal(filled.layers[0].keys, sieved.first[0][0])


def test_the_budget_is_of_the_whole_pool(model: EchoingPixelsForConditionalGeneration, prompt: Prompt) -> None:
    pool = in_pool(model, prompt)
    for share in (0.5, 1.0):
        scored = model.thinker.score(prompt, first_layers=FirstLayers(share=share))
        assert int(scored.candidates.sum()) == keep_count(int(pool.sum()), share)
        for budget in (0.05, 0.2, 0.5):
            kept = model.thinker.keep(prompt, scored, budget).kept[0]
            chosen = kept[pool[kept]]
            assert len(chosen) == keep_count(int(pool.sum()), budget)
            assert bool(scored.candidates[0, chosen].all())
            others = scored.candidates[0] & ~torch.isin(torch.arange(len(pool)), chosen)
            if others.any():
                assert scored.scores[0, chosen].min() >= scored.scores[0, others].max()


def test_the_question_steers_the_choice(model: EchoingPixelsForConditionalGeneration, prompt: Prompt) -> None:
    """Other words after the media, other rows kept; the rows' own scores do not depend on themselves alone."""
    other = prompt.embeds.clone()
    other[0, -9:] = torch.randn(9, other.shape[-1], generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        first, second = (model.thinker.sieve(p, 0.1).kept[0] for p in (prompt, replace(prompt, embeds=other)))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("kind", ["both", "video", "audio", "image", "text"])
@pytest.mark.parametrize("selection", ["question-attention", "per-modality", "uniform", "random", "none"])
def test_every_kind_of_prompt_by_every_sieve(
    model: EchoingPixelsForConditionalGeneration, kind: str, selection: Selection
) -> None:
    thinker = model.thinker
    with torch.inference_mode():
        prompt = prompt_of(model, **inputs_of(model, make_media(kind)))
        pool, special = in_pool(model, prompt), thinker.special
        share = 0.5 if selection == "question-attention" else 1.0
        sieved = thinker.sieve(
            prompt,
            0.2,
            selection=selection,
            generator=torch.Generator().manual_seed(3),
            first_layers=FirstLayers(share=share),
        )
        tokens = list(generate(thinker, sieved, max_new_tokens=3))
    (kept,) = sieved.kept
    assert len(tokens) == 3
    sizes = [int(pool.sum())]
    if selection == "per-modality":
        audio = int((prompt.input_ids[0] == special.audio).sum())
        sizes = [size for size in (audio, sizes[0] - audio) if size]
    expected = 0 if selection == "none" else sum(keep_count(size, 0.2) for size in sizes if size)
    assert int(pool[kept].sum()) == expected
    assert int((~pool)[kept].sum()) == int((~pool).sum())
    assert torch.equal(sieved.position_ids, prompt.position_ids[..., kept])


def test_uniform_and_random_are_controls(model: EchoingPixelsForConditionalGeneration, prompt: Prompt) -> None:
    """They differ from question-attention in the choice alone; random follows its seed."""
    thinker = model.thinker
    with torch.inference_mode():
        scored = thinker.score(prompt)

        def kept(selection: Selection, seed: int = 0) -> list[int]:
            source = torch.Generator().manual_seed(seed)
            sieved = thinker.keep(prompt, scored, 0.2, selection=selection, generator=source)
            assert torch.equal(sieved.hidden, scored.encoded[:, sieved.kept[0]])
            return sieved.kept[0].tolist()

        assert kept("random", 1) == kept("random", 1) != kept("random", 2)
        places = torch.cumsum(in_pool(model, prompt), 0)[kept("uniform")]
    steps = places[places.diff(prepend=torch.tensor([-1])) > 0].diff()
    assert int(steps.max()) <= 10


def test_a_wrong_selection_is_refused(
    model: EchoingPixelsForConditionalGeneration, random_checkpoint: Path, prompt: Prompt
) -> None:
    with pytest.raises(ValueError, match="no sieve 'cs2'; it has question-attention"):
        model.thinker.sieve(prompt, 0.2, selection="cs2")
    trained = load_model(random_checkpoint, dtype=torch.float32)
    with pytest.raises(ValueError, match="no sieve 'question-attention'; it has cs2"):
        trained.thinker.sieve(prompt, 0.2, selection="question-attention")
    with pytest.raises(ValueError, match="no sieve to train"):
        model.thinker.score(prompt, torch.full_like(prompt.input_ids, -100))
    with pytest.raises(ValueError, match="no decoder layer 3"):
        model.thinker.score(prompt, first_layers=FirstLayers(3))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("budget", "share"), [(0.1, 0.5), (0.3, 1.0), (1.0, 1.0)])
def test_a_batch_gives_what_each_prompt_gives_alone(
    model: EchoingPixelsForConditionalGeneration, side: str, budget: float, share: float
) -> None:
    thinker, how = model.thinker, FirstLayers(share=share)
    with torch.inference_mode():
        alone = [prompt_of(model, **inputs_of(model, make_media(kind))) for kind in ("both", "text", "audio", "image")]
        together = padded(alone, side)
        sieved = thinker.sieve(together, budget, first_layers=how)
        tokens = torch.stack(list(generate(thinker, sieved, max_new_tokens=5)), dim=1)
        for row, single in enumerate(alone):
            own = thinker.sieve(single, budget, first_layers=how)
            offset = together.embeds.shape[1] - single.embeds.shape[1] if side == "left" else 0
            assert torch.equal(sieved.kept[row] - offset, own.kept[0])
            assert torch.equal(tokens[row], torch.cat(list(generate(thinker, own, max_new_tokens=5))))


class Sizes(TorchDispatchMode):
    """The largest tensor that any operation makes, and whether one is as long as a prompt twice over."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self.largest, self.square = length, 0, list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.largest = max(self.largest, value.numel())
                if sum(side >= self.length for side in value.shape) >= 2:
                    self.square.append(f"{func}: {tuple(value.shape)}")
        return result


@pytest.mark.parametrize("grows", ["media", "question"])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_memory_grows_with_the_length_and_not_its_square(
    model: EchoingPixelsForConditionalGeneration, grows: str, share: float
) -> None:
    largest = []
    for factor in (1, 2):
        frames, words = (4000 * factor, 1500) if grows == "media" else (4000, 1500 * factor)
        with torch.inference_mode():
            prompt = prompt_of(model, **inputs_of(model, Media((8, 2, 3), 0.9, frames, question=words)))
            # Longer than any layer is wide, also where the redundancy stage leaves half.
            with Sizes(int(0.45 * prompt.input_ids.shape[1])) as sizes:
                sieved = model.thinker.sieve(prompt, 0.2, first_layers=FirstLayers(share=share))
                list(generate(model.thinker, sieved, max_new_tokens=2))
        assert sizes.square == []
        largest.append(sizes.largest / sieved.encoded.shape[1])  # a row
    assert largest[1] <= 1.05 * largest[0]


def test_the_first_of_several_prompts_together_are_evenly_spread_over_them() -> None:
    """Windows of a film have different numbers of rows: one of 300 gives thrice as many as one of 100."""
    sizes = (300, 100, 257, 33)
    orders = [spread_order(torch.ones(1, size, dtype=torch.bool))[0] for size in sizes]
    assert all(float(order.min()) >= 0 and float(order.max()) < 1 for order in orders)
    for share in (0.03, 0.1, 0.4):
        first = torch.cat(orders).argsort(stable=True)[: round(share * sum(sizes))]
        of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        for number, size in enumerate(sizes):
            assert abs(int((of[first] == number).sum()) - share * size) <= 3
