"""Our Muon against PyTorch's, which computes in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from echopix_cli.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_steps_are_those_of_pytorch(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in ((64, 32), (32, 64), (48, 48), (48, 48))]
    ours, theirs = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    fits: list[torch.optim.Optimizer] = [
        Muon(ours, 0.02, 0.05, precision=precision),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for fit in fits:
            fit.step()
    for one, other, first in zip(ours, theirs, start, strict=True):
        gone = (other - first).norm()  # how far the steps went
        assert gone > 0.1
        assert (one - other).norm() < 0.02 * gone


def test_every_singular_value_comes_close_to_one() -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(5, 40, 24)))
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def test_a_matrix_without_a_gradient_stays() -> None:
    used, unused = (nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    fit = Muon([used, unused], 0.1, 0.5)
    used.grad = torch.eye(4)
    fit.step()
    assert torch.equal(unused, torch.ones(4, 4)) and not torch.equal(used, unused)
    assert unused not in fit.state
