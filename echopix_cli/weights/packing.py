"""Linear layers in four or eight bits: which they are, what their tensors are called, and how one is packed."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from echopix_cli.errors import EchopixError

if TYPE_CHECKING:
    import torch

    from echopix_cli.weights.headers import TensorHeader

METHODS = NONE, INT8, NF4 = "none", "int8", "nf4"
BLOCK = 64  # weights of one NF4 scale
_CODE_BYTES = 16 * 4  # of NF4's table of values, one a layer
# int8: input columns beyond it are computed in the compute precision (bitsandbytes' own default). Without it they are
# scaled to eight bits by way of float16, where the family's largest activations are infinite.
THRESHOLD = 6.0
_NAMES = re.compile(r"thinker\.model\.(?:bidir_encoder\.)?layers\.\d+\.(?:self_attn|mlp)\.[a-z]+_proj\.weight")
# transformers skips modules by name, and its own list for the family names neither tower of ours.
_SKIPPED = [
    "thinker.visual",
    "thinker.audio_tower",
    "thinker.lm_head",
    "thinker.model.compressor",
    "thinker.model.embed_tokens",
]
_CAST = "MatMul8bitLt: inputs will be cast"
# Tensors that a copy has for every packed weight: scales, table of values, format.
BESIDE = re.compile(r"_proj\.(?:weight\..+|SCB|weight_format)$")


def is_quantized_name(name: str) -> bool:
    """Whether a tensor, by its full name ``thinker.…``, is the weight of a layer that quantization shrinks."""
    return _NAMES.fullmatch(name) is not None


@dataclass(frozen=True)
class WeightCounts:
    """How many numbers a thinker's weights are, by what quantization makes of them.

    Attributes:
        linear: weights of the linear layers of decoder and CS2, which are packed; in each layer a multiple of a block.
        rows: outputs of these layers; four-bit copies do not say, and count none.
        layers: how many they are.
        other: all other parameters (towers, embeddings, output layer, score head, biases, norms).
    """

    linear: int
    rows: int
    layers: int
    other: int

    @classmethod
    def of(cls, tensors: Mapping[str, TensorHeader]) -> WeightCounts:
        """Those of a checkpoint by its tensors' full names, be it in full precision or a quantized copy."""
        linear = rows = layers = other = 0
        for name, tensor in tensors.items():
            if is_quantized_name(name):
                packed = tensor.shape[1:] == (1,)  # two weights to a byte, whatever the bytes are called
                linear += tensor.size * 2 if packed else tensor.count
                rows += 0 if packed or not tensor.shape else tensor.shape[0]
                layers += 1
            elif not BESIDE.search(name):
                other += tensor.count
        return cls(linear, rows, layers, other)

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.linear + self.other

    def bytes_as(self, method: str, itemsize: int = 2) -> int:
        """What they take once loaded, with the scales and tables beside packed ones.

        Args:
            method: ``none``, ``int8`` or ``nf4``.
            itemsize: bytes of one number of all that is not packed.
        """
        packed = {
            NONE: self.linear * itemsize,
            INT8: self.linear + 4 * self.rows,
            NF4: (self.linear + 1) // 2 + 4 * -(-self.linear // BLOCK) + self.layers * _CODE_BYTES,
        }
        return packed[method] + self.other * itemsize


def method_of(quantization: Mapping[str, Any] | None) -> str:
    """``none``, ``int8`` or ``nf4``, by what ``config.json`` says under ``quantization_config``."""
    if quantization is None:
        return NONE
    return INT8 if quantization.get("load_in_8bit") else NF4


def settings_of(method: str, dtype: torch.dtype) -> dict[str, Any]:
    """What ``config.json`` of a copy says under ``quantization_config``.

    Args:
        method: ``int8`` or ``nf4``.
        dtype: of everything that is not quantized, and of the arithmetic.
    """
    common = {"quant_method": "bitsandbytes", "llm_int8_skip_modules": list(_SKIPPED)}
    if method == INT8:
        return {**common, "load_in_8bit": True, "llm_int8_threshold": THRESHOLD}
    return {
        **common,
        "load_in_4bit": True,
        "bnb_4bit_quant_type": NF4,
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_compute_dtype": str(dtype).removeprefix("torch."),
    }


def quantize_tensor(
    name: str, value: torch.Tensor, method: str, dtype: torch.dtype, device: torch.device
) -> dict[str, torch.Tensor]:
    """A tensor as a copy holds it, on the device, by the names that transformers reads: a packed weight with its scales
    and tables, any other tensor alone in ``dtype``."""
    import torch

    if not (is_quantized_name(name) and value.ndim == 2):
        return {name: value.to(device, dtype if value.is_floating_point() else None)}
    pack = bitsandbytes().functional
    value = value.to(dtype).to(device).contiguous()
    if method == NF4:
        packed, state = pack.quantize_4bit(value, blocksize=BLOCK, compress_statistics=False, quant_type=NF4)
        beside = {key: part.to(device) for key, part in state.as_dict(packed=True).items()}
        return {name: packed, **{f"{name}.{key}": part for key, part in beside.items()}}
    packed, scales, _ = pack.int8_vectorwise_quant(value.to(torch.float16))
    layer = name.removesuffix("weight")
    return {name: packed, f"{layer}SCB": scales, f"{layer}weight_format": torch.tensor(0, dtype=torch.uint8)}


def bitsandbytes() -> Any:
    """The library, without what it would fetch: on some processors its import asks the package ``kernels``, where that
    is installed, for native code from the hub.

    Raises:
        EchopixError: it is not there or cannot be loaded.
    """
    try:
        with _nothing_fetched():
            import bitsandbytes as library
    except (ImportError, OSError) as error:
        raise EchopixError(
            f"quantization needs the package bitsandbytes: {error}", "pip install bitsandbytes, or --quantize none"
        ) from None
    return library


def leave_out_casts() -> None:
    """Have bitsandbytes not say, at every layer of every pass, that int8 computes in half precision. All else that it
    says is said."""
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_no_cast)
    warnings.filterwarnings("ignore", _CAST, UserWarning)  # how it was said before 0.50


def _is_no_cast(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_CAST)


@contextmanager
def _nothing_fetched() -> Iterator[None]:
    """``kernels`` cannot be imported meanwhile, and bitsandbytes does not warn that it cannot."""
    logger, absent = logging.getLogger("bitsandbytes"), object()
    level, before = logger.level, sys.modules.get("kernels", absent)
    logger.setLevel(logging.ERROR)
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        logger.setLevel(level)
        if before is absent:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = before  # type: ignore[assignment]
