"""What a server spares: ``python tests/benchmarks/serving.py``.

Whole processes of ``echopix ask`` about the bundled clip, with a server and without one, in turns: seconds by the wall
clock, and of the processor in the asking process and its children. Then a loop over copies of the clip, which are all
decoded and encoded. The server is begun for this alone and ended afterwards. Bytecode is written and read, as it is
of an installed package. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "What instrument is playing?"


def asked(environment: Mapping[str, str], *arguments: str) -> tuple[float, float]:
    """Seconds by the wall clock and of the processor that one command took."""
    before, began = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "echopix_cli", "ask", *arguments, "--model", "tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - began, os.times()
    assert "piano" in done.stdout, done.stdout
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return wall, spent


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = quantiles(values, n=4)
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def measured(folder: Path, runs: int, clips: int) -> dict[str, object]:
    """Everything, with a server in a folder of its own."""
    folder.chmod(0o700)
    own = {"XDG_RUNTIME_DIR": str(folder), "ECHOPIX_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    bytecode = {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "ECHOPIX_CONFIG": os.devnull, "HF_HUB_OFFLINE": "1", **own, **bytecode}
    server = subprocess.Popen([sys.executable, "-m", "echopix_cli", "serve", "--model", "tiny", "-q"], env=environment)
    try:
        while not list(folder.glob("echopix/*.sock")):
            time.sleep(0.1)
        ways = {"server": ("--server",), "alone": ("--no-server",)}
        for way in ways.values():
            asked(environment, "demo", "--json", *way)  # features are kept, files are in memory
        wall: dict[str, list[float]] = {name: [] for name in ways}
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(runs):
            for name in sorted(ways, reverse=bool(number % 2)):
                seconds, processor = asked(environment, "demo", "--json", *ways[name])
                wall[name].append(seconds)
                spent[name].append(processor)
        copies = [folder / f"clip-{number}.mp4" for number in range(clips)]
        for copy in copies:
            shutil.copy(ROOT / "echopix_cli" / "assets" / "demo.mp4", copy)
        loops = {}
        for name, way in ways.items():
            began = time.perf_counter()
            for copy in copies:
                asked(environment, str(copy), QUESTION, "-q", "--no-cache", *way)
            loops[name] = round(time.perf_counter() - began, 1)
    finally:
        server.terminate()
        server.wait()
    ratios = [alone / served for alone, served in zip(wall["alone"], wall["server"], strict=True)]
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        "runs": runs,
        "wall_s": {name: spread(values) for name, values in wall.items()},
        "processor_s": {name: spread(values) for name, values in spent.items()},
        "times_faster": round(median(ratios), 1),
        "loop_clips": clips,
        "loop_s": loops,
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--clips", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder), chosen.runs, chosen.clips), indent=1))


if __name__ == "__main__":
    main()
