"""How much memory a model and the work planned for it will take, before anything is loaded.

Weights follow from the files' headers and are exact. What is at work beside them is counted from the
configuration: the largest of what the towers, the sieve and the prompt's pass through the decoder hold at once.
These hold features, the key-value cache and one stage at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from echopix_cli.engine.encoding import slice_mel_frames, slice_steps
from echopix_cli.errors import DeviceError
from echopix_cli.media.memory import available_memory
from echopix_cli.model.attention import takes_grouped_keys
from echopix_cli.model.configuration import EchoingPixelsConfig, EchoingPixelsTextConfig
from echopix_cli.model.question_attention import scoring_layer
from echopix_cli.model.shapes import SHAPES
from echopix_cli.model.sieve import keep_count
from echopix_cli.model.text import block_rows
from echopix_cli.settings import Settings
from echopix_cli.sizes import binary
from echopix_cli.weights import packing, quantize
from echopix_cli.weights.checkpoint import Checkpoint, read_config
from echopix_cli.weights.registry import BUNDLED, Model, files_of, find_model

_AUDIO_ROWS, _MEL_RATE = 25, 100  # per second of sound
_PATCH_VALUES = 1176  # numbers of one patch: 3 colours × 2 frames × 14 × 14
_PATCHES = 4  # merged into one row
_CELL = 28 * 28  # pixels of one row's part of a frame
_WORKSPACES = 160 * 2**20  # bytes that CUDA's libraries take for themselves, about


@dataclass(frozen=True)
class Workload:
    """The largest that will be asked of a model at once.

    Attributes:
        frames: sampled from one clip.
        frame_pixels: of one resized frame.
        audio_seconds: of sound.
        budget: fraction of audio-visual tokens kept; None for the checkpoint's own.
        new_tokens: of an answer.
        text_tokens: of system prompt and question.
    """

    frames: int
    frame_pixels: int
    audio_seconds: float
    budget: float | None = None
    new_tokens: int = 256
    text_tokens: int = 256

    @property
    def video_tokens(self) -> int:
        """Rows of the picture: one for each 28 × 28 pixels of every second frame."""
        return math.ceil(self.frames / 2) * math.ceil(self.frame_pixels / _CELL)

    @property
    def audio_tokens(self) -> int:
        """Rows of the sound."""
        return math.ceil(self.audio_seconds * _AUDIO_ROWS)


@dataclass(frozen=True)
class Forecast:
    """Predicted bytes.

    Attributes:
        weights: loaded.
        making: a quantized copy, before it is loaded; 0 where none is to be made.
        features: of the towers, kept for every question about a clip.
        stages: what each stage holds beside those while it runs; only one does at a time.
        cache: keys and values of the kept prompt and the answer.
        overhead: workspaces of the libraries, and one layer's weights unpacked.
        levers: flags with a value that would take less, and the bytes saved, the largest first.
    """

    weights: int
    features: int
    stages: dict[str, int]
    cache: int
    overhead: int
    making: int = 0
    levers: tuple[tuple[str, int], ...] = ()

    @property
    def working(self) -> int:
        """The largest stage."""
        return max(self.stages.values())

    @property
    def total(self) -> int:
        """At the peak."""
        return max(self.making, self.weights + self.features + self.working + self.cache + self.overhead)

    @property
    def advice(self) -> str:
        """Flags that would make it smaller."""
        return ", ".join(f"{flag} saves {binary(saved)}" for flag, saved in self.levers)


def forecast(
    checkpoint: Checkpoint, method: str, dtype: torch.dtype, workload: Workload, device: torch.device
) -> Forecast:
    """What a checkpoint will take at work.

    Args:
        checkpoint: in full precision, or a copy made with ``method``.
        method: ``none``, ``int8`` or ``nf4``.
        dtype: of all that is not packed.
        workload: the largest that will be asked at once.
        device: only its kind matters.

    Raises:
        ModelError: its configuration is not valid.
    """
    config, packed = checkpoint.config, checkpoint.quantization is not None

    def count(method: str, workload: Workload) -> Forecast:
        weights = checkpoint.counts.bytes_as(method, dtype.itemsize)
        return _count(config, weights, method, dtype.itemsize, workload, device, packed)

    return _with_levers(count, method, workload, config.text)


def foresee(model: Model, method: str, dtype: torch.dtype, workload: Workload, device: torch.device) -> Forecast | None:
    """As :func:`forecast`, of a registered model that is not here yet; None of others.

    Its quantized copy, if it is to have one, will have to be made.
    """
    counts = model.counts
    if counts is None:
        return None
    config = _published(model.name)

    def count(method: str, workload: Workload) -> Forecast:
        weights = counts.bytes_as(method, dtype.itemsize)
        return _count(config, weights, method, dtype.itemsize, workload, device)

    return _with_levers(count, method, workload, config.text)


@cache
def _published(name: str) -> EchoingPixelsConfig:
    """A stock model's configuration, but for its token ids."""
    bundled = read_config(files_of(find_model(BUNDLED)).folder)
    raw = SHAPES[name].configured(bundled.to_dict())
    raw["thinker_config"]["text_config"].pop("compression_ratio")  # stock models name no budget
    return EchoingPixelsConfig.from_stock(raw)


def usual_workload() -> Workload:
    """The most that is asked of a model where nobody has said otherwise."""
    usual = Settings()
    return Workload(
        frames=usual.max_frames,
        frame_pixels=usual.max_pixels,
        audio_seconds=usual.max_frames / usual.fps,
        budget=usual.budget,
        new_tokens=usual.max_new_tokens,
    )


def _with_levers(
    count: Callable[[str, Workload], Forecast], method: str, workload: Workload, text: EchoingPixelsTextConfig
) -> Forecast:
    """A forecast, and what would make it smaller."""
    found = count(method, workload)
    less = [
        *((f"--quantize {smaller}", count(smaller, workload)) for smaller in _smaller(method)),
        *((f"{flag} {value}", count(method, wish)) for flag, value, wish in _lighter(workload, text)),
    ]
    levers = sorted(((flag, found.total - other.total) for flag, other in less), key=lambda pair: -pair[1])
    return replace(found, levers=tuple((flag, saved) for flag, saved in levers if saved > found.total // 1000))


def require_room(name: str, expected: Forecast, free: int | None, device: torch.device) -> None:
    """Check that a model and its work fit.

    Raises:
        DeviceError: they do not; it says by how much, and which flags would change that.
    """
    if free is None or expected.total <= free:
        return
    short = expected.total - free
    stage = max(expected.stages, key=lambda name: expected.stages[name])
    parts = {"weights": expected.weights, stage: expected.working, "features": expected.features,
             "key-value cache": expected.cache, "workspaces": expected.overhead}  # fmt: skip
    if expected.making == expected.total:
        parts = {"to make the quantized copy": expected.making}
    enough = [f"{flag} saves {binary(saved)}, which is enough" for flag, saved in expected.levers if saved >= short]
    rest = [f"{flag} saves {binary(saved)}" for flag, saved in expected.levers if saved < short]
    raise DeviceError(
        f"{name} does not fit on {device}: about {binary(expected.total)} are needed "
        f"({', '.join(f'{part} {binary(size)}' for part, size in parts.items() if size)}), {binary(free)} are free, "
        f"{binary(short)} too little",
        "; ".join([*enough, *rest]) or "take a smaller --model, or a machine with more memory",
    )


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a device, what earlier work of this process has kept back included; None when not known.

    Of a CUDA device that others have filled so that it does not even tell, 0.
    """
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return None
        try:
            free = int(torch.cuda.mem_get_info(device)[0])
        except RuntimeError:
            return 0
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free
    return available_memory()


def _count(
    config: Any,
    weights: int,
    method: str,
    itemsize: int,
    workload: Workload,
    device: torch.device,
    packed: bool = False,
) -> Forecast:
    """Bytes, by the configuration; ``packed`` says that a quantized copy is there already."""
    longest = config.text.max_position_embeddings / _AUDIO_ROWS  # what is longer is cut
    workload = replace(workload, audio_seconds=min(workload.audio_seconds, longest))
    text, vision, audio = config.text, config.thinker_config.vision_config, config.thinker_config.audio_config
    pool = workload.video_tokens + workload.audio_tokens
    rows = pool + workload.text_tokens
    budget = text.compression_ratio if workload.budget is None else workload.budget
    kept = (keep_count(pool, budget) if pool else 0) + workload.text_tokens
    width, inner = text.hidden_size, text.intermediate_size
    # A row in a decoder-shaped layer, where its MLP multiplies: three of the inner width, beside them the prompt's,
    # the residual, the normed and the coming state. Attention holds less.
    row = itemsize * (3 * inner + 4 * width)
    cache_row = 2 * text.num_key_value_heads * text.head_dim * itemsize
    # Where no kernel takes fewer key than query heads, a layer's keys and values are repeated while it attends.
    grouped = device.type != "cuda" or not torch.cuda.is_available() or takes_grouped_keys(device, itemsize)
    repeated = 0 if grouped else 2 * text.num_attention_heads * text.head_dim * itemsize
    if text.sieve == "cs2":  # of every row the prompt's state, its own, keys and values; the rest of a block at a time
        block = min(rows, block_rows(device))
        sieve = rows * (2 * width * itemsize + cache_row + repeated) + block * itemsize * (3 * inner + 2 * width)
    else:  # the first layers' keys and values are held for every row
        sieve = rows * (row + scoring_layer(text.num_hidden_layers, None) * cache_row)
    steps = min(math.ceil(workload.frames / 2), slice_steps(device))  # what a slice of the tower takes
    patches = steps * math.ceil(workload.frame_pixels / _CELL) * _PATCHES
    v_width, v_inner = vision.hidden_size, vision.intermediate_size
    # Rotary positions are applied to queries and keys in single precision, twice over.
    patch = (
        _PATCH_VALUES * (4 + itemsize)
        + itemsize * 4 * v_width
        + max(itemsize * 3 * v_width + 16 * v_width, itemsize * 3 * v_inner)
    )
    mel = min(math.ceil(workload.audio_seconds * _MEL_RATE), slice_mel_frames(device))
    a_width, a_inner = audio.d_model, audio.encoder_ffn_dim
    sound = mel * (128 * (4 + itemsize) + 3 * a_width * itemsize) + mel // 2 * itemsize * (4 * a_width + 2 * a_inner)
    largest = width * inner  # of the layers
    unpacked = itemsize * largest if method != packing.NONE else 0
    making = 0
    if method != packing.NONE and not packed:  # the copy, the tensor at work and, on the host, the file being written
        making = weights + largest * (itemsize + 2) + (min(weights, quantize.SHARD) if device.type == "cpu" else 0)
    return Forecast(
        weights=weights,
        features=pool * width * itemsize,
        stages={
            "vision tower": patches * patch,
            "audio tower": sound,
            "sieve": sieve,
            "prefill": kept * row,
        },
        cache=(kept + workload.new_tokens) * text.num_hidden_layers * cache_row,
        overhead=unpacked + (_WORKSPACES if device.type == "cuda" else 0),
        making=making,
    )


def _smaller(method: str) -> tuple[str, ...]:
    return {packing.NONE: (packing.NF4, packing.INT8), packing.INT8: (packing.NF4,)}.get(method, ())


def _lighter(workload: Workload, text: Any) -> Iterator[tuple[str, str, Workload]]:
    """Flags with half of what is planned, and the work that remains."""
    if workload.frames > 1:
        fewer = max(1, workload.frames // 2)
        yield "--max-frames", str(fewer), replace(workload, frames=fewer)
    if workload.frame_pixels > 2 * _CELL and workload.frames:
        fewer = workload.frame_pixels // 2
        yield "--max-pixels", str(fewer), replace(workload, frame_pixels=fewer)
    budget = text.compression_ratio if workload.budget is None else workload.budget
    if budget > 0.1:
        less = max(0.1, budget / 2)
        yield "--budget", f"{less:g}", replace(workload, budget=less)
    if workload.new_tokens > 1:
        fewer = workload.new_tokens // 2
        yield "--max-new-tokens", str(fewer), replace(workload, new_tokens=fewer)
