"""Checkpoints on disk: which tensors, from which files, into which model.

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
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echopix_cli.documents import read_object
from echopix_cli.errors import ModelError, described

if TYPE_CHECKING:
    import torch

    from echopix_cli.model.configuration import EchoingPixelsConfig
    from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration

PREFIX = "thinker."
MODEL_TYPE = "qwen2_5_omni_compress"
STOCK_MODEL_TYPE = "qwen2_5_omni"
STOCK_THINKER_TYPE = "qwen2_5_omni_thinker"  # the thinker alone, as transformers' own thinker class saves it
_PARTS = ("audio_tower.", "lm_head.", "model.", "visual.")  # of the thinker
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def read_config(folder: Path) -> EchoingPixelsConfig:
    """The checkpoint's configuration; a stock one's says that it has no sieve.

    Raises:
        ModelError: no such folder, no or unreadable ``config.json``, or another kind of model.
    """
    from echopix_cli.model import bounds
    from echopix_cli.model.configuration import EchoingPixelsConfig

    path = folder / "config.json"
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}", "give the path of a folder with config.json, or a model name")
    try:
        raw = read_object(path)
    except FileNotFoundError:
        raise ModelError(
            f"{folder} holds no config.json", "an EchoingPixels checkpoint has one beside its weights"
        ) from None
    found = raw.get("model_type")
    readers: dict[str, Callable[[dict[str, Any]], EchoingPixelsConfig]] = {
        MODEL_TYPE: lambda raw: EchoingPixelsConfig(**raw),  # from_dict is this and a description for the log
        STOCK_MODEL_TYPE: EchoingPixelsConfig.from_stock,
        STOCK_THINKER_TYPE: EchoingPixelsConfig.from_stock,
    }
    if not isinstance(found, str) or found not in readers:
        raise ModelError(f"{path} describes a model of type {str(found)[:60]!r}, not {' or '.join(map(repr, readers))}")
    raw.pop("quantization_config", None)  # says how the weights are stored, not what the model is
    try:
        config = readers[found](raw)
        wrong = next(bounds.faults(config), None)
    except KeyError as error:
        raise ModelError(f"{path} is not a valid configuration: it lacks {error}") from None
    except Exception as error:
        # transformers raises what comes of it when it meets values that it does not foresee.
        raise ModelError(f"{path} is not a valid configuration: {described(error)[:300]}") from None
    if wrong is not None:
        raise ModelError(f"{path} is not a valid configuration: {wrong}")
    return config


def read_quantization(folder: Path) -> dict[str, Any] | None:
    """How a quantized checkpoint's weights are stored, as its ``config.json`` says; None for full precision.

    Raises:
        ModelError: it was quantized by something that is not read here.
    """
    try:
        found = read_object(folder / "config.json").get("quantization_config")
    except (OSError, ModelError):
        return None  # which read_config explains
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


def weight_files(folder: Path) -> dict[Path, list[str] | None]:
    """Files that hold thinker tensors → the names to read from each, as stored; None stands for all it holds.

    Raises:
        ModelError: no safetensors weights, or an index that names a missing shard or one outside the folder.
    """
    index = folder / _INDEX
    if not index.exists():
        single = folder / _SINGLE
        if not single.exists():
            raise ModelError(f"{folder} holds neither {_SINGLE} nor {_INDEX}", "only safetensors weights are read")
        return {single: None}
    try:
        weight_map: dict[str, str] = read_object(index)["weight_map"]
        if alien := _alien(list(weight_map)):
            raise ModelError(f"{index} names unknown tensors: {', '.join(alien[:8])}")
        wanted = [(name, str(file)) for name, file in weight_map.items() if full_name(name)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} maps no weights: {error}") from None
    shards: dict[str, list[str]] = {}
    for name, file in wanted:
        if Path(file).name != file or not file.endswith(".safetensors"):
            where = "outside its folder" if Path(file).name != file or file == ".." else "that is no safetensors file"
            raise ModelError(f"{index} names a shard {where}: {file!r}", "only safetensors beside the index are read")
        shards.setdefault(file, []).append(name)
    for file in shards:
        if not (folder / file).exists():
            raise ModelError(f"shard {file} of {folder} is missing", "download the checkpoint again")
    return {folder / file: names for file, names in shards.items()}


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All thinker tensors, memory-mapped, in the precision they are stored in, named ``thinker.…`` in any layout.

    Raises:
        ModelError: files missing, damaged or not as their index says, or a tensor there twice.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, torch.Tensor] = {}
    for file, names in weight_files(folder).items():
        try:
            with safe_open(file, framework="pt") as handle:
                present = list(handle.keys())
                chosen = [name for name in present if full_name(name)] if names is None else names
                if names is None and (alien := _alien(present)):
                    raise ModelError(f"{file} holds unknown tensors: {', '.join(alien[:8])}")
                if unlisted := sorted(name for name in set(present) - set(chosen) if full_name(name)):
                    raise ModelError(f"{file} holds tensors its index does not name: {', '.join(unlisted[:8])}")
                if absent := sorted(set(chosen) - set(present)):
                    raise ModelError(f"{file} lacks tensors its index names: {', '.join(absent[:8])}")
                for name in chosen:
                    full = str(full_name(name))
                    if full in tensors:
                        raise ModelError(f"{file} holds {full} a second time, under another name")
                    tensors[full] = handle.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise unreadable(file, error) from None
    return tensors


def unreadable(file: Path, error: Exception) -> ModelError | MemoryError:
    """What to raise when a file of tensors cannot be read: that it is damaged, unless the system has no memory left."""
    if getattr(error, "errno", None) == errno.ENOMEM or f"os error {errno.ENOMEM})" in str(error):
        return MemoryError(f"cannot map {file}: {error}")
    return ModelError(f"cannot read {file}: {error}", "the file is damaged or incomplete")


def full_name(name: str) -> str | None:
    """A stored tensor's name in a whole model; None when it is not the thinker's."""
    if name.startswith(PREFIX):
        return name
    return PREFIX + name if name.startswith(_PARTS) else None


def _alien(names: list[str]) -> list[str]:
    """Names that belong to no part of the family's checkpoints."""
    return sorted(name for name in names if not full_name(name) and not name.startswith(("talker.", "token2wav.")))


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    config: EchoingPixelsConfig | None = None,
    tensors: dict[str, torch.Tensor] | None = None,
    text_overrides: Mapping[str, Any] | None = None,
) -> EchoingPixelsForConditionalGeneration:
    """Load a checkpoint: of EchoingPixels, or a stock one, which then has no sieve of its own.

    A quantized copy is loaded as it is stored: its packed layers go to the device without another quantization.

    Args:
        folder: with ``config.json`` and weights in one of the layouts above, single file or sharded.
        dtype: of the loaded weights, packed ones excepted; None keeps what is stored.
        device: where to put them.
        config: as :func:`read_config` gave it, where the caller has read it already.
        tensors: in place of those that the folder holds.
        text_overrides: fields of the text configuration to replace.

    Raises:
        ModelError: anything missing, unknown, of the wrong shape, not finite or unreadable, by name.
    """
    import torch

    from echopix_cli.model.configuration import EchoingPixelsTextConfig
    from echopix_cli.model.finite import require_finite_weights
    from echopix_cli.weights.assembly import assemble
    from echopix_cli.weights.headers import require_agreement

    stated = config = config or read_config(folder)
    if text_overrides:
        config = copy.deepcopy(config)
        thinker: Any = config.thinker_config
        thinker.text_config = EchoingPixelsTextConfig(**{**config.text.to_dict(), **text_overrides})
    quantization = read_quantization(folder)
    given = tensors is not None
    if tensors is None:
        require_agreement(folder, stated)
        tensors = read_tensors(folder)
    stored: torch.dtype | None = config.dtype or next(
        (tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), None
    )
    try:
        model = assemble(config, tensors.items(), dtype or stored or torch.float32, torch.device(device), quantization)
    except ValueError as error:
        raise ModelError(f"{folder}: {error}") from None
    if not given:
        require_finite_weights(model, folder)
    return model


def save_model(
    model: EchoingPixelsForConditionalGeneration,
    folder: Path,
    dtype: torch.dtype | None = None,
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write ``config.json`` and ``model.safetensors`` in the authors' layout, each renamed into place whole.

    Args:
        model: its module tree is named as the layout is, so tensors are written under their own names.
        folder: made if need be.
        dtype: of the stored floats; None keeps the model's.
        tensors: in place of the model's own, where those are not in their final form.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    final = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in (model.state_dict() if tensors is None else tensors).items()
    }
    raw = model.config.to_dict()
    stored = dtype or next(iter(final.values())).dtype
    # The authors' transformers reads this name; newer ones read either.
    raw["torch_dtype"] = raw["dtype"] = str(stored).removeprefix("torch.")
    text = json.dumps(raw, indent=2, sort_keys=True, default=lambda v: str(v).removeprefix("torch."))
    config = folder / "config.json.partial"
    config.write_text(text + "\n", encoding="utf-8")
    partial = folder / (_SINGLE + ".partial")
    save_file(final, partial, metadata={"format": "pt"})
    partial.chmod(config.stat().st_mode)  # the library writes for the owner alone; the umask shall decide
    partial.replace(folder / _SINGLE)
    config.replace(folder / "config.json")
    assert isinstance(stored, torch.dtype)
