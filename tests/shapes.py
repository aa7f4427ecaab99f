"""Checkpoints in the true shapes of the family's models, their weights random."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch

from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.shapes import SHAPES

SHARD = 2 * 2**30


def shape_of(random_checkpoint: Path, size: str) -> dict[str, Any]:
    """``config.json`` of a shape, with the small checkpoint's token ids."""
    return SHAPES[f"qwen2.5-omni-{size.lower()}"].configured(
        json.loads((random_checkpoint / "config.json").read_text())
    )


def write_shape(folder: Path, random_checkpoint: Path, raw: dict[str, Any], device: str) -> Path:
    """A checkpoint of random bfloat16 weights in shards, with the small checkpoint's tokenizer."""
    from safetensors.torch import save_file

    for file in random_checkpoint.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, folder / file.name)
    # The small checkpoint's preprocessor asks for small frames.
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    preprocessor.pop("video_min_pixels"), preprocessor.pop("video_max_pixels")
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (folder / "config.json").write_text(json.dumps(raw))
    with torch.device("meta"):
        model = EchoingPixelsForConditionalGeneration(EchoingPixelsConfig(**raw))
    generator = torch.Generator(device).manual_seed(1)
    weight_map: dict[str, str] = {}
    batch: dict[str, torch.Tensor] = {}

    def flush() -> None:
        file = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
        save_file(batch, folder / file)
        weight_map.update(dict.fromkeys(batch, file))
        batch.clear()

    for name, parameter in model.named_parameters():
        value = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device)
        value.normal_(0, 1 / math.sqrt(parameter.shape[-1]), generator=generator)
        batch[name] = torch.ones_like(value).cpu() if "norm" in name and value.ndim == 1 else value.cpu()
        if sum(tensor.nbytes for tensor in batch.values()) > SHARD:
            flush()
    flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder
