"""A decoder layer of the family, and the norm that the vision tower's blocks share with it.

Parameters are named as transformers names them, and numbers are rounded where transformers rounds them. On a GPU a pass
over few rows costs what its launches cost the host, and a sieve leaves few rows: here they take half as many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echopix_cli.model.attention import attend
from echopix_cli.model.positions import Rotary, apply_rotary

if TYPE_CHECKING:
    from echopix_cli.model.configuration import EchoingPixelsTextConfig


class RMSNorm(nn.Module):
    """Root mean square norm over the last dimension, in two kernels."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, d) → (…, d)."""
        return self.weight * F.rms_norm(hidden, self.weight.shape, eps=self.eps)


class GatedMLP(nn.Module):
    """SwiGLU: ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, width: int, inner: int, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, d) → (…, d)."""
        down: Tensor = self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return down


class Recomputing(nn.Module):
    """A layer that can compute its inner activations again in the backward pass instead of keeping them.

    Attributes:
        recomputes: whether it does, while it is trained.
    """

    recomputes = False

    def __call__(self, *arguments: Any) -> Any:
        if self.recomputes and self.training and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint

            return checkpoint(super().__call__, *arguments, use_reentrant=False)
        return super().__call__(*arguments)


class SelfAttention(nn.Module):
    """Projections of a decoder layer's attention: fewer key than query heads, biases on all but the output."""

    def __init__(self, config: EchoingPixelsTextConfig) -> None:
        super().__init__()
        width, size = config.hidden_size, int(config.head_dim or 0)
        self.head_dim, self.scaling = size, size**-0.5
        self.q_proj = nn.Linear(width, config.num_attention_heads * size)
        self.k_proj = nn.Linear(width, config.num_key_value_heads * size)
        self.v_proj = nn.Linear(width, config.num_key_value_heads * size)
        self.o_proj = nn.Linear(config.num_attention_heads * size, width, bias=False)

    def heads(self, projected: Tensor) -> Tensor:
        """(…, heads · head_dim) → (…, heads, head_dim)."""
        return projected.view(*projected.shape[:-1], -1, self.head_dim)

    def project(self, normed: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys rotated to their positions, and values, (…, heads, head_dim), of rows (…, d)."""
        query, key = self.heads(self.q_proj(normed)), self.heads(self.k_proj(normed))
        both = apply_rotary(torch.cat((query, key), dim=-2), rotary)  # in one go
        query, key = both.tensor_split((query.shape[-2],), dim=-2)
        return query, key, self.heads(self.v_proj(normed))


class DecoderLayer(Recomputing):
    """Attention and MLP, each after a norm and added to what came in."""

    def __init__(self, config: EchoingPixelsTextConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden: Tensor,
        rotary: Rotary,
        mask: Tensor | None = None,
        causal: bool = True,
        cache: Any = None,
        number: int = 0,
    ) -> Tensor:
        """Rows (B, K, d) that follow those in the cache → (B, K, d).

        Args:
            hidden: (B, K, d).
            rotary: cosine and sine (B, K, head_dim).
            mask: as :func:`~.attention.attend` takes it; None where nothing is padded.
            causal: whether a row sees only itself and what comes before it, where there is no mask.
            cache: with ``update(key, value, number)``, which gives all keys and values; or None.
            number: of the layer in the cache.
        """
        parts = self.self_attn.project(self.input_layernorm(hidden), rotary)
        query, key, value = (part.transpose(1, 2) for part in parts)
        if cache is not None:
            key, value = cache.update(key, value, number)
        return self.finish(hidden, attend(query, key, value, mask, causal=causal).flatten(2))

    def finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """What follows attention: rows (…, d) and what attention mixed for them, (…, heads · head_dim) → (…, d)."""
        hidden = hidden + self.self_attn.o_proj(mixed)
        output: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return output

    @torch.no_grad()
    def run_in_blocks(self, hidden: Tensor, rotary: Rotary, mask: Tensor | None, spans: list[slice]) -> None:
        """Run the layer unmasked over all rows, in place, holding the inner activations of one block at a time.

        The numbers are those of the layer called at once: only keys and values join rows with one another.

        Args:
            hidden: (B, L, d), overwritten.
            rotary: cosine and sine (B, L, head_dim).
            mask: (B, 1, 1 or L, L) bool, which keys are seen; None hides nothing.
            spans: the blocks of rows.
        """
        attention = self.self_attn

        def angles(span: slice) -> Rotary:
            return rotary[0][:, span], rotary[1][:, span]

        keys, values = [], []
        for span in spans:
            normed = self.input_layernorm(hidden[:, span])
            keys.append(apply_rotary(attention.heads(attention.k_proj(normed)), angles(span)).transpose(1, 2))
            values.append(attention.heads(attention.v_proj(normed)).transpose(1, 2))
        key, value = torch.cat(keys, dim=2), torch.cat(values, dim=2)
        del keys, values
        for span in spans:
            normed = self.input_layernorm(hidden[:, span])
            query = apply_rotary(attention.heads(attention.q_proj(normed)), angles(span)).transpose(1, 2)
            seen = mask if mask is None or mask.shape[2] == 1 else mask[:, :, span]
            hidden[:, span] = self.finish(hidden[:, span], attend(query, key, value, seen, causal=False).flatten(2))
