"""From the file to the first token, on a minute of 720p: `python tests/benchmarks/pipeline.py [--shape small]`.

Compares towers beside decoding with towers after it, then measures every budget with `echopix bench` on the file.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from fractions import Fraction
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

import av
import numpy as np
import torch

from echopix_cli.cli.bench import bench_record
from echopix_cli.engine.engine import Engine
from echopix_cli.engine.loading import choose_device
from echopix_cli.engine.precision import precision_of
from echopix_cli.measure.bench import bench, random_engine
from echopix_cli.measure.profiling import spread_of
from echopix_cli.media import DecodePlan, load_clip
from echopix_cli.model.shapes import SHAPES


def write_film(path: Path, seconds: float, rate: int = 30) -> None:
    """Drifting colours under noise in 720p H.264, and a chord in AAC."""
    height, width = 720, 1280
    source = np.random.default_rng(0)
    grain = source.integers(0, 24, (height, 2 * width, 3), np.uint8)
    whole = grain + np.linspace(0, 230, 2 * width, dtype=np.uint8)[None, :, None]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "28", "g": "250"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=48_000, layout="stereo")
        for number in range(round(seconds * rate)):
            shift = number * 3 % width
            picture = whole[:, shift : shift + width]
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))
        times = np.arange(round(seconds * 48_000)) / 48_000
        chord = sum(np.sin(2 * np.pi * pitch * times) for pitch in (220.0, 277.2, 329.6)).astype(np.float32) / 8
        for begin in range(0, len(chord), 1024):
            block = np.stack([chord[begin : begin + 1024]] * 2)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, begin, Fraction(1, 48_000)
            container.mux(audio.encode(frame))
        container.mux(video.encode())
        container.mux(audio.encode())


def overlap(engine: Engine, film: str, trials: int) -> dict[str, dict[str, float]]:
    """Seconds of decoding and towers, one beside the other and one after the other, turn by turn."""
    plan = engine.plan(DecodePlan())
    spent: dict[str, list[float]] = {"beside": [], "after": []}
    for trial in range(trials + 1):
        for name, run in (
            ("beside", lambda: engine.read(film, plan)),
            ("after", lambda: engine.encode(load_clip(film, plan))),
        ):
            began = time.perf_counter()
            run()
            if engine.device.type == "cuda":
                torch.cuda.synchronize()
            if trial:
                spent[name].append(time.perf_counter() - began)
    return {name: vars(spread_of(seconds)) for name, seconds in spent.items()}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = choose_device(given.device)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        write_film(film, given.seconds)
        engine = random_engine(SHAPES[given.shape], device, precision_of("auto", device), "none")
        found = {"overlap": overlap(engine, str(film), given.trials)}
        result = bench(engine, (1.0, 0.2, 0.1, 0.05), shape=given.shape, media=str(film), trials=given.trials)
        print(json.dumps(found | {"bench": bench_record(result)}, indent=1))


if __name__ == "__main__":
    main()
