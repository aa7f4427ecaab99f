"""LoRA adapters on the decoder's and CS2's linear layers, and their way back into plain weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.weights.packing import bitsandbytes

_NAME = "default"


def add_adapters(model: EchoingPixelsForConditionalGeneration, rank: int) -> None:
    """Put LoRA adapters of ``rank`` on every linear layer of the decoder and freeze what lies under them.

    CS2 and the score head are new and are trained whole.

    Raises:
        UsageError: peft is not installed.
    """
    with suppress(EchopixError):  # not there: then peft does without it. There, it is not for peft to import it.
        bitsandbytes()
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UsageError("training adapters needs the package peft", "pip install 'echopix[train]'") from None
    text = model.thinker.model
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"), text.layers)
    for name, parameter in text.named_parameters():
        if name.startswith("layers."):
            parameter.requires_grad_("lora_" in name)
    model.thinker.lm_head.requires_grad_(False)
    text.embed_tokens.requires_grad_(False)
    text.norm.requires_grad_(False)


def plain_tensors(model: EchoingPixelsForConditionalGeneration, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors under their plain names, adapters added in.

    Args:
        model: with or without adapters.
        base: of what is frozen, in the precision that it is stored in.
    """
    tensors = {
        name: base.get(name, value)
        for name, value in model.state_dict().items()
        if "lora_" not in name and ".base_layer.weight." not in name  # the latter: a quantized layer's statistics
    }
    for name, layer in _adapted(model):
        own = tensors.pop(f"{name}.base_layer.weight")
        weight = base.get(f"{name}.weight", own)
        delta = layer.get_delta_weight(_NAME)
        tensors[f"{name}.weight"] = (weight.to(delta.device).float() + delta.float()).to(weight.dtype)
        if f"{name}.base_layer.bias" in tensors:
            bias = tensors.pop(f"{name}.base_layer.bias")
            tensors[f"{name}.bias"] = base.get(f"{name}.bias", bias)
    return tensors


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and modules of layers that carry an adapter."""
    return ((name, module) for name, module in model.named_modules() if hasattr(module, "lora_A"))


def quantize_linears(module: nn.Module, dtype: torch.dtype) -> None:
    """Hold a module's linear layers in four bits (NF4), in place.

    Raises:
        EchopixError: bitsandbytes is not installed.
    """
    bnb = bitsandbytes()
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear):
            small = bnb.nn.Linear4bit(
                layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=dtype, quant_type="nf4"
            )
            small.load_state_dict(layer.state_dict())
            parent = module.get_submodule(name.rpartition(".")[0]) if "." in name else module
            setattr(parent, name.rpartition(".")[2], small.to(layer.weight.device))
