"""The same street on a GPU. Skipped without one; ``ECHOPIX_REQUIRE_GPU=1`` makes that a failure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from devices import cuda
from prompts import Media, inputs_of, prompt_of
from safetensors.torch import load_file

from echopix_cli.engine import AskOptions, Engine, GenerationOptions, SieveOptions
from echopix_cli.media import DecodePlan
from echopix_cli.model.decoding import generate
from echopix_cli.model.relevance import last_attention
from echopix_cli.model.stepping import FixedCache, Stepper
from echopix_cli.training import tiny
from echopix_cli.training.loop import Trainer
from echopix_cli.training.recipe import Recipe
from echopix_cli.training.start import Start, build_processor
from echopix_cli.weights import quantize
from echopix_cli.weights.checkpoint import load_model

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def device() -> torch.device:
    return cuda()


def test_reference_case_on_the_gpu(reference: Path, device: torch.device) -> None:
    """Single precision on CUDA keeps the same rows and says the same greedy tokens as the authors' CPU run."""
    case = reference / "cases" / "audio_only"
    inputs = {
        k: (v.float() if v.is_floating_point() else v).to(device)
        for k, v in load_file(case / "inputs.safetensors").items()
    }
    expected = load_file(case / "expected.safetensors")
    model = load_model(reference / "checkpoint", dtype=torch.float32, device=device)
    with torch.inference_mode():
        sieved = model.thinker.sieve(prompt_of(model, **inputs), 0.1)
        tokens = torch.stack(list(generate(model.thinker, sieved, max_new_tokens=8)), dim=1)
    assert torch.equal(sieved.kept[0].cpu(), expected["kept_indices.0"])
    assert torch.equal(tokens.cpu(), expected["generated"])


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_file_is_answered(random_checkpoint: Path, clips: dict[str, Path], dtype: str) -> None:
    engine = Engine.load(str(random_checkpoint), "cuda", dtype)
    answer = engine.ask(
        engine.read(str(clips["both"]), engine.plan(DecodePlan())), "What?", AskOptions(0.1, GenerationOptions(4))
    )
    assert answer.tokens.kept == 12
    assert answer.model.device.startswith("cuda")
    assert answer.model.dtype == ("bfloat16" if dtype == "auto" else "float32")
    assert answer.peak_memory.device_allocated
    assert answer.peak_memory.device_reserved >= answer.peak_memory.device_allocated


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_a_packed_model_answers_as_on_the_cpu(random_checkpoint: Path, device: torch.device, method: str) -> None:
    """The copy is made, proven and loaded on the GPU; its logits are those of the CPU's, about, and finite."""
    model = str(random_checkpoint)
    here, there = (quantize.probe(Engine.load(model, at, "bfloat16", method).model) for at in ("cuda", "cpu"))
    for ours, theirs in zip(here, there, strict=True):
        assert ours.isfinite().all()
        assert float((ours - theirs).abs().max()) < 0.2 * float(theirs.abs().max())


def test_sampling_draws_on_the_gpu(random_checkpoint: Path, clips: dict[str, Path]) -> None:
    engine = Engine.load(str(random_checkpoint), "cuda", "float32")
    encoded = engine.read(str(clips["both"]), engine.plan(DecodePlan()))
    options = AskOptions(0.5, GenerationOptions(6, temperature=2.0, seed=4))
    assert engine.ask(encoded, "What?", options).answer == engine.ask(encoded, "What?", options).answer


def attention_kernels(call: Callable[[], object]) -> set[str]:
    """Names of the attention kernels that a call runs, and of softmax's, which the L × L way takes."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    words = ("flash", "fmha", "sdpa", "softmax")
    return {event.key for event in seen.key_averages() if any(word in event.key.lower() for word in words)}


@pytest.mark.parametrize("checkpoint", ["random_checkpoint", "stock_checkpoint"])
def test_towers_sieve_and_prefill_take_the_flash_kernels(
    request: pytest.FixtureRequest, clips: dict[str, Path], checkpoint: str
) -> None:
    """torch's own, from compute capability 8.0 on: neither cuDNN's, which plans for each length, nor the L × L way."""
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this card has no flash kernel in torch")
    engine = Engine.load(str(request.getfixturevalue(checkpoint)), "cuda", "bfloat16")
    plan = engine.plan(DecodePlan())
    towers = attention_kernels(lambda: engine.read(str(clips["both"]), plan))
    encoded = engine.read(str(clips["both"]), plan)
    asked = attention_kernels(lambda: engine.ask(encoded, "What?", AskOptions(1.0, GenerationOptions(1))))
    for found in (towers, asked):
        assert any("flash" in name for name in found)
        assert not any("cudnn" in name for name in found)
    assert not any("softmax" in name.lower() for name in towers)


def test_steps_are_recorded_wait_for_nothing_and_say_the_same(random_checkpoint: Path, clips: dict[str, Path]) -> None:
    """A step replayed as a graph; the device is asked nothing; tokens as without graphs."""
    engine = Engine.load(str(random_checkpoint), "cuda", "bfloat16")
    encoded = engine.read(str(clips["both"]), engine.plan(DecodePlan()))
    thinker, told = engine.model.thinker, []
    with torch.inference_mode():
        sieved = thinker.sieve(engine.place(encoded, "What?"), 0.5)
        cache = FixedCache(thinker.model, sieved, 6)
        steps = Stepper(thinker.model, thinker.lm_head, cache, sieved, thinker.prefill(sieved, cache).argmax(-1))
    for _ in range(4):
        steps.advance()
    assert steps.recorded
    for graphs in (True, False):
        tokens = generate(thinker, sieved, max_new_tokens=24, graphs=graphs)
        said = [int(next(tokens)), int(next(tokens))]
        torch.cuda.set_sync_debug_mode("error")
        try:
            said += [int(token) for token in tokens]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        told.append(said)
    assert told[0] == told[1]
    assert len(told[0]) == 24


def test_what_an_answer_is_read_from_does_not_depend_on_its_length(
    random_checkpoint: Path, clips: dict[str, Path]
) -> None:
    """Attention of the prompt's last row after one token, and after steps that were recorded; close to the CPU's."""
    found = []
    for device, dtype, count in (("cuda", "bfloat16", 1), ("cuda", "bfloat16", 24), ("cpu", "float32", 1)):
        engine = Engine.load(str(random_checkpoint), device, dtype)
        encoded = engine.read(str(clips["both"]), engine.plan(DecodePlan()))
        thinker = engine.model.thinker
        with torch.inference_mode():
            sieved = thinker.sieve(engine.place(encoded, "What?"), 1.0)
            cache = FixedCache(thinker.model, sieved, count - 1)
            assert len(list(generate(thinker, sieved, max_new_tokens=count, cache=cache))) == count
            found.append(last_attention(thinker.model, sieved, cache).cpu())
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], found[2], atol=2e-3, rtol=0.1)


def test_a_batch_of_answers_holds_no_more_than_the_first(random_checkpoint: Path, clips: dict[str, Path]) -> None:
    """Each answer's recording takes over the memory of the one before."""
    engine = Engine.load(str(random_checkpoint), "cuda", "bfloat16")
    encoded = engine.read(str(clips["both"]), engine.plan(DecodePlan()))
    held = []
    for _ in range(12):
        engine.ask(encoded, "What?", AskOptions(0.5, GenerationOptions(12)))
        held.append(torch.cuda.memory_reserved())
    assert held[-1] == held[3]


@pytest.mark.parametrize("name", ["question-attention", "per-modality", "uniform", "random", "none"])
def test_every_sieve_of_stock_weights(stock_checkpoint: Path, clips: dict[str, Path], name: str) -> None:
    engine = Engine.load(str(stock_checkpoint), "cuda")
    encoded = engine.read(str(clips["both"]), engine.plan(DecodePlan()))
    first, second = (
        engine.ask(encoded, "What?", AskOptions(0.2, GenerationOptions(3), SieveOptions(name))) for _ in range(2)
    )
    assert (first.answer, first.tokens) == (second.answer, second.tokens)
    assert first.sieve == name


def test_device_memory_grows_with_the_prompts_length(stock_checkpoint: Path, device: torch.device) -> None:
    model = load_model(stock_checkpoint, dtype=torch.bfloat16, device=device)
    peaks = []
    for factor in (1, 2, 4):
        inputs = inputs_of(model, Media((8, 4, 4), 0.9, 8000 * factor, question=500 * factor))
        with torch.inference_mode():
            prompt = prompt_of(model, **{name: value.to(device) for name, value in inputs.items()})
            model.thinker.sieve(prompt, 0.2)
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            model.thinker.sieve(prompt, 0.2)
        peaks.append((torch.cuda.max_memory_allocated(device) - before) / prompt.input_ids.shape[1])
    assert max(peaks) <= 1.3 * min(peaks)


@pytest.mark.parametrize("stage", ["full", "sieve"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_steps_are_finite(tmp_path: Path, device: torch.device, stage: str, precision: str) -> None:
    """With prompts of several lengths: a kernel's gradient of an attention row that sees nothing is NaN."""
    processor = build_processor(40)
    recipe = Recipe(stage=stage, precision=precision, steps=3, batch_size=4, validate_every=100, optimizer="muon")
    fit = Trainer(Start(tiny.build_model(processor.config, seed=1).to(device), processor, {}), recipe, tmp_path)
    fit.run(until=2)
    again = Trainer(Start(tiny.build_model(processor.config, seed=1).to(device), processor, {}), recipe, tmp_path)
    again.run()
    assert again.step == 3
    assert all(bool(p.isfinite().all()) for p in again.model.parameters())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [math.isfinite(line["gradient"]) for line in lines if "gradient" in line] == [True] * 3
