"""Models put together from tensors: nothing reserved or copied beside them, and what does not fit is named."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from echopix_cli.errors import ModelError
from echopix_cli.measure.live_bytes import LiveBytes
from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.weights import quantize
from echopix_cli.weights.assembly import assemble, outline
from echopix_cli.weights.checkpoint import load_model, open_checkpoint, read_config, read_tensors
from echopix_cli.weights.packing import NF4, NONE, bitsandbytes
from echopix_cli.weights.synthetic import random_model

CPU, META = torch.device("cpu"), torch.device("meta")
METHODS = ("nf4", "int8")


def wide(random_checkpoint: Path, folder: Path, **fields: object) -> Path:
    """A checkpoint of random bfloat16 weights whose decoder is most of it: eight layers, 256 wide unless said."""
    folder.mkdir()
    raw = json.loads((random_checkpoint / "config.json").read_text())
    raw["thinker_config"]["text_config"].update(
        {
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 8,
            "layer_types": ["full_attention"] * 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 64,
            "sync_rope_section": [9, 9, 9, 5],
            "rope_scaling": {"rope_type": "default", "mrope_section": [8, 12, 12]},
            **fields,
        }
    )
    width = raw["thinker_config"]["text_config"]["hidden_size"]
    raw["thinker_config"]["vision_config"]["out_hidden_size"] = width
    raw["thinker_config"]["audio_config"]["output_dim"] = width
    (folder / "config.json").write_text(json.dumps(raw))
    model = random_model(raw, torch.bfloat16, CPU)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def wide_checkpoint(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wide(random_checkpoint, tmp_path_factory.mktemp("wide") / "model")


@pytest.fixture(scope="module")
def copied(wide_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies by method; ``none`` is the source."""
    folders = {"none": wide_checkpoint}
    for method in METHODS:
        folders[method] = tmp_path_factory.mktemp(method)
        quantize.write_copy(wide_checkpoint, folders[method], method, torch.bfloat16, CPU)
    return folders


@pytest.fixture
def no_repacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with bfloat16 instructions repacks what it multiplies; a CUDA device does not, and that is meant here."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False, raising=False)


@pytest.mark.parametrize("method", METHODS)
def test_what_making_a_copy_holds(wide_checkpoint: Path, tmp_path: Path, no_repacking: None, method: str) -> None:
    """The copy and the tensor at work: at most a quarter more than the copy. Proving it takes nothing in its size."""
    copy = open_checkpoint(wide_checkpoint).counts.bytes_as(method)
    with LiveBytes() as writing:
        tensors = quantize.write_copy(wide_checkpoint, tmp_path, method, torch.bfloat16, CPU)
    with LiveBytes() as proving:
        quantize.prove(tmp_path, tensors, method, torch.bfloat16, CPU)
    print(f"copy {copy}, writing {writing.peak}, proving {proving.peak} beside it")
    assert 0.9 * copy <= writing.peak <= 1.25 * copy
    assert proving.peak <= 4e6 < 0.5 * copy  # towers' tables of frequencies, which do not grow with the model


@pytest.mark.parametrize("method", [NONE, *METHODS])
def test_random_weights_are_made_once(wide_checkpoint: Path, no_repacking: None, method: str) -> None:
    raw = json.loads((wide_checkpoint / "config.json").read_text())
    expected = open_checkpoint(wide_checkpoint).counts.bytes_as(method)
    with LiveBytes() as live:
        model = random_model(raw, torch.bfloat16, CPU, method)
    assert 0.9 * expected <= live.peak <= 1.25 * expected
    quantize.check_modules(model, method, torch.bfloat16)
    assert all(torch.isfinite(part).all() for part in quantize.probe(model))


def test_tensors_in_their_final_form_are_taken_as_they_are(random_checkpoint: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in read_tensors(random_checkpoint).items()}
    config = read_config(random_checkpoint)
    model = assemble(config, tensors.items(), torch.float32, CPU)
    assert {p.data_ptr() for p in model.parameters()} == {t.data_ptr() for t in tensors.values()}
    assert not model.training and all(p.requires_grad for p in model.parameters())
    assert outline(config, torch.float32).config.to_dict() == model.config.to_dict()


LAYER = "thinker.model.layers.1.mlp.up_proj."


@pytest.mark.parametrize(
    ("method", "spoil", "said"),
    [
        ("nf4", lambda t: t.update({LAYER + "weight": t[LAYER + "weight"][:-1].clone()}), "wrong shape for {}weight"),
        ("nf4", lambda t: t.update({LAYER + "weight": torch.tensor(0.5).bfloat16()}), "wrong shape for {}weight"),
        ("nf4", lambda t: t.update({LAYER + "weight.absmax": torch.zeros(3)}), "wrong shape for {}weight"),
        ("nf4", lambda t: t.pop(LAYER + "weight"), "lacks {}weight"),
        ("nf4", lambda t: t.pop(LAYER + "weight.absmax"), "{}weight cannot be read"),
        ("nf4", lambda t: t.pop(LAYER + "weight.quant_state.bitsandbytes__nf4"), "{}weight cannot be read"),
        ("nf4", lambda t: t.update({LAYER + "weight.quant_state.bitsandbytes__nf4": torch.zeros(9, dtype=torch.uint8)}),
         "{}weight cannot be read"),
        ("int8", lambda t: t.pop(LAYER + "SCB"), "wrong shape for {}weight"),
        ("int8", lambda t: t.update({LAYER + "SCB": torch.zeros(3)}), "wrong shape for {}weight"),
        ("int8", lambda t: t.update({LAYER + "weight": t[LAYER + "weight"][:, 1:].clone()}), "wrong shape"),
        ("int8", lambda t: t.update({"thinker.model.layers.99.mlp.up_proj.SCB": torch.zeros(3)}), "unknown .*99"),
    ],
)  # fmt: skip
def test_packed_tensors_that_do_not_fit_are_named(
    copied: dict[str, Path],
    tmp_path: Path,
    method: str,
    spoil: Callable[[dict[str, torch.Tensor]], object],
    said: str,
) -> None:
    """Before they reach a kernel, which would read beyond them."""
    folder = Path(shutil.copytree(copied[method], tmp_path / "copy"))
    file = folder / "quantized-00001.safetensors"
    tensors = load_file(file)
    spoil(tensors)
    save_file(tensors, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, file.name)}))
    with pytest.raises(ModelError, match=said.format(LAYER.replace(".", r"\."))):
        load_model(folder)


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float32])
def test_packed_bytes_may_be_stored_as_any_kind_of_number(
    copied: dict[str, Path], tmp_path: Path, storage: torch.dtype
) -> None:
    """What transformers writes with ``bnb_4bit_quant_storage``; read as numbers such bytes are NaN here and there."""
    folder = Path(shutil.copytree(copied["nf4"], tmp_path / "copy"))
    for file in folder.glob("quantized-*.safetensors"):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if name.endswith("_proj.weight") and tensor.dtype == torch.uint8:
                tensors[name] = tensor.reshape(1, -1).view(storage).reshape(-1, 1)
        save_file(tensors, file)
    assert open_checkpoint(folder).counts == open_checkpoint(copied["nf4"]).counts
    found, expected = (load_model(at, dtype=torch.bfloat16).state_dict() for at in (folder, copied["nf4"]))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_widths_that_a_kernel_does_not_take(
    random_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPUs with bfloat16 instructions have a kernel that packs 32 outputs together, and asserts that it can."""
    import bitsandbytes.nn.modules as layers

    if hasattr(layers, "has_avx512bf16"):
        monkeypatch.setattr(layers, "has_avx512bf16", lambda: True)
    folder = wide(random_checkpoint, tmp_path / "odd", intermediate_size=1040, num_hidden_layers=2,
                  layer_types=["full_attention"] * 2)  # fmt: skip
    raw = json.loads((folder / "config.json").read_text())
    model = random_model(raw, torch.bfloat16, CPU, NF4)
    inputs = torch.randn(3, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    layer = model.thinker.model.layers[0]
    with torch.inference_mode():
        assert layer.mlp.up_proj(inputs).isfinite().all()
    packs = [
        part.support_avx512bf16_for_cpu for part in (layer.mlp.up_proj, layer.mlp.down_proj, layer.self_attn.q_proj)
    ]
    assert packs == [False, False, hasattr(layers, "has_avx512bf16")]


def test_loading_silences_nobody(copied: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    """Levels of loggers are as they were; of one library one sentence is left out, which each layer would repeat."""
    bitsandbytes()
    loggers = [
        logging.getLogger(name) for name in ("", "bitsandbytes", "transformers", *logging.root.manager.loggerDict)
    ]
    before = [(logger.level, logger.disabled, logger.propagate) for logger in loggers]
    for method in ("none", "nf4", "int8"):
        load_model(copied[method], dtype=torch.bfloat16)
    assert [(logger.level, logger.disabled, logger.propagate) for logger in loggers] == before
    functions = logging.getLogger("bitsandbytes.autograd._functions")
    functions.warning("MatMul8bitLt: inputs will be cast from %s to float16 during quantization", torch.bfloat16)
    functions.warning("something else")
    assert caplog.messages == ["something else"]


@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_eight_bits_hold_large_activations(copied: dict[str, Path], tmp_path: Path) -> None:
    """Beyond float16's range in one column, by the function that CUDA devices take; whatever the copy says."""
    from bitsandbytes.autograd._functions import MatMul8bitLt

    folder = Path(shutil.copytree(copied["int8"], tmp_path / "copy"))
    raw = json.loads((folder / "config.json").read_text())
    raw["quantization_config"]["llm_int8_threshold"] = 0.0
    (folder / "config.json").write_text(json.dumps(raw))
    layer = load_model(folder, dtype=torch.bfloat16).thinker.model.layers[0].mlp.up_proj
    full = load_model(copied["none"], dtype=torch.float32).thinker.model.layers[0].mlp.up_proj
    inputs = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(0)).bfloat16()
    inputs[:, 7], inputs[3] = 1e5, 0.0
    with torch.inference_mode():
        layer.init_8bit_state()
        layer.state.is_training = False
        answer = MatMul8bitLt.apply(inputs, layer.weight, None, None, layer.state)
        expected = full(inputs.float())
    assert answer.isfinite().all()
    assert float((answer - expected).abs().max()) < 0.02 * float(expected.abs().max())


def test_a_configuration_is_left_as_it_is(random_checkpoint: Path) -> None:
    config: EchoingPixelsConfig = read_config(random_checkpoint)
    before = config.to_dict()
    load_model(random_checkpoint, dtype=torch.bfloat16, config=config, text_overrides={"compression_ratio": 0.5})
    assert config.to_dict() == before
