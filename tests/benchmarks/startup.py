"""What starting up costs: ``python tests/benchmarks/startup.py``.

``--help`` is measured against an empty Typer app, in turns, as processor seconds of whole processes. Of ``ask`` about
the demo clip, one process imports the libraries one after the other before it runs the command, and what remains of
the command beside loading and computing is our own. Those are seconds by the wall clock, as the record's stages are:
nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
ENTRY = "import sys\nfrom echopix_cli.cli.app import main\nsys.exit(main())\n"
EMPTY = """
import sys
import typer
app = typer.Typer({})

@app.command()
def main() -> None:
    "Nothing."

sys.exit(app())
"""
PLAIN = "rich_markup_mode=None, pretty_exceptions_enable=False"  # as our own
# The collector rests while libraries are imported, as it does in the command itself.
ASK = """
import contextlib, gc, io, json, sys, time
now, spent = time.perf_counter, {}
at = now()

def done(name):
    global at
    spent[name], at = now() - at, now()

gc.disable()
import torch; done("import torch")
gc.freeze()
gc.enable()
import av; done("import PyAV")
import typer; from pydantic import TypeAdapter; done("import typer and its pydantic")
sys.argv = ["echopix", "ask", *sys.argv[1:], "--json"]
shown = io.StringIO()
with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
    from echopix_cli.cli.app import main
    done("own: import")
    main()
done("own: command")
stages = json.loads(shown.getvalue())["latency_s"]
spent["load"], spent["decode to answer"] = stages["load"], stages["total"]
spent["own: command"] -= stages["load"] + stages["total"]
spent["own"] = spent["own: import"] + spent["own: command"]
print(json.dumps(spent))
"""


def environment(cache: str) -> dict[str, str]:
    """Bytecode is written and read, as it is of an installed package; the cache is given."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    own = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ECHOPIX_CACHE_DIR": cache}
    return {**kept, **own, "ECHOPIX_CONFIG": os.devnull}


def processor_seconds(command: Sequence[str], variables: dict[str, str]) -> float:
    """User and system time of one process."""
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def table(title: str, rows: dict[str, list[float]], base: str | None = None) -> None:
    """One row a measurement: median, lowest and highest, and the ratio of medians."""
    print(f"\n| {title} | median | lowest | highest |" + (" ratio |" if base else ""))
    print("| --- | ---: | ---: | ---: |" + (" ---: |" if base else ""))
    for name, values in rows.items():
        cells = [f"{1000 * value:.0f} ms" for value in (median(values), min(values), max(values))]
        cells += [f"{median(values) / median(rows[base]):.2f}"] if base else []
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--runs", type=int, default=9, help="of each --help")
    parser.add_argument("--ask-runs", type=int, default=3, help="of ask; seconds each")
    wanted = parser.parse_args()
    print(f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as folder:
        variables = environment(folder)
        scripts = {
            "empty app, help drawn by rich": EMPTY.format(""),
            "empty app, plain help": EMPTY.format(PLAIN),
            "echopix --help": ENTRY,
        }
        commands = {}
        for number, (name, code) in enumerate(scripts.items()):
            script = Path(folder) / f"entry_{number}.py"
            script.write_text(code)
            commands[name] = [sys.executable, str(script), "--help"]
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(wanted.runs + 1):  # the first writes the bytecode
            for name, command in commands.items():
                seconds = processor_seconds(command, variables)
                taken[name] += [seconds] if turn else []
        if wanted.runs:
            table("processor time", taken, "empty app, plain help")
        parts: dict[str, list[float]] = {}
        clip = str(ROOT / "echopix_cli" / "assets" / "demo.mp4")
        for _ in range(wanted.ask_runs):
            ask = [sys.executable, "-c", ASK, clip, "What instrument is playing?", "--model", "tiny", "--device", "cpu"]
            with tempfile.TemporaryDirectory() as cache:  # or the next run would find the clip's features
                ended = subprocess.run(ask, env=environment(cache), capture_output=True, text=True, check=True)
            for name, seconds in json.loads(ended.stdout.splitlines()[-1]).items():
                parts.setdefault(name, []).append(seconds)
        if parts:
            table("ask, wall time", parts)


if __name__ == "__main__":
    main()
