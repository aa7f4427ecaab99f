"""Time and memory against a film's length: ``python tests/benchmarks/films.py FILE OUT --end 10:00 --end 2:00:00``.

Of one long file more and more is read, each time from an empty cache; then another question is asked about the same,
whose features are kept. Seconds by the wall clock and of processors are of the whole command with all of its processes;
memory is the highest resident size of the command's own process and, apart, of the largest other one, which decodes.
Both are looked at ten times a second. Nothing else should run. OUT gets ``films.json``, ``films.md`` and, with
matplotlib, ``films.svg``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from echopix_cli.times import clock, parse_time

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = ("What instrument is playing?", "What is on the screen when the piano plays?")
TICKS = os.sysconf("SC_CLK_TCK")


def look(session: int) -> dict[int, tuple[float, float]]:
    """Of every process of a session its processor seconds and highest resident size in MiB, as far as it still runs."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                peak = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
                found[int(folder.name)] = (int(fields[11]) + int(fields[12])) / TICKS, int(peak.split()[1]) / 1024
        except (OSError, StopIteration):  # it has ended
            continue
    return found


def ask(file: Path, end: str, question: str, cache: str, model: str) -> dict[str, Any]:
    """One run of the command."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ECHOPIX_CACHE_DIR": cache, "ECHOPIX_CACHE_SIZE": "20GB"}
    command = [
        sys.executable,
        "-m",
        "echopix_cli",
        "ask",
        str(file),
        question,
        "--end",
        end,
        "--model",
        model,
        "--json",
    ]
    seen: dict[int, tuple[float, float]] = {}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        running = subprocess.Popen(
            command, env=environment, stdout=said, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        while running.poll() is None:
            seen |= look(running.pid)
            time.sleep(0.1)
        wall = time.perf_counter() - began
        if running.returncode:
            sys.exit(f"{' '.join(command)} ended with {running.returncode}")
        said.seek(0)
        record = json.load(said)
    return {
        "wall_s": wall,
        "cpu_s": sum(seconds for seconds, _ in seen.values()),
        "own_mib": seen[running.pid][1],
        "decoder_mib": max((peak for process, (_, peak) in seen.items() if process != running.pid), default=0.0),
        "latency_s": record["latency_s"],
        "film": record["film"],
        "audio": record["audio"],
        "sampling": record["sampling"],
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        "| length | windows | first question, s | times as fast as it plays | its CPU s | second, s | its CPU s | "
        "first over second | own process, MiB | decoding process, MiB | kept features, MB |",
        "| --- |" + " ---: |" * 10,
    ]
    for row in rows:
        first, second = row["first"], row["second"]
        lines.append(
            f"| {clock(row['seconds'])} | {first['film']['windows'] if first['film'] else 1} | {first['wall_s']:.1f} | "
            f"{row['seconds'] / first['wall_s']:.0f} | {first['cpu_s']:.1f} | {second['wall_s']:.1f} | "
            f"{second['cpu_s']:.1f} | {first['wall_s'] / second['wall_s']:.1f} | {first['own_mib']:.0f} | "
            f"{first['decoder_mib']:.0f} | {row['cache_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Time of both questions, and memory of both processes, against minutes of film."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    minutes = [row["seconds"] / 60 for row in rows]
    figure, (spent, memory) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, color, marker in (("first", "#0072B2", "o"), ("second", "#E69F00", "^")):
        spent.plot(minutes, [row[name]["wall_s"] for row in rows], color=color, marker=marker, label=f"{name} question")
    spent.plot(
        minutes, [60 * value / 40 for value in minutes], color="#666666", ls=":", label="40 × as fast as it plays"
    )
    spent.set(xlabel="minutes of film", ylabel="seconds, whole command", xlim=(0, None))
    for name, color, marker in (("own", "#0072B2", "o"), ("decoder", "#D55E00", "v")):
        label = "own process" if name == "own" else "decoding process"
        values = [row["first"][f"{name}_mib"] for row in rows]
        memory.plot(minutes, values, color=color, marker=marker, label=label)
    memory.set(xlabel="minutes of film", ylabel="highest resident size, MiB", xlim=(0, None))
    for axes in (spent, memory):
        axes.set_ylim(0, 1.05 * max(float(line.get_ydata().max()) for line in axes.lines))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="a long film")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder, made where it is missing")
    parser.add_argument("--end", action="append", required=True, help="how much of it; repeat for more")
    parser.add_argument("--model", default="tiny")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for end in sorted(chosen.end, key=parse_time):
        with tempfile.TemporaryDirectory() as cache:
            first, second = (ask(chosen.file, end, question, cache, chosen.model) for question in QUESTIONS)
            kept = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file())
        row = {"seconds": parse_time(end), "first": first, "second": second, "cache_mb": kept / 1e6}
        rows.append(row)
        (chosen.out / "films.json").write_text(json.dumps(rows, indent=1) + "\n")
        (chosen.out / "films.md").write_text(markdown(rows))
        print(markdown(rows).splitlines()[-1], flush=True)
    try:
        draw(rows, chosen.out / "films.svg")
    except ImportError:
        print("no plot: pip install 'echopix[plot]'", file=sys.stderr)


if __name__ == "__main__":
    main()
