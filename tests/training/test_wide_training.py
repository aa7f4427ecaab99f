"""Training on the wider scenes: what a batch holds, and that both stages take a step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT

from echopix_cli import scenes
from echopix_cli.model.processing import Processor
from echopix_cli.model.values import IGNORE
from echopix_cli.training import tiny
from echopix_cli.training.data import SceneBatches
from echopix_cli.training.loop import Trainer
from echopix_cli.training.recipe import Recipe, read_values
from echopix_cli.training.start import Start, begin, build_processor

WIDE = Recipe(data="wide", steps=1, batch_size=2, warmup=1, validate_batches=1, budget_low=0.02)


@pytest.fixture(scope="module")
def wide_processor() -> Processor:
    made = build_processor(60, split="wide-train")
    made.rules = replace(made.rules, min_pixels=56 * 56, max_pixels=56 * 56)
    return made


@pytest.mark.parametrize("stage", ["towers", "full", "sieve"])
def test_a_step_of_every_stage(wide_processor: Processor, tmp_path: Path, stage: str) -> None:
    model = tiny.build_model(wide_processor.config, seed=1)
    recipe = replace(WIDE, stage=stage, families=("list", "corner", "each", "count"))
    Trainer(Start(model, wide_processor, {}), recipe, tmp_path).run()
    (record, *others) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(record["loss"]) and record["loss"] > 0
    if stage != "towers":
        (shares,) = [other["validation"] for other in others]
        assert set(shares) == set(recipe.settings())


def test_a_batch_asks_what_the_scene_answers_and_frames_stay_in_the_clip(wide_processor: Processor) -> None:
    data = SceneBatches(wide_processor, "wide-train", 4, scenes.WIDE_FAMILIES, 9, pack=True)
    batch, again = data[2], data[2]
    assert batch.families == again.families and torch.equal(batch.input_ids, again.input_ids)
    assert sum(map(len, batch.families)) > 20
    asked = {name for row in batch.families for name in row}
    assert {"movie-order", "movie-when"} <= asked <= {*scenes.WIDE_FAMILIES, "movie-order", "movie-when"}
    assert len(batch.weights) == int((batch.labels != IGNORE).sum())
    assert batch.evidence.any(dim=1).float().mean() > 0.8


def test_a_list_is_an_answer_of_a_few_tokens(wide_processor: Processor) -> None:
    """Words of the wide splits are tokens of their own, so that five names are nine tokens and an end."""
    made = build_processor(500, split="wide-train")
    for answer in ("drum, piano, violin, trumpet, xylophone", "dog, apple, tiger, flute, guitar"):
        assert len(made.answer_ids(answer)) <= 11
    for item in scenes.make_script("wide-test", 1, "each").items:
        words = item.question.rstrip("?.").split()
        assert len(made.question_ids(item.question)) <= len(words) + 4


def test_what_a_run_changes_about_its_base_is_in_its_checkpoint(wide_processor: Processor, tmp_path: Path) -> None:
    """Text rows that stay raw, and the film's own time for what learns from films; the rendered data know it too."""
    model = tiny.build_model(wide_processor.config, seed=1)
    Trainer(Start(model, wide_processor, {}), replace(WIDE, stage="full"), tmp_path / "full").run()
    recipe = replace(WIDE, base=str(tmp_path / "full"), sieve_output="media", films=0.5)
    begun = begin(recipe, torch.device("cpu"))
    assert (begun.model.config.text.sieve_output, begun.model.config.text.film_time) == ("media", "whole")
    assert begun.processor.config.thinker_config.text_config.film_time == "whole"
    Trainer(begun, recipe, tmp_path / "sieve").run()
    text = json.loads((tmp_path / "sieve" / "config.json").read_text())["thinker_config"]["text_config"]
    assert (text["sieve_output"], text["film_time"]) == ("media", "whole")
    for other in (replace(recipe, films=0.0), replace(recipe, data="clips.jsonl")):
        assert begin(other, torch.device("cpu")).model.config.text.film_time == "joined"


def test_towers_see_galleries(wide_processor: Processor) -> None:
    """A share of the clips of the towers' stage is full of pictures, and silent."""
    plain, full = (
        SceneBatches(wide_processor, "wide-train", 8, scenes.WIDE_FAMILIES, 1, sparse=True, galleries=share)[0]
        for share in (0.0, 0.9)
    )
    assert plain.seen is not None and full.seen is not None and plain.seen.shape == full.seen.shape
    assert float((full.seen >= 0).float().mean()) > 1.5 * float((plain.seen >= 0).float().mean())


def test_the_bundled_models_recipes_follow_one_another_and_what_they_left_is_a_base() -> None:
    folder = ROOT / ".training"
    stages = {path.stem: Recipe(**read_values(path)) for path in folder.glob("*.toml")}
    bases = {name: Path(recipe.base or "").name for name, recipe in stages.items()}
    assert bases == {
        "towers": "",
        "towers-more": "towers",
        "full": "towers-more",
        "sieve": "full",
        "sieve-more": "sieve",
    }
    assert {recipe.splits for recipe in stages.values()} == {("wide-train", "wide-val")}
    start = begin(replace(stages["sieve"], base=str(ROOT / "echopix_cli" / "assets" / "tiny")), torch.device("cpu"))
    sizes = [parameter.numel() for parameter in start.model.parameters()]
    assert 2 * sum(sizes) < 24_000_000, "bytes in half precision, as the model is bundled"
    text = start.model.thinker.model
    assert (text.config.sieve_output, text.config.film_time) == ("media", "whole")
    copied, own = text.bidir_encoder.layers[0], text.layers[0]
    assert not torch.equal(copied.mlp.up_proj.weight, own.mlp.up_proj.weight), "CS2 is trained by now"
