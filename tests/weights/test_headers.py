"""Weights against their configuration, by headers alone, before anything is built."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from echopix_cli.documents import parse_object, read_object
from echopix_cli.errors import ModelError
from echopix_cli.weights.checkpoint import load_model, open_checkpoint, read_config
from echopix_cli.weights.headers import FLOATS, TensorHeader, read_header

FILE = "model.safetensors"


@pytest.fixture
def folder(random_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(random_checkpoint, tmp_path / "checkpoint"))


def configured(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads((folder / "config.json").read_text())
    change(raw["thinker_config"])
    (folder / "config.json").write_text(json.dumps(raw))


def test_a_header_states_what_the_file_holds(folder: Path) -> None:
    tensors = load_file(folder / FILE)
    stated = read_header(folder / FILE)
    assert {name: entry.shape for name, entry in stated.items()} == {n: tuple(t.shape) for n, t in tensors.items()}
    assert {entry.dtype for entry in stated.values()} <= FLOATS


def test_stock_and_sharded_checkpoints_agree(random_checkpoint: Path, stock_checkpoint: Path) -> None:
    for place in (random_checkpoint, stock_checkpoint):
        assert open_checkpoint(place).config.to_dict() == read_config(place).to_dict()


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("text_config", "av_refiner_layers", 99, "av_refiner_layers is 99, and the weights hold"),
        ("vision_config", "depth", 256, "vision_config.depth is 256, and the weights hold"),
        ("audio_config", "encoder_layers", 100, "audio_config.encoder_layers is 100, and the weights hold"),
        (
            "text_config",
            "vocab_size",
            2**21,
            "has the wrong shape for .*thinker.lm_head",
        ),
        ("text_config", "intermediate_size", 2**18, "has the wrong shape for .*thinker.model.*proj"),
        ("audio_config", "encoder_ffn_dim", 2**18, "has the wrong shape for .*thinker.audio_tower"),
    ],
)
def test_sizes_that_the_weights_have_not(folder: Path, part: str, field: str, value: int, said: str) -> None:
    """Within what a configuration may say, and far beyond what lies beside it: nothing of that size is made."""
    configured(folder, lambda thinker: thinker[part].update({field: value}))
    begun = time.process_time()
    with pytest.raises(ModelError, match=said):
        load_model(folder)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [("text_config", "hidden_size", 10**9), ("text_config", "num_hidden_layers", 10**9),
     ("text_config", "head_dim", 0), ("text_config", "vocab_size", -1),
     ("text_config", "rms_norm_eps", float("nan")), ("vision_config", "depth", 10**8),
     ("vision_config", "patch_size", 0), ("audio_config", "n_window", 10**9),
     ("audio_config", "num_mel_bins", 7), ("text_config", "num_key_value_heads", 5),
     ("audio_config", "d_model", 2), ("audio_config", "d_model", 33), ("vision_config", "hidden_size", 6)],
)  # fmt: skip
def test_sizes_that_no_model_has(folder: Path, part: str, field: str, value: float) -> None:
    configured(folder, lambda thinker: thinker[part].update({field: value}))
    with pytest.raises(ModelError, match=r"config\.json is not a valid configuration: .*") as caught:
        read_config(folder)
    assert field in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type of its rope_scaling is 'yarn'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type of its rope_scaling is 'dynamic'"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
    ],
)
def test_attention_that_is_not_computed_here(folder: Path, fields: dict[str, object], said: str) -> None:
    """Left unread, it would give other answers than the checkpoint's without a word."""
    configured(folder, lambda thinker: thinker["text_config"].update(fields))
    with pytest.raises(ModelError, match=rf"config\.json is not a valid configuration: .*{said}"):
        read_config(folder)


def test_attention_as_published_checkpoints_state_it(folder: Path) -> None:
    """The window's settings are there, and switched off; the older name of the positions' kind is read."""
    stated = {"use_sliding_window": False, "sliding_window": 32_768, "max_window_layers": 28, "attention_dropout": 0.0}
    rope = {"mrope_section": [2, 3, 3], "type": "mrope"}
    configured(folder, lambda thinker: thinker["text_config"].update(stated | {"rope_scaling": rope}))
    assert read_config(folder).text.others.items() >= stated.items()


def test_integers_are_no_weights(folder: Path) -> None:
    tensors = load_file(folder / FILE)
    tensors["thinker.lm_head.weight"] = tensors["thinker.lm_head.weight"].to(torch.int32)
    save_file(tensors, folder / FILE)
    with pytest.raises(ModelError, match=r"thinker\.lm_head\.weight is stored as I32"):
        load_model(folder)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "its header is empty"),
        ((2**40).to_bytes(8, "little"), "unusually large"),
        ((9).to_bytes(8, "little") + b"[" * 9, "its header is not JSON"),
        ((10**5).to_bytes(8, "little") + b"[" * 10**5, "nested too deeply"),
        ((9).to_bytes(8, "little") + b'{"a": 71}', "no precision, shape and place of a"),
        ((31).to_bytes(8, "little") + b'{"a":{"dtype":"F16","shape":7}}', "no precision, shape and place of a"),
    ],
)
def test_headers_that_are_none(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(ModelError, match=f"cannot read .*{said}"):
        read_header(tmp_path / FILE)


def test_a_header_is_read_without_its_tensors(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    (tmp_path / FILE).write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    (found,) = read_header(tmp_path / FILE).values()
    assert found == TensorHeader("F32", (2, 3), tmp_path / FILE, "a", (0, 24))
    assert (found.count, found.size) == (6, 24)


@pytest.mark.parametrize(
    ("shape", "spans", "said"),
    [
        ([2, 3], [[0, 24]], ""),
        ([2, 3], [[0, 12], [12, 24]], "place that it states of a is wrong"),
        ([3], [[0, 12], [12, 24]], ""),
        ([3], [[0, 12], [8, 20]], "place that it states of b is wrong"),
        ([3], [[0, 12], [16, 28]], "place that it states of b is wrong"),
        ([2**40, 2**40], [[0, 24]], "place that it states of a is wrong"),
        ([0], [[24, 0]], "place that it states of a is wrong"),
        ([3], [[0, 12]], "has 24 bytes of tensors, and its header states 12"),
        ([9], [[0, 36]], "has 24 bytes of tensors, and its header states 36"),
    ],
)
def test_places_fill_the_file(tmp_path: Path, shape: list[int], spans: list[list[int]], said: str) -> None:
    """As the library judges them, which is asked too; nothing of a stated size is made."""
    from safetensors import SafetensorError, safe_open

    entries = {n: {"dtype": "F32", "shape": shape, "data_offsets": span} for n, span in zip("ab", spans, strict=False)}
    header = json.dumps(entries).encode()
    (tmp_path / FILE).write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    if said:
        with pytest.raises(ModelError, match=f"cannot read .*{said}"):
            read_header(tmp_path / FILE)
        with pytest.raises(SafetensorError):
            safe_open(tmp_path / FILE, framework="np")
    else:
        assert [list(tensor.span) for tensor in read_header(tmp_path / FILE).values()] == spans
        safe_open(tmp_path / FILE, framework="np")


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "is empty"), (b"  <!DOCTYPE html><p>", "is a web page"), (b"{", "is not JSON"),
     (b"\xff", "is not JSON: it is not UTF-8"),
     (b"[1]", "holds a list"), (b"7", "holds a int"), (b'{"a":' * 10**5, "is nested too deeply"),
     (b"9" * 5000, "is not JSON")],
)  # fmt: skip
def test_json_from_elsewhere(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ModelError, match=f"a.json {said}"):
        read_object(tmp_path / "a.json")
    with pytest.raises(ModelError, match=f"reply {said}"):
        parse_object(data, "reply")
    (tmp_path / "a.json").write_bytes(b'{"a": 1}')
    assert read_object(tmp_path / "a.json") == {"a": 1}
    with pytest.raises(ModelError, match="unusually large"):
        read_object(tmp_path / "a.json", 7)
