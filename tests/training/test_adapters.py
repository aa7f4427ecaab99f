"""What a run with adapters exports."""

from __future__ import annotations

import pytest
import torch

from echopix_cli.model.processing import Processor
from echopix_cli.training import tiny
from echopix_cli.training.adapters import add_adapters, plain_tensors


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_what_is_frozen_is_exported_as_the_base_has_it(processor: Processor, stored: torch.dtype) -> None:
    """Weights and biases alike, though the run holds them in bfloat16."""
    model = tiny.build_model(processor.config, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    base = {name: tensor.detach().to(stored) for name, tensor in model.state_dict().items()}
    biased = [name for name in base if ".layers." in name and name.endswith("q_proj.bias")]
    assert biased and all(base[name].any() for name in biased)
    add_adapters(model, 4)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    trained = {name for name, value in model.state_dict(keep_vars=True).items() if value.requires_grad}
    exported = plain_tensors(model, {name: value for name, value in base.items() if name not in trained})
    assert exported.keys() == base.keys()
    assert [name for name in base if name not in trained and not torch.equal(exported[name], base[name])] == []
    assert all(exported[name].dtype == stored for name in base if name not in trained)
