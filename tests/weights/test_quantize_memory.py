"""How much memory making a quantized copy takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from echopix_cli.weights.checkpoint import open_checkpoint, read_config

PEAK = """
import sys, torch
from pathlib import Path
from echopix_cli.weights import copies, quantize
from echopix_cli.weights.registry import find_model
quantize.SHARD = 2**24  # in proportion to the stand-in
import echopix_cli.model.modeling, bitsandbytes
from echopix_cli.weights.checkpoint import load_model
small = find_model(sys.argv[1])
copies.make(copies.Wanted(small, "nf4", "bfloat16"), torch.device("cpu"))  # whatever is imported late
Path("/proc/self/clear_refs").write_text("5")
def status(name):
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name))
    return int(line.split()[1]) * 1024
before = status("VmRSS")
copies.make(copies.Wanted(find_model(sys.argv[2]), sys.argv[3], "bfloat16"), torch.device("cpu"))
print(status("VmHWM") - before)
"""


def stand_in(folder: Path, random_checkpoint: Path, layers: int = 8, width: int = 1024, shards: int = 6) -> int:
    """A checkpoint of random bfloat16 weights in several shards; its size in bytes."""
    from safetensors.torch import save_file

    from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration

    folder.mkdir()
    for file in random_checkpoint.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, folder / file.name)
    raw = json.loads((folder / "config.json").read_text())
    thinker = raw["thinker_config"]
    thinker["text_config"].update(
        hidden_size=width,
        intermediate_size=5 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 256,
        layer_types=["full_attention"] * layers,
    )
    thinker["vision_config"]["out_hidden_size"] = thinker["audio_config"]["output_dim"] = width
    (folder / "config.json").write_text(json.dumps(raw))
    with torch.device("meta"):
        model = EchoingPixelsForConditionalGeneration(read_config(folder))
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        names = list(shapes)[number::shards]
        part = {n: torch.empty(shapes[n], dtype=torch.bfloat16).normal_(0, 0.02, generator=generator) for n in names}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return sum(2 * shape.numel() for shape in shapes.values())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's resettable peak")
@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_never_two_models_in_memory(random_checkpoint: Path, tmp_path: Path, method: str) -> None:
    """Making a copy takes the copy, and as much again where a CPU's first pass repacks it: never the source."""
    size = stand_in(tmp_path / "large", random_checkpoint)
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, str(random_checkpoint), str(tmp_path / "large"), method],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ECHOPIX_CACHE_DIR": str(tmp_path / "echopix")},
    )
    peak = int(ran.stdout)
    copy = open_checkpoint(tmp_path / "large").counts.bytes_as(method)
    print(f"source {size / 1e6:.0f} MB, {method} copy {copy / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB")
    assert size > 300e6
    assert peak < 2 * copy + 64e6  # and what repacking one layer takes; the source is 375 MB
    assert peak < copy + 140e6  # a file of the copy, a tensor at work, and libraries
