"""Stock Qwen2.5-Omni checkpoints as the base of an EchoingPixels model: given a CS2 and Sync-RoPE."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echopix_cli.errors import ModelError, described
from echopix_cli.files import write_whole
from echopix_cli.weights.checkpoint import Checkpoint, load_model, read_tensors, save_model
from echopix_cli.weights.opening import LAYOUTS, STOCK_MODEL_TYPE, STOCK_THINKER_TYPE, opened, recognise

if TYPE_CHECKING:
    import torch

    from echopix_cli.model.configuration import EchoingPixelsConfig
    from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration

# Of the text configuration: what a stock one does not know.
_SIEVE_FIELDS = (
    "av_refiner_layers", "compression_ratio", "film_time", "retain_token", "sieve", "sieve_output", "sieve_softmax",
    "sieve_view", "sync_rope_section",
)  # fmt: skip
_SYNC_SHARE = 18 / 64  # of half a head, for each of the first three axes (paper: [18, 18, 18, 10])


def is_stock(folder: Path) -> bool:
    """Whether a folder's ``config.json`` describes a Qwen2.5-Omni checkpoint without a sieve."""
    return recognise(folder) in (LAYOUTS[STOCK_MODEL_TYPE], LAYOUTS[STOCK_THINKER_TYPE])


def sync_sections(head_dim: int) -> list[int]:
    """Sync-RoPE's frequencies per axis ``[T, H, W, T]`` for a head of this width."""
    share = round(head_dim // 2 * _SYNC_SHARE)
    return [share, share, share, head_dim // 2 - 3 * share]


def adopt_config(source: Path | Checkpoint, sieve_layers: int) -> EchoingPixelsConfig:
    """A stock checkpoint's configuration with the sieve's fields added.

    Raises:
        ModelError: it is not one, or not valid.
    """
    from echopix_cli.model.configuration import EchoingPixelsConfig

    checkpoint = opened(source)
    sections, raw = sync_sections(int(checkpoint.config.text.head_dim or 0)), copy.deepcopy(dict(checkpoint.raw))
    try:
        return EchoingPixelsConfig.from_stock(raw, av_refiner_layers=sieve_layers, sync_rope_section=sections)
    except Exception as error:
        what = described(error)[:300]
        path = checkpoint.folder / "config.json"
        raise ModelError(f"{path} is not a usable Qwen2.5-Omni configuration: {what}") from None


def save_as_stock(
    model: EchoingPixelsForConditionalGeneration,
    folder: Path,
    dtype: torch.dtype | None = None,
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a model that answers without its sieve as a stock checkpoint: ``config.json``, ``model.safetensors``.

    Arguments are those of :func:`~echopix_cli.weights.checkpoint.save_model`.

    Raises:
        ModelError: its decoder was trained with Sync-RoPE, which no stock checkpoint has.
    """
    text = model.config.text
    if len(text.sync_rope_section) != 3:
        raise ModelError(
            "a stock checkpoint has the family's three-axis positions, and this model has Sync-RoPE's four",
            "train it with --stage full --set rope_axes=3",
        )
    own = ("thinker.model.bidir_encoder.", "thinker.model.compressor.")
    whole = model.state_dict() if tensors is None else tensors
    save_model(model, folder, dtype, {name: value for name, value in whole.items() if not name.startswith(own)})
    path = folder / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    thinker = dict(raw["thinker_config"], model_type=STOCK_THINKER_TYPE)
    thinker["text_config"] = {
        name: value for name, value in thinker["text_config"].items() if name not in _SIEVE_FIELDS
    } | {"model_type": "qwen2_5_omni_text"}
    stock = {"architectures": ["Qwen2_5OmniModel"], "model_type": STOCK_MODEL_TYPE, "thinker_config": thinker}
    write_whole(path, (json.dumps(stock, indent=2, sort_keys=True) + "\n").encode())


def load_base(
    source: Path | Checkpoint,
    *,
    sieve_layers: int = 4,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    text_overrides: dict[str, Any] | None = None,
) -> EchoingPixelsForConditionalGeneration:
    """An EchoingPixels checkpoint as it is, or a stock one with a new sieve.

    CS2 layer i starts as decoder layer i; the score head from seeded random weights of standard deviation 0.02.

    Args:
        source: a checkpoint of either layout, or its folder.
        sieve_layers: CS2 layers given to a stock checkpoint.
        seed: of its score head.
        dtype: of the weights; None keeps what is stored.
        text_overrides: fields of the text configuration to replace.

    Raises:
        ModelError: anything missing, unknown, of the wrong shape or unreadable, by name.
    """
    import torch

    checkpoint = opened(source)
    folder = checkpoint.folder
    if checkpoint.quantization is not None:
        raise ModelError(f"{folder} holds a quantized copy: it cannot be trained", "give the full-precision checkpoint")
    if not checkpoint.is_stock:
        return load_model(checkpoint, dtype=dtype, text_overrides=text_overrides)
    config = adopt_config(checkpoint, sieve_layers)
    if sieve_layers > config.text.num_hidden_layers:
        raise ModelError(
            f"{folder} has {config.text.num_hidden_layers} decoder layers, too few for a CS2 of {sieve_layers}",
            f"train with --set sieve_layers={max(1, config.text.num_hidden_layers // 4)}",
        )
    tensors = read_tensors(checkpoint)
    layers = "thinker.model.layers."
    for name in [name for name in tensors if name.startswith(layers)]:
        number, _, rest = name.removeprefix(layers).partition(".")
        if int(number) < sieve_layers:
            # Cloned: tensors that share memory would be trained as one.
            tensors[f"thinker.model.bidir_encoder.layers.{number}.{rest}"] = tensors[name].clone()
    width = config.text.hidden_size
    kind = tensors[f"{layers}0.input_layernorm.weight"].dtype
    chance = torch.Generator().manual_seed(seed)
    head = "thinker.model.compressor."
    tensors[head + "ln.weight"] = torch.ones(width, dtype=kind)
    for name, shape in (("score_head.0", (width, width)), ("score_head.2", (1, width))):
        tensors[f"{head}{name}.weight"] = (0.02 * torch.randn(shape, generator=chance)).to(kind)
        tensors[f"{head}{name}.bias"] = torch.zeros(shape[0], dtype=kind)
    return load_model(checkpoint, dtype=dtype, config=config, tensors=tensors, text_overrides=text_overrides)
