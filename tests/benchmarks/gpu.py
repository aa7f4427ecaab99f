"""What the performance issue asks of a GPU, in one run of under ten minutes: `python tests/benchmarks/gpu.py OUT`.

Random weights in the shapes of the 3B and the 7B, the tokens of a minute and of ten seconds of 720p, every budget
against the whole prompt; the kernels that attention takes; and what a CUDA graph of the prefill would give, which is
measured here and nowhere used. Writes one JSON file for each part into OUT, so that a run cut short leaves some.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from echopix_cli.cli.bench import bench_record
from echopix_cli.engine.bench import QUESTION, bench, random_engine, synthetic_clip
from echopix_cli.engine.engine import Encoded, Engine
from echopix_cli.engine.profiling import spread_of
from echopix_cli.media import DecodePlan
from echopix_cli.model.shapes import SHAPES

CUDA = torch.device("cuda")
BUDGETS = (1.0, 0.2, 0.1, 0.05)


def timed(call: Any, trials: int = 10) -> dict[str, float]:
    """Median and spread of a call in seconds, after two that do not count."""
    seconds = []
    for trial in range(trials + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if trial >= 2:
            seconds.append(time.perf_counter() - began)
    return vars(spread_of(seconds))


@torch.inference_mode()
def graphs(engine: Engine, encoded: Encoded) -> dict[str, Any]:
    """Sieve and prefill without a cache at 10 %, launched kernel by kernel and replayed as one graph."""
    thinker = engine.model.thinker
    prompt = engine.place(encoded, QUESTION)
    sieved = thinker.sieve(prompt, 0.1)
    rotary = thinker.model.rotary(prompt.position_ids, prompt.embeds.dtype)
    parts = {
        "cs2": lambda: thinker.model.bidir_encoder(prompt.embeds, rotary, None),
        "decoder": lambda: thinker.model.decode(sieved.hidden, sieved.position_ids),
    }
    found: dict[str, Any] = {}
    for name, call in parts.items():
        found[name] = {"launched": timed(call)}
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                call()
            found[name]["replayed"] = timed(graph.replay)
        except RuntimeError as error:
            found[name]["failed"] = str(error).splitlines()[0]
    return found


@torch.inference_mode()
def kernels(engine: Engine, encoded: Encoded) -> list[str]:
    """Names of the attention kernels of sieve and prefill."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        engine.ask(encoded, QUESTION, 0.1)
    names = {event.key for event in profiler.key_averages()}
    return sorted(name for name in names if any(word in name.lower() for word in ("flash", "fmha", "attention")))


def main() -> None:
    """Run everything, the most important first."""
    out = Path(sys.argv[1])
    facts = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    (out / "machine.json").write_text(json.dumps(facts))
    for shape, method, lengths in (
        ("qwen2.5-omni-3b", "none", (60.0, 10.0)),
        ("qwen2.5-omni-7b", "none", (60.0, 10.0)),
        ("qwen2.5-omni-7b", "nf4", (60.0,)),
    ):
        try:
            engine = random_engine(SHAPES[shape], CUDA, torch.bfloat16, method)
            for seconds in lengths:
                result = bench(engine, BUDGETS, shape=shape, seconds=seconds, trials=7, warmup=2, new_tokens=64)
                name = f"{shape}-{method}-{seconds:g}s.json"
                (out / name).write_text(json.dumps(bench_record(result), indent=1))
                print(name, *(f"{row.budget:g}: {row.speedup:.2f}x of {row.bound:.2f}" for row in result.rows))
            encoded = engine.encode(synthetic_clip(lengths[-1], engine.plan(DecodePlan())))
            extra = {"graphs": graphs(engine, encoded), "kernels": kernels(engine, encoded)}
            (out / f"{shape}-{method}-graphs.json").write_text(json.dumps(extra, indent=1))
            del engine, encoded
        except Exception as error:  # the other parts are worth having
            (out / f"{shape}-{method}-failed.txt").write_text(f"{type(error).__name__}: {error}")
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
