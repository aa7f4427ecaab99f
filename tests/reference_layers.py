"""transformers' own decoder layers over a model's weights, with every attention map in view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from echopix_cli.model.layers import DecoderLayer
from echopix_cli.model.text import EchoingPixelsTextModel


def their_layer(model: EchoingPixelsTextModel, layer: DecoderLayer, attention: str = "eager") -> Any:
    """One of them, with the weights of ``layer``: they have the same names."""
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTextConfig
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniDecoderLayer

    config = Qwen2_5OmniTextConfig(**model.config.to_dict())
    config._attn_implementation = attention
    theirs = Qwen2_5OmniDecoderLayer(config, 0)
    theirs.load_state_dict(layer.state_dict())
    return theirs.to(layer.input_layernorm.weight.dtype).eval()


@dataclass(frozen=True)
class Seen:
    """What a layer made of rows (B, L, d), and its attention map (B, heads, L, L)."""

    hidden: Tensor
    weights: Tensor


@torch.no_grad()
def run_theirs(model: EchoingPixelsTextModel, hidden: Tensor, positions: Tensor, visible: Tensor) -> list[Seen]:
    """All decoder layers, one after another.

    Args:
        model: of the decoder.
        hidden: (B, L, d).
        positions: (4, B, L).
        visible: (B, 1, L, L) bool, what each row sees.
    """
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    found = []
    for layer in model.layers:
        theirs, maps = their_layer(model, layer), []
        theirs.self_attn.register_forward_hook(lambda _, __, output, maps=maps: maps.append(output[1]))
        output = theirs(hidden, attention_mask=mask, position_embeddings=model.rotary(positions, hidden.dtype))
        hidden = output[0] if isinstance(output, tuple) else output
        found.append(Seen(hidden, maps[0]))
    return found
