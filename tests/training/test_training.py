"""Training on rendered scenes: batches, exact resume, and that something is learned."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from echopix_cli import scenes
from echopix_cli.model.processing import Processor
from echopix_cli.model.values import IGNORE
from echopix_cli.scenes import Evidence, evidence_rows, sample_times
from echopix_cli.training import tiny
from echopix_cli.training.batch import Batch, collate
from echopix_cli.training.data import SceneBatches, make_example
from echopix_cli.training.loop import Trainer
from echopix_cli.training.recipe import Recipe
from echopix_cli.training.rows import _LOOKED_FOR
from echopix_cli.training.start import Start
from echopix_cli.weights.checkpoint import load_model

RECIPE = Recipe(steps=4, batch_size=2, warmup=1, checkpoint_every=2, validate_every=100, validate_batches=1)


def trainer(processor: Processor, folder: Path, recipe: Recipe = RECIPE) -> Trainer:
    model = tiny.build_model(processor.config, seed=1)
    for tower in (model.thinker.visual, model.thinker.audio_tower):
        tower.requires_grad_(not recipe.freeze_towers)
    return Trainer(Start(model, processor, {}), recipe, folder)


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.parametrize(
    ("stage", "optimizer"), [("sieve", "adamw"), pytest.param("full", "muon", marks=pytest.mark.slow)]
)
def test_resuming_continues_exactly(processor: Processor, tmp_path: Path, stage: str, optimizer: str) -> None:
    """Four steps in one go, and two, a new process's worth of state, and two more: the same losses and weights."""
    recipe = replace(RECIPE, stage=stage, optimizer=optimizer)
    through = trainer(processor, tmp_path / "through", recipe)
    through.run()
    trainer(processor, tmp_path / "halves", recipe).run(until=2)
    second = trainer(processor, tmp_path / "halves", recipe)
    assert second.step == 2
    second.run()
    assert losses(tmp_path / "halves") == losses(tmp_path / "through")
    ours, theirs = second.model.state_dict(), through.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_muon_takes_the_matrices_of_layers_alone(processor: Processor, tmp_path: Path) -> None:
    fit = trainer(processor, tmp_path, replace(RECIPE, stage="full", optimizer="muon"))
    _, muon = fit.optimizers
    theirs = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in fit.trained.items() if id(p) in theirs}
    assert any("visual.blocks" in name for name in names)
    assert any("audio_tower.layers" in name for name in names)
    assert any(name.startswith("thinker.model.layers") for name in names)
    assert not any(word in name for name in names for word in ("embed", "lm_head", "norm", "bias", "heads", "conv"))


def test_the_towers_stage_leaves_the_decoder_alone(processor: Processor, tmp_path: Path) -> None:
    fit = trainer(processor, tmp_path, replace(RECIPE, stage="towers", steps=2))
    before = {name: p.detach().clone() for name, p in fit.trained.items()}
    fit.run()
    changed = {name for name, p in fit.trained.items() if not torch.equal(p, before[name])}
    assert any("visual" in name for name in changed)
    assert any("audio_tower" in name for name in changed)
    assert not any(name.startswith(("thinker.model.layers", "thinker.lm_head")) for name in changed)


def test_a_run_leaves_a_loadable_model(processor: Processor, tmp_path: Path) -> None:
    trainer(processor, tmp_path).run(until=2)
    model = load_model(tmp_path)
    assert model.config.text.compression_ratio == 0.1
    assert tomllib.loads((tmp_path / "recipe.toml").read_text())["stage"] == "sieve"


@pytest.mark.parametrize("stage", ["full", "sieve"])
def test_the_same_batch_again_and_again_is_learned(processor: Processor, tmp_path: Path, stage: str) -> None:
    """The loss on one batch falls to under half in a few steps, around the sieve and through it."""
    recipe = replace(RECIPE, stage=stage, steps=1000, learning_rate=2e-3)
    fit = trainer(processor, tmp_path, recipe)
    batch = SceneBatches(processor, "train", 2, ("instrument",), 1, pack=stage == "full")[0]
    first, *_, last = [fit.update([batch])["answer"] for _ in range(8)]
    assert last < 0.5 * first


@pytest.mark.parametrize("stage", ["full", pytest.param("sieve", marks=pytest.mark.slow)])
def test_validation_in_bfloat16(processor: Processor, tmp_path: Path, stage: str) -> None:
    """Batches are prepared in full precision, whatever the model computes in."""
    recipe = replace(RECIPE, stage=stage, precision="bfloat16", steps=1)
    trainer(processor, tmp_path, recipe).run()
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(last["validation"]) == set(recipe.settings())


def test_more_workers_prepare_the_same_batches(processor: Processor, tmp_path: Path) -> None:
    for workers in (1, 2):
        fit = trainer(processor, tmp_path / str(workers))
        fit.workers = workers
        fit.run(until=3)
    assert losses(tmp_path / "1") == losses(tmp_path / "2")


def test_frozen_towers_stay_as_they_are(processor: Processor, tmp_path: Path) -> None:
    fit = trainer(processor, tmp_path, replace(RECIPE, freeze_towers=True))
    before = {name: p.clone() for name, p in fit.model.named_parameters()}
    fit.run(until=2)
    moved = {name for name, p in fit.model.named_parameters() if not torch.equal(p, before[name])}
    assert not any(".visual." in name or ".audio_tower." in name for name in moved)
    assert any(".compressor.score_head." in name for name in moved)
    assert any(".bidir_encoder." in name for name in moved)
    assert any(".embed_tokens." in name for name in moved)


def test_batches_depend_on_their_index_only(processor: Processor) -> None:
    first, again = (SceneBatches(processor, "train", 2, scenes.FAMILIES, 9)[3] for _ in range(2))
    assert torch.equal(first.input_ids, again.input_ids)
    assert first.families == again.families
    assert first.mel is not None and again.mel is not None and torch.equal(first.mel, again.mel)


@pytest.mark.parametrize("jitter", [0.0, 0.2])
def test_a_picture_knows_what_sounds_during_its_step(processor: Processor, jitter: float) -> None:
    """Every row of a grid step names the instruments heard from it to the next; a silent clip's name none."""
    script, times = scenes.make_script("train", 3), sample_times(8.0, jitter)
    example = make_example(script, script.items[:1], processor, times, 56)
    assert example.meanwhile is not None and example.heard is not None and example.heard.any()
    t, h, w = example.clip.cells
    steps = example.meanwhile.reshape(t, h * w, -1).bool()
    assert torch.equal(steps, steps[:, :1].expand_as(steps))
    starts = [0.0, *(25 * example.clip.grid_times[1:])]  # in audio rows, whose middles are at a half
    for step, (a, b) in enumerate(zip(starts, [*starts[1:], 1000.0], strict=True)):
        rows = [row for row in range(example.clip.audio_rows) if a <= row + 0.5 < b]
        assert torch.equal(steps[step, 0], example.heard[rows].bool().any(dim=0))
    silent = make_example(script, script.items[:1], processor, times, 56, without="audio")
    assert silent.meanwhile is not None and silent.meanwhile.shape == (t * h * w, len(scenes.INSTRUMENTS))
    assert not silent.meanwhile.any()


def test_a_picture_row_knows_whether_what_lies_on_it_has_hopped_away(processor: Processor) -> None:
    """In either frame of a grid step; what stands still, or is not on the screen, is not marked."""
    script, times = scenes.make_script("wide-train", 21, "sync"), sample_times(8.0, 0.05)
    example = make_example(script, script.items[:1], processor, times, 112)
    assert example.hopping is not None and example.seen is not None
    t, h, w = example.clip.cells
    hopping = example.hopping.reshape(t, h * w)
    for step in range(t):
        frames = times[2 * step : 2 * step + 2]
        moved = [s for s in script.sprites if any(a <= time < b for time in frames for a, b in s.hops)]
        assert bool(hopping[step].any()) == bool(moved)
    assert 0 < hopping.sum() < (example.seen >= 0).sum()
    unseen = make_example(script, script.items[:1], processor, times, 112, without="video")
    assert unseen.hopping is not None and unseen.hopping.shape == (0,)


def test_only_the_sieve_stage_teaches_pictures_what_sounds(processor: Processor, tmp_path: Path) -> None:
    """In the causal decoder a moment's sound comes after its picture."""
    for stage in ("full", "sieve"):
        trainer(processor, tmp_path / stage, replace(RECIPE, stage=stage, steps=1)).run()
        record = json.loads((tmp_path / stage / "metrics.jsonl").read_text().splitlines()[0])
        assert ("meanwhile" in record) == (stage == "sieve")
        assert "binding" in record and "hopping" in record


def test_evidence_rows() -> None:
    """A box over the left half in the second grid step, and half a second of sound."""
    evidence = (Evidence("video", 1.0, 2.0, (0.0, 0.0, 0.4, 1.0)), Evidence("audio", 0.5, 1.0, None))
    picture, sound = evidence_rows(evidence, (2, 2, 2), np.array([0.0, 1.0]), 50)
    assert picture.reshape(2, 2, 2).tolist() == [[[False, False]] * 2, [[True, False]] * 2]
    assert np.flatnonzero(sound).tolist() == list(range(12, 25))


def test_families_count_the_same(processor: Processor) -> None:
    batch = SceneBatches(processor, "train", 3, scenes.FAMILIES, 2, pack=True)[0]
    names = [
        batch.families[row][int(batch.segments[row, place]) - 1] for row, place in (batch.labels != IGNORE).nonzero()
    ]
    assert len(batch.weights) == len(names)
    shares = {name: sum(float(w) for w, n in zip(batch.weights, names, strict=True) if n == name) for name in names}
    assert len(shares) > 3
    assert all(share == pytest.approx(1 / len(shares), abs=1e-5) for share in shares.values())


def test_a_run_goes_on_with_the_heads_of_its_base(processor: Processor, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first = trainer(processor, tmp_path / "first", replace(RECIPE, steps=1))
    torch.nn.init.constant_(first.heads.binding.bias, 3.25)
    first._store()
    after = trainer(processor, tmp_path / "second", replace(RECIPE, base=str(tmp_path / "first")))
    assert torch.equal(after.heads.binding.bias, first.heads.binding.bias)
    assert torch.equal(after.heads.seeing.weight, first.heads.seeing.weight)


@pytest.mark.parametrize("stage", ["full", "sieve"])
def test_steps_are_independent_of_how_they_are_cut(processor: Processor, tmp_path: Path, stage: str) -> None:
    """Two batches accumulated give the mean of their losses and of their gradients, kept activations or not."""
    recipe = replace(RECIPE, stage=stage, hearing=0.0, seeing=0.0, evidence=0.0, budget_low=1.0)
    data = SceneBatches(processor, "val", 1, ("instrument",), 9, questions=1)  # of which no sense is left out

    def updated(name: str, *parts: Batch, checkpointing: bool = False) -> tuple[dict[str, float], dict[str, Tensor]]:
        """The losses, and the gradient before it was scaled to a norm of at most one."""
        fit = trainer(processor, tmp_path / name, replace(recipe, checkpointing=checkpointing))
        found = fit.update(list(parts))
        scale = max(1.0, found["gradient"] + 1e-6)
        return found, {name: p.grad * scale for name, p in fit.trained.items() if p.grad is not None}

    (one, first), (other, second) = updated("a", data[0]), updated("b", data[1])
    both, together = updated("c", data[0], data[1])
    assert abs(one["answer"] - other["answer"]) > 1e-3  # far more than what is tolerated of their mean
    assert both["answer"] == pytest.approx((one["answer"] + other["answer"]) / 2, abs=2e-5)
    size = max(float(gradient.abs().max()) for gradient in together.values())
    assert first.keys() == second.keys() == together.keys()
    for name in together:
        torch.testing.assert_close(together[name], (first[name] + second[name]) / 2, rtol=1e-3, atol=1e-4 * size)
    checkpointed, again = updated("d", data[0], data[1], checkpointing=True)
    assert checkpointed == pytest.approx(both, rel=1e-4)
    for name in together:
        torch.testing.assert_close(again[name], together[name], rtol=1e-3, atol=1e-4 * size)


def test_frames_are_those_that_sampling_takes(tmp_path: Path) -> None:
    """Training sees a scene at the very times at which a rendered file is sampled."""
    from echopix_cli.media import DecodePlan, load_clip

    script = scenes.make_script("val", 3, "object")
    scenes.write_mp4(script, tmp_path / "scene.mp4", size=112)
    clip = load_clip(tmp_path / "scene.mp4", DecodePlan(audio=False))
    assert clip.frame_times is not None
    assert np.abs(clip.frame_times - sample_times(script.duration)).max() <= 0.5 / 25 + 1e-9


def test_budgets_and_rates() -> None:
    recipe = Recipe(steps=100, warmup=10, learning_rate=1.0)
    assert [round(recipe.budget(draw), 4) for draw in (0.0, 0.5, 1.0)] == [0.05, 0.2236, 1.0]
    assert recipe.rate(0) == 0.1
    assert recipe.rate(10) == 1.0
    assert recipe.rate(100) == pytest.approx(0.0)


def test_the_asking_row_is_the_word_that_says_what_to_look_for(processor: Processor) -> None:
    """In rows of their own and packed, with padding: a name or a side where there is one, else the last row asked."""
    script = scenes.make_script("train", 5, "when")
    items = scenes.ask_everything(script, np.random.default_rng(0))
    other = scenes.make_script("train", 6, "dark")
    times = sample_times(script.duration)
    for pack in (True, False):
        examples = [
            make_example(s, i, processor, times, 56, pack=pack) for s, i in ((script, items), (other, other.items))
        ]
        batch = collate(examples, processor)
        asked = [(row, item) for row, item in enumerate([*items, *other.items])]
        rows = [row for row, families in enumerate(batch.families) for _ in families]
        words = []
        for (number, item), row in zip(asked, rows, strict=True):
            place = int(batch.asking[number])
            word = processor.text(batch.input_ids[row, place - 4 : place + 1].tolist()).strip()
            named = [name for name in item.question.strip("?").split() if _LOOKED_FOR.fullmatch(name)]
            if not named:
                assert batch.labels[row, place + 1] != IGNORE
                word = ""
            else:
                assert word.endswith(named[-1]), item.question
                word = named[-1]
            assert batch.labels[row, place] == IGNORE
            words.append(word)
        assert "" in words
        assert set(words) & set(scenes.INSTRUMENTS)
