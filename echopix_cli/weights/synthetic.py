"""Random weights in a named shape, made where they are used: what a model costs can be known before it is there."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echopix_cli.weights.checkpoint import load_model
from echopix_cli.weights.quantize import NONE, settings_of, shrunk

if TYPE_CHECKING:
    import torch

    from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration


def random_model(
    raw: Mapping[str, Any], dtype: torch.dtype, device: torch.device, method: str = NONE, seed: int = 0
) -> EchoingPixelsForConditionalGeneration:
    """A model with weights from a seeded normal distribution, one tensor at a time on the device.

    Args:
        raw: contents of a ``config.json``.
        dtype: of everything that is not quantized.
        device: that makes and holds the weights.
        method: ``none``, ``int8`` or ``nf4``, for the linear layers of decoder and CS2.

    Raises:
        EchopixError: quantization without the package it needs.
    """
    import torch

    from echopix_cli.model.configuration import EchoingPixelsConfig
    from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration

    raw = dict(raw)
    with torch.device("meta"):
        empty = EchoingPixelsForConditionalGeneration(EchoingPixelsConfig.from_dict(dict(raw)))
    generator = torch.Generator(device).manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in empty.named_parameters():
        value = torch.empty(parameter.shape, dtype=dtype, device=device)
        if parameter.ndim == 1:  # norms, and biases: any value will do
            value.fill_(1.0)
        else:
            value.normal_(0.0, 1 / math.sqrt(math.prod(parameter.shape[1:])), generator=generator)
        tensors.update({name: value} if method == NONE else shrunk(name, value, method, dtype, device))
    if method != NONE:
        raw["quantization_config"] = settings_of(method, dtype)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        return load_model(Path(folder), dtype=dtype, device=device, tensors=tensors)
