"""What weight files say about themselves, compared with a configuration before anything is built of either.

A safetensors file begins with the name, precision, shape and place of every tensor. That is read here without the
tensors, bounded in size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from echopix_cli.documents import parse_object, read_object
from echopix_cli.errors import ModelError

if TYPE_CHECKING:
    from echopix_cli.model.configuration import EchoingPixelsConfig
    from echopix_cli.weights.registry import Shape

LARGEST = 8 * 2**20  # bytes of a header; the family's largest has a twentieth of that
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_MANY = 20_000  # tensors in a file; the family's largest has 3,000
# Stacks of equal layers: how their names begin, which part of the thinker's configuration counts them, and where.
_STACKS = (
    ("thinker.model.layers.", "text_config", "num_hidden_layers"),
    ("thinker.model.bidir_encoder.layers.", "text_config", "av_refiner_layers"),
    ("thinker.visual.blocks.", "vision_config", "depth"),
    ("thinker.audio_tower.layers.", "audio_config", "encoder_layers"),
)


@dataclass(frozen=True)
class Stated:
    """A tensor as its file states it: safetensors' name of its precision, its shape, and its bytes on the disk."""

    precision: str
    shape: tuple[int, ...]
    size: int

    @property
    def count(self) -> int:
        """Its elements."""
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, Stated]:
    """The tensors of a safetensors file by their stored names.

    Raises:
        ModelError: it is no such file, or its header is larger than any.
        OSError: it cannot be read.
    """
    with open(file, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if length > LARGEST:
            raise ModelError(f"cannot read {file}: it is no safetensors file, or its header is unusually large")
        raw = parse_object(handle.read(length), f"cannot read {file}: its header")
    raw.pop("__metadata__", None)
    if len(raw) > _MANY:
        raise ModelError(f"{file} states {len(raw)} tensors, more than any model has")
    found = {}
    for name, entry in raw.items():
        entry = entry if isinstance(entry, dict) else {}
        precision, shape, places = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if not isinstance(precision, str) or not _are_sizes(shape) or not _are_sizes(places) or len(places) != 2:
            raise ModelError(f"cannot read {file}: its header states no precision, shape and place of {name[:80]}")
        found[name] = Stated(precision, tuple(shape), places[1] - places[0])
    return found


def require_agreement(folder: Path, config: EchoingPixelsConfig) -> None:
    """Compare a checkpoint's weights with its configuration, by their headers. Reads no tensor.

    Tensors that are missing, of another shape, or that no model has are found by whoever loads them, which takes no
    more memory than they do.

    Args:
        folder: of the checkpoint.
        config: as read from it.

    Raises:
        ModelError: there are fewer layers than it states, or a tensor holds no floating-point numbers, by name.
    """
    from echopix_cli.weights.checkpoint import full_name, read_quantization, weight_files

    stated: dict[str, Stated] = {}
    for file, names in weight_files(folder).items():
        try:
            header = read_header(file)
        except OSError as error:
            raise ModelError(f"cannot read {file}: {error.strerror or error}") from None
        for name in header if names is None else names:
            if (full := full_name(name)) and name in header:
                stated[full] = header[name]
    packed = read_quantization(folder) is not None
    if fault := next(_faults(stated, config, packed), None):
        raise ModelError(f"{folder}: {fault}", "config.json and weights have to come from the same checkpoint")


def _faults(stated: dict[str, Stated], config: EchoingPixelsConfig, packed: bool) -> Iterator[str]:
    thinker: Any = config.thinker_config
    for prefix, part, field in _STACKS:
        wanted = getattr(getattr(thinker, part), field)
        if prefix == _STACKS[1][0] and config.text.sieve == "none":
            wanted = 0
        found = {name.removeprefix(prefix).partition(".")[0] for name in stated if name.startswith(prefix)}
        if wanted > len(found):
            yield f"{part}.{field} is {wanted}, and the weights hold {len(found)} such layers"
    for name, tensor in stated.items() if not packed else ():
        if tensor.precision not in FLOATS:
            yield f"{name} is stored as {tensor.precision}, and weights are floating-point numbers"


def _are_sizes(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def shape_of(folder: Path) -> Shape | None:
    """Counts of a full-precision checkpoint, from its headers and ``config.json``; None of what is not one.

    Loads neither weights nor libraries.
    """
    from echopix_cli.weights.checkpoint import full_name, read_quantization, weight_files
    from echopix_cli.weights.packing import is_quantized_name
    from echopix_cli.weights.registry import Shape

    try:
        if read_quantization(folder) is not None:
            return None
        raw = read_object(folder / "config.json")
        context = raw.get("thinker_config", raw)["text_config"]["max_position_embeddings"]
        shapes = {
            full: tensor.shape
            for file in weight_files(folder)
            for name, tensor in read_header(file).items()
            if (full := full_name(name))
        }
        packable = [shape for name, shape in shapes.items() if is_quantized_name(name)]
        linear = sum(map(math.prod, packable))
        everything = sum(map(math.prod, shapes.values()))
        return Shape(linear, sum(shape[0] for shape in packable), len(packable), everything - linear, int(context))
    except (ModelError, OSError, LookupError, TypeError, ValueError, AttributeError):
        return None
