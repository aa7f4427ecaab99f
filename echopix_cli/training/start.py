"""What a run starts from: a base checkpoint or the bundled model's shape, as its recipe says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from echopix_cli import scenes
from echopix_cli.errors import UsageError
from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.processing import Processor
from echopix_cli.training import tiny
from echopix_cli.training.adapters import add_adapters, quantize_linears
from echopix_cli.training.recipe import Recipe
from echopix_cli.weights.checkpoint import open_checkpoint, read_tensors
from echopix_cli.weights.stock import adopt_config, load_base

VOCABULARY_SCENES = 3000  # scenes whose questions and answers the tokenizer is built from


@dataclass(frozen=True)
class Start:
    """A model ready to be trained, its processor, and the base's tensors of what is frozen, by their plain names.

    The model may hold those in fewer bits.
    """

    model: EchoingPixelsForConditionalGeneration
    processor: Processor
    originals: dict[str, Tensor]


def build_processor(count: int = VOCABULARY_SCENES, sizes: tiny.Sizes = tiny.SMALL, split: str = "train") -> Processor:
    """The tokenizer over the words of ``count`` scenes of a split, with the bundled model's preprocessing."""
    texts: list[str] = []
    for seed in range(count):
        for item in scenes.make_script(split, seed).items:
            texts += [item.question, item.answer]
    tokenizer = tiny.build_tokenizer(texts)
    return Processor(tokenizer, tiny.build_config(tokenizer, sizes), tiny.pixel_rules())


def needs_sieve(base: Path) -> bool:
    """Whether a base's CS2 is yet to be copied from its decoder: it was trained on all tokens, around it."""
    recipe = Recipe.load(base)
    return recipe is not None and recipe.stage == "full"


def begin(recipe: Recipe, device: torch.device) -> Start:
    """Load or build what a recipe starts from, on a device; the same for a new run and for a resumed one.

    Trained weights are float32; frozen ones are held in the recipe's precision.

    Raises:
        ModelError: the base cannot be loaded.
        UsageError: adapters or quantization without the package they need, or without each other.
    """
    if recipe.quantize != "none" and not recipe.adapters:
        raise UsageError("four-bit layers cannot be trained themselves", "add --set adapters=16")
    torch.manual_seed(recipe.seed)
    if recipe.base:
        base = open_checkpoint(Path(recipe.base))
        config = adopt_config(base, recipe.sieve_layers) if base.is_stock else base.config
        model = load_base(
            base,
            sieve_layers=recipe.sieve_layers,
            seed=recipe.seed,
            dtype=torch.float32,
            text_overrides=_overrides(recipe, config),
        )
        processor = Processor.load(base.folder, model.config)
        if recipe.stage == "sieve" and needs_sieve(base.folder):
            model.copy_sieve_from_decoder()
    else:
        split = recipe.splits[0] if recipe.splits else "train"
        processor = build_processor(sizes=tiny.BUNDLED, split=split)
        for name, value in _overrides(recipe, processor.config).items():
            setattr(processor.config.thinker_config.text_config, name, value)
        model = tiny.build_model(processor.config, recipe.seed)
    originals: dict[str, Tensor] = {}
    if recipe.freeze_towers:
        model.thinker.visual.requires_grad_(False)
        model.thinker.audio_tower.requires_grad_(False)
    if recipe.adapters:
        if recipe.quantize == "nf4":
            quantize_linears(model.thinker.model.layers, _precision(recipe))
        add_adapters(model, recipe.adapters)
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(_precision(recipe))
    if recipe.base:
        trained = {name for name, value in model.state_dict(keep_vars=True).items() if value.requires_grad}
        originals = {name: value for name, value in read_tensors(base).items() if name not in trained}
    return Start(model.to(device), processor, originals)


def _overrides(recipe: Recipe, config: EchoingPixelsConfig) -> dict[str, object]:
    """Fields of the text configuration that the recipe changes.

    Raises:
        UsageError: three axes cannot be made four.
    """
    overrides: dict[str, object] = {}
    if recipe.sieve_view is not None:
        overrides["sieve_view"] = recipe.sieve_view
    if recipe.sieve_output is not None:
        overrides["sieve_output"] = recipe.sieve_output
    if recipe.films > 0 and recipe.stage == "sieve" and recipe.splits is not None:
        overrides["film_time"] = "whole"
    if recipe.rope_axes == 3:
        overrides["sync_rope_section"] = list((config.text.rope_parameters or {})["mrope_section"])
    if recipe.rope_axes == 4 and len(config.text.sync_rope_section) == 3:
        raise UsageError(f"{recipe.base} was trained with three axes", "leave rope_axes out, or take another base")
    return overrides


def _precision(recipe: Recipe) -> torch.dtype:
    return torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
