"""The parts of the campaign, each a function of (its name, what it is given, where its results go)."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from campaign import HERE, ROOT, Findings, Given
from campaign_timing import on_gpu, timed
from torch import Tensor

from echopix_cli.cli.bench import bench_record
from echopix_cli.engine import AskOptions, Engine, GenerationOptions
from echopix_cli.measure.bench import QUESTION, bench, random_engine, synthetic_clip
from echopix_cli.media import DecodePlan
from echopix_cli.model.decoding import generate
from echopix_cli.model.shapes import SHAPES
from echopix_cli.model.values import Sieved

BUDGETS = (1.0, 0.2, 0.1, 0.05)
DTYPE = torch.bfloat16


def engine_of(given: Given, shape: str, method: str = "none") -> Engine:
    """Random weights in a shape; a CPU computes in single precision."""
    device = torch.device(given.device)
    return random_engine(SHAPES[shape], device, DTYPE if on_gpu(given) else torch.float32, method)


# --- correct


def correct(name: str, given: Given, findings: Findings) -> None:
    """The authors' vectors in single precision; tokens against transformers, with graphs and without, after nf4."""
    golden = ROOT / "tests" / "golden"
    command = [sys.executable, str(golden / "check.py"), str(golden / "reference"), "--device", given.device]
    checked = subprocess.run(command, capture_output=True, text=True)
    lines = checked.stdout.splitlines()
    failed = [line for line in lines if line.startswith("FAIL")]
    findings.add(vectors=lines[-1] if lines else checked.stderr[-400:], mismatched=failed)
    engine = engine_of(given, given.sizes("3b"))
    findings.add(against_transformers=same_tokens(given, engine))
    encoded = engine.encode(synthetic_clip(8.0, engine.plan(DecodePlan())))
    with torch.inference_mode():
        sieved = engine.model.thinker.sieve(engine.place(encoded, QUESTION), 0.1)
    told: dict[str, list[int]] = {}
    for graphs in (True, False):
        steps = generate(engine.model.thinker, sieved, max_new_tokens=64, graphs=graphs)
        told[f"graphs {graphs}"] = [int(token) for token in steps]
    findings.add(graphs_equal=told["graphs True"] == told["graphs False"], tokens=told["graphs True"][:16])
    findings.add(kernels=kernels(given, engine, encoded))
    del engine, encoded, sieved
    findings.add(nf4=nf4_both_ways(given))


def same_tokens(given: Given, engine: Engine) -> dict[str, Any]:
    """A prompt of text alone, which no sieve touches, through our decoder and through transformers'."""
    theirs = transformers_model(given, engine)
    ids = random_ids(given, engine, 600)
    ours = [int(token) for token in generate(engine.model.thinker, unsieved(engine, ids), max_new_tokens=48)]
    with torch.inference_mode():
        found = theirs.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False, eos_token_id=None,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    expected = found.sequences[0, ids.shape[1] :].tolist()
    first = next((i for i, (a, b) in enumerate(zip(ours, expected, strict=True)) if a != b), None)
    gap = None
    if first is not None:
        best = found.logits[first][0].float().topk(2).values
        gap = float(best[0] - best[1])
    return {"tokens": len(ours), "equal": first is None, "first_difference": first, "gap_there": gap}


def transformers_model(given: Given, engine: Engine) -> Any:
    """transformers' own thinker over this engine's weights."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    own = ("thinker.model.bidir_encoder.", "thinker.model.compressor.")
    tensors = {k: v for k, v in engine.model.state_dict().items() if not k.startswith(own)}
    config = Qwen2_5OmniThinkerConfig.from_dict(engine.model.config.to_dict()["thinker_config"])
    first, second, third, last = engine.model.config.text.sync_rope_section
    # Three axes in place of four: every row of a text has the same position on all of them.
    config.text_config.rope_parameters["mrope_section"] = [first, second, third + last]
    placed = {"device_map": {"": torch.device(given.device)}} if on_gpu(given) else {}
    return Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=next(engine.model.parameters()).dtype,
        attn_implementation="sdpa",
        **placed,
    ).eval()


def random_ids(given: Given, engine: Engine, rows: int) -> Tensor:
    """Ids (1, rows) of text: none of them a placeholder."""
    special = set(engine.model.thinker.special.placeholders)
    source = torch.Generator().manual_seed(rows)
    size = min(engine.model.config.text.vocab_size, 1000)
    ids = torch.randint(0, size, (rows * 2,), generator=source)
    kept = [i for i in ids.tolist() if i not in special and i < 150][:rows] or [1] * rows
    kept = (kept * (rows // len(kept) + 1))[:rows]
    return torch.tensor([kept], device=given.device)


@torch.inference_mode()
def unsieved(engine: Engine, ids: Tensor) -> Sieved:
    """All rows of a text as the decoder gets them."""
    prompt = engine.model.thinker.place(ids)
    length = ids.shape[1]
    kept = (torch.arange(length, device=ids.device),)
    scores = prompt.embeds.new_zeros(ids.shape)
    after = prompt.rope_deltas + length
    return Sieved(prompt.embeds, prompt.position_ids, None, kept, scores, prompt.embeds, None, after)


def kernels(given: Given, engine: Engine, encoded: Any) -> dict[str, Any]:
    """Attention kernels of towers, sieve and prefill by name, and launches of one generated token."""
    from torch.profiler import ProfilerActivity, profile

    if not on_gpu(given):
        return {}
    words = ("flash", "fmha", "sdpa")
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        engine.encode(synthetic_clip(4.0, engine.plan(DecodePlan())))
        engine.ask(encoded, QUESTION, AskOptions(0.1, GenerationOptions(1)))
    names = {event.key: event.count for event in seen.key_averages()}
    found = {key: count for key, count in names.items() if any(word in key.lower() for word in words)}
    with torch.inference_mode():
        sieved = engine.model.thinker.sieve(engine.place(encoded, QUESTION), 0.1)
    tokens = generate(engine.model.thinker, sieved, max_new_tokens=4, graphs=False)
    next(tokens), next(tokens)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        next(tokens)
        torch.cuda.synchronize()
    step = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in seen.events())
    return {"attention": found, "kernels_of_a_step": step}


def nf4_both_ways(given: Given) -> dict[str, bool]:
    """A copy made on the CPU answers the same on CUDA as one made there."""
    from echopix_cli.weights import quantize
    from echopix_cli.weights.checkpoint import load_model
    from echopix_cli.weights.registry import files_of, find_model

    folder, found = files_of(find_model("tiny")).folder, {}
    made: dict[str, dict[str, Tensor]] = {}
    for device in dict.fromkeys(("cpu", given.device)):
        target = given.work / f"nf4-{device}"
        target.mkdir()
        quantize.write_copy(folder, target, "nf4", DTYPE, torch.device(device))
        model = load_model(target, dtype=DTYPE, device=given.device)
        quantize.check_modules(model, "nf4", DTYPE)
        probed = quantize.probe(model)
        found[f"{device} finite"] = all(bool(part.isfinite().all()) for part in probed)
        from safetensors.torch import load_file

        made[device] = {k: v for file in sorted(target.glob("*.safetensors")) for k, v in load_file(file).items()}
    first, last = (made[device] for device in ("cpu", given.device))
    packed = [name for name in first if name.endswith("weight") and first[name].dtype == torch.uint8]
    same = sum(float((first[name] == last[name]).float().mean()) for name in packed) / max(1, len(packed))
    return found | {"packed_bytes_equal": round(same, 5)}


# --- speed, tokens, way


def speed(name: str, given: Given, findings: Findings) -> None:
    """Sieve, prefill, first token and tokens a second, budgets interleaved; a minute, then ten seconds."""
    shape = given.sizes(name)
    engine = engine_of(given, shape)
    for seconds in (60.0, 10.0) if on_gpu(given) else (2.0,):
        trials = 6 if on_gpu(given) else 1
        result = bench(engine, BUDGETS, shape=shape, seconds=seconds, trials=trials, repeats=2, new_tokens=64)
        findings.add(**{f"{seconds:g}s": bench_record(result)})
        print(f"{seconds:g} s:", *(f"{row.budget:g}: {row.speedup:.2f} of {row.bound:.2f}" for row in result.rows))
    if name.endswith("7b") and on_gpu(given):
        del engine
        gc.collect()
        engine = engine_of(given, shape, "nf4")
        result = bench(engine, (1.0, 0.1), shape=shape, seconds=60.0, trials=3, repeats=1, new_tokens=64)
        findings.add(nf4=bench_record(result))


def tokens(name: str, given: Given, findings: Findings) -> None:
    """Prefill and tokens a second against transformers' own ``generate`` on as many rows, turn by turn."""
    engine = engine_of(given, given.sizes(name))
    theirs = transformers_model(given, engine)
    new = 65 if on_gpu(given) else 3
    for rows in (1000, 9500) if on_gpu(given) else (20,):
        ids = random_ids(given, engine, rows)
        sieved = unsieved(engine, ids)

        def ours(count: int, graphs: bool, sieved: Sieved = sieved) -> None:
            for _ in generate(engine.model.thinker, sieved, max_new_tokens=count, graphs=graphs):
                pass

        def library(count: int, ids: Tensor = ids) -> None:
            with torch.inference_mode():
                theirs.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count,
                    do_sample=False,
                )  # fmt: skip

        calls: dict[str, Callable[[], object]] = {}
        for count in (1, new):
            calls[f"ours {count}"] = lambda count=count: ours(count, True)
            calls[f"ours {count} without graphs"] = lambda count=count: ours(count, False)
            calls[f"transformers {count}"] = lambda count=count: library(count)
        found = timed(given, calls, trials=3 if on_gpu(given) else 1)
        rates = {}
        for who in ("ours {}", "ours {} without graphs", "transformers {}"):
            one, many = (found[who.format(count)]["median"] for count in (1, new))
            rates[who.replace(" {}", "")] = {"prefill": one, "tokens_per_second": (new - 1) / max(many - one, 1e-9)}
        findings.add(**{f"{rows} rows": {"seconds": found, "rates": rates}})
        print(rows, {who: round(rate["tokens_per_second"], 1) for who, rate in rates.items()})


def way(name: str, given: Given, findings: Findings) -> None:
    """From the file on disk to the first token, nf4."""
    shape, path = given.sizes(name), given.work / "film.mp4"
    engine = engine_of(given, shape, "nf4")
    while not path.exists():
        time.sleep(0.2)
    trials = 4 if on_gpu(given) else 1
    result = bench(engine, (1.0, 0.1), shape=shape, media=str(path), trials=trials, repeats=1, new_tokens=16)
    findings.add(bench=bench_record(result))
    print(*(f"{row.budget:g} {row.sieved}: {row.first_token_speedup:.2f}" for row in result.rows))


# --- memory


def checkpoint(name: str, given: Given) -> Path:
    """A checkpoint of random weights in a shape, written once."""
    from shapes import write_shape

    from echopix_cli.weights.registry import files_of, find_model

    folder, small = given.work / f"checkpoint-{given.sizes(name)}", files_of(find_model("tiny")).folder
    if not (folder / "model.safetensors.index.json").exists():
        folder.mkdir(exist_ok=True)
        base = json.loads((small / "config.json").read_text())
        write_shape(folder, small, SHAPES[given.sizes(name)].configured(base), given.device)
    return folder


def memory(name: str, given: Given, findings: Findings) -> None:
    """Making and loading nf4, and a minute of film with it: predicted against measured."""
    from echopix_cli.engine.forecast import Workload, forecast
    from echopix_cli.weights.checkpoint import open_checkpoint

    began = time.perf_counter()
    folder = checkpoint(name, given)
    findings.add(writing_the_checkpoint=time.perf_counter() - began)
    work = Workload(120, 308 * 336, 60.0, budget=0.1, new_tokens=16)
    device, dtype = torch.device(given.device), DTYPE if on_gpu(given) else torch.float32
    for method in ("nf4", "none") if name.endswith("3b") else ("nf4",):
        expected = forecast(open_checkpoint(folder), method, dtype, work, device)
        gc.collect()
        if on_gpu(given):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        for turn in ("making", "loading") if method == "nf4" else ("loading",):
            began = time.perf_counter()
            engine = Engine.load(str(folder), given.device, quantize=method, workload=work)
            seconds = time.perf_counter() - began
            found: dict[str, Any] = {"seconds": seconds, "predicted_weights": expected.weights}
            if on_gpu(given):
                found["allocated"] = torch.cuda.memory_allocated()
                found["peak"] = torch.cuda.max_memory_allocated()
                found["peak_reserved"] = torch.cuda.max_memory_reserved()
                found["peak_over_weights"] = found["peak"] / found["allocated"]
            findings.add(**{f"{method} {turn}": found})
            print(method, turn, found)
            if turn == "making":
                del engine
                gc.collect()
                if on_gpu(given):
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
        clip = synthetic_clip(60.0 if on_gpu(given) else 2.0, engine.plan(DecodePlan()))
        answer = engine.ask(engine.encode(clip), QUESTION, AskOptions(0.1, GenerationOptions(16)))
        peak = answer.peak_memory.device_allocated
        asked = {"peak": peak, "predicted": expected.total, "tokens": vars(answer.tokens)}
        if peak:
            asked["measured_over_predicted"] = peak / expected.total
        findings.add(**{f"{method} asking": asked})
        del engine, answer
    if on_gpu(given) and name.endswith("7b"):
        shutil.rmtree(folder)


# --- batch


@dataclass
class Busy:
    """Share of time with a kernel on the device, as the driver samples it."""

    samples: list[int] = field(default_factory=list)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        except OSError:
            yield
            return
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        try:
            yield
        finally:
            process.kill()
            reader.join(2)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdigit():
                self.samples.append(int(line))


def batch(name: str, given: Given, findings: Findings) -> None:
    """The command line over a folder of films: how long, and how long the device had nothing to do."""
    folder, films = checkpoint(name, given), given.work / "films"
    while not (given.work / "film.mp4").exists():
        time.sleep(0.2)
    films.mkdir(exist_ok=True)
    count = 16 if on_gpu(given) else 2
    for number in range(count):
        target = films / f"{number:02}.mp4"
        shutil.copyfile(given.work / "film.mp4", target)
        with open(target, "ab") as file:  # an empty box at the end: another file, the same film
            file.write(b"\0\0\0\x0cfree" + number.to_bytes(4, "big"))
    code = "from echopix_cli.cli.app import main; main()"
    command = [sys.executable, "-c", code, "ask", str(films), "-Q", "What do you see?", "-Q", "What do you hear?"]
    command += ["--model", str(folder), "--device", given.device, "--budget", "0.1", "--max-new-tokens", "32", "-v"]
    command += ["-o", str(given.out / "batch.jsonl"), "--no-cache", "--overwrite"]
    busy = Busy()
    began = time.perf_counter()
    with busy.watching():
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    found: dict[str, Any] = {"exit": done.returncode, "seconds": time.perf_counter() - began, "files": count}
    found["stderr"] = done.stderr[-1500:]
    first = next((i for i, share in enumerate(busy.samples) if share > 0), 0)
    at_work = busy.samples[first:]
    if at_work:
        found |= {
            "busy_percent": statistics.mean(at_work),
            "idle_samples_percent": 100 * at_work.count(0) / len(at_work),
        }
    findings.add(**found)
    print(done.stderr[-300:])


def tests(name: str, given: Given, findings: Findings) -> None:
    """The GPU tests of the suite."""
    environment = dict(os.environ) | ({"ECHOPIX_REQUIRE_GPU": "1"} if on_gpu(given) else {})
    environment.pop("ECHOPIX_CACHE_DIR", None)
    which = [str(HERE / "test_cuda.py")] if on_gpu(given) else [str(HERE / "test_cuda.py"), "--collect-only"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *which]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    findings.add(exit=done.returncode, output=done.stdout[-6000:])
    print(*done.stdout.strip().splitlines()[-12:], sep="\n")
