"""Side by side with the authors' code, in rounds: `python tests/benchmarks/authors.py --code DIR --python PATH`.

Both run one random model of one shape on one synthetic clip, each in a process of its own, in turn: both towers, then
at each budget everything from the features to the first token. Times are compared; whether both come to the same first
token is said. DIR is a checkout of the authors' repository, PATH the interpreter of an environment with
transformers 4.54.1 (`pip install torch transformers==4.54.1`). Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TOWERS = "towers"
STEPS = 60  # grid steps of the picture, one a second

Work = Callable[[Any], int]  # a budget or TOWERS → the token that comes first, or rows of the towers


def threads_wait_passively() -> dict[str, str]:
    """Environment of both processes: what waits leaves the processor to the other one."""
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def make(shape: str, folder: Path) -> None:
    """Write a random checkpoint in the authors' layout and the inputs of one clip into a folder."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from echopix_cli.measure.bench import QUESTION, random_engine, synthetic_clip
    from echopix_cli.media import DecodePlan
    from echopix_cli.model.positions import uniform_grid_times
    from echopix_cli.model.processing import ClipInputs, hear, patchify
    from echopix_cli.model.shapes import SHAPES
    from echopix_cli.weights.checkpoint import save_model

    engine = random_engine(SHAPES[shape], torch.device("cpu"), torch.float32, "none")
    save_model(engine.model, folder)
    torch.save({}, folder / "spk_dict.pt")  # without which the authors' class does not load
    clip = synthetic_clip(float(STEPS), engine.plan(DecodePlan()))
    assert clip.frames is not None
    pixels, grid = patchify(clip.frames, engine.processor.rules)
    assert grid[0] == STEPS
    mel, rows = hear(clip.waveform)
    assert mel is not None
    times = uniform_grid_times(STEPS, 1.0).astype(np.float64)
    ids = engine.processor.prompt_ids(QUESTION, ClipInputs(grid_thw=grid, grid_times=times, audio_rows=rows))
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values_videos": pixels.contiguous(),
        "video_grid_thw": torch.tensor([grid]),
        "video_second_per_grid": torch.tensor([1.0]),
        "input_features": mel[None].contiguous(),
        "feature_attention_mask": torch.ones(1, mel.shape[1], dtype=torch.long),
    }
    save_file(inputs, folder / "inputs.safetensors")


def ours(folder: Path) -> Work:
    """What echopix does, with the towers in slices as its engine takes them."""
    import torch
    from safetensors.torch import load_file

    from echopix_cli.engine.encoding import encode_sound, slice_steps
    from echopix_cli.model.decoding import generate
    from echopix_cli.model.positions import uniform_grid_times
    from echopix_cli.weights.checkpoint import load_model

    cpu = torch.device("cpu")
    size = slice_steps(cpu)
    thinker = load_model(folder, dtype=torch.float32, device=cpu).eval().thinker
    inputs = load_file(folder / "inputs.safetensors")
    steps, height, width = inputs["video_grid_thw"][0].tolist()
    patches, mel = inputs["pixel_values_videos"], inputs["input_features"][0]

    def encode() -> tuple[torch.Tensor, torch.Tensor]:
        per_step = height * width
        parts = [
            thinker.encode_pixels(
                patches[begin * per_step : (begin + size) * per_step],
                torch.tensor([[min(size, steps - begin), height, width]]),
            )
            for begin in range(0, steps, size)
        ]
        return torch.cat(parts), encode_sound(thinker, mel, cpu)

    with torch.inference_mode():
        video, audio = encode()

    @torch.inference_mode()
    def work(budget: Any) -> int:
        if budget == TOWERS:
            return sum(len(part) for part in encode())
        prompt = thinker.place(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            video_features=video,
            video_grid_thw=inputs["video_grid_thw"],
            video_grid_times=[uniform_grid_times(steps, 1.0)],
            audio_features=audio,
            audio_rows=[len(audio)],
        )
        return int(next(generate(thinker, thinker.sieve(prompt, budget), max_new_tokens=1)))

    return work


def theirs(folder: Path, code: Path) -> Work:
    """What the authors' code does; it reads its rotary sections from the environment."""
    text = json.loads((folder / "config.json").read_text())["thinker_config"]["text_config"]
    os.environ["MROPE_SECTION"] = ",".join(map(str, text["sync_rope_section"]))
    sys.path.insert(0, str(code))
    import torch
    from qwen2_5_omni_compress import Qwen2_5OmniCompressForConditionalGeneration as Theirs
    from safetensors.torch import load_file

    model = Theirs.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="sdpa").eval()
    thinker = model.thinker
    inputs = load_file(folder / "inputs.safetensors")

    def encode() -> tuple[torch.Tensor, torch.Tensor]:
        video = thinker.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        return video, thinker.get_audio_features(
            inputs["input_features"], feature_attention_mask=inputs["feature_attention_mask"]
        )

    with torch.inference_mode():
        video, audio = encode()

    @torch.inference_mode()
    def work(budget: Any) -> int:
        if budget == TOWERS:
            return sum(len(part) for part in encode())
        thinker.model.compressor.compression_ratio = budget
        output = thinker(**inputs, use_audio_in_video=True, use_cache=True)
        return int(output.logits[0, -1].argmax())

    towers = thinker.get_video_features, thinker.get_audio_features

    def timed(budget: Any) -> int:
        # Their forward pass runs the towers itself: where these are not what is timed, it is handed their features.
        alone = budget != TOWERS
        thinker.get_video_features = (lambda *a, **k: video) if alone else towers[0]
        thinker.get_audio_features = (lambda *a, **k: audio) if alone else towers[1]
        return work(budget)

    return timed


def serve(work: Work) -> None:
    """Do what each line of stdin asks for, and answer with what it gave and took."""
    for line in sys.stdin:
        switches, spent, began = _switches(), time.process_time(), time.perf_counter()
        found = work(json.loads(line))
        taken = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - spent}
        print(json.dumps(taken | {"switches": _switches() - switches, "found": found}), file=ANSWERS, flush=True)


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


ANSWERS = sys.stdout


class Side:
    """One of the two processes."""

    def __init__(self, python: str, name: str, folder: Path, code: Path) -> None:
        command = [python, __file__, "--worker", name, "--folder", str(folder), "--code", str(code)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=threads_wait_passively()
        )

    def ask(self, what: Any) -> dict[str, Any]:
        """Have it do something once."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("one of the two processes ended; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Rounds of both, and the ratios of theirs over ours with what may speak against them."""
    from echopix_cli.measure.rounds import Disturbance, disagreement, interleave, ratio_of, spread_of, too_often

    sides = {"ours": Side(sys.executable, "ours", folder, given.code)}
    sides["theirs"] = Side(str(given.python), "theirs", folder, given.code)
    tasks: list[Any] = [TOWERS, *given.budgets]
    last: dict[str, Any] = {}

    class Told(Disturbance):
        @property
        def noticed(self) -> bool:
            return too_often(last["switches"], last["cpu"])

    def run(_: None, way: tuple[str, Any]) -> dict[str, Any]:
        last.clear()
        last.update(sides[way[0]].ask(way[1]))
        return dict(last)

    def pairs(passes: Any, task: Any, clock: str = "seconds") -> list[float]:
        both = zip(passes["theirs", task], passes["ours", task], strict=True)
        return [slow[clock] / fast[clock] for slow, fast in both]

    def doubt(passes: Any) -> str | None:
        found = ((task, disagreement(pairs(passes, task))) for task in tasks)
        return next((f"{task}: {why}" for task, why in found if why is not None), None)

    try:
        measured = interleave(
            [(side, task) for task in tasks for side in sides],
            lambda: None,
            run,
            trials=given.rounds,
            warmup=1,
            repeats=given.repeats,
            doubt=doubt,
            disturbance=Told,
            watch=lambda done, total: print(f"{done} of {total} rounds done", file=sys.stderr),
        )
    finally:
        for side in sides.values():
            side.close()
    rows: Sequence[dict[str, Any]] = [
        {
            "what": task,
            "theirs_s": vars(spread_of([one["seconds"] for one in measured.passes["theirs", task]])),
            "ours_s": vars(spread_of([one["seconds"] for one in measured.passes["ours", task]])),
            "theirs_over_ours": vars(ratio_of(pairs(measured.passes, task))),
            "theirs_over_ours_by_cpu": vars(ratio_of(pairs(measured.passes, task, "cpu"))),
            "same": len({one["found"] for side in sides for one in measured.passes[side, task]}) == 1,
        }
        for task in tasks
    ]
    return {
        "shape": given.shape,
        "rounds": measured.counted,
        "disturbed_rounds": measured.disturbed,
        "inconclusive": measured.doubt,
        "rows": rows,
    }


def main() -> None:
    """Print one JSON object; or, as a worker, be one of the two sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--code", type=Path, required=True, help="a checkout of the authors' repository")
    parser.add_argument("--python", type=Path, help="of an environment with transformers 4.54.1")
    parser.add_argument("--shape", default="small")
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--repeats", type=int, help="rounds that may be added; as many as --rounds without it")
    parser.add_argument("--worker", choices=["make", "ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker == "make":
        make(given.shape, given.folder)
    elif given.worker:
        sys.stdout = sys.stderr  # whatever is printed while a model is loaded
        serve(ours(given.folder) if given.worker == "ours" else theirs(given.folder, given.code))
    else:
        if given.python is None:
            parser.error("--python is needed")
        with tempfile.TemporaryDirectory() as folder:
            made = [sys.executable, __file__, "--worker", "make", "--code", str(given.code), "--shape", given.shape]
            subprocess.run([*made, "--folder", folder], check=True, env=threads_wait_passively())
            print(json.dumps(compare(given, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
