"""What weight files say about themselves: the name, precision, shape and place of every tensor.

A safetensors file begins with that. It is read here without the tensors, bounded in size, and has to add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from echopix_cli.documents import open_regular, parse_object
from echopix_cli.errors import ModelError

LARGEST = 8 * 2**20  # bytes of a header; the family's largest has a twentieth of that
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
DAMAGED = "the file is damaged or incomplete"
_MANY = 20_000  # tensors in a file; the family's largest has 3,000
_ITEMSIZE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2,
             "I8": 1, "U8": 1, "BOOL": 1}  # fmt: skip


@dataclass(frozen=True)
class TensorHeader:
    """A tensor as its file states it.

    Attributes:
        dtype: safetensors' name of its precision, such as ``BF16``.
        shape: its sizes.
        shard: the file that holds it.
        stored: its name there.
        span: its first byte and the one after its last, counted from the end of the file's header.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: Path
    stored: str
    span: tuple[int, int]

    @property
    def count(self) -> int:
        """Its elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Its bytes on the disk."""
        return self.span[1] - self.span[0]


def read_header(file: Path) -> dict[str, TensorHeader]:
    """The tensors of a safetensors file by their stored names. Their places fill the file, without gaps or overlaps.

    Raises:
        ModelError: it is no such file, its header is larger than any, or it is damaged or incomplete.
        OSError: it cannot be read.
    """
    with open_regular(file) as handle:
        length = int.from_bytes(handle.read(8), "little")
        if length > LARGEST:
            raise ModelError(f"cannot read {file}: it is no safetensors file, or its header is unusually large")
        raw = parse_object(handle.read(length), f"cannot read {file}: its header")
        left = handle.seek(0, 2) - 8 - length
    raw.pop("__metadata__", None)
    if len(raw) > _MANY:
        raise ModelError(f"{file} states {len(raw)} tensors, more than any model has")
    found = {}
    for name, entry in raw.items():
        entry = entry if isinstance(entry, dict) else {}
        dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(span) or len(span) != 2:
            raise ModelError(f"cannot read {file}: its header states no precision, shape and place of {name[:80]}")
        found[name] = TensorHeader(dtype, tuple(shape), file, name, (span[0], span[1]))
    end = 0
    for tensor in sorted(found.values(), key=lambda tensor: tensor.span):
        itemsize = _ITEMSIZE.get(tensor.dtype)
        wrong = itemsize is not None and tensor.size != itemsize * tensor.count
        if wrong or tensor.span[0] != end or tensor.size < 0:
            raise ModelError(f"cannot read {file}: the place that it states of {tensor.stored[:80]} is wrong", DAMAGED)
        end = tensor.span[1]
    if end != left:
        raise ModelError(f"cannot read {file}: it has {left} bytes of tensors, and its header states {end}", DAMAGED)
    return found


def _are_sizes(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)
