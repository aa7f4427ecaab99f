"""Random weights in a named shape, made where they are used: what a model costs can be known before it is there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from echopix_cli.weights.assembly import assemble, outline
from echopix_cli.weights.packing import NONE, quantize_tensor, settings_of

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

    config = EchoingPixelsConfig(**raw)
    generator = torch.Generator(device).manual_seed(seed)

    def values() -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in outline(config, dtype).named_parameters():
            value = torch.empty(parameter.shape, dtype=dtype, device=device)
            if parameter.ndim == 1:  # norms, and biases: any value will do
                value.fill_(1.0)
            else:
                value.normal_(0.0, 1 / math.sqrt(math.prod(parameter.shape[1:])), generator=generator)
            yield from (
                {name: value} if method == NONE else quantize_tensor(name, value, method, dtype, device)
            ).items()

    return assemble(config, values(), dtype, device, None if method == NONE else settings_of(method, dtype))
