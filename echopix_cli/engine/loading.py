"""What an engine is loaded from: device, precision, model, quantized copy, and whether it will fit."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from echopix_cli.engine.forecast import Forecast, Workload, forecast, free_memory, require_room
from echopix_cli.errors import DeviceError, ModelError
from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.weights import copies, packing, quantize
from echopix_cli.weights.checkpoint import read_config, read_quantization
from echopix_cli.weights.registry import AUTO, BUNDLED, Model, ModelSource, choose_auto, files_of, find_model

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Below this, packed weights save less than they cost: a copy on the disk, and slower layers.
LARGE = 2 * 2**30  # bytes of full-precision weights
ADVICE = (
    "take less at a time: a smaller --budget, --max-frames or --max-pixels, or a span with --start/--end; "
    "--quantize nf4 makes the weights smaller"
)
# How torch's allocators and libraries say it where they raise a plain RuntimeError.
_MEMORY_WORDS = ("can't allocate memory", "out of memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Located:
    """What to load and how: files, precision of all that is not packed, and what it will take.

    Attributes:
        source: with the folder; a copy's where one is used.
        dtype: of all that is not packed.
        chosen: why this model, where the user left the choice to us.
        forecast: of memory; None where no work is planned.
        config: of the folder, where the forecast has read it.
    """

    source: ModelSource
    dtype: torch.dtype
    chosen: str | None
    forecast: Forecast | None
    config: EchoingPixelsConfig | None = None


def locate(
    name: str,
    device: torch.device,
    dtype: str = "auto",
    quantization: str = "auto",
    *,
    keep_source: bool = True,
    workload: Workload | None = None,
    watcher: copies.Watcher | None = None,
    mend: bool = False,
) -> Located:
    """A model's files on this machine, quantized as wanted; the copy is made if it is not there yet.

    Args:
        name: of a model, ``auto``, or a folder's path.
        device: that will hold it.
        dtype: a torch dtype's name, or ``auto``: float32 on a CPU, bfloat16 elsewhere.
        quantization: ``auto``, ``none``, ``int8`` or ``nf4``. ``auto``: nf4 on CUDA for weights of 2 GiB and more,
            none otherwise; of a model whose download was dropped, the copy that is there.
        keep_source: whether a download stays once a copy of it is there.
        workload: what will be asked; its memory is compared with what is free.
        watcher: is told what happens while a copy is made.
        mend: make a damaged copy again rather than refuse it.

    Raises:
        ModelError: no such model, not on this machine, or its files are damaged.
        DeviceError: it does not fit.
    """
    precision = precision_of(dtype, device)
    chosen = None
    if name == AUTO:
        name, chosen = choose_auto(
            free_memory(device) if device.type == "cuda" else None,
            {"auto": packing.NF4, packing.NONE: "bfloat16"}.get(quantization, quantization),
        )
    model = find_model(name)
    try:
        source = _files(model, precision, quantization)
        method = _method(source, device, quantization)
        expected = config = None
        if workload is not None:
            config = read_config(source.folder)
            expected = forecast(source.folder, method, precision, workload, device, config)
            require_room(model.name, expected, free_memory(device), device)
        if method != source.quantization:
            wanted = copies.Wanted(model, method, str(precision).removeprefix("torch."))
            entry, _ = copies.make(wanted, device, watcher, mend=mend)
            source, config = copies.as_source(wanted, entry), None
        if not keep_source and source.quantization != packing.NONE and model.repository is not None:
            from echopix_cli.weights.upkeep import drop_download

            drop_download(model)
    except ModelError as error:
        if chosen is not None:
            error.message += f" (auto took {chosen})"
            error.hint += f"; or add --model {BUNDLED}"
        raise
    return Located(source, precision, chosen, expected, config)


def _files(model: Model, precision: torch.dtype, quantization: str) -> ModelSource:
    """Full-precision files; of a model whose download was dropped, or of a folder that holds one, the copy.

    Raises:
        ModelError: neither is here, or the files are damaged.
    """
    if model.folder is not None:
        source = files_of(model)
        stored = read_quantization(model.folder)
        if stored is None:
            return source
        method = packing.INT8 if stored.get("load_in_8bit") else packing.NF4
        if quantization not in (AUTO, method):
            raise ModelError(f"{model.folder} holds {method} weights: there is nothing else to load", "--quantize auto")
        return replace(source, quantization=method)
    try:
        return files_of(model)
    except ModelError:
        for method in (packing.NF4, packing.INT8):
            if quantization in (AUTO, method):
                wanted = copies.Wanted(model, method, str(precision).removeprefix("torch."))
                if entry := copies.find(wanted):
                    return copies.as_source(wanted, entry)
        raise


def _method(source: ModelSource, device: torch.device, quantization: str) -> str:
    """``none``, ``int8`` or ``nf4``: what to hold the linear layers in."""
    if source.quantization != packing.NONE:
        return source.quantization
    if quantization != AUTO:
        return quantization
    if device.type != "cuda":
        return packing.NONE
    size = quantize.weight_bytes(quantize.stored_tensors(source.folder), packing.NONE, torch.bfloat16.itemsize).total
    return packing.NF4 if size >= LARGE else packing.NONE


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """A dtype by its name; ``auto`` is float32 on a CPU, bfloat16 elsewhere."""
    return _DTYPES.get(name) or (torch.float32 if device.type == "cpu" else torch.bfloat16)


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one.

    Raises:
        DeviceError: a device that this machine does not have.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not available or (device.index or 0) >= torch.cuda.device_count()):
        found = f"{torch.cuda.device_count()} CUDA device(s)" if available else "no CUDA device"
        raise DeviceError(f"device {name!r} is not available: torch sees {found}", "leave --device out, or give cpu")
    return device


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception means that memory ran out, on the device or the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_WORDS)


@contextmanager
def memory_errors(device: torch.device, advice: str = ADVICE) -> Iterator[None]:
    """Turn running out of memory into one line of advice, and leave the device clean."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # The frames that failed still hold their tensors, and their cache would not be given back.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise DeviceError(f"out of memory on {device}", advice) from error
