"""The same street on a GPU. Skipped without one; ``ECHOPIX_REQUIRE_GPU=1`` makes that a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from echopix_cli.engine import Engine, GenerationOptions
from echopix_cli.media import DecodePlan
from echopix_cli.model.decoding import generate
from echopix_cli.weights.checkpoint import load_model

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("ECHOPIX_REQUIRE_GPU") == "1":
        pytest.fail("ECHOPIX_REQUIRE_GPU=1, but torch sees no CUDA device")
    pytest.skip("no CUDA device")


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
        sieved = model.thinker.sieve(model.prompt(**inputs), 0.1)
        tokens = torch.stack(list(generate(model.thinker, sieved, max_new_tokens=8)), dim=1)
    assert torch.equal(sieved.kept[0].cpu(), expected["kept_indices.0"])
    assert torch.equal(tokens.cpu(), expected["generated"])


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_file_is_answered(random_checkpoint: Path, clips: dict[str, Path], dtype: str) -> None:
    engine = Engine.load(str(random_checkpoint), "cuda", dtype)
    answer = engine.ask(engine.read(str(clips["both"]), engine.plan(DecodePlan())), "What?", 0.1, GenerationOptions(4))
    assert answer.tokens.kept == 12
    assert answer.model.device.startswith("cuda")
    assert answer.model.dtype == ("bfloat16" if dtype == "auto" else "float32")
    assert answer.peak_memory.device_allocated
    assert answer.peak_memory.device_reserved >= answer.peak_memory.device_allocated


def test_sampling_draws_on_the_gpu(random_checkpoint: Path, clips: dict[str, Path]) -> None:
    engine = Engine.load(str(random_checkpoint), "cuda", "float32")
    encoded = engine.read(str(clips["both"]), engine.plan(DecodePlan()))
    options = GenerationOptions(6, temperature=2.0, seed=4)
    assert engine.ask(encoded, "What?", 0.5, options).answer == engine.ask(encoded, "What?", 0.5, options).answer


def test_the_sieve_takes_the_flash_kernel(random_checkpoint: Path, clips: dict[str, Path]) -> None:
    """With every other SDPA kernel switched off, CS2 and decoder still run in bfloat16."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    engine = Engine.load(str(random_checkpoint), "cuda")
    encoded = engine.read(str(clips["both"]), engine.plan(DecodePlan()))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        assert engine.ask(encoded, "What?", 0.1, GenerationOptions(2)).tokens.kept == 12
