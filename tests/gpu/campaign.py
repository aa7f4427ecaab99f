"""What is to be known of a GPU, in nine minutes: ``python tests/gpu/campaign.py OUT [--site carried.tar.xz]``.

Parts run one after the other, the most important first, each in a process of its own that is ended at its limit.
Each writes OUT/NAME.json anew after every measurement, so that a run cut short leaves what it had. Weights are random,
in the true shapes of the 3B and the 7B. ``--device cpu --shape tiny`` goes the same way without a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Name → seconds it may take. The order is that of their worth.
PARTS = {
    "correct": 70.0,
    "speed-3b": 120.0,
    "tokens-3b": 60.0,
    "memory-3b": 90.0,
    "batch-3b": 70.0,
    "films-3b": 90.0,
    "speed-7b": 80.0,
    "way-7b": 80.0,
    "tests": 90.0,
    "memory-7b": 150.0,
}


@dataclass(frozen=True)
class Given:
    """What a part is run with: its folder for results, one for large files that later parts read, device, sizes."""

    out: Path
    work: Path
    device: str
    shape: str | None

    def sizes(self, part: str) -> str:
        """The shape that a part's name ends in, or the one asked for."""
        return self.shape or f"qwen2.5-omni-{part.rpartition('-')[2]}"


class Findings:
    """One part's results, written whole after each addition."""

    def __init__(self, path: Path) -> None:
        self._path, self._found = path, dict[str, Any]()

    def add(self, **found: Any) -> None:
        self._found |= found
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._found, indent=1, default=str) + "\n", encoding="utf-8")
        partial.replace(self._path)


def machine(device: str) -> dict[str, Any]:
    """Device, driver and versions."""
    from importlib.metadata import version

    import torch

    names = ("torch", "transformers", "bitsandbytes", "av", "accelerate")
    facts: dict[str, Any] = {name: version(name) for name in names} | {"python": sys.version.split()[0]}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "device": properties.name,
            "memory_bytes": properties.total_memory,
            "capability": torch.cuda.get_device_capability(),
            "cuda": torch.version.cuda,
            "sdpa_order": str(getattr(torch._C, "_get_sdp_priority_order", list)()),
        }
    return facts | {"device": facts.get("device", device), "date": time.strftime("%Y-%m-%d")}


def run_part(name: str, given: Given) -> None:
    """One part in this process."""
    import campaign_films
    import campaign_parts

    findings = Findings(given.out / f"{name}.json")
    findings.add(machine=machine(given.device))
    began = time.perf_counter()
    (vars(campaign_parts) | vars(campaign_films))[name.split("-")[0]](name, given, findings)
    findings.add(finished=True, seconds=round(time.perf_counter() - began, 1))


def run_apart(name: str, given: Given, seconds: float) -> str:
    """One part in a process of its own, forked from this one, which has imported everything and touched no device."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()  # what it starts is ended with it
            log = os.open(given.out / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            run_part(name, given)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return "ok" if code == 0 else f"exit {code}"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"stopped after {seconds:.0f} s"


def film(given: Given) -> subprocess.Popen[bytes]:
    """Begin writing the film of later parts beside the first ones: it needs processors only."""
    code = f"import sys; sys.path[:0] = [{str(HERE.parent / 'benchmarks')!r}, {str(ROOT)!r}]; import pipeline as p"
    path, seconds = given.work / "film.mp4", 60 if given.device == "cuda" else 1
    code += f"; from pathlib import Path; p.write_film(Path({str(path)!r} + '.partial.mp4'), {seconds})"
    code += f"; Path({str(path)!r} + '.partial.mp4').rename({str(path)!r})"
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})


def unpack(site: Path, work: Path) -> None:
    """Put the carried packages before all others, for this process's children."""
    target = work / "site"
    with tarfile.open(site) as archive:
        archive.extractall(target, filter="data")
    reach(target)


def reach(*folders: Path) -> None:
    """Let this process and its children import from folders, before all others."""
    names = [str(folder) for folder in folders]
    sys.path[:0] = names
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (*names, os.environ.get("PYTHONPATH"))))


def campaign(given: Given, parts: list[str], seconds: float) -> dict[str, str]:
    """Run parts within ``seconds`` in all; how each ended."""
    ended = dict[str, str]()
    os.environ["ECHOPIX_CACHE_DIR"] = str(given.work / "cache")
    writer = film(given)
    try:
        importlib.import_module("campaign_films")  # and the other parts with it, once for all
        end = time.monotonic() + seconds
        for name in parts:
            slack = 1 if given.device == "cuda" else 10  # a CPU starts slowly where other work is at hand
            left = min(PARTS[name] * slack, end - time.monotonic())
            if left < 5:
                ended[name] = "no time left"
                continue
            began = time.monotonic()
            ended[name] = run_apart(name, given, left)
            last = (given.out / f"{name}.log").read_text(errors="replace").strip().splitlines()[-3:]
            print(f"{name}: {ended[name]} ({time.monotonic() - began:.0f} s)", *last, sep="\n  ", flush=True)
            (given.out / "ended.json").write_text(json.dumps(ended, indent=1))
    finally:
        (given.out / "ended.json").write_text(json.dumps(ended, indent=1))
        writer.kill()
        writer.wait()
    return ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--site", type=Path, help="packages that this machine lacks, from pack.py")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in which order")
    parser.add_argument("--seconds", type=float, default=540.0, help="for all of them")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--shape", help="in place of the 3B and the 7B")
    parser.add_argument("--work", type=Path, help="for large files; a temporary folder that is removed otherwise")
    said = parser.parse_args()
    said.out.mkdir(parents=True, exist_ok=True)
    work = said.work or Path(tempfile.mkdtemp(prefix="campaign-"))
    given = Given(said.out.resolve(), work, said.device, said.shape)
    try:
        if said.site:
            unpack(said.site, work)
        reach(ROOT, HERE, HERE.parent)
        ended = campaign(given, said.parts.split(","), said.seconds)
    finally:
        if not said.work:
            shutil.rmtree(work, ignore_errors=True)
    sys.exit(0 if set(ended.values()) == {"ok"} else 1)


if __name__ == "__main__":
    main()
