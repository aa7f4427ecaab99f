"""Checkpoints on disk: what is read, what is refused, and that writing gives back the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from echopix_cli.errors import ModelError
from echopix_cli.weights.checkpoint import load_model, read_config, save_model


@pytest.fixture
def folder(reference: Path, tmp_path: Path) -> Path:
    """A copy of the reference checkpoint that a test may spoil."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(reference / "checkpoint", copy)
    return copy


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def shard(folder: Path, decoy: bytes | None) -> None:
    """Split into two shards plus one of talker tensors, whose file holds ``decoy`` or is missing."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {"talker.model.norm.weight": "c.safetensors", "token2wav.x": "c.safetensors"}
    for file, part in (("a.safetensors", names[::2]), ("b.safetensors", names[1::2])):
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    if decoy is not None:
        (folder / "c.safetensors").write_bytes(decoy)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_written_as_the_authors_lay_it_out(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder)
    mask = 0o027
    before = os.umask(mask)
    save_model(model, tmp_path / "again")
    os.umask(before)
    assert set(load_file(tmp_path / "again" / "model.safetensors")) == set(load_file(folder / "model.safetensors"))
    assert same(load_model(tmp_path / "again"), model)
    assert (tmp_path / "again" / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
    text = json.loads((tmp_path / "again" / "config.json").read_text())["thinker_config"]["text_config"]
    # The names that the authors' transformers reads.
    assert text["rope_theta"] == 1_000_000.0
    assert text["rope_scaling"]["mrope_section"] == [16, 24, 24]
    assert text["av_refiner_layers"] == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precisions(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    model = load_model(folder, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    save_model(model, tmp_path / "stored")
    assert {parameter.dtype for parameter in load_model(tmp_path / "stored").parameters()} == {dtype}


@pytest.mark.parametrize("decoy", [None, b"not a tensor file at all"])
def test_shards_without_thinker_tensors_are_never_opened(folder: Path, decoy: bytes | None) -> None:
    whole = load_model(folder)
    shard(folder, decoy)
    assert same(load_model(folder), whole)


def test_talker_tensors_in_the_one_file_are_left_alone(folder: Path) -> None:
    whole = load_model(folder)
    edit_tensors(folder, lambda t: t.update({"talker.a": torch.zeros(2), "token2wav.b": torch.zeros(2)}))
    assert same(load_model(folder), whole)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: t.pop("thinker.model.norm.weight"), r"lacks thinker\.model\.norm\.weight"),
        (
            lambda t: t.pop("thinker.model.bidir_encoder.layers.1.mlp.up_proj.weight"),
            r"lacks .*layers\.1\.mlp\.up_proj",
        ),
        (lambda t: t.update({"thinker.model.extra": torch.zeros(1)}), r"unknown thinker\.model\.extra"),
        (lambda t: t.update({"adapter.a": torch.zeros(1)}), r"unknown tensors: adapter\.a"),
        (lambda t: t.update({"thinker.model.norm.weight": torch.zeros(3)}), r"wrong shape for .*norm\.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    folder: Path, spoil: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    edit_tensors(folder, spoil)
    with pytest.raises(ModelError, match=said):
        load_model(folder)


def test_unknown_tensors_of_a_sharded_checkpoint_are_named(folder: Path) -> None:
    shard(folder, None)
    index = folder / "model.safetensors.index.json"
    good = index.read_text()
    named = json.loads(good)
    named["weight_map"]["adapter.x"] = "a.safetensors"
    index.write_text(json.dumps(named))
    with pytest.raises(ModelError, match=r"unknown tensors: adapter\.x"):
        load_model(folder)
    index.write_text(good)
    part = load_file(folder / "a.safetensors")
    save_file({**part, "thinker.model.extra": torch.zeros(1)}, folder / "a.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"does not name: thinker\.model\.extra"):
        load_model(folder)


def test_a_damaged_file(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="cannot read"):
        load_model(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="neither") as caught:
        load_model(folder)
    assert "only safetensors" in caught.value.hint


@pytest.mark.parametrize("name", ["../b.safetensors", "/etc/passwd", "sub/b.safetensors"])
def test_an_index_cannot_name_files_elsewhere(folder: Path, name: str) -> None:
    shard(folder, None)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["thinker.lm_head.weight"] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="outside its folder"):
        load_model(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard(folder, None)
    (folder / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"shard b\.safetensors .* is missing"):
        load_model(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "config.json is not JSON"),
        ("[]", "holds a list, not an object"),
        ('{"model_type": "llama"}', "type 'llama'"),
        ('{"model_type": "qwen2_5_omni_compress", "thinker_config": {"text_config": '
         '{"hidden_size": 128, "num_attention_heads": 2, "sync_rope_section": [8, 24]}}}', "three or four sizes"),
        ('{"model_type": "qwen2_5_omni_compress", "thinker_config": {"text_config": '
         '{"hidden_size": 128, "num_attention_heads": 2, "sync_rope_section": [42, -20, 10]}}}', "three or four sizes"),
        ('{"model_type": "qwen2_5_omni_compress", "thinker_config": {"text_config": '
         '{"hidden_size": 128, "num_attention_heads": 2, "sync_rope_section": [1, 2, 3]}}}', "half of head_dim"),
    ],
)  # fmt: skip
def test_configurations_that_are_none(folder: Path, text: str, said: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=said):
        read_config(folder)


@pytest.mark.parametrize("whole", [True, False], ids=["shards beside it", "their index alone"])
def test_one_file_of_weights_is_taken_before_an_index_as_transformers_does(folder: Path, whole: bool) -> None:
    """Saved whole into a folder that had shards: the index is of what was there before."""
    newer = {name: tensor + 1 for name, tensor in load_file(folder / "model.safetensors").items()}
    shard(folder, None)
    save_file(newer, folder / "model.safetensors", metadata={"format": "pt"})
    if not whole:
        (folder / "a.safetensors").unlink()
    loaded = load_model(folder, dtype=torch.float32).state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in newer.items())
