"""Train the bundled demonstration model: ``python -m echopix_cli.training --out runs/tiny``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from echopix_cli import scenes
from echopix_cli.model.processing import Processor
from echopix_cli.training import tiny
from echopix_cli.training.loop import Trainer
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
    """Start or resume a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing one is resumed")
    parser.add_argument("--init", type=Path, help="start from this checkpoint instead of random weights")
    parser.add_argument("--stage", choices=("full", "sieve"), default="sieve")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--families", default=",".join(scenes.FAMILIES), help="comma-separated; repeat to weigh")
    parser.add_argument("--seconds", type=float, help="stop after this long; run again to go on")
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
    )
    out: Path = options.out
    if (out / "config.json").exists():
        config = read_config(out)
        processor, model = Processor.load(out, config), load_model(out, dtype=torch.float32)
    elif options.init:
        config = read_config(options.init)
        processor, model = Processor.load(options.init, config), load_model(options.init, dtype=torch.float32)
    else:
        processor = build_processor()
        model = tiny.build_model(processor.config, options.seed)
    tiny.save_processor(processor, out)
    Trainer(model, processor, recipe, out, lambda folder: save_model(model, folder)).run(seconds=options.seconds)


if __name__ == "__main__":
    main()
