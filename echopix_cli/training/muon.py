"""Muon (Jordan et al. 2024): momentum whose matrices are orthogonalised, all of one shape at once.

``torch.optim.Muon`` takes its iterations in bfloat16, one matrix after another. Processors without instructions for
bfloat16 spend four fifths of a training step in there; this one takes them in batches, and in float32 if need be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration
_ITERATIONS = 5
_AS_ADAMW = 0.2  # updates have about this root mean square, as AdamW's have


def orthogonalised(matrices: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """Newton–Schulz iterations that bring every singular value of matrices (n, rows, columns) close to 1."""
    a, b, c = _COEFFICIENTS
    x = matrices.to(precision)
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay; its updates are scaled to be as large as AdamW's.

    Args:
        matrices: parameters of two dimensions.
        lr: learning rate.
        weight_decay: share of a matrix, times ``lr``, that a step takes away.
        momentum: how much of the mean gradient a step keeps.
        precision: of the iterations.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.precision = precision
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[tuple(matrix.shape)].append(matrix)
            for matrices in alike.values():
                self._step(matrices, group)

    def _step(self, matrices: list[nn.Parameter], group: dict[str, Any]) -> None:
        updates = []
        for matrix in matrices:
            assert matrix.grad is not None
            mean = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
            mean.lerp_(matrix.grad, 1 - group["momentum"])
            updates.append(matrix.grad.lerp(mean, group["momentum"]))
        scale = group["lr"] * _AS_ADAMW * max(matrices[0].shape) ** 0.5
        for matrix, update in zip(matrices, orthogonalised(torch.stack(updates), self.precision), strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)
