"""A checkpoint opened: everything read once, whatever is asked of it, and what no folder may say."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from echopix_cli.cli.model_records import describe
from echopix_cli.engine import Engine, Workload
from echopix_cli.errors import ModelError
from echopix_cli.weights import copies, quantize
from echopix_cli.weights.checkpoint import load_model, open_checkpoint
from echopix_cli.weights.opening import SMALL, folder_revision
from echopix_cli.weights.registry import find_model
from echopix_cli.weights.store import Store

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
WORK = Workload(4, 784, 1.0, 0.1, 4)
_watched: list[Path] = []
_opened: Counter[str] = Counter()


def _count(event: str, arguments: tuple[object, ...]) -> None:
    # os.open has no mode: an open() that goes by way of it is told of twice.
    if _watched and event == "open" and arguments[1] is not None and isinstance(arguments[0], (str, os.PathLike)):
        path = Path(os.fspath(arguments[0]))
        _opened[path.name] += path.parent == _watched[0]


sys.addaudithook(_count)


@pytest.fixture
def folder(random_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint in two shards, that a test may spoil."""
    folder = Path(shutil.copytree(random_checkpoint, tmp_path / "checkpoint"))
    tensors = load_file(folder / FILE)
    (folder / FILE).unlink()
    names = sorted(tensors)
    weight_map = {"talker.model.norm.weight": "c.safetensors"}
    for file, part in (("a.safetensors", names[::2]), ("b.safetensors", names[1::2])):
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.fixture
def counted(folder: Path) -> Iterator[Counter[str]]:
    """How often Python opens each file of the folder."""
    _opened.clear()
    _watched.append(folder)
    yield _opened
    _watched.clear()


def test_a_load_reads_everything_once(folder: Path, counted: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration, index and headers, forecast and fingerprint included; each shard is mapped once, for tensors."""
    import safetensors

    mapped: list[str] = []
    original = safetensors.safe_open
    monkeypatch.setattr(
        safetensors, "safe_open", lambda file, **given: mapped.append(Path(file).name) or original(file, **given)
    )
    engine = Engine.load(str(folder), "cpu", workload=WORK)
    assert engine.loaded_from == folder_revision(folder)
    monkeypatch.undo()
    names = ("config.json", "a.safetensors", "b.safetensors", "c.safetensors")
    assert [counted[name] for name in names] == [1, 1, 1, 0]
    assert counted[INDEX] == 2  # the second time by this test's fingerprint
    assert sorted(mapped) == ["a.safetensors", "b.safetensors"]


def test_what_is_known_without_a_tensor(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    tensors = load_file(folder / "a.safetensors") | load_file(folder / "b.safetensors")
    assert {name: header.shape for name, header in checkpoint.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    assert {header.dtype for header in checkpoint.tensors.values()} == {"F32"}
    assert {name: header.shard.name for name, header in checkpoint.tensors.items()} == {
        name: file
        for name, file in json.loads((folder / INDEX).read_text())["weight_map"].items()
        if "talker" not in name
    }
    assert checkpoint.counts.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert (checkpoint.layout, checkpoint.method, checkpoint.is_stock) == ("EchoingPixels", "none", False)
    assert checkpoint.context == checkpoint.config.text.max_position_embeddings
    raw = json.loads((folder / "config.json").read_text())
    assert checkpoint.raw == raw  # what is built of it changes nothing in it


def test_opening_loads_no_library(folder: Path) -> None:
    import subprocess

    code = (
        "import sys; from pathlib import Path; from echopix_cli.weights.opening import open_checkpoint\n"
        f"print(open_checkpoint(Path({str(folder)!r})).counts.parameters, {{'torch', 'numpy'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{open_checkpoint(folder).counts.parameters} set()\n"


def test_the_fingerprint_is_what_copies_are_filed_under(folder: Path) -> None:
    """Of names, sizes and times: another way to count would leave every copy of a folder unused."""
    files = [folder / name for name in sorted({*SMALL, "a.safetensors", "b.safetensors"}) if (folder / name).exists()]
    facts = [str(folder), *([file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files)]
    assert folder_revision(folder) == hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    before = open_checkpoint(folder).revision
    assert before == folder_revision(folder)
    for name in ("config.json", "b.safetensors"):
        os.utime(folder / name, (1, 1))
        assert before != (before := folder_revision(folder))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 300 + ".safetensors", "shard x{80} of .* is missing"),
        ("../" * 2000 + "a.safetensors", "names a shard outside its folder: .{82}$"),
        ("\0.safetensors", "is missing"),
        ("a.bin", "that is no safetensors file: 'a.bin'"),
    ],
)
def test_shards_that_no_folder_holds(folder: Path, name: str, said: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["thinker.lm_head.weight"] = name
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match=said) as caught:
        open_checkpoint(folder)
    assert len(caught.value.message) < 500


def test_every_damaged_shard_is_named(folder: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"a\.safetensors: it has .*; cannot read .*b\.safetensors: it has") as caught:
        open_checkpoint(folder)
    assert caught.value.hint == "the file is damaged or incomplete"


def test_a_folder_that_changes_while_it_is_quantized_makes_no_copy(
    random_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of one checkpoint and half of another would be filed as the first."""
    folder, store = Path(shutil.copytree(random_checkpoint, tmp_path / "checkpoint")), Store(tmp_path / "cache")
    original = quantize.prove

    def replaced(*given: object) -> None:
        os.utime(folder / FILE, (1, 1))
        original(*given)  # type: ignore[arg-type]

    wanted = copies.Wanted(find_model(str(folder)), "nf4", "bfloat16")
    monkeypatch.setattr(quantize, "prove", replaced)
    with pytest.raises(ModelError, match="has changed while it was quantized"):
        copies.make(wanted, torch.device("cpu"), store=store)
    assert store.all() == []
    _, made = copies.make(wanted, torch.device("cpu"), store=store)
    assert made


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)])
def test_layers_of_other_dimensions_are_named(random_checkpoint: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Counted without failing, and refused by whoever builds the model."""
    folder = Path(shutil.copytree(random_checkpoint, tmp_path / "checkpoint"))
    tensors = load_file(folder / FILE)
    tensors["thinker.model.layers.0.self_attn.q_proj.weight"] = torch.zeros(shape)
    save_file(tensors, folder / FILE)
    assert open_checkpoint(folder).counts.parameters == sum(tensor.numel() for tensor in tensors.values())
    with pytest.raises(ModelError, match=r"wrong shape for thinker\.model\.layers\.0\.self_attn\.q_proj\.weight"):
        Engine.load(str(folder), "cpu", workload=WORK)


def test_long_names_are_cut_short(folder: Path) -> None:
    part = load_file(folder / "a.safetensors")
    save_file({**part, "thinker." + "x" * 100_000: torch.zeros(1)}, folder / "a.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="does not name") as caught:
        load_model(folder)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("name", ["config.json", INDEX, "a.safetensors"])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    said: list[str] = []

    def look() -> None:
        try:
            open_checkpoint(folder)
        except ModelError as error:
            said.append(error.message)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(20)
    assert [text for text in said if f"{name} is a pipe or device, not a file" in text]


def test_a_model_whose_name_no_folder_can_have_is_listed_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text(f'[models]\nmine = "/{"x" * 300}"\n')
    monkeypatch.setenv("ECHOPIX_CONFIG", str(tmp_path / "config.toml"))
    record = describe(find_model("mine"), Store(tmp_path / "cache"))
    assert (record["state"], record["folder"], record["layout"]) == ("missing", None, None)
    with pytest.raises(ModelError, match="no model folder at /xxx"):
        open_checkpoint(Path("/" + "x" * 300))
