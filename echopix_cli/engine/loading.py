"""What an engine is loaded from: device, precision, model, quantized copy, and whether it will fit."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from echopix_cli.engine.forecast import (
    Forecast,
    Workload,
    forecast,
    foresee,
    free_memory,
    require_room,
    usual_workload,
)
from echopix_cli.engine.precision import precision_of
from echopix_cli.errors import DeviceError, EchopixError, ModelError, described
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.processing import Processor
from echopix_cli.sizes import binary
from echopix_cli.weights import copies, packing
from echopix_cli.weights.checkpoint import Checkpoint, load_model, open_checkpoint
from echopix_cli.weights.environment import hub_constants
from echopix_cli.weights.quantize import check_modules
from echopix_cli.weights.registry import (
    AUTO,
    BUNDLED,
    REGISTERED,
    Model,
    ModelSource,
    NotHere,
    files_of,
    find_model,
)

# Below this, packed weights save less than they cost: a copy on the disk, and slower layers.
LARGE = 2 * 2**30  # bytes of full-precision weights
ADVICE = (
    "take less at a time: a smaller --budget, --max-frames, --max-pixels or --max-new-tokens, or a span with "
    "--start/--end; --quantize nf4 makes the weights smaller"
)
# How torch's allocators and libraries say it where they raise a plain RuntimeError.
_MEMORY_WORDS = ("can't allocate memory", "cannot allocate memory", "out of memory", "out_of_memory", "alloc_failed")


@dataclass(frozen=True)
class Prepared:
    """What to load and how: a checkpoint, the precision of all that is not packed, and what it will take.

    Attributes:
        model: what the name stands for.
        source: with the folder; a copy's where one is used.
        checkpoint: opened, in that folder.
        dtype: of all that is not packed.
        chosen: why this model, where the user left the choice to us.
        forecast: of memory; None where no work is planned.
        replaces_download: whether it is a copy that works without the download that it was made of.
    """

    model: Model
    source: ModelSource
    checkpoint: Checkpoint
    dtype: torch.dtype
    chosen: str | None
    forecast: Forecast | None
    replaces_download: bool


def prepare(
    name: str,
    device: torch.device,
    dtype: str = "auto",
    quantization: str = "auto",
    *,
    workload: Workload | None = None,
    watcher: copies.Watcher | None = None,
    mend: bool = False,
) -> Prepared:
    """Have a model's files ready to be loaded: found, compared with the memory there is, quantized as wanted.

    A quantized copy that is not there yet is made and kept in the store.

    Args:
        name: of a model, ``auto``, or a folder's path.
        device: that will hold it.
        dtype: a torch dtype's name, or ``auto``: see :func:`~.precision.precision_of`.
        quantization: ``auto``, ``none``, ``int8`` or ``nf4``. ``auto``: nf4 on CUDA for weights of 2 GiB and more,
            none otherwise; of a model whose download was dropped, the copy that is there.
        workload: what will be asked; its memory is compared with what is free.
        watcher: is told what happens while a copy is made.
        mend: make a damaged copy again rather than refuse it.

    Raises:
        ModelError: no such model, not on this machine, or its files are damaged.
        DeviceError: it does not fit.
    """
    precision = precision_of(dtype, device, bundled=name in (AUTO, BUNDLED))  # on a CPU, auto is the bundled one
    chosen, free = None, free_memory(device)
    expected = None
    if name == AUTO:
        name, chosen = choose_auto(free, device, precision, quantization, workload)
    model = find_model(name)
    try:
        try:
            source = _files(model, precision, quantization)
        except NotHere:  # what will not fit is not worth its download
            if workload is not None:
                expected = foresee_registered(model, precision, quantization, workload, device)
                if expected is not None:
                    require_room(model.name, expected, free, device)
            raise
        checkpoint = open_checkpoint(source.folder)
        stored = checkpoint.method
        source = replace(source, quantization=stored)
        method = _method(checkpoint, device, quantization)
        if workload is not None:
            expected = forecast(checkpoint, method, precision, workload, device)
            require_room(model.name, expected, free, device)
        if method != stored:
            wanted = copies.Wanted(model, method, str(precision).removeprefix("torch."))
            entry, _ = copies.make(wanted, device, watcher, mend=mend)
            source = copies.as_source(wanted, entry)
            checkpoint = open_checkpoint(source.folder)
    except ModelError as error:
        if chosen is not None:
            error.message += f" (auto took {chosen})"
            error.hint += f"; or add --model {BUNDLED}"
        raise
    copied = method != stored and model.repository is not None
    return Prepared(model, source, checkpoint, precision, chosen, expected, copied)


def parts_of(prepared: Prepared, device: torch.device) -> tuple[EchoingPixelsForConditionalGeneration, Processor]:
    """The model, on its device, and the processor of what was prepared.

    Raises:
        ModelError: the files are damaged or of another kind.
    """
    checkpoint = prepared.checkpoint
    try:
        processor = Processor.load(checkpoint.folder, checkpoint.config)
        model = load_model(checkpoint, dtype=prepared.dtype, device=device)
        check_modules(model, prepared.source.quantization, prepared.dtype)
        return model, processor
    except EchopixError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # A folder from anywhere can be wrong in more ways than can be listed.
        raise ModelError(f"{checkpoint.folder} holds no usable model: {described(error)}") from error


def _files(model: Model, precision: torch.dtype, quantization: str) -> ModelSource:
    """A model's files; of one whose download was dropped, the copy made of it.

    Raises:
        ModelError: neither is here, or the files are damaged.
    """
    try:
        return files_of(model)
    except ModelError as error:
        methods = (packing.NF4, packing.INT8) if model.folder is None else ()
        name = str(precision).removeprefix("torch.")
        made = [copies.Wanted(model, method, name) for method in methods if quantization in (AUTO, method)]
        for wanted in made:
            if entry := copies.find(wanted):
                return copies.as_source(wanted, entry)
        for wanted in made if isinstance(error, NotHere) else ():
            copies.require_none(wanted)
        raise


def _method(checkpoint: Checkpoint, device: torch.device, quantization: str) -> str:
    """``none``, ``int8`` or ``nf4``: what to hold the linear layers in.

    Raises:
        ModelError: they are stored in another.
    """
    stored = checkpoint.method
    if stored == packing.NONE:
        return _quantization(quantization, device, checkpoint.counts.bytes_as(packing.NONE))
    if quantization not in (AUTO, stored):
        raise ModelError(
            f"{checkpoint.folder} holds {stored} weights: there is nothing else to load", "--quantize auto"
        )
    return stored


def _quantization(wish: str, device: torch.device, size: int) -> str:
    """The method for full-precision weights: the one asked for, or ``auto``'s, by their bytes as bfloat16."""
    if wish != AUTO:
        return wish
    return packing.NF4 if device.type == "cuda" and size >= LARGE else packing.NONE


def choose_auto(
    free: int | None,
    device: torch.device,
    precision: torch.dtype,
    quantization: str = AUTO,
    workload: Workload | None = None,
) -> tuple[str, str]:
    """What ``--model auto`` stands for: the largest registered model that fits a CUDA device with what is asked of it.

    Where HF_HUB_OFFLINE is set, of those that are on this machine.

    Args:
        free: bytes of the device.
        device: that will hold it.
        precision: of all that is not packed.
        quantization: ``auto``, ``none``, ``int8`` or ``nf4``.
        workload: what will be asked; None for the usual.

    Returns:
        a model's name, and why it was chosen, as a line for the record.
    """
    if device.type != "cuda" or free is None:
        return BUNDLED, f"{BUNDLED}, the demonstration model: no CUDA device is in use"
    constants = hub_constants()
    workload = workload or usual_workload()
    smallest = ""
    for model in sorted(REGISTERED, key=lambda model: -model.counts.parameters if model.counts else 0):
        found = foresee_registered(model, precision, quantization, workload, device)
        if found is None:
            continue
        if constants.HF_HUB_OFFLINE and not _is_here(model, precision, quantization):
            smallest = smallest or f"HF_HUB_OFFLINE is set, and {model.name} is not on this machine"
            continue
        method = _registered_method(model, quantization, device)
        held = str(precision).removeprefix("torch.") if method == packing.NONE else method
        needed = f"{binary(found.total)} as {held}, {binary(free)} free"
        if found.total <= free:
            return model.name, f"the largest model that fits: about {needed}"
        smallest = f"{model.name} needs about {needed}"
    return BUNDLED, f"{BUNDLED}, the demonstration model: {smallest}"


def _is_here(model: Model, precision: torch.dtype, quantization: str) -> bool:
    """Whether what would be loaded of a model is on this machine."""
    try:
        _files(model, precision, quantization)
    except ModelError:
        return False
    return True


def foresee_registered(
    model: Model, precision: torch.dtype, quantization: str, workload: Workload, device: torch.device
) -> Forecast | None:
    """The memory of a registered model that is not here yet, for a wish for its quantization; None of others."""
    method = _registered_method(model, quantization, device)
    return foresee(model, method, precision, workload, device)


def _registered_method(model: Model, quantization: str, device: torch.device) -> str:
    return _quantization(quantization, device, model.counts.bytes_as(packing.NONE) if model.counts else 0)


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one; of several devices, that with the most free memory.

    Raises:
        DeviceError: a device that this machine does not have.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        if available and (count := torch.cuda.device_count()) > 1:
            devices = [torch.device("cuda", index) for index in range(count)]
            return max(devices, key=lambda device: free_memory(device) or 0)
        return torch.device("cuda" if available else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not available or (device.index or 0) >= torch.cuda.device_count()):
        found = f"{torch.cuda.device_count()} CUDA device(s)" if available else "no CUDA device"
        raise DeviceError(f"device {name!r} is not available: torch sees {found}", "leave --device out, or give cpu")
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that led to it, means that memory ran out, on the device or the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS):
        return True
    before = _before(error)
    return before is not None and is_out_of_memory(before)


def _before(error: BaseException) -> BaseException | None:
    """What led to an exception."""
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@contextmanager
def memory_errors(device: torch.device, advice: str = ADVICE) -> Iterator[None]:
    """Turn running out of memory into one line of advice, and leave the device clean."""
    try:
        yield
    except EchopixError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # The frames that failed still hold their tensors, and their cache would not be given back.
        failed: BaseException | None = error
        while failed is not None:
            traceback.clear_frames(failed.__traceback__)
            failed = _before(failed)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise DeviceError(f"out of memory on {device}", advice) from error
