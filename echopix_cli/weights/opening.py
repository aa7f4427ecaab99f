"""A checkpoint opened: what its folder says of itself, read once and without a tensor.

Three layouts are told apart by ``model_type`` in ``config.json``: the authors' (``qwen2_5_omni_compress``), the
stock family's whole model (``qwen2_5_omni``) and its bare thinker (``qwen2_5_omni_thinker``). The stock ones
hold no sieve and are run without one. A bare thinker's tensors may be named with or without the ``thinker.``
that they have in a whole model: transformers writes them without, conversions often with it.

Only safetensors are read. Of a sharded checkpoint only those shards are opened that hold thinker tensors:
``talker.*`` and ``token2wav.*`` are never read, and their files need not even be there.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echopix_cli.documents import read_object
from echopix_cli.errors import ModelError, described
from echopix_cli.weights.headers import DAMAGED, FLOATS, TensorHeader, read_header
from echopix_cli.weights.packing import WeightCounts, method_of

if TYPE_CHECKING:
    from echopix_cli.model.configuration import EchoingPixelsConfig

PREFIX = "thinker."
MODEL_TYPE = "qwen2_5_omni_compress"
STOCK_MODEL_TYPE = "qwen2_5_omni"
STOCK_THINKER_TYPE = "qwen2_5_omni_thinker"  # the thinker alone, as transformers' own thinker class saves it
# config.json's model_type → what we call the layout.
LAYOUTS = {
    MODEL_TYPE: "EchoingPixels",
    STOCK_MODEL_TYPE: "Qwen2.5-Omni",
    STOCK_THINKER_TYPE: "Qwen2.5-Omni thinker",
}
# What a tokenizer and a processor are read from. Never code, never pickles: what is not named here is not fetched.
SMALL = frozenset(
    {
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.json",
        "chat_template.jinja",
        "LICENSE",
        "LICENSE.txt",
        "LICENSE.md",
        "NOTICE",
    }
)
_PARTS = ("audio_tower.", "lm_head.", "model.", "visual.")  # of the thinker
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NOT_READ = ("talker.", "token2wav.")  # tensors of the parts that speak
TOKENIZERS = (frozenset({"tokenizer.json"}), frozenset({"vocab.json", "merges.txt"}))  # either is enough
# Stacks of equal layers: how their names begin, which part of the thinker's configuration counts them, and where.
_SIEVE_STACK = "thinker.model.bidir_encoder.layers."
_STACKS = (
    ("thinker.model.layers.", "text_config", "num_hidden_layers"),
    (_SIEVE_STACK, "text_config", "av_refiner_layers"),
    ("thinker.visual.blocks.", "vision_config", "depth"),
    ("thinker.audio_tower.layers.", "audio_config", "encoder_layers"),
)


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a checkpoint without reading a tensor; from :func:`open_checkpoint`.

    Attributes:
        folder: that holds it.
        raw: contents of ``config.json``, not to be changed.
        quantization: how a quantized copy's weights are stored, as ``config.json`` says; None for full precision.
        tensors: the thinker's, by full name ``thinker.…`` in any layout.
        revision: :func:`folder_revision` as it was before anything else was read.
    """

    folder: Path
    raw: Mapping[str, Any]
    quantization: Mapping[str, Any] | None
    tensors: Mapping[str, TensorHeader]
    revision: str

    @property
    def layout(self) -> str:
        """One of :data:`LAYOUTS`."""
        return LAYOUTS[self.raw["model_type"]]

    @property
    def is_stock(self) -> bool:
        """Whether it is of the stock family, without a sieve."""
        return self.raw["model_type"] != MODEL_TYPE

    @property
    def method(self) -> str:
        """How its linear layers are stored: ``none``, ``int8`` or ``nf4``."""
        return method_of(self.quantization)

    @property
    def context(self) -> int | None:
        """Tokens that it may hold; None where it does not say."""
        thinker = self.raw.get("thinker_config", self.raw)
        text = thinker.get("text_config") if isinstance(thinker, dict) else None
        found = text.get("max_position_embeddings") if isinstance(text, dict) else None
        return found if type(found) is int else None

    @property
    def shards(self) -> dict[Path, dict[str, str]]:
        """Files that hold its tensors → full names by stored names, in the file's order."""
        found: dict[Path, dict[str, str]] = {}
        for name, tensor in sorted(self.tensors.items(), key=lambda item: item[1].span):
            found.setdefault(tensor.shard, {})[tensor.stored] = name
        return dict(sorted(found.items()))

    @cached_property
    def counts(self) -> WeightCounts:
        """Its parameters, from the headers of its files."""
        return WeightCounts.of(self.tensors)

    @cached_property
    def config(self) -> EchoingPixelsConfig:
        """Its configuration, compared with its tensors' headers; a stock one's says that it has no sieve.

        Tensors that are missing, of another shape, or that no model has are found by whoever loads them, which takes
        no more memory than they do.

        Raises:
            ModelError: it is not valid, states more layers than there are, or a tensor holds no floating-point
                numbers, by name.
        """
        config = _configuration(self.folder / "config.json", self.raw)
        if fault := next(self._faults(config), None):
            raise ModelError(f"{self.folder}: {fault}", "config.json and weights have to come from the same checkpoint")
        return config

    def _faults(self, config: EchoingPixelsConfig) -> Iterator[str]:
        thinker: Any = config.thinker_config
        for prefix, part, field in _STACKS:
            wanted = getattr(getattr(thinker, part), field)
            if prefix == _SIEVE_STACK and config.text.sieve == "none":
                wanted = 0
            found = {name.removeprefix(prefix).partition(".")[0] for name in self.tensors if name.startswith(prefix)}
            if wanted > len(found):
                yield f"{part}.{field} is {wanted}, and the weights hold {len(found)} such layers"
        for name, tensor in self.tensors.items() if self.quantization is None else ():
            if tensor.dtype not in FLOATS:
                yield f"{name} is stored as {tensor.dtype}, and weights are floating-point numbers"


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read ``config.json``, the index and each shard's header, once, and compare index and headers.

    Loads no library: :attr:`Checkpoint.config` is made and checked when it is asked for.

    Raises:
        ModelError: no such folder, anything missing or damaged, another kind of model, or a tensor that no checkpoint
            of the family has or that is there twice.
    """
    small = _stamps(folder / name for name in SMALL)
    raw = _read_raw(folder)
    quantization = quantization_of(folder, raw)
    wanted = _weight_files(folder)
    revision = _fingerprint(folder, {**small, **_stamps(wanted)})
    tensors: dict[str, TensorHeader] = {}
    damaged = []
    for file, names in wanted.items():
        try:
            header = read_header(file)
        except (OSError, ModelError) as error:
            damaged.append(unreadable(file, error) if isinstance(error, OSError) else error)
            continue
        if names is None and (alien := _alien(header)):
            raise ModelError(f"{file} holds unknown tensors: {_listed(alien)}")
        present = {name for name in header if full_name(name)}
        chosen = present if names is None else set(names)
        if unlisted := sorted(present - chosen):
            raise ModelError(f"{file} holds tensors its index does not name: {_listed(unlisted)}")
        if absent := sorted(chosen - present):
            raise ModelError(f"{file} lacks tensors its index names: {_listed(absent)}")
        for name in sorted(chosen):
            full = str(full_name(name))
            if full in tensors:
                raise ModelError(f"{file} holds {full} a second time, under another name")
            tensors[full] = header[name]
    if damaged:
        raise damaged[0] if len(damaged) == 1 else ModelError("; ".join(map(str, damaged)), DAMAGED)
    return Checkpoint(folder, raw, quantization, tensors, revision)


def opened(source: Path | Checkpoint) -> Checkpoint:
    """A checkpoint; a folder is opened first.

    Raises:
        ModelError: as for :func:`open_checkpoint`.
    """
    return source if isinstance(source, Checkpoint) else open_checkpoint(source)


def read_config(folder: Path) -> EchoingPixelsConfig:
    """The configuration of a folder, whatever its weights are.

    Raises:
        ModelError: no such folder, no or unreadable ``config.json``, or another kind of model.
    """
    return _configuration(folder / "config.json", _read_raw(folder))


def recognise(folder: Path) -> str | None:
    """The layout that the ``config.json`` of a folder states: a value of :data:`LAYOUTS`, or None."""
    try:
        return LAYOUTS.get(str(read_object(folder / "config.json").get("model_type")))
    except (OSError, ModelError):
        return None


def folder_revision(folder: Path) -> str:
    """A fingerprint of a checkpoint's files as they are now, 16 hexadecimal digits: of names, sizes, times of change.

    Raises:
        ModelError: it holds no weights.
    """
    return _fingerprint(folder, _stamps({*(folder / name for name in SMALL), *_weight_files(folder)}))


def _stamps(files: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """Sizes and times of change of the files that there are, by path."""
    found = {}
    for path in files:
        with suppress(OSError):  # of any kind, where Path.is_file lets some through
            if stat.S_ISREG((at := path.stat()).st_mode):
                found[str(path)] = (at.st_size, at.st_mtime_ns)
    return found


def _fingerprint(folder: Path, stamps: Mapping[str, tuple[int, int]]) -> str:
    facts = [str(folder.resolve()), *([Path(path).name, *stamp] for path, stamp in sorted(stamps.items()))]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _read_raw(folder: Path) -> dict[str, Any]:
    """``config.json``, of a layout that is read.

    Raises:
        ModelError: no such folder, no or unreadable ``config.json``, or another kind of model.
    """
    path = folder / "config.json"
    if not os.path.isdir(folder):
        raise ModelError(f"no model folder at {folder}", "give the path of a folder with config.json, or a model name")
    try:
        raw = read_object(path)
    except FileNotFoundError:
        raise ModelError(
            f"{folder} holds no config.json", "an EchoingPixels checkpoint has one beside its weights"
        ) from None
    found = raw.get("model_type")
    if not isinstance(found, str) or found not in LAYOUTS:
        raise ModelError(f"{path} describes a model of type {str(found)[:60]!r}, not {' or '.join(map(repr, LAYOUTS))}")
    return raw


def _configuration(path: Path, raw: Mapping[str, Any]) -> EchoingPixelsConfig:
    """What ``config.json`` says the model is.

    Raises:
        ModelError: it says nothing of the kind.
    """
    from echopix_cli.model import bounds
    from echopix_cli.model.configuration import EchoingPixelsConfig

    fields = copy.deepcopy(dict(raw))
    fields.pop("quantization_config", None)  # says how the weights are stored, not what the model is
    stock = raw["model_type"] != MODEL_TYPE
    try:
        config = EchoingPixelsConfig.from_stock(fields) if stock else EchoingPixelsConfig(**fields)
        wrong = next(bounds.faults(config), None)
    except KeyError as error:
        raise ModelError(f"{path} is not a valid configuration: it lacks {error}") from None
    except Exception as error:
        # Values of any kind can stand in a file from anywhere.
        raise ModelError(f"{path} is not a valid configuration: {described(error)[:300]}") from None
    if wrong is not None:
        raise ModelError(f"{path} is not a valid configuration: {wrong}")
    return config


def quantization_of(folder: Path | str, raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """How a quantized checkpoint's weights are stored, by its ``config.json``; ``folder`` is what messages call it.

    Raises:
        ModelError: it was quantized by something that is not read here.
    """
    found = raw.get("quantization_config")
    if found is None:
        return None
    known = isinstance(found, dict) and found.get("quant_method") == "bitsandbytes"
    if not known or not (found.get("load_in_8bit") or found.get("bnb_4bit_quant_type") == "nf4"):
        said = found.get("quant_method") if isinstance(found, dict) else found
        raise ModelError(
            f"{folder} is quantized in a way that is not read: {str(said)[:60]!r}",
            "give the full-precision checkpoint, with --quantize nf4 or int8",
        )
    return found


def _weight_files(folder: Path) -> dict[Path, list[str] | None]:
    """Files that hold thinker tensors → the names to read from each, as stored; None stands for all it holds.

    Raises:
        ModelError: no safetensors weights, or an index that names a missing shard or one outside the folder.
    """
    index, single = folder / INDEX, folder / SINGLE
    if single.exists():  # before an index, as transformers has it: the index may be of an earlier save
        return {single: None}
    if not index.exists():
        raise ModelError(f"{folder} holds neither {SINGLE} nor {INDEX}", "only safetensors weights are read")
    try:
        weight_map: dict[str, str] = read_object(index)["weight_map"]
        if alien := _alien(weight_map):
            raise ModelError(f"{index} names unknown tensors: {_listed(alien)}")
        wanted = [(name, str(file)) for name, file in weight_map.items() if full_name(name)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} maps no weights: {error}") from None
    shards: dict[str, list[str]] = {}
    for name, file in wanted:
        if Path(file).name != file or not file.endswith(".safetensors"):
            where = "outside its folder" if Path(file).name != file or file == ".." else "that is no safetensors file"
            raise ModelError(
                f"{index} names a shard {where}: {file[:80]!r}", "only safetensors beside the index are read"
            )
        shards.setdefault(file, []).append(name)
    for file in shards:
        if not os.path.exists(folder / file):  # unlike Path.exists, this takes names that no file can have
            raise ModelError(f"shard {file[:80]} of {folder} is missing", "download the checkpoint again")
    return {folder / file: names for file, names in shards.items()}


def unreadable(file: Path, error: Exception) -> ModelError | MemoryError:
    """What to raise when a file of tensors cannot be read: that it is damaged, unless the system has no memory left."""
    if getattr(error, "errno", None) == errno.ENOMEM or f"os error {errno.ENOMEM})" in str(error):
        return MemoryError(f"cannot map {file}: {error}")
    return ModelError(f"cannot read {file}: {error}", DAMAGED)


def full_name(name: str) -> str | None:
    """A stored tensor's name in a whole model; None when it is not the thinker's."""
    if name.startswith(PREFIX):
        return name
    return PREFIX + name if name.startswith(_PARTS) else None


def _listed(names: Sequence[str]) -> str:
    """The first few of many names, none of them whole that is longer than any tensor's."""
    return ", ".join(name[:80] for name in names[:8])


def _alien(names: Iterable[str]) -> list[str]:
    """Names that belong to no part of the family's checkpoints."""
    return sorted(name for name in names if not full_name(name) and not name.startswith(NOT_READ))
