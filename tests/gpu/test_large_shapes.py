"""Random weights in the true shapes of the 3B and the 7B: memory held against its prediction. Needs a GPU.

By ``pytest -m slow tests/gpu/test_large_shapes.py``, in one process: every other one would load them, too. Skipped
without a GPU, unless ``ECHOPIX_REQUIRE_GPU=1`` makes that a failure, and where too little of its memory is free.
Weights are written once per shape, in shards of two gigabytes: 9.9 GB for the 3B, 19.5 GB for the 7B, below pytest's
temporary folder.
"""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from devices import cuda
from shapes import shape_of, write_shape

from echopix_cli.engine import AskOptions, Engine, GenerationOptions, Workload
from echopix_cli.engine.forecast import forecast
from echopix_cli.media import Clip, DecodePlan, MediaInfo
from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.results import AudioStatus
from echopix_cli.weights import quantize
from echopix_cli.weights.assembly import outline
from echopix_cli.weights.checkpoint import open_checkpoint

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

ROOM = 1.5  # times the weights, for work beside them
FRAMES = 120  # a film at the family's own limits: 120 frames of at most 105 369 pixels, and its sound


@pytest.fixture(autouse=True)
def device(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "large-cache"))
    return cuda()


@pytest.fixture(scope="module", params=["3B", "7B"])
def large(request: pytest.FixtureRequest, random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in a true shape, its weights random; it shares the small tokenizer."""
    size, device = str(request.param), cuda()
    raw = shape_of(random_checkpoint, size)
    weights = sum(parameter.nbytes for parameter in outline(EchoingPixelsConfig(**raw), torch.bfloat16).parameters())
    gc.collect()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    if free < ROOM * weights:
        pytest.skip(f"{free / 2**30:.1f} GiB of the device are free, and the {size} wants {ROOM * weights / 2**30:.1f}")
    return write_shape(tmp_path_factory.mktemp(f"shape-{size}"), random_checkpoint, raw, "cuda")


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


@pytest.mark.parametrize("method", ["nf4", "none"])
def test_memory_is_as_predicted(large: Path, device: torch.device, method: str) -> None:
    """Loaded and at work, within a tenth; towers, embeddings and output layer in bfloat16."""
    work = Workload(FRAMES, 308 * 336, 60.0, budget=0.2, new_tokens=8)
    expected = forecast(open_checkpoint(large), method, torch.bfloat16, work, device)
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
    answer = engine.ask(engine.encode(film()), "What?", AskOptions(0.2, GenerationOptions(8)))
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
    answer = engine.ask(encoded, "What?", AskOptions(1.0, GenerationOptions(2)))
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
            engine.ask(encoded, "What?", AskOptions(1.0, GenerationOptions(2)))
        assert "--max-frames" in caught.value.hint
        del caught
        gc.collect()
        assert torch.cuda.memory_allocated(device) <= held + 2**20
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert engine.ask(encoded, "What?", AskOptions(0.1, GenerationOptions(2))).answer is not None
