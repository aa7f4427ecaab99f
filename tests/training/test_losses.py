"""What training minimises: masks, attention onto the evidence, scores onto a target."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from reference_layers import run_theirs
from torch import nn

from echopix_cli import scenes
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.processing import Processor
from echopix_cli.model.text import causal_mask
from echopix_cli.model.values import IGNORE
from echopix_cli.scenes import sample_times
from echopix_cli.training import tiny
from echopix_cli.training.batch import Targets, collate
from echopix_cli.training.data import SceneBatches, make_example
from echopix_cli.training.forward import answer_pass, encode, hide_bands, joint_layer, packed_attention_mask
from echopix_cli.training.losses import (
    balanced,
    balanced_by_modality,
    kl_to_target,
    pointing,
    seeing,
    told,
)
from echopix_cli.training.teacher import AttentionTeacher


def even_attention(processor: Processor) -> EchoingPixelsForConditionalGeneration:
    """A model whose decoder looks at every visible row alike."""
    model = tiny.build_model(processor.config, seed=2).eval()
    for layer in model.thinker.model.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
        torch.nn.init.zeros_(layer.self_attn.q_proj.bias)
    return model


def heard_script() -> scenes.Script:
    """A validation scene that asks first what plays while something is on the screen."""
    return next(s for n in range(20) if (s := scenes.make_script("val", n, "heard")).items[0].family == "heard")


def test_scores_are_drawn_towards_a_target() -> None:
    pool = torch.tensor([[False, True, True, True, True]])
    evidence = torch.tensor([[False, True, True, False, False]])
    right = kl_to_target(torch.tensor([[9.0, 20.0, 20.0, 0.0, 0.0]]), evidence, pool)
    even = kl_to_target(torch.zeros(1, 5), evidence, pool)
    wrong = kl_to_target(torch.tensor([[9.0, 0.0, 0.0, 20.0, 20.0]]), evidence, pool)
    assert float(right) == pytest.approx(0.0, abs=1e-6)
    assert float(even) == pytest.approx(np.log(2), abs=1e-6)
    assert wrong > 10
    assert float(kl_to_target(torch.zeros(1, 5), torch.zeros_like(evidence), pool)) == 0.0


def test_evidence_of_two_senses_is_shared_between_them() -> None:
    evidence = torch.tensor([[True, True, True, True, False], [True, True, False, False, False], [False] * 5])
    audio = torch.tensor([[False, False, False, True, True]] * 3)
    shares = balanced_by_modality(evidence, audio)
    assert shares[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0, 0.0])
    assert shares[1].tolist() == pytest.approx([0.5, 0.5, 0.0, 0.0, 0.0])
    assert shares[2].tolist() == [0.0] * 5


def test_packed_questions_are_answered_as_if_asked_alone(processor: Processor) -> None:
    """One row with every question of a clip gives each the logits, and the way its attention points, of a row of
    its own."""
    model = tiny.build_model(processor.config, seed=2).eval()
    script = scenes.make_script("val", 11, "order")
    times = sample_times(script.duration)
    assert len(script.items) > 2
    results = []
    for pack in (True, False):
        example = make_example(script, script.items, processor, times, 56, pack=pack)
        batch = collate([example], processor)
        assert len(batch.input_ids) == (1 if pack else len(script.items))
        with torch.inference_mode():
            prompt, _ = encode(model, batch)
            done = answer_pass(model, prompt, batch.targets, None)
            pool = torch.isin(batch.input_ids, torch.tensor(model.thinker.special.placeholders))
            assert batch.evidence.shape == (len(script.items), pool.shape[1])
            aim = pointing(model, batch, done, pool)
        results.append((done.logits, done.labels[done.labels != IGNORE], aim))
    (packed, labels, aimed), (alone, same, aim) = results
    assert labels.tolist() == same.tolist()
    assert torch.allclose(packed, alone, atol=2e-5)
    assert float(aimed) == pytest.approx(float(aim), abs=1e-5)


def test_every_family_weighs_the_same_and_without_weights_every_token(processor: Processor) -> None:
    """On scenes the loss is the mean over families of their tokens' mean; the mean over tokens is the authors' loss."""
    model = tiny.build_model(processor.config, seed=2)
    script = scenes.make_script("val", 11, "order")
    asked = [script.items[0], *script.items]  # one family twice
    batch = collate([make_example(script, asked, processor, sample_times(8.0), 56)], processor)
    with torch.inference_mode():
        prompt, _ = encode(model, batch)
        weighted = answer_pass(model, prompt, batch.targets, 0.3)
        plain = answer_pass(model, prompt, Targets(batch.labels), 0.3)
    assert torch.equal(weighted.logits, plain.logits)
    tokens = torch.nn.functional.cross_entropy(
        plain.logits, plain.labels[plain.labels != IGNORE], reduction="none"
    ).split((batch.labels != IGNORE).sum(dim=1).tolist())
    assert float(weighted.loss) != pytest.approx(float(plain.loss), rel=1e-4), "families of one size tell nothing"
    assert float(plain.loss) == pytest.approx(float(torch.cat(tokens).mean()), rel=1e-6)
    families: dict[str, list[torch.Tensor]] = {}
    for (name,), own in zip(batch.families, tokens, strict=True):
        families.setdefault(name, []).append(own)
    expected = np.mean([float(torch.cat(own).mean()) for own in families.values()])
    assert float(weighted.loss) == pytest.approx(expected, rel=1e-6)


def test_pointing_measures_the_share_of_attention_on_the_evidence(processor: Processor) -> None:
    """Attention made even: the share is the evidence's part of the pool."""
    model = even_attention(processor)
    script = scenes.make_script("val", 11, "order")
    batch = collate([make_example(script, script.items, processor, sample_times(8.0), 56, pack=True)], processor)
    pool = torch.isin(batch.input_ids, torch.tensor(model.thinker.special.placeholders))
    with torch.inference_mode():
        prompt, _ = encode(model, batch)
        done = answer_pass(model, prompt, batch.targets, None)
        aim = pointing(model, batch, done, pool)
    shares = (batch.evidence & pool).sum(dim=1) / pool.sum()
    assert 0 < float(shares.min()) < float(shares.max()) < 1
    heard = (batch.evidence & (batch.input_ids == model.thinker.special.audio)).sum(dim=1) / pool.sum()
    shares = torch.where(heard > 0, heard, shares)  # of both senses, the sound
    families = [name for row in batch.families for name in row]
    means = [
        float(torch.stack([-s.log() for s, name in zip(shares, families, strict=True) if name == one]).mean())
        for one in dict.fromkeys(families)
    ]
    assert len(means) > 1
    assert float(aim) == pytest.approx(np.mean(means), abs=1e-5)


def test_of_evidence_in_both_senses_the_sound_is_pointed_at(processor: Processor) -> None:
    """Attention made even: the share is that of the evidence's sound alone."""
    model = even_attention(processor)
    script = heard_script()
    batch = collate([make_example(script, script.items[:1], processor, sample_times(8.0), 56, pack=True)], processor)
    special = model.thinker.special
    pool = torch.isin(batch.input_ids, torch.tensor(special.placeholders))
    with torch.inference_mode():
        prompt, _ = encode(model, batch)
        done = answer_pass(model, prompt, batch.targets, None)
        aim = pointing(model, batch, done, pool)
    sound = batch.evidence & (batch.input_ids == special.audio)
    picture = batch.evidence & (batch.input_ids == special.video)
    assert bool(sound.any()) and bool(picture.any())
    assert float(aim) == pytest.approx(float(-(sound.sum() / pool.sum()).log()), abs=1e-5)


def test_through_the_sieve_the_answering_row_points_at_what_evidence_was_kept(processor: Processor) -> None:
    """Attention made even: the share is that of all evidence among the rows that were kept; nothing before the
    answer's own row asks."""
    model = even_attention(processor)
    script = heard_script()
    batch = collate([make_example(script, script.items, processor, sample_times(8.0), 56)], processor)
    pool = torch.isin(batch.input_ids, torch.tensor(model.thinker.special.placeholders))
    with torch.inference_mode():
        prompt, _ = encode(model, batch)
        done = answer_pass(model, prompt, batch.targets, 0.2)
        aim = pointing(model, batch, done, pool)
        model.thinker.model.layers[joint_layer(model)].self_attn.q_proj.bias += 1.0  # no longer even
        moved = pointing(model, batch, done, pool)
    assert done.sieved is not None
    parts: dict[str, list[float]] = {}
    for row, kept in enumerate(done.sieved.kept):
        own = kept[pool[row, kept]]
        share = batch.evidence[row, own].float().mean()
        if share > 0:
            parts.setdefault(batch.families[row][0], []).append(-float(share.log()))
    assert len(parts) > 1
    assert float(aim) == pytest.approx(np.mean([np.mean(part) for part in parts.values()]), abs=1e-5)
    assert float(moved) != pytest.approx(float(aim), abs=1e-3)


def test_no_row_of_a_mask_is_empty() -> None:
    """Padding included: a kernel that normalises nothing has a gradient of NaN."""
    valid = torch.tensor([[False, False, True, True], [True] * 4])
    mask = causal_mask(valid)
    assert mask.shape == (2, 1, 4, 4)
    assert bool(mask.any(dim=-1).all())
    assert mask[0, 0].tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]
    assert torch.equal(mask[1, 0], torch.ones(4, 4, dtype=torch.bool).tril())
    apart = packed_attention_mask(torch.tensor([[-1, -1, 0, 0, 1, 1, 2], [0, 0, 0, 1, 2, 2, 2]]))
    assert apart is not None
    assert bool(apart[0].any(dim=-1).all())
    assert apart[1].tolist() == [[0, 0, 0, 0, 0, 0, 2], [0, 0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("view", ["whole", "causal", "no-question"])
def test_no_attention_of_the_sieve_stage_is_empty(
    processor: Processor, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    """Prompts of several lengths, through CS2 and decoder: every mask that reaches SDPA gives each row something."""
    model = tiny.build_model(processor.config, seed=3)
    model.config.text.sieve_view = view
    batch = SceneBatches(processor, "train", 2, ("order", "dark"), 4, questions=3)[1]
    masks: list[torch.Tensor] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def watched(*args: Any, **named: Any) -> torch.Tensor:
        mask = named.get("attn_mask", args[3] if len(args) > 3 else None)
        if mask is not None:
            masks.append(mask)
        return real(*args, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    try:
        prompt, _ = encode(model, batch)
        answer_pass(model, prompt, batch.targets, 0.3).loss.backward()
    finally:
        model.config.text.sieve_view = "whole"
    assert len(masks) >= 2 + 3  # CS2's layers and the decoder's
    assert all(mask.dtype == torch.bool and bool(mask.any(dim=-1).all()) for mask in masks)
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_the_loss_is_single_precision_under_autocast(processor: Processor) -> None:
    model = tiny.build_model(processor.config, seed=3)
    batch = SceneBatches(processor, "train", 1, ("order",), 4, questions=3)[0]
    with torch.autocast("cpu", torch.bfloat16):
        prompt, _ = encode(model, batch)
        assert answer_pass(model, prompt, batch.targets, 0.3).loss.dtype == torch.float32


def test_clips_of_one_size_are_encoded_as_each_alone(processor: Processor) -> None:
    """Two clips of one grid, one without a picture, one without a sound: features as of one clip at a time."""
    model = tiny.build_model(processor.config, seed=3).eval()
    times = sample_times(8.0)
    made = [
        make_example(script, script.items[:1], processor, times, 56, without=without)
        for seed, without in ((1, ""), (2, "video"), (3, ""), (4, "audio"))
        if (script := scenes.make_script("val", seed, "instrument"))
    ]
    with torch.inference_mode():
        _, together = encode(model, collate(made, processor))
        alone = [encode(model, collate([example], processor))[1] for example in made]
    for name in ("video", "audio"):
        parts = [part for features in alone if (part := getattr(features, name)) is not None]
        assert len(parts) == 3
        assert torch.allclose(getattr(together, name), torch.cat(parts), atol=1e-5)


def test_hidden_bands() -> None:
    """Some sounds stay; of the others whole bands take the mean, and what is left is a move by a few bins."""
    torch.manual_seed(0)
    mel, frames = torch.randn(40, 128, 30), torch.full((40,), 30)
    assert torch.equal(hide_bands(mel, frames, 0.0), mel)
    changed = hide_bands(mel, frames, 0.5)
    same = torch.tensor([torch.equal(a, b) for a, b in zip(mel, changed, strict=True)])
    assert 5 < int(same.sum()) < 35
    for before, after in zip(mel[~same], changed[~same], strict=True):
        bands = (after == after[:, :1]).all(dim=1)
        assert int(bands.sum()) <= 2 * 20
        kept = after[~bands]
        moves = [move for move in range(-3, 4) if torch.equal(before.roll(-move, 0)[~bands][8:-8], kept[8:-8])]
        assert moves


def test_the_teacher_measures_attention_without_the_map(processor: Processor) -> None:
    """Against the whole L × L map of eager attention, layer by layer, with padding in the batch.

    Questions about one clip share its part; a clip without sound is shorter.
    """
    model = tiny.build_model(processor.config, seed=2).eval()
    script = scenes.make_script("val", 11, "order")
    times = sample_times(script.duration)
    asked = [(script.items[:3], ""), (script.items[:2], "audio"), (script.items[:1], "")]
    clips = [make_example(script, items, processor, times, 56, without=without) for items, without in asked]
    batch = collate(clips, processor)
    pool = torch.isin(batch.input_ids, torch.tensor(model.thinker.special.placeholders))
    with torch.inference_mode():
        prompt, _ = encode(model, batch)
        assert prompt.attention_mask is not None
        target = AttentionTeacher(model).target(prompt, pool)
    visible = causal_mask(prompt.attention_mask.bool())
    seen = run_theirs(model.thinker.model, prompt.embeds.clone(), prompt.position_ids.clone(), visible)
    for row in range(len(pool)):
        after = torch.arange(pool.shape[1]) > int(pool[row].nonzero().max())
        expected = sum(layer.weights[row][:, after].mean(dim=(0, 1)) for layer in seen)
        assert torch.allclose(target[row], expected.masked_fill(after, 0.0), atol=1e-5)


def test_what_is_rare_weighs_as_much_as_what_is_not() -> None:
    """Of a group's labels the ones weigh half, however few they are; and every group weighs the same."""
    head = nn.Linear(2, 3)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    rows, labels = torch.zeros(50, 2), torch.zeros(50, 3)
    labels[0, 0] = 1.0
    even, absent = math.log(2), math.log1p(math.exp(1.0))  # of a logit of 0; of a logit of 1 where nothing is
    torch.testing.assert_close(told(head, rows, labels, (2, 1)), torch.tensor((even + absent) / 2))
    lonely = torch.tensor([1.0, *[0.0] * 49])
    torch.testing.assert_close(balanced(lonely * 3, lonely.bool()), torch.tensor(1.5))
    torch.testing.assert_close(balanced(lonely, torch.zeros(50, dtype=torch.bool)), torch.tensor(0.02))


def test_pictures_weigh_as_much_as_the_many_rows_without_one() -> None:
    logits = torch.zeros(10, 3)
    logits[0, 1] = 2.0  # the only picture, told right
    seen = torch.tensor([0, *[-1] * 9])
    loss, right = seeing(logits, seen)
    nothing, picture = math.log(3), math.log(2 + math.exp(2)) - 2
    assert float(loss) == pytest.approx((nothing + picture) / 2, abs=1e-6)
    assert float(right) == 1.0
    alone, none = seeing(logits[1:], seen[1:])
    assert float(alone) == pytest.approx(nothing, abs=1e-6) and float(none) == 0.0
    assert float(seeing(logits[:1], seen[:1])[0]) == pytest.approx(picture, abs=1e-6)
