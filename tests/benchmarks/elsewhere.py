"""What decoding in a process of its own costs: ``python tests/benchmarks/elsewhere.py``.

A minute of 720p with sound, and a picture, are decoded here and by a worker, turn by turn; times are by the wall clock
from asking to the whole clip, arrays included. Then a worker decodes the same film again and again, and its memory,
threads and descriptors are counted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from pipeline import write_film

from echopix_cli.decoding.worker import Worker
from echopix_cli.media import DecodePlan, load_clip


def seconds(run: Callable[[], object]) -> float:
    """How long a call took."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def held(pid: int) -> dict[str, int]:
    """Resident MiB, threads and descriptors of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "MiB": int(status["VmRSS"].split()[0]) // 1024,
        "threads": int(status["Threads"]),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
    }


def main() -> None:
    """Print a table a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of film")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--soak", type=int, default=100, help="times that one worker decodes the film's first seconds")
    parser.add_argument("--frames", type=int, default=120)
    given = parser.parse_args()
    plan = DecodePlan(max_frames=given.frames)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        write_film(film, given.seconds)
        worker = Worker()
        ways: dict[str, Callable[[], object]] = {
            "here": lambda: load_clip(film, plan),
            "elsewhere": lambda: worker.decode(str(film), plan),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(given.rounds + 1):
            for name in list(ways)[:: 1 if turn % 2 else -1]:
                spent = seconds(ways[name])
                taken[name] += [spent] if turn else []
        pairs = [there / here for here, there in zip(taken["here"], taken["elsewhere"], strict=True)]
        for name, values in taken.items():
            print(f"{name:10} median {median(values):.3f} s, lowest {min(values):.3f} s")
        print(f"elsewhere / here, pair by pair: median {median(pairs):.3f}, of the lowest "
              f"{min(taken['elsewhere']) / min(taken['here']):.3f}")  # fmt: skip
        part = DecodePlan(max_frames=8, end=4.0)
        for turn in range(given.soak + 1):
            worker.decode(str(film), part)
            if turn in (5, given.soak // 2, given.soak) and worker._pid is not None:
                time.sleep(0.3)  # it tidies up after its reply
                print(f"after {turn} files: {held(worker._pid)}")
        worker.close()


if __name__ == "__main__":
    main()
