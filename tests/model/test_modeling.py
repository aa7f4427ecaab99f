"""The model's own promises: batches, masks, budgets, and what an answer may not reveal."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from prompts import padded, prompt_of
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from echopix_cli.model.decoding import generate, pick
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.values import Prompt
from echopix_cli.weights.checkpoint import load_model


@pytest.fixture(scope="module")
def model(reference: Path) -> EchoingPixelsForConditionalGeneration:
    return load_model(reference / "checkpoint", dtype=torch.float32)


@pytest.fixture(scope="module")
def inputs(reference: Path) -> dict[str, Tensor]:
    loaded = load_file(reference / "cases" / "av_r20" / "inputs.safetensors")
    return {name: value.float() if value.is_floating_point() else value for name, value in loaded.items()}


@pytest.fixture(scope="module")
def prompt(model: EchoingPixelsForConditionalGeneration, inputs: dict[str, Tensor]) -> Prompt:
    with torch.inference_mode():
        return prompt_of(model, **inputs)


def text_prompt(model: EchoingPixelsForConditionalGeneration, length: int = 9) -> Prompt:
    return prompt_of(model, torch.arange(20, 20 + length)[None])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("budget", [0.05, 0.3, 1.0])
def test_a_batch_gives_what_each_prompt_gives_alone(
    model: EchoingPixelsForConditionalGeneration, prompt: Prompt, side: str, budget: float
) -> None:
    """Padding on either side, and a prompt without media beside one with: indices and tokens are the same."""
    thinker = model.thinker
    with torch.inference_mode():
        shorter = Prompt(
            prompt.embeds[:, 4:], prompt.input_ids[:, 4:], prompt.position_ids[:, :, 4:], prompt.rope_deltas + 4, None
        )
        prompts = [prompt, text_prompt(model), shorter]
        together = thinker.sieve(padded(prompts, side), budget)
        tokens = torch.stack(list(generate(thinker, together, max_new_tokens=6)), dim=1)
        for row, single in enumerate(prompts):
            alone = thinker.sieve(single, budget)
            offset = together.encoded.shape[1] - single.embeds.shape[1] if side == "left" else 0
            assert torch.equal(together.kept[row] - offset, alone.kept[0])
            span = slice(offset, offset + single.embeds.shape[1])
            assert torch.allclose(together.encoded[row, span], alone.encoded[0], atol=2e-5)
            assert torch.equal(tokens[row], torch.cat(list(generate(thinker, alone, max_new_tokens=6))))


def test_stopped_prompts_wait_for_the_others(model: EchoingPixelsForConditionalGeneration, prompt: Prompt) -> None:
    with torch.inference_mode():
        sieved = model.thinker.sieve(padded([prompt, text_prompt(model)], "left"), 0.2)
        free = torch.stack(list(generate(model.thinker, sieved, max_new_tokens=6)), dim=1)
        stop = int(free[0, 1])
        assert stop not in free[1, :6].tolist()
        stopped = torch.stack(list(generate(model.thinker, sieved, max_new_tokens=6, stop_ids={stop})), dim=1)
    assert stopped[0].tolist() == [*free[0, :2].tolist(), *[stop] * 4]
    assert torch.equal(stopped[1], free[1])


def test_generation_ends_at_a_stop_token(model: EchoingPixelsForConditionalGeneration, prompt: Prompt) -> None:
    with torch.inference_mode():
        sieved = model.thinker.sieve(prompt, 0.2)
        free = [int(token) for token in generate(model.thinker, sieved, max_new_tokens=6)]
        ended = [int(token) for token in generate(model.thinker, sieved, max_new_tokens=6, stop_ids={free[2]})]
    assert ended == free[: free.index(free[2]) + 1]


def spy(module: torch.nn.Module, seen: list[Any], name: str | None) -> Any:
    """Record an argument (or the first input's shape) of every call."""

    def hook(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(named[name] if name else tuple(arguments[0].shape))

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def test_no_mask_when_nothing_is_padded_and_one_row_of_logits(
    model: EchoingPixelsForConditionalGeneration, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SDPA keeps its flash kernel only without a mask; lm_head runs on each prompt's last row only."""
    calls: list[tuple[int, Any, bool]] = []
    rows: list[Any] = []
    kernel = F.scaled_dot_product_attention

    def attend(query: torch.Tensor, *tensors: Any, attn_mask: Any, is_causal: bool, **options: Any) -> torch.Tensor:
        calls.append((query.shape[2], attn_mask, is_causal))
        return kernel(query, *tensors, attn_mask=attn_mask, is_causal=is_causal, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    hook = spy(model.thinker.lm_head, rows, None)
    try:
        with torch.inference_mode():
            full = Prompt(*[*vars(prompt).values()][:4], torch.ones_like(prompt.input_ids))
            placed = model.thinker.place(torch.tensor([[1, 2]]), attention_mask=torch.ones(1, 2))
            assert placed.attention_mask is None
            list(generate(model.thinker, model.thinker.sieve(full, 0.1), max_new_tokens=2))
    finally:
        hook.remove()
    length, kept = calls[0][0], calls[2][0]
    assert calls == [(length, None, False)] * 2 + [(kept, None, True)] * 3
    assert kept < length
    assert rows == [(1, 128), (1, 128)]


@pytest.mark.parametrize("padded", [False, True])
def test_cs2_in_blocks_is_cs2_at_once(
    model: EchoingPixelsForConditionalGeneration, monkeypatch: pytest.MonkeyPatch, padded: bool
) -> None:
    """Blocks of any size give what the layers called whole give, and leave their input alone."""
    encoder, text = model.thinker.model.bidir_encoder, model.thinker.model
    torch.manual_seed(0)
    hidden = torch.randn(2, 50, 128)
    rotary = text.rotary(torch.arange(50).expand(4, 2, 50), torch.float32)
    mask = (torch.arange(50) >= torch.tensor([[0], [7]]))[:, None, None, :] if padded else None
    before = hidden.clone()
    with torch.enable_grad():
        whole = encoder(hidden, rotary, mask).detach()
        scores = model.thinker.model.compressor(whole).detach()
    for size in (1, 7, 49, 50, 64):
        spans = [slice(begin, begin + size) for begin in range(0, 50, size)]
        monkeypatch.setattr("echopix_cli.model.text.block_spans", lambda rows, spans=spans: spans)
        with torch.inference_mode():
            blocked = encoder(hidden, rotary, mask)
            torch.testing.assert_close(blocked, whole, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(text.compressor(whole), scores, rtol=1e-5, atol=1e-5)
    assert torch.equal(hidden, before)


def test_the_budget_belongs_to_the_call(model: EchoingPixelsForConditionalGeneration, prompt: Prompt) -> None:
    special = model.thinker.special
    pool = int(torch.isin(prompt.input_ids, torch.tensor(special.placeholders)).sum())
    text = prompt.input_ids.shape[1] - pool
    with torch.inference_mode():
        counts = {budget: len(model.thinker.sieve(prompt, budget).kept[0]) - text for budget in (0.05, 0.5, 1.0, 0.2)}
    assert counts == {0.05: -(-pool // 20), 0.5: -(-pool // 2), 1.0: pool, 0.2: -(-pool // 5)}


def test_an_answer_cannot_leak_into_the_choice(model: EchoingPixelsForConditionalGeneration, prompt: Prompt) -> None:
    """Other answer tokens change neither the scores nor the CS2 rows of the prompt."""
    length = prompt.input_ids.shape[1]
    labels = torch.full((1, length), -100)
    labels[0, -4:] = prompt.input_ids[0, -4:]
    other = prompt.embeds.clone()
    other[0, -4:] = torch.randn(4, other.shape[-1], generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        first = model.thinker.sieve(prompt, 0.2, labels=labels)
        second = model.thinker.sieve(Prompt(other, *[*vars(prompt).values()][1:]), 0.2, labels=labels)
    assert torch.equal(first.kept[0], second.kept[0])
    assert torch.equal(first.encoded[0, :-4], second.encoded[0, :-4])
    assert torch.equal(second.encoded[0, -4:], other[0, -4:])


def test_a_prompt_without_media_goes_around_the_sieve(model: EchoingPixelsForConditionalGeneration) -> None:
    with torch.inference_mode():
        prompt = text_prompt(model)
        sieved = model.thinker.sieve(prompt, 0.1)
    assert sieved.kept[0].tolist() == list(range(9))
    assert torch.equal(sieved.hidden, prompt.embeds)


def test_controls(model: EchoingPixelsForConditionalGeneration, prompt: Prompt) -> None:
    """``uniform`` spreads its rows evenly for every count; ``random`` follows its seed."""
    placeholders = torch.tensor(model.thinker.special.placeholders)
    pool = torch.isin(prompt.input_ids[0], placeholders).nonzero().flatten()

    def kept(selection: Any, budget: float, seed: int | None = None) -> list[int]:
        source = None if seed is None else torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            rows = model.thinker.sieve(prompt, budget, selection=selection, generator=source).kept[0]
        return (torch.searchsorted(pool, rows[torch.isin(rows, pool)])).tolist()

    even = kept("uniform", 0.25)
    gaps = [b - a for a, b in pairwise(even)]
    assert len(even) == -(-len(pool) // 4)
    assert max(gaps) <= 2 * 4
    assert set(kept("uniform", 0.05)) <= set(even)
    assert kept("random", 0.25, 1) == kept("random", 0.25, 1)
    assert kept("random", 0.25, 1) != kept("random", 0.25, 2)


def test_none_keeps_the_text_alone_and_per_modality_gives_each_its_share(
    model: EchoingPixelsForConditionalGeneration, prompt: Prompt
) -> None:
    special = model.thinker.special
    ids = prompt.input_ids[0]
    with torch.inference_mode():
        scored = model.thinker.score(prompt)
        none, shares, joint = (
            model.thinker.keep(prompt, scored, 0.2, selection=name) for name in ("none", "per-modality", "cs2")
        )
    assert not bool(torch.isin(ids[none.kept[0]], torch.tensor(special.placeholders)).any())
    assert int((~torch.isin(ids, torch.tensor(special.placeholders))).sum()) == len(none.kept[0])
    for token in (special.video, special.audio):
        rows = (ids == token).nonzero().flatten()
        kept = shares.kept[0][torch.isin(shares.kept[0], rows)]
        assert len(kept) == -(-len(rows) // 5)
        assert scored.scores[0, kept].min() >= scored.scores[0, rows[~torch.isin(rows, kept)]].max()
    assert torch.equal(joint.kept[0], model.thinker.sieve(prompt, 0.2).kept[0])


@pytest.mark.parametrize(("view", "blind_to"), [("causal", "later"), ("no-question", "question")])
def test_narrowed_views(reference: Path, inputs: dict[str, Tensor], view: str, blind_to: str) -> None:
    """Scores of audio-visual rows do not depend on what the ablated CS2 must not see."""
    model = load_model(reference / "checkpoint", dtype=torch.float32, text_overrides={"sieve_view": view})
    with torch.inference_mode():
        prompt = prompt_of(model, **inputs)
        pool = torch.isin(prompt.input_ids[0], torch.tensor(model.thinker.special.placeholders)).nonzero().flatten()
        changed = prompt.embeds.clone()
        first = int(pool[-1]) + 1 if blind_to == "question" else int(pool[len(pool) // 2])
        changed[0, first:] += 1.0
        before = model.thinker.score(prompt).scores[0]
        after = model.thinker.score(Prompt(changed, *[*vars(prompt).values()][1:])).scores[0]
    unseen = pool[pool < first]
    assert torch.allclose(before[unseen], after[unseen], atol=1e-6)
    assert not torch.allclose(before[first:], after[first:], atol=1e-3)


@pytest.mark.parametrize("output", ["all", "media"])
def test_text_rows_carry_nothing_of_the_clip_where_the_configuration_says_so(
    reference: Path, inputs: dict[str, Tensor], output: str
) -> None:
    """Without an audio-visual row the decoder then cannot tell one clip from another; otherwise CS2 has told it."""
    model = load_model(reference / "checkpoint", dtype=torch.float32, text_overrides={"sieve_output": output})
    with torch.inference_mode():
        prompt = prompt_of(model, **inputs)
        media = model.thinker.special.in_pool(prompt.input_ids)
        changed = torch.where(media[..., None], prompt.embeds + 1.0, prompt.embeds)
        other = Prompt(changed, *[*vars(prompt).values()][1:])
        scored = model.thinker.score(prompt)
        raw = (scored.encoded == prompt.embeds).all(dim=-1)
        assert bool(raw[~media].all()) == (output == "media") and not bool(raw[media].any())
        first, second = (model.thinker.sieve(given, 0.2, selection="none") for given in (prompt, other))
        same = torch.equal(first.hidden, second.hidden)
        assert same == (output == "media")
        kept = [model.thinker.sieve(given, 0.2) for given in (prompt, other)]
        assert not torch.equal(kept[0].hidden, kept[1].hidden)


def test_cs2_starts_as_a_copy_of_the_decoder(reference: Path) -> None:
    model = load_model(reference / "checkpoint", dtype=torch.float32)
    model.copy_sieve_from_decoder()
    for ours, theirs in zip(model.thinker.model.bidir_encoder.layers, model.thinker.model.layers, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_picking_tokens() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [9.0, 0.0, 0.0]])
    assert pick(logits, 0.0).tolist() == [1, 0]
    draws = [pick(logits, 1.0, torch.Generator().manual_seed(seed))[0].item() for seed in range(60)]
    assert set(draws) == {0, 1, 2}
    assert draws == [pick(logits, 1.0, torch.Generator().manual_seed(seed))[0].item() for seed in range(60)]


def test_features_must_match_the_placeholders(
    model: EchoingPixelsForConditionalGeneration, inputs: dict[str, Tensor]
) -> None:
    spoiled = {**inputs, "input_ids": inputs["input_ids"][:, :-60]}
    spoiled["attention_mask"] = spoiled["attention_mask"][:, :-60]
    with pytest.raises(ValueError, match="placeholders with id"):
        prompt_of(model, **spoiled)
