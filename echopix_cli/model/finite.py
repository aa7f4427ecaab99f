"""Numbers that are none: damaged weights are refused by name, and so is a model that computes NaN from whole ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from echopix_cli.errors import ModelError

_HINT = "fetch or convert the checkpoint again"


def require_finite_weights(model: nn.Module, where: object) -> None:
    """Look at every weight once. One value goes from the device to the host.

    Args:
        model: of which packed weights are judged by their scales.
        where: they come from, for the message.

    Raises:
        ModelError: a tensor holds NaN or infinity, by name.
    """
    named = [(name, tensor) for name, tensor in _floats(model) if tensor.numel() and not tensor.is_meta]
    if not named:
        return
    # The extremes of a tensor with a NaN are NaN; isfinite would take ten times as long.
    extremes = torch.stack([torch.stack(tensor.detach().aminmax()).float() for _, tensor in named])
    for (name, tensor), fine in zip(named, extremes.isfinite().all(dim=1).tolist(), strict=True):
        if not fine:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"{where}: {name} holds NaN or infinity (as {kind})", _HINT)


def require_finite(model: nn.Module, values: Tensor, what: str) -> Tensor:
    """What a model computed, as it is.

    Raises:
        ModelError: it holds NaN or infinity.
    """
    if bool(values.isfinite().all()):
        return values
    raise no_numbers(model, what)


def no_numbers(model: nn.Module, what: str) -> ModelError:
    """That what a model computed holds NaN or infinity. Its largest weight is named: such numbers come from there."""
    sizes = {name: float(tensor.detach().abs().amax()) for name, tensor in _floats(model) if tensor.numel()}
    name = max(sizes, key=lambda name: sizes[name])
    return ModelError(
        f"the {what} of this model are NaN or infinite; its largest weight, {sizes[name]:.3g}, is in {name}",
        f"{_HINT}, or try --dtype float32",
    )


def _floats(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights by name; of packed ones the scales, which stand beside them."""
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point():
            yield name, tensor
            continue
        scales = getattr(getattr(tensor, "quant_state", None), "absmax", getattr(tensor, "SCB", None))
        if isinstance(scales, Tensor) and scales.is_floating_point():
            yield f"{name} (its scales)", scales
