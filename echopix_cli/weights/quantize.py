"""Quantized copies of a checkpoint: the decoder's and CS2's linear layers in four or eight bits.

Towers, embeddings, norms, score head and output layer keep the compute precision. A copy is written tensor by
tensor: never more of the full-precision model is in memory than the tensor at work. It is written before any
forward pass, because bitsandbytes repacks four-bit weights at the first one on a CPU, and what is saved after that
is no longer what was quantized.

A copy is a checkpoint folder like any other, whose ``config.json`` has a ``quantization_config`` as transformers
reads it; the tensors of a quantized layer have the names that transformers gives them.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from echopix_cli.errors import ModelError
from echopix_cli.weights.checkpoint import Checkpoint, load_model
from echopix_cli.weights.opening import INDEX, SMALL, opened, unreadable
from echopix_cli.weights.packing import NF4, NONE, bitsandbytes, is_quantized_name, quantize_tensor, settings_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration

SHARD = 512 * 2**20  # bytes of a written file, about: one of them is held in memory twice while it is written
_MAPPED = 16 * 2**20  # bytes of a file that are mapped at a time
_LARGE_TENSOR = 2**20  # bytes; what is freed after one is given back to the system at once


def write_copy(
    source: Path | Checkpoint,
    target: Path,
    method: str,
    dtype: torch.dtype,
    device: torch.device,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, torch.Tensor]:
    """Write a quantized copy of a checkpoint. No forward pass is run.

    Args:
        source: the full-precision checkpoint, in any of its layouts, or its folder.
        target: an empty folder.
        method: ``int8`` or ``nf4``.
        dtype: of everything that is not quantized.
        device: that quantizes; one tensor at a time is moved there, and the quantized ones stay.
        advance: is told of the source's bytes done and of all of them.

    Returns:
        the copy's tensors on the device, as they were written.

    Raises:
        ModelError: the checkpoint is unusable, quantized already, or the written files read back otherwise.
        OSError: the disk refuses.
    """
    checkpoint = opened(source)
    _ = checkpoint.config  # says what is wrong with it
    folder, raw = checkpoint.folder, copy.deepcopy(dict(checkpoint.raw))
    if checkpoint.quantization is not None:
        raise ModelError(f"{folder} is quantized already", "leave --quantize out")
    total = sum(tensor.size for tensor in checkpoint.tensors.values())
    kept: dict[str, torch.Tensor] = {}
    written: dict[str, str] = {}
    batch: dict[str, torch.Tensor] = {}
    done = 0

    def flush() -> None:
        if batch:
            file = f"quantized-{len(set(written.values())) + 1:05d}.safetensors"
            _write(target / file, batch)
            written.update(dict.fromkeys(batch, file))
            batch.clear()
            give_back_memory()

    for name, value in stream(checkpoint):
        size = value.nbytes
        done += size
        for part, tensor in quantize_tensor(name, value, method, dtype, device).items():
            kept[part] = batch[part] = tensor
        del value
        if size >= _LARGE_TENSOR:
            give_back_memory()
        advance(done, total)
        if sum(tensor.nbytes for tensor in batch.values()) >= SHARD:
            flush()
    flush()
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in kept.values())}, "weight_map": written}
    (target / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    raw["quantization_config"] = settings_of(method, dtype)
    raw["torch_dtype"] = raw["dtype"] = str(dtype).removeprefix("torch.")
    (target / "config.json").write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in SMALL - {"config.json"}:  # tokenizer, preprocessor, template, licence: the copy stands alone
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    return kept


def stream(checkpoint: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """Thinker tensors by full name, one at a time, each in memory of its own.

    Raises:
        ModelError: a file is damaged.
    """
    from safetensors import SafetensorError

    for file, names in checkpoint.shards.items():
        try:
            for stored, value in _mapped(file, names):
                yield names[stored], value.clone()
        except (SafetensorError, OSError, ValueError) as error:
            raise unreadable(file, error) from None


def prove(
    folder: Path, tensors: dict[str, torch.Tensor], method: str, dtype: torch.dtype, device: torch.device
) -> None:
    """Compare a written copy with the model that was written, by logits: equal, or the copy is worth nothing.

    One after the other is in memory, not both; ``tensors`` is emptied.

    Raises:
        ModelError: they differ.
    """
    import gc

    import torch

    answers = []
    for given in (tensors, None):
        model = load_model(folder, dtype=dtype, device=device, tensors=given)
        check_modules(model, method, dtype)
        tensors.clear()
        answers.append(probe(model))
        del model
        gc.collect()
        give_back_memory()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if not all(torch.equal(one, other) for one, other in zip(*answers, strict=True)):
        raise ModelError(
            "the quantized copy, read back, does not give the logits of the model it was written from",
            "this should never happen: please report it; --quantize none works without a copy",
        )


def probe(model: EchoingPixelsForConditionalGeneration) -> tuple[torch.Tensor, ...]:
    """Logits of a made-up prompt through decoder and output layer, and its scores through CS2.

    On a CPU with bfloat16 instructions, bitsandbytes repacks each layer at its first forward, by way of integers that
    take eight times the layer: what they leave behind is given back layer by layer.
    """
    import torch

    thinker = model.thinker
    text = thinker.model
    rows = 16
    small = [module for module in text.modules() if type(module).__name__ in ("Linear4bit", "Linear8bitLt")]
    with contextlib.ExitStack() as hooks, torch.inference_mode():
        for module in small if text.embed_tokens.weight.device.type == "cpu" else ():
            hooks.callback(module.register_forward_hook(lambda *_: give_back_memory()).remove)
        ids = torch.linspace(0, text.config.vocab_size - 1, rows).long().to(text.embed_tokens.weight.device)
        embeds = text.embed_tokens(ids)[None]
        positions = torch.arange(rows, device=ids.device).expand(4, 1, rows)
        found = []
        if text.bidir_encoder is not None:
            embeds = text.bidir_encoder(embeds, text.rotary(positions, embeds.dtype), None)
        if text.compressor is not None:
            found.append(text.compressor(embeds).float().cpu())
        found.append(thinker.lm_head(text.decode(embeds, positions)).float().cpu())
    return tuple(found)


def check_modules(model: nn.Module, method: str, dtype: torch.dtype) -> None:
    """Look at every module: what is to be quantized is, and nothing else; the rest has the compute dtype.

    Raises:
        ModelError: names the first module that is not as it should be.
    """
    from torch import nn

    small: type[nn.Module] = nn.Linear
    if method != NONE:
        bnb = bitsandbytes()
        small = bnb.nn.Linear4bit if method == NF4 else bnb.nn.Linear8bitLt
    count = 0
    for name, module in model.named_modules():
        weight = f"{name}.weight"
        if is_quantized_name(weight):
            count += 1
            if type(module) is not small:
                raise ModelError(f"{name} was loaded as {type(module).__name__}, not {small.__name__}")
        elif isinstance(module, nn.Linear) and type(module) is not nn.Linear:
            raise ModelError(f"{name} was loaded as {type(module).__name__}: it has to stay in {dtype}")
        for part, parameter in module.named_parameters(recurse=False):
            packed = method != NONE and is_quantized_name(f"{name}.{part}")
            if not packed and parameter.dtype != dtype:
                raise ModelError(f"{name}.{part} was loaded as {parameter.dtype}, not {dtype}")
            if packed and parameter.dtype.itemsize != 1:
                raise ModelError(f"{name}.{part} was loaded as {parameter.dtype}: it is not quantized")
    if count == 0:
        raise ModelError("the model has no linear layers by the names that quantization knows")


def parameter_count(model: nn.Module) -> int:
    """Parameters of a model; those packed two to a byte counted as what they stand for."""
    total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += parameter.numel() if state is None else state.shape.numel()
    return total


def give_back_memory() -> None:
    """Let the C library return freed memory to the system, where it can be told to.

    glibc keeps freed blocks that lie between others: after many tensors that is more than the model.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """One file of a copy, read back and compared.

    Raises:
        ModelError: it reads back otherwise.
    """
    import torch
    from safetensors.torch import save_file

    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o666 & ~_umask())  # the library writes for the owner alone
    for name, again in _mapped(path, tensors):
        if again.dtype != tensors[name].dtype or not torch.equal(again, tensors[name].cpu()):
            raise ModelError(f"{path} does not read back as it was written", "the disk may be failing")


def _mapped(path: Path, names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of a file, mapped and not to be kept.

    It is opened anew after every few megabytes: the pages of a mapping count as this process's until it is closed.
    """
    from safetensors import safe_open

    with contextlib.ExitStack() as opened:
        read = 0
        for name in names:
            if not read:
                handle = opened.enter_context(safe_open(path, framework="pt"))
            value = handle.get_tensor(name)
            read += max(value.nbytes, 1)
            yield name, value
            del value
            if read >= _MAPPED:
                opened.close()
                read = 0


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
