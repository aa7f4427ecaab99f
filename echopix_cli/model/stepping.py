"""One generated token at a time over a key-value cache of fixed size, launched as few kernels; on CUDA as one graph.

A step reads and writes the same memory each time and asks the device nothing, so a step can be recorded once and
replayed: what its hundreds of launches cost the host is paid once an answer instead of once a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from echopix_cli.model.layers import DecoderLayer
from echopix_cli.model.positions import frequencies
from echopix_cli.model.text import EchoingPixelsTextModel
from echopix_cli.model.values import Sieved

_GRAIN = 8  # the cache's length is a multiple of this: what matrix units take without a remainder


# The newest graph of each device. The next one takes its memory over: each begins with memory of its own otherwise, and
# a batch would hold more with every answer. What a graph keeps between replays lies outside of that memory.
_newest: dict[torch.device, Any] = {}


@cache
def _capture_stream(device: torch.device) -> Any:
    """One stream for all recordings on a device: libraries keep a workspace for each that they have seen."""
    return cast(Any, torch.cuda.Stream)(device)


def _recordable(model: nn.Module) -> bool:
    """Whether no layer waits for the device, which spoils a recording: bitsandbytes' int8 looks for outliers."""
    return not any(type(module).__name__ == "Linear8bitLt" for module in model.modules())


class FixedCache:
    """Keys and values of a prompt, with room for tokens behind it.

    Args:
        model: the decoder.
        sieved: whose prefill fills it.
        steps: tokens there is room for.

    Attributes:
        layers: keys and values (B, key heads, size, head_dim) of each layer, zero where nothing was written.
        rows: of the prompt.
    """

    def __init__(self, model: EchoingPixelsTextModel, sieved: Sieved, steps: int) -> None:
        attention: Any = cast(Any, model.layers[0]).self_attn
        batch, self.rows = sieved.hidden.shape[:2]
        size = -(-(self.rows + steps) // _GRAIN) * _GRAIN
        heads = model.config.num_key_value_heads
        shape = (2, batch, int(heads), size, int(attention.head_dim))
        self.layers = [tuple(sieved.hidden.new_zeros(shape)) for _ in model.layers]

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Write a layer's keys and values of the prompt, and give them back."""
        for kept, new in zip(self.layers[layer], (keys, values), strict=True):
            kept[:, :, : self.rows] = new
        return keys, values


def scores_of(query: Tensor, key: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """``bias + scaling · query keyᵀ`` in single precision: (n, g, d), (n, m, d), (n, g, m) → (n, g, m)."""
    if query.dtype == torch.float32:
        return torch.baddbmm(bias, query, key.mT, alpha=scaling)
    if query.is_cuda:
        return torch.baddbmm(bias, query, key.mT, alpha=scaling, out_dtype=torch.float32)
    return torch.baddbmm(bias, query.float(), key.float().mT, alpha=scaling)


def picked(logits: Tensor, temperature: float, noise: Tensor | None) -> Tensor:
    """Next tokens (B,) from logits (B, V): the likeliest at temperature 0, above it drawn with exponential ``noise``.

    The largest of weight over exponential noise is a draw by those weights.
    """
    if noise is None:
        return logits.argmax(dim=-1)
    # Relative to the likeliest, so that no temperature, however small, overflows.
    weights = ((logits - logits.amax(dim=-1, keepdim=True)).double() / temperature).softmax(dim=-1)
    return (weights / noise).argmax(dim=-1)


class Stepper:
    """The decoder after a prefill, one token further at each :meth:`advance`.

    Args:
        model: embeddings and decoder.
        head: the output layer.
        cache: filled by the prefill; it has room for as many steps as will be taken.
        sieved: whose prefill it was.
        tokens: (B,) that the prefill gave.
        temperature: 0 takes the likeliest token.
        graphs: whether steps on CUDA may be recorded; what cannot be recorded is run as it is.

    Attributes:
        made: (2, B) the newest tokens, and 1 where their logits held NaN or infinity, else 0; on the device.
        tokens: (B,) the first row of that.
        noise: (B, V) double, to be filled before each step; None at temperature 0.
        recorded: whether steps are replayed.
    """

    _WARM = 2  # steps run as they are before one is recorded: libraries make their plans in them

    @torch.inference_mode()
    def __init__(
        self,
        model: EchoingPixelsTextModel,
        head: nn.Module,
        cache: FixedCache,
        sieved: Sieved,
        tokens: Tensor,
        temperature: float = 0.0,
        graphs: bool = True,
    ) -> None:
        self._model, self._head, self._temperature = model, head, temperature
        self._layers, rows, device = cache.layers, cache.rows, tokens.device
        self._bias = torch.full((len(tokens), cache.layers[0][0].shape[2]), -torch.inf, device=device)
        self._bias[:, :rows] = 0.0
        if sieved.attention_mask is not None:
            self._bias[:, :rows].masked_fill_(sieved.attention_mask == 0, -torch.inf)
        self._place = torch.full((1,), rows, dtype=torch.long, device=device)
        self._positions = sieved.next_position.clone()
        self.made = torch.stack((tokens, torch.zeros_like(tokens)))
        self.tokens = self.made[0]
        self.noise = (
            torch.ones(len(tokens), cast(Any, head).out_features, dtype=torch.float64, device=device)
            if temperature
            else None
        )
        self._frequencies = frequencies(sum(model.config.sync_rope_section), model.config.rope_theta, device)
        self._graph: Any = None
        self._graphs = graphs and device.type == "cuda" and _recordable(model)
        self._taken = 0

    @property
    def recorded(self) -> bool:
        return self._graph is not None

    @torch.inference_mode()
    def advance(self) -> None:
        """Take one step; :attr:`tokens` are the next ones once the device has done it."""
        if self._graphs and self._graph is None and self._taken == self._WARM:
            self._record()
        self._taken += 1
        if self._graph is not None:
            self._graph.replay()
        else:
            self._step()

    def _record(self) -> None:
        """Record a step, which takes none; where that fails, steps are run as they are from then on."""
        device = self.tokens.device
        stream, before = _capture_stream(device), torch.cuda.current_stream(device)
        graph, previous = torch.cuda.CUDAGraph(), _newest.get(device)
        stream.wait_stream(before)
        try:
            with torch.cuda.device(device), torch.cuda.stream(stream):
                graph.capture_begin(None if previous is None else previous.pool(), "thread_local")
                try:
                    self._step()
                finally:
                    graph.capture_end()
        except RuntimeError:  # of layers that wait for the device, or for want of memory
            self._graphs = False
            return
        before.wait_stream(stream)
        self._graph = _newest[device] = graph

    def _step(self) -> None:
        """Logits of :attr:`tokens`, and the next ones in their place."""
        model = self._model
        hidden = model.embed_tokens(self.tokens)  # (B, d)
        batch = len(hidden)
        self._bias.index_fill_(1, self._place, 0.0)
        angles = self._positions.float() * self._frequencies  # (B, head_dim / 2): every axis has the same position
        rotary = (angles.cos().repeat(1, 2).to(hidden.dtype), angles.sin().repeat(1, 2).to(hidden.dtype))
        bias: Tensor | None = None
        for layer, (keys, values) in zip(cast(Sequence[DecoderLayer], model.layers), self._layers, strict=True):
            attention = layer.self_attn
            query, key, value = attention.project(layer.input_layernorm(hidden), rotary)
            keys.index_copy_(2, self._place, key[:, :, None])
            values.index_copy_(2, self._place, value[:, :, None])
            heads = key.shape[1]
            grouped = query.reshape(batch * heads, -1, attention.head_dim)  # query heads by the key head they share
            if bias is None:
                bias = self._bias.repeat_interleave(heads, dim=0)[:, None].expand(-1, grouped.shape[1], -1)
            weights = scores_of(grouped, keys.flatten(0, 1), bias, attention.scaling).softmax(dim=-1)
            mixed = torch.bmm(weights.to(values.dtype), values.flatten(0, 1))
            hidden = layer.finish(hidden, mixed.view(batch, -1))
        logits = self._head(model.norm(hidden)).float()
        self.tokens.copy_(picked(logits, self._temperature, self.noise))
        self.made[1].copy_((0 * logits).sum(-1).isnan())  # 0 times NaN or infinity is NaN
        self._positions += 1
        self._place += 1
