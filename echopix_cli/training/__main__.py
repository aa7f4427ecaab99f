"""Train the bundled demonstration model: ``python -m echopix_cli.training --out runs/tiny``."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from echopix_cli import scenes
from echopix_cli.model.processing import Processor
from echopix_cli.training import tiny
from echopix_cli.training.data import SceneBatches
from echopix_cli.training.loop import Trainer, accuracy
from echopix_cli.training.recipe import Recipe
from echopix_cli.weights.checkpoint import load_model, read_config, save_model

VOCABULARY_SCENES = 3000  # scenes whose questions and answers the tokenizer is built from


def build_processor(count: int = VOCABULARY_SCENES) -> Processor:
    """The tokenizer over the words of ``count`` training scenes, with the bundled model's preprocessing."""
    texts: list[str] = []
    for seed in range(count):
        for item in scenes.make_script("train", seed).items:
            texts += [item.question, item.answer]
    tokenizer = tiny.build_tokenizer(texts)
    return Processor(tokenizer, tiny.build_config(tokenizer), tiny.pixel_rules())


def main() -> None:
    """Start or resume a run, export its model, or measure it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing one is resumed")
    parser.add_argument("--init", type=Path, help="start from this checkpoint instead of random weights")
    parser.add_argument("--stage", choices=("full", "sieve"), default="sieve")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hearing", type=float, default=1.0, help="weight of the auxiliary loss on sound rows")
    parser.add_argument("--families", default=",".join(scenes.FAMILIES), help="comma-separated; repeat to weigh")
    parser.add_argument("--seconds", type=float, help="stop after this long; run again to go on")
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="train nothing; write the run's model to DIR at half precision"
    )
    parser.add_argument("--measure", metavar="SPLIT", help="train nothing; print accuracy on a split as JSON")
    parser.add_argument("--count", type=int, default=50, help="batches to measure on")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = Recipe(
        stage=options.stage,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        families=tuple(options.families.split(",")),
        hearing=options.hearing,
    )
    out: Path = options.out
    if (out / "config.json").exists():
        config = read_config(out)
        processor, model = Processor.load(out, config), load_model(out, dtype=torch.float32)
    elif options.init:
        config = read_config(options.init)
        processor, model = Processor.load(options.init, config), load_model(options.init, dtype=torch.float32)
        if options.stage == "sieve":
            model.copy_sieve_from_decoder()
    else:
        processor = build_processor()
        model = tiny.build_model(processor.config, options.seed)
    if options.export:
        tiny.save_processor(processor, options.export)
        save_model(model, options.export, dtype=torch.float16)
        return
    if options.measure:
        batches = SceneBatches(
            processor, options.measure, recipe.batch_size, recipe.families, recipe.side, options.count
        )
        shares = accuracy(model, (batches[index] for index in range(len(batches))), recipe.settings())
        print(
            json.dumps({"split": options.measure, "questions": options.count * recipe.batch_size, **shares}, indent=1)
        )
        return
    tiny.save_processor(processor, out)
    Trainer(model, processor, recipe, out, lambda folder: save_model(model, folder)).run(seconds=options.seconds)


if __name__ == "__main__":
    main()
