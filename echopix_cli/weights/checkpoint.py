"""Models from checkpoints, and back: tensors read, put into a model, written in the authors' layout."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echopix_cli.errors import EchopixError, ModelError
from echopix_cli.files import FULL, sync, write_whole
from echopix_cli.weights.opening import Checkpoint as Checkpoint
from echopix_cli.weights.opening import open_checkpoint as open_checkpoint
from echopix_cli.weights.opening import opened, unreadable
from echopix_cli.weights.opening import read_config as read_config

if TYPE_CHECKING:
    import torch

    from echopix_cli.model.configuration import EchoingPixelsConfig
    from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration


def read_tensors(source: Path | Checkpoint) -> dict[str, torch.Tensor]:
    """All thinker tensors, memory-mapped, in the precision they are stored in, by full name ``thinker.…``.

    Raises:
        ModelError: files missing, damaged or not as their index says, or a tensor there twice.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, torch.Tensor] = {}
    for file, names in opened(source).shards.items():
        try:
            with safe_open(file, framework="pt") as handle:
                for stored, name in names.items():
                    tensors[name] = handle.get_tensor(stored)
        except (SafetensorError, OSError) as error:
            raise unreadable(file, error) from None
    return tensors


def load_model(
    source: Path | Checkpoint,
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
        source: a checkpoint, or its folder.
        dtype: of the loaded weights, packed ones excepted; None keeps what is stored.
        device: where to put them.
        config: in place of the checkpoint's.
        tensors: in place of those that the folder holds.
        text_overrides: fields of the text configuration to replace.

    Raises:
        ModelError: anything missing, unknown, of the wrong shape, not finite or unreadable, by name.
    """
    import torch

    from echopix_cli.model.configuration import EchoingPixelsTextConfig
    from echopix_cli.model.finite import require_finite_weights
    from echopix_cli.weights.assembly import assemble

    checkpoint = opened(source)
    stated, folder = checkpoint.config, checkpoint.folder
    config = config or stated
    if text_overrides:
        config = copy.deepcopy(config)
        thinker: Any = config.thinker_config
        thinker.text_config = EchoingPixelsTextConfig(**{**config.text.to_dict(), **text_overrides})
    given = tensors is not None
    if tensors is None:
        tensors = read_tensors(checkpoint)
    stored: torch.dtype | None = config.dtype or next(
        (tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), None
    )
    kind, place = dtype or stored or torch.float32, torch.device(device)
    try:
        model = assemble(config, tensors.items(), kind, place, checkpoint.quantization)
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
    """Write ``model.safetensors`` and ``config.json`` in the authors' layout, each renamed into place whole.

    Args:
        model: its module tree is named as the layout is, so tensors are written under their own names.
        folder: made if need be.
        dtype: of the stored floats; None keeps the model's.
        tensors: in place of the model's own, where those are not in their final form.

    Raises:
        EchopixError: the disk or the folder refuses.
    """
    with refusals(folder):
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
    save_tensors(final, folder / "model.safetensors")
    write_whole(folder / "config.json", (text + "\n").encode())


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write contiguous tensors beside their file and rename it once they are on the disk; one that exists is replaced.

    Raises:
        EchopixError: the disk or the folder refuses; what lay there stays.
    """
    from safetensors.torch import save_file

    partial = path.with_name(f"{path.name}.partial")
    with refusals(path):
        try:
            partial.touch()
            mode = partial.stat().st_mode
            save_file(dict(tensors), partial, metadata={"format": "pt"})
            partial.chmod(mode)  # the library writes for the owner alone; the umask shall decide
            sync(partial)
            os.replace(partial, path)
            sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """What the disk or the folder of a path refuses, in words.

    Raises:
        EchopixError: in place of the system's error and of the library's.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        full = not isinstance(error, OSError) or error.errno in FULL
        hint = "make room there, and run again" if full else "name a folder that can be written"
        raise EchopixError(f"cannot write {path}: {reason}", hint) from error
