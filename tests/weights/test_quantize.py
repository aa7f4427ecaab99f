"""Quantized copies: written once, proven, refused when damaged, made again when outdated, and small in memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import nn

from echopix_cli.engine.loading import prepare
from echopix_cli.errors import ModelError
from echopix_cli.weights import copies, packing, quantize
from echopix_cli.weights.checkpoint import load_model, open_checkpoint
from echopix_cli.weights.registry import find_model
from echopix_cli.weights.stock import load_base
from echopix_cli.weights.store import Store

CPU = torch.device("cpu")
METHODS = ("nf4", "int8")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path / "echopix"))
    return Store()


@pytest.fixture
def folder(random_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the random checkpoint that a test may change."""
    return Path(shutil.copytree(random_checkpoint, tmp_path / "model"))


def wanted(folder: Path, method: str = "nf4", dtype: str = "float32") -> copies.Wanted:
    return copies.Wanted(find_model(str(folder)), method, dtype)


def freshly_quantized(folder: Path, method: str, dtype: torch.dtype) -> nn.Module:
    """bitsandbytes' own way: layers that quantize what they are given when they are moved to the device."""
    import bitsandbytes as bnb

    model = load_model(folder, dtype=dtype)
    for name, layer in list(model.named_modules()):
        if not packing.is_quantized_name(f"{name}.weight"):
            continue
        sizes = (layer.in_features, layer.out_features, layer.bias is not None)
        if method == "nf4":
            small = bnb.nn.Linear4bit(*sizes, compute_dtype=dtype, compress_statistics=False, quant_type="nf4")
        else:
            small = bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0)
        small.weight.data = layer.weight.data
        if small.bias is not None:
            small.bias.data = layer.bias.data
        model.set_submodule(name, small.to(CPU))
    return model.eval()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["random_checkpoint", "stock_checkpoint"])
def test_a_copy_is_the_freshly_quantized_model(
    store: Store, method: str, dtype: torch.dtype, layout: str, request: pytest.FixtureRequest
) -> None:
    """Tensors and logits are exactly those that bitsandbytes gets by quantizing the checkpoint anew."""
    folder: Path = request.getfixturevalue(layout)
    entry, made = copies.make(wanted(folder, method, str(dtype).removeprefix("torch.")), CPU, store=store)
    assert made
    copy, fresh = load_model(entry.folder, dtype=dtype), freshly_quantized(folder, method, dtype)
    ours, theirs = copy.state_dict(), fresh.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    logits = quantize.probe(copy)
    assert all(torch.equal(one, other) for one, other in zip(logits, quantize.probe(fresh), strict=True))
    full = quantize.probe(load_model(folder, dtype=dtype))[-1]
    assert 0 < float((logits[-1] - full).abs().max()) < 0.5 * float(full.abs().max())
    assert quantize.parameter_count(copy) == sum(p.numel() for p in load_model(folder).parameters())


@pytest.mark.parametrize("method", METHODS)
def test_which_modules_are_packed(folder: Path, store: Store, method: str) -> None:
    """Decoder and CS2; towers, embeddings, norms, score head and output layer keep the compute precision."""
    import bitsandbytes as bnb

    entry, _ = copies.make(wanted(folder, method, "bfloat16"), CPU, store=store)
    model = load_model(entry.folder, dtype=torch.bfloat16)
    small = bnb.nn.Linear4bit if method == "nf4" else bnb.nn.Linear8bitLt
    text = "thinker.model."
    packed = {name for name, module in model.named_modules() if isinstance(module, small)}
    layers = [f"layers.{n}" for n in range(3)] + [f"bidir_encoder.layers.{n}" for n in range(2)]
    attention, mlp = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
    assert packed == {
        f"{text}{layer}.{part}"
        for layer in layers
        for part in (*(f"self_attn.{name}" for name in attention), *(f"mlp.{name}" for name in mlp))
    }
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        if owner in packed and name.endswith(".weight"):
            assert parameter.dtype == (torch.uint8 if method == "nf4" else torch.int8)
        else:
            assert parameter.dtype == torch.bfloat16, name
    others = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)} - packed
    assert {"thinker.lm_head", f"{text}compressor.score_head.0", "thinker.visual.blocks.0.mlp.up_proj"} <= others
    quantize.check_modules(model, method, torch.bfloat16)


def test_modules_that_are_not_as_they_should_be_are_named(folder: Path) -> None:
    import bitsandbytes as bnb

    model = load_model(folder)
    quantize.check_modules(model, "none", torch.float32)
    with pytest.raises(ModelError, match=r"thinker\.model\.bidir_encoder\.layers\.0\.self_attn\.q_proj .* as Linear"):
        quantize.check_modules(model, "nf4", torch.float32)
    model.thinker.visual.to(torch.bfloat16)
    with pytest.raises(ModelError, match=r"thinker\.visual\.\S+ was loaded as torch\.bfloat16, not torch\.float32"):
        quantize.check_modules(model, "none", torch.float32)
    loose = freshly_quantized(folder, "nf4", torch.float32)
    layer = loose.thinker.visual.blocks[0].mlp.up_proj
    loose.thinker.visual.blocks[0].mlp.up_proj = bnb.nn.Linear4bit(layer.in_features, layer.out_features)
    with pytest.raises(ModelError, match=r"visual\.blocks\.0\.mlp\.up_proj was loaded as Linear4bit"):
        quantize.check_modules(loose, "nf4", torch.float32)


def test_the_copy_stands_alone_and_says_what_it_is(folder: Path, store: Store) -> None:
    entry, _ = copies.make(wanted(folder), CPU, store=store)
    manifest = entry.manifest
    assert manifest.kind == "quantized"
    assert manifest.source == str(folder.resolve())
    assert manifest.settings["quantize"] == "nf4" and manifest.settings["dtype"] == "float32"
    assert manifest.libraries["bitsandbytes"] == metadata.version("bitsandbytes")
    assert {"config.json", "tokenizer.json", "quantized-00001.safetensors"} <= set(manifest.files)
    assert all(len(fact.sha256) == 64 for fact in manifest.files.values())
    assert open_checkpoint(entry.folder).quantization == manifest.settings["quantization_config"]
    assert store.verify(entry) == []
    again, made = copies.make(wanted(folder), CPU, store=store)
    assert (again, made) == (entry, False)
    shutil.rmtree(folder)
    model = load_model(entry.folder)
    assert all(torch.isfinite(part).all() for part in quantize.probe(model))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html></html>", "is a web page, not JSON"),
        (b'{"a": ' + b"[" * 100_000, "is nested too deeply"),
        (b'{"model_type": "\xff"}', "it is not UTF-8"),
        (b"[]", "holds a list"),
    ],
    ids=["page", "deep", "latin", "list"],
)
def test_a_configuration_that_is_none(folder: Path, store: Store, content: bytes, said: str) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=said):
        prepare(str(folder), CPU, quantization="nf4")


def test_written_before_any_forward_pass(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    write, forward = quantize._write, nn.Module.__call__
    monkeypatch.setattr(quantize, "_write", lambda *a: (order.append("write"), write(*a))[1])
    monkeypatch.setattr(nn.Module, "__call__", lambda self, *a, **k: (order.append("run"), forward(self, *a, **k))[1])
    copies.make(wanted(folder), CPU, store=store)
    assert "run" in order
    assert "write" not in order[order.index("run") :]


def test_a_copy_that_reads_back_otherwise_is_not_kept(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = quantize.probe
    answers = iter([0.0, 1e-6])
    monkeypatch.setattr(quantize, "probe", lambda model: tuple(part + next(answers) for part in right(model)[-1:]))
    with pytest.raises(ModelError, match="does not give the logits"):
        copies.make(wanted(folder), CPU, store=store)
    assert store.all() == [] and store.leftovers() == []


@pytest.mark.slow
@pytest.mark.parametrize("when", ["written", "proven"])
def test_killed_while_the_copy_is_made(folder: Path, store: Store, when: str) -> None:
    """kill -9 leaves nothing that is taken for a copy; the next run makes it, and prune removes the rest."""
    name = "write_copy" if when == "written" else "prove"
    script = (
        "import sys, time, torch\n"
        "from echopix_cli.weights import copies, quantize\n"
        "from echopix_cli.weights.registry import find_model\n"
        f"right = quantize.{name}\n"
        f"def slow(*args):\n    found = right(*args)\n    print('here', flush=True)\n    time.sleep(600)\n"
        f"quantize.{name} = slow\n"
        "copies.make(copies.Wanted(find_model(sys.argv[1]), 'nf4', 'float32'), torch.device('cpu'))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    assert store.all() == []
    assert copies.find(wanted(folder), store) is None
    (left,) = store.leftovers()
    assert list(left.path.glob("*.safetensors"))
    entry, made = copies.make(wanted(folder), CPU, store=store)
    assert made and store.verify(entry) == []


def spoil(path: Path, at: int = -5) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_copy_is_refused_and_mended(folder: Path, store: Store) -> None:
    entry, _ = copies.make(wanted(folder), CPU, store=store)
    weights = entry.folder / "quantized-00001.safetensors"
    good, times = weights.read_bytes(), (weights.stat().st_atime_ns, weights.stat().st_mtime_ns)
    weights.write_bytes(good[:-1])
    with pytest.raises(ModelError, match=r"nf4 copy of model is damaged: quantized-00001\S+ has \d+ bytes") as caught:
        copies.find(wanted(folder), store)
    assert caught.value.hint == f"echopix models pull {folder} --quantize nf4 --dtype float32"
    weights.write_bytes(good)
    assert copies.find(wanted(folder), store) == entry  # touched, read, found the same
    time.sleep(0.01)
    spoil(weights)
    with pytest.raises(ModelError, match="differs from its checksum"):
        copies.find(wanted(folder), store)
    with pytest.raises(ModelError, match="differs from its checksum"):
        copies.make(wanted(folder), CPU, store=store)
    # The disk forgot a bit: nobody has touched the file, so that only reading every byte finds it.
    os.utime(weights, ns=times)
    assert copies.find(wanted(folder), store) == entry
    assert store.verify(entry) == ["quantized-00001.safetensors differs from its checksum"]
    weights.write_bytes(good[:-1])
    mended, made = copies.make(wanted(folder), CPU, store=store, mend=True)
    assert made and store.verify(mended) == []


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda raw: raw["libraries"].update(bitsandbytes="0.1"), "bitsandbytes 0.1 made it"),
        (lambda raw: raw["settings"].update(format=0), "another version of echopix made it"),
    ],
)
def test_a_copy_made_by_another_version_is_made_again(folder: Path, store: Store, edit, said: str) -> None:
    entry, _ = copies.make(wanted(folder), CPU, store=store)
    manifest = entry.home / "manifest.json"
    raw = json.loads(manifest.read_text())
    edit(raw)
    manifest.write_text(json.dumps(raw))
    assert copies.find(wanted(folder), store) is None
    heard: list[str] = []

    class Ear(copies.Watcher):
        def notice(self, text: str) -> None:
            heard.append(text)

    again, made = copies.make(wanted(folder), CPU, Ear(), store)
    assert made and copies.is_current(again)
    assert heard == [f"the nf4 copy of model is made again: {said}"]


def test_versions_that_are_known_good(folder: Path, store: Store) -> None:
    """Another echopix of the same format, another transformers, a bitsandbytes that writes the same bytes."""
    entry, _ = copies.make(wanted(folder), CPU, store=store)
    manifest = entry.home / "manifest.json"
    raw = json.loads(manifest.read_text())
    raw["libraries"].update(echopix="9.9", transformers="9.9")
    if metadata.version("bitsandbytes") in copies.KNOWN_GOOD:
        raw["libraries"].update(bitsandbytes="0.48.2")
    manifest.write_text(json.dumps(raw))
    assert copies.make(wanted(folder), CPU, store=store)[1] is False


def test_a_changed_folder_is_not_answered_from_an_old_copy(folder: Path, store: Store) -> None:
    first, _ = copies.make(wanted(folder), CPU, store=store)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert copies.find(wanted(folder), store) is None
    second, made = copies.make(wanted(folder), CPU, store=store)
    assert made and second.key != first.key
    assert [entry.key for entry in store.all()] == [second.key]  # nobody can ask for the old one


def test_a_quantized_folder_is_loaded_as_it_is(folder: Path, store: Store) -> None:
    entry, _ = copies.make(wanted(folder, "int8"), CPU, store=store)
    found = prepare(str(entry.folder), CPU)
    assert found.source.quantization == "int8"
    with pytest.raises(ModelError, match="holds int8 weights"):
        prepare(str(entry.folder), CPU, quantization="nf4")
    with pytest.raises(ModelError, match="cannot be trained"):
        load_base(entry.folder)
    raw = json.loads((folder / "config.json").read_text())
    raw["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="in a way that is not read: 'gptq'"):
        prepare(str(folder), CPU)


def test_too_small_a_disk(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ModelError, match=r"copy takes [0-9.]+ [kM]B, and the disk of .* has 1\.0 MB free") as caught:
        copies.make(wanted(folder), CPU, store=store)
    assert "ECHOPIX_CACHE_DIR" in caught.value.hint
    assert store.all() == []


@pytest.mark.parametrize("method", ["none", *METHODS])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_predicted_bytes_are_the_tensors_bytes(folder: Path, store: Store, method: str, dtype: str) -> None:
    """To the byte, before and after the copy is there: parameters, and the scales and tables beside them."""
    precision: torch.dtype = getattr(torch, dtype)
    before = open_checkpoint(folder).counts.bytes_as(method, precision.itemsize)
    at = folder if method == "none" else copies.make(wanted(folder, method, dtype), CPU, store=store)[0].folder
    after = open_checkpoint(at).counts.bytes_as(method, precision.itemsize)
    model = load_model(at, dtype=precision)
    real = 0
    for parameter in model.parameters():
        real += parameter.nbytes
        if (state := getattr(parameter, "quant_state", None)) is not None:
            real += state.absmax.nbytes + state.code.nbytes
        if (scales := getattr(parameter, "SCB", None)) is not None:
            real += scales.nbytes
    assert before == after == real
