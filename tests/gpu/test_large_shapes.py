"""Random weights in the true shapes of the 3B and the 7B: memory held against its prediction. Needs a GPU.

Skipped without one; ``ECHOPIX_REQUIRE_GPU=1`` makes that a failure. Weights are written once per shape, in shards
of two gigabytes: 9.9 GB for the 3B, 19.5 GB for the 7B, below pytest's temporary folder.
"""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from echopix_cli.engine import Engine, GenerationOptions, Workload
from echopix_cli.engine.forecast import forecast
from echopix_cli.media import Clip, DecodePlan, MediaInfo
from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.results import AudioStatus
from echopix_cli.weights import quantize
from echopix_cli.weights.registry import REGISTERED

pytestmark = pytest.mark.gpu

TEXT = {
    "3B": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
           "num_key_value_heads": 2},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4},
}  # fmt: skip
VOCABULARY = {"3B": 151_936, "7B": 152_064}
FRAMES, SIDE = 120, 324  # a film at the family's own limits: 120 frames of at most 105 369 pixels, and its sound
SHARD = 2 * 2**30


@pytest.fixture(autouse=True)
def device(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    if not torch.cuda.is_available():
        if os.environ.get("ECHOPIX_REQUIRE_GPU") == "1":
            pytest.fail("ECHOPIX_REQUIRE_GPU=1, but torch sees no CUDA device")
        pytest.skip("no CUDA device")
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "large-cache"))
    return torch.device("cuda")


@pytest.fixture(scope="module", params=["3B", "7B"])
def large(request: pytest.FixtureRequest, random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in a true shape, its weights random; it shares the small tokenizer."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    size = str(request.param)
    folder = tmp_path_factory.mktemp(f"shape-{size}")
    return write_shape(folder, random_checkpoint, size)


def shape_of(random_checkpoint: Path, size: str) -> dict:
    """``config.json`` of a shape, with the small checkpoint's token ids."""
    raw = json.loads((random_checkpoint / "config.json").read_text())
    thinker = raw["thinker_config"]
    width = TEXT[size]["hidden_size"]
    thinker["text_config"] |= {
        **TEXT[size],
        "head_dim": 128,
        "vocab_size": VOCABULARY[size],
        "av_refiner_layers": 4,
        "max_position_embeddings": 32_768,
        "sync_rope_section": [18, 18, 18, 10],
        "rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24]},
        "layer_types": ["full_attention"] * TEXT[size]["num_hidden_layers"],
    }
    thinker["vision_config"] |= {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": width,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    thinker["audio_config"] |= {
        "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
        "output_dim": width,
    }  # fmt: skip
    return raw


def write_shape(folder: Path, random_checkpoint: Path, size: str) -> Path:
    from safetensors.torch import save_file

    for file in random_checkpoint.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, folder / file.name)
    raw = shape_of(random_checkpoint, size)
    # The small checkpoint's preprocessor asks for small frames.
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    preprocessor.pop("video_min_pixels"), preprocessor.pop("video_max_pixels")
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (folder / "config.json").write_text(json.dumps(raw))
    with torch.device("meta"):
        model = EchoingPixelsForConditionalGeneration(EchoingPixelsConfig.from_dict(raw))
    generator = torch.Generator("cuda").manual_seed(1)
    weight_map: dict[str, str] = {}
    batch: dict[str, torch.Tensor] = {}

    def flush() -> None:
        file = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
        save_file(batch, folder / file)
        weight_map.update(dict.fromkeys(batch, file))
        batch.clear()

    for name, parameter in model.named_parameters():
        value = torch.empty(parameter.shape, dtype=torch.bfloat16, device="cuda")
        value.normal_(0, 1 / math.sqrt(parameter.shape[-1]), generator=generator)
        batch[name] = torch.ones_like(value).cpu() if "norm" in name and value.ndim == 1 else value.cpu()
        if sum(tensor.nbytes for tensor in batch.values()) > SHARD:
            flush()
    flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def film() -> Clip:
    """A minute of noise: 120 frames at two a second, and sound."""
    source = np.random.default_rng(0)
    times = np.arange(FRAMES) / 2
    return Clip(
        path="noise",
        frames=source.integers(0, 256, (FRAMES, 3, 308, 336), np.uint8),
        frame_times=times,
        waveform=source.normal(0, 0.1, 16_000 * 60).astype(np.float32),
        audio_status=AudioStatus.USED,
        start=0.0,
        end=60.0,
        info=MediaInfo("noise", 60.0, ()),
        source_fps=2.0,
        source_size=(308, 336),
    )


def test_the_registry_states_these_shapes(random_checkpoint: Path) -> None:
    for size, model in zip(("3B", "7B"), REGISTERED, strict=True):
        with torch.device("meta"):
            built = EchoingPixelsForConditionalGeneration(
                EchoingPixelsConfig.from_dict(shape_of(random_checkpoint, size))
            )
        counts = {True: 0, False: 0}
        for name, parameter in built.named_parameters():
            counts[quantize.is_quantized_name(name)] += parameter.numel()
        assert model.shape is not None
        assert counts[True] == pytest.approx(model.shape.linear, rel=0.01)
        assert counts[False] == pytest.approx(model.shape.other, rel=0.02)


@pytest.mark.parametrize("method", ["nf4", "none"])
def test_memory_is_as_predicted(large: Path, device: torch.device, method: str) -> None:
    """Loaded and at work, within a tenth; towers, embeddings and output layer in bfloat16."""
    work = Workload(FRAMES, 308 * 336, 60.0, budget=0.2, new_tokens=8)
    expected = forecast(large, method, torch.bfloat16, work, device)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    engine = Engine.load(str(large), "cuda", quantize=method, workload=work)
    loaded = torch.cuda.memory_allocated(device) - before
    assert loaded == pytest.approx(expected.weights, rel=0.02)
    assert torch.cuda.max_memory_allocated(device) - before < 1.25 * expected.weights + 2**30
    thinker = engine.model.thinker
    assert engine.facts.quantization == method
    for part in (thinker.visual, thinker.audio_tower, thinker.lm_head, thinker.model.embed_tokens):
        assert {parameter.dtype for parameter in part.parameters()} == {torch.bfloat16}
    quantize.check_modules(engine.model, method, torch.bfloat16)
    answer = engine.ask(engine.encode(film()), "What?", 0.2, GenerationOptions(8))
    peak = answer.peak_memory.device_allocated
    assert peak is not None
    print(
        f"{large.name} {method}: weights {loaded / 2**30:.2f} GiB (predicted {expected.weights / 2**30:.2f}), "
        f"peak {peak / 2**30:.2f} GiB (predicted {expected.total / 2**30:.2f}), load {engine.load_seconds:.1f} s"
    )
    assert peak - before == pytest.approx(expected.total, rel=0.1)
    if method == "nf4":
        assert peak < 12 * 2**30


def test_auto_is_nf4(large: Path) -> None:
    assert Engine.load(str(large), "cuda").facts.quantization == "nf4"


@pytest.mark.parametrize("method", ["nf4", "none"])
def test_budget_one_keeps_every_row(large: Path, device: torch.device, method: str) -> None:
    """At budget 1.0 the sieve changes nothing: the decoder's logits are those of the unsieved rows."""
    from transformers import DynamicCache

    engine = Engine.load(str(large), "cuda", quantize=method)
    encoded = engine.encode(film())
    thinker = engine.model.thinker
    with torch.inference_mode():
        prompt = engine.place(encoded, "What?")
        sieved = thinker.sieve(prompt, 1.0)
        rows = prompt.input_ids.shape[1]
        assert torch.equal(sieved.kept[0], torch.arange(rows, device=device))
        logits = thinker.prefill(sieved, DynamicCache())
        whole = thinker.model.decode(sieved.encoded, prompt.position_ids, None, DynamicCache())
        assert torch.equal(logits, thinker.lm_head(whole[:, -1]).float())
    answer = engine.ask(encoded, "What?", 1.0, GenerationOptions(2))
    assert answer.tokens.kept == answer.tokens.total
    assert engine.plan(DecodePlan()).max_pixels == 105_369


def test_running_out_of_memory_leaves_the_device_clean(large: Path, device: torch.device) -> None:
    """With a cap that the weights fit under and the work does not: exit 5, advice, and the next question answered."""
    from echopix_cli.errors import DeviceError

    engine = Engine.load(str(large), "cuda", quantize="nf4")
    encoded = engine.encode(film())
    gc.collect()
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated(device)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (held + 256 * 2**20) / total), device)
    try:
        with pytest.raises(DeviceError, match="out of memory") as caught:
            engine.ask(encoded, "What?", 1.0, GenerationOptions(2))
        assert "--max-frames" in caught.value.hint
        del caught
        gc.collect()
        assert torch.cuda.memory_allocated(device) <= held + 2**20
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert engine.ask(encoded, "What?", 0.1, GenerationOptions(2)).answer is not None
