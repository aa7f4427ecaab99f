"""A model put together from its tensors: each goes to its place on the device once, and nothing is allocated beside.

A copy is made and proven with its tensors on the device already, where there may be no room for a second model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from echopix_cli.errors import described
from echopix_cli.weights.packing import (
    BLOCK,
    INT8,
    NF4,
    NONE,
    THRESHOLD,
    bitsandbytes,
    is_quantized_name,
    leave_out_casts,
    method_of,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from echopix_cli.model.configuration import EchoingPixelsConfig
    from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration

_CPU_ROWS = 32  # outputs that bitsandbytes' kernel for CPUs with bfloat16 instructions packs together
_VALUES = 16  # of nf4's table
_NAMED = 8  # tensors of one kind that a message names


def assemble(
    config: EchoingPixelsConfig,
    tensors: Iterable[tuple[str, torch.Tensor]],
    dtype: torch.dtype,
    device: torch.device,
    quantization: Mapping[str, Any] | None = None,
) -> EchoingPixelsForConditionalGeneration:
    """A model of these tensors, ready for inference.

    A tensor that is on the device in its final precision already is taken as it is, not copied.

    Args:
        config: of the model; left as it is.
        tensors: by full name ``thinker.…``, in any order; of a packed layer also what stands beside its weight.
        dtype: of everything that is not packed.
        device: that will hold the model.
        quantization: as ``config.json`` states it; None for full precision.

    Raises:
        ValueError: tensors that are missing, unknown or of another shape, by name.
    """
    from torch import nn

    model = outline(config, dtype)
    method = method_of(quantization)
    if quantization is not None:
        _replace_layers(model, quantization, dtype)
    missing = {name for name, _ in model.named_parameters()}
    unknown: list[str] = []
    misshapen: list[str] = []
    packed: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors:
        layer = name.rpartition("_proj.")[0] + "_proj"
        if method != NONE and is_quantized_name(f"{layer}.weight") and not name.endswith(".bias"):
            packed.setdefault(layer, {})[name.removeprefix(f"{layer}.")] = tensor
        elif name not in missing:
            unknown.append(name)
        else:
            missing.remove(name)
            if (place := model.get_parameter(name)).shape != tensor.shape:
                misshapen.append(name)
                continue
            value = tensor.to(device, dtype)
            _put(model, name, nn.Parameter(value, requires_grad=place.requires_grad))
    for layer, parts in packed.items():
        name = f"{layer}.weight"
        if name not in missing or "weight" not in parts:
            unknown += [f"{layer}.{part}" for part in parts]
            continue
        missing.remove(name)
        unpack = _four_bits if method == NF4 else _eight_bits
        weight = unpack(name, model.get_submodule(layer), parts, device)
        if weight is None:
            misshapen.append(name)
        else:
            _put(model, name, weight)
    told = {"lacks": missing, "holds unknown": unknown, "has the wrong shape for": misshapen}
    if complaints := [f"{what} {', '.join(sorted(names)[:_NAMED])}" for what, names in told.items() if names]:
        raise ValueError(f"this checkpoint {'; '.join(complaints)}")
    return model.eval()


def outline(config: EchoingPixelsConfig, dtype: torch.dtype) -> EchoingPixelsForConditionalGeneration:
    """The modules of a model, whose parameters take no memory yet."""
    import torch
    from torch.overrides import TorchFunctionMode

    from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration

    class Undrawn(TorchFunctionMode):
        """Layers draw no first weights, which torch would import its compilers for where a device has no memory."""

        def __torch_function__(
            self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
        ) -> Any:
            named = named or {}
            if getattr(function, "__module__", None) == "torch.nn.init":
                return named["tensor"] if "tensor" in named else arguments[0]
            return function(*arguments, **named)

    with torch.device("meta"), Undrawn():
        return EchoingPixelsForConditionalGeneration(copy.deepcopy(config)).to(dtype)


def _replace_layers(model: nn.Module, quantization: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Put bitsandbytes' layers where quantized weights go."""
    modules = bitsandbytes().nn
    if method_of(quantization) == INT8:
        leave_out_casts()
    for name, module in list(model.named_modules()):
        if not is_quantized_name(f"{name}.weight"):
            continue
        sizes = {"input_features": module.in_features, "output_features": module.out_features}
        sizes |= {"bias": module.bias is not None, "device": "meta"}
        if method_of(quantization) == NF4:
            layer = modules.Linear4bit(**sizes, compute_dtype=dtype, compress_statistics=False, quant_type=NF4)
            if module.out_features % _CPU_ROWS or module.in_features % BLOCK:
                layer.support_avx512bf16_for_cpu = False  # its kernel takes no other sizes, and would say so by assert
        else:
            layer = modules.Linear8bitLt(**sizes, has_fp16_weights=False, threshold=THRESHOLD)
        model.set_submodule(name, layer.requires_grad_(False))


def _four_bits(name: str, layer: Any, parts: dict[str, torch.Tensor], device: torch.device) -> nn.Parameter | None:
    """Two weights to a byte, with their scales; None where they are not the layer's.

    Raises:
        ValueError: what stands beside the weights does not say how to read them.
    """
    import torch

    stored, count = parts.pop("weight"), layer.out_features * layer.in_features
    data = stored.reshape(-1).view(torch.uint8)[:, None]  # bytes, of whatever kind of number they are stored as
    try:
        weight: Any = bitsandbytes().nn.Params4bit.from_prequantized(
            data, parts, requires_grad=False, device=device, module=layer
        )
        state = weight.quant_state
        fits = (
            tuple(state.shape) == (layer.out_features, layer.in_features)
            and data.nbytes == (count + 1) // 2
            and state.absmax.numel() == -(-count // state.blocksize)
            and state.code.numel() == _VALUES
        )
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be read: what stands beside it is not nf4's ({described(error)})") from None
    return weight if fits else None


def _eight_bits(name: str, layer: Any, parts: dict[str, torch.Tensor], device: torch.device) -> nn.Parameter | None:
    """A weight to a byte, and a scale for each row; None where they are not the layer's."""
    data, scales = parts["weight"], parts.get("SCB")
    if tuple(data.shape) != (layer.out_features, layer.in_features):
        return None
    if scales is None or scales.numel() != layer.out_features:
        return None
    data = data.to(device)
    weight: nn.Parameter = bitsandbytes().nn.Int8Params(
        data, requires_grad=False, has_fp16_weights=False, CB=data, SCB=scales.to(device)
    )
    return weight


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(path), attribute, parameter)
