"""Attention on cards that lack a kernel or a range: the same numbers by another way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from echopix_cli.model import attention
from echopix_cli.model.attention import attend, attention_of
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration


@pytest.fixture
def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return tuple(torch.randn(1, heads, 9, 16, generator=source) for heads in (6, 2, 2))  # type: ignore[return-value]


@pytest.mark.parametrize("causal", [True, False])
def test_keys_are_repeated_where_no_fast_kernel_takes_fewer(
    tensors: tuple[torch.Tensor, ...], monkeypatch: pytest.MonkeyPatch, causal: bool
) -> None:
    """Below compute capability 8.0 grouped keys fall to the kernel with an L × L map: there they are repeated."""
    seen: list[tuple[int, bool]] = []
    kernel = F.scaled_dot_product_attention

    def spied(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append((key.shape[1], options["enable_gqa"]))
        return kernel(query, key, value, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spied)
    expected = attend(*tensors, causal=causal)
    monkeypatch.setattr(attention, "takes_grouped_keys", lambda device, itemsize: False)
    found = attend(*tensors, causal=causal)
    assert seen == [(2, True), (6, False)]
    torch.testing.assert_close(found, expected)


def test_the_capability_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not attention.takes_grouped_keys(torch.device("cuda"), 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert attention.takes_grouped_keys(torch.device("cuda"), 2)
    assert not attention.takes_grouped_keys(torch.device("cuda"), 4), "flash takes half precision only"
    assert attention.takes_grouped_keys(torch.device("cpu"), 4)


def test_cudnn_is_not_among_the_kernels_and_the_process_keeps_its_choice() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with attention.chosen_kernels(torch.device("cuda")):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


def test_large_key_biases_stay_in_range_in_half_precision(reference: Any) -> None:
    """Queries and keys of some hundreds, as the 7B has them, leave float16 when multiplied unscaled."""
    from echopix_cli.weights.checkpoint import load_model

    model: EchoingPixelsForConditionalGeneration = load_model(reference / "checkpoint", dtype=torch.float32)
    layer: Any = model.thinker.model.layers[0]
    size = layer.self_attn.head_dim
    with torch.no_grad():
        for part, scale in ((layer.self_attn.q_proj, 60.0), (layer.self_attn.k_proj, 60.0)):
            part.bias.copy_(torch.randn(part.bias.shape, generator=torch.Generator().manual_seed(1)) * scale)
        hidden = torch.randn(1, 12, model.config.text.hidden_size, generator=torch.Generator().manual_seed(2))
        rotary = torch.ones(1, 12, size), torch.zeros(1, 12, size)
        rows, visible = torch.arange(12)[None], torch.ones(1, 12, dtype=torch.bool)
        query = layer.self_attn.q_proj(layer.input_layernorm(hidden))
        assert float(query.square().sum(-1).max()) > torch.finfo(torch.float16).max, "or this shows nothing"
        (_, half), *_ = attention_of(layer.half(), hidden.half(), (rotary[0].half(), rotary[1].half()), rows, visible)
    assert bool(half.isfinite().all())
    torch.testing.assert_close(half.sum(-1), torch.ones(half.shape[:-1]))


@pytest.mark.parametrize("kind", ["whole", "causal", "masked"])
def test_training_in_bfloat16_on_a_cpu_is_the_kernels_attention(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """There, attention is taken as matrix products; values and gradients are the kernel's, to bfloat16's eight bits."""
    source = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 3, 20, 16, generator=source, requires_grad=True) for _ in range(3)]
    aim = torch.randn(2, 20, 3, 16, generator=source)
    mask = torch.rand(2, 1, 20, 20, generator=source) < 0.5
    mask[..., 0] = True

    def taken() -> list[torch.Tensor]:
        mixed = attend(*parts, mask if kind == "masked" else None, causal=kind == "causal")
        gradients = torch.autograd.grad((mixed.float() * aim).sum(), parts)
        return [mixed.float(), *(gradient.float() for gradient in gradients)]

    expected = taken()
    monkeypatch.setattr(F, "scaled_dot_product_attention", None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = taken()
    for own, kernels in zip(found, expected, strict=True):
        assert (own - kernels).norm() < 0.01 * kernels.norm()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TypeError):
        attend(*parts, causal=False)  # nothing is trained: the kernel's
