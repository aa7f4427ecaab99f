"""Asks the command about damaged files, one after the other, and counts how that ends.

    python tests/fuzz/harness.py --count 400 --seed 1

A worker process loads the model once and then runs ``echopix ask FILE QUESTION --json`` for every file, through
the command's own entrance; it is started again when it dies. Each file must end in an answer (one JSON object, exit
code 0) or a refusal (no output, one clear error, exit code 4), in time and without much memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from mutate import ROOT, Mutant, mutant, originals

QUESTION = "What instrument is playing?"
ANSWERED, REFUSED = "answered", "refused"
CONTAINED = "refused, for it crashed its decoder"  # which is a process of its own: good, and worth knowing
GOOD = (ANSWERED, REFUSED, CONTAINED)
_START = 120.0  # seconds that loading the model may take
_LIFETIME = 250  # files after which a worker is replaced, so that a slow leak of one run does not blame a file
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Small frames and short answers: what is tried here is reading, not the model.
_SETTINGS = {
    "ECHOPIX_CACHE": "false",
    "ECHOPIX_MODEL": "tiny",
    "ECHOPIX_DEVICE": "cpu",
    "ECHOPIX_MAX_NEW_TOKENS": "1",
    "ECHOPIX_MAX_FRAMES": "8",
    "ECHOPIX_MAX_PIXELS": "12544",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Ending:
    """How one file ended: an outcome, what was said, seconds, and the largest resident bytes meanwhile."""

    outcome: str
    said: str
    seconds: float
    peak: int


@dataclass
class Report:
    """All endings of a run."""

    seed: int
    endings: list[tuple[Mutant, Ending]] = field(default_factory=list)

    @property
    def failures(self) -> list[tuple[Mutant, Ending]]:
        """Those that are neither an answer nor a refusal."""
        return [(file, end) for file, end in self.endings if end.outcome not in GOOD]

    def count(self, outcome: str) -> int:
        """How many ended so."""
        return sum(end.outcome == outcome for _, end in self.endings)

    def __str__(self) -> str:
        lines = [f"{len(self.endings)} damaged files, seed {self.seed}"]
        for outcome, number in Counter(end.outcome for _, end in self.endings).most_common():
            lines.append(f"  {number:5}  {outcome}")
        table: dict[str, Counter[str]] = {}
        for file, end in self.endings:
            first = file.recipe.partition(": ")[2].partition(", ")[0].removesuffix(" too")
            table.setdefault(first, Counter())[end.outcome if end.outcome in GOOD else "failed"] += 1
        lines.append(f"  {'by first damage':20} {'answered':>9} {'refused':>9} {'failed':>9}")
        for first, ends in sorted(table.items()):
            lines.append(f"  {first:20} {ends[ANSWERED]:9} {ends[REFUSED]:9} {ends['failed']:9}")
        if self.endings:
            slow, slowest = max(self.endings, key=lambda pair: pair[1].seconds)
            fat, fattest = max(self.endings, key=lambda pair: pair[1].peak)
            lines.append(f"  slowest: {slowest.seconds:.2f} s, {slow.name} ({slow.recipe})")
            lines.append(f"  largest: {fattest.peak / 2**20:.0f} MiB resident, {fat.name} ({fat.recipe})")
        for file, end in self.failures:
            index = int(file.name[:5])
            lines.append(f"  {end.outcome}: python tests/fuzz/mutate.py {self.seed} {index} FOLDER  # {file.recipe}")
            lines += [f"      {line}" for line in end.said.splitlines()[-12:]]
        return "\n".join(lines)


class Worker:
    """The process that answers; started when it is needed.

    Args:
        limit: seconds per file.
        memory: resident bytes at which the process is ended.
        sabotage: for tests of the harness, what to do instead of answering; ``plain`` is the command as it is.
        settings: environment variables of the process.
        code: that a refusal ends with.
    """

    def __init__(
        self, limit: float, memory: int, sabotage: str = "", settings: dict[str, str] | None = None, code: int = 4
    ) -> None:
        self.limit, self.memory, self.sabotage = limit, memory, sabotage
        self._settings, self._code = settings or {}, code
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0

    def ask(self, wanted: Path | list[str]) -> Ending:
        """One file through ``echopix ask``, or a command of the program by its arguments."""
        process = self._started()
        assert process.stdin is not None
        begun = time.monotonic()
        arguments = wanted if isinstance(wanted, list) else ["ask", str(wanted), QUESTION, "--json"]
        process.stdin.write(json.dumps(arguments).encode() + b"\n")
        process.stdin.flush()
        reply, peak = self._reply(process, begun + self.limit)
        seconds = time.monotonic() - begun
        self._served += 1
        if isinstance(reply, str):
            self.close()
            return Ending(reply, "", seconds, peak)
        return Ending(judged(reply, self._code), reply["err"] or reply["out"], seconds, peak)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._served >= _LIFETIME:
            self.close()
        if self._process is None:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("ECHOPIX_")}
            environment |= {**_SETTINGS, "ECHOPIX_CONFIG": os.devnull, "PYTHONPATH": str(ROOT)}
            environment |= self._settings
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--worker", self.sabotage],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                cwd=ROOT,
            )
            self._served = 0
            ready, _ = self._reply(self._process, time.monotonic() + _START)
            if ready != {}:
                raise RuntimeError(f"the worker did not start: {ready}")
        return self._process

    def _reply(self, process: subprocess.Popen[bytes], deadline: float) -> tuple[dict[str, Any] | str, int]:
        """What the worker says, or what became of it; and its largest resident size in bytes meanwhile."""
        assert process.stdout is not None
        peak = 0
        while True:
            readable, _, _ = select.select([process.stdout], [], [], 0.02)
            peak = max(peak, *map(_resident, _family(process.pid)))
            if readable:
                line = process.stdout.readline()
                if line:
                    return json.loads(line), peak
                code = process.wait()
                return f"crashed ({signal.Signals(-code).name if code < 0 else f'exit {code}'})", peak
            if peak > self.memory:
                return "ran away with the memory", peak
            if time.monotonic() > deadline:
                return "hung", peak


def _family(pid: int) -> Iterator[int]:
    """A process and all that it has started: files are decoded in one of those."""
    yield pid
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                yield from _family(int(child))


def _resident(pid: int) -> int:
    """Bytes; 0 of a process that has ended meanwhile."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def judged(reply: dict[str, Any], refusal: int = 4) -> str:
    """The outcome of a command that came to an end by itself: streams and exit code have to agree.

    Args:
        reply: the worker's.
        refusal: the exit code of a refusal.
    """
    code, out, err = reply["code"], reply["out"], reply["err"]
    told = [line for line in err.splitlines() if not line.startswith("note: ")]  # those stand beside either
    if "Traceback" in out + err:
        return "traceback"
    if code == 0:
        try:
            (record,) = [json.loads(line) for line in out.splitlines()]
            clean = record["schema_version"] == 1 and isinstance(record.get("answer", record.get("name")), str)
            clean = clean and not told
        except (ValueError, KeyError, TypeError):
            clean = False
        return ANSWERED if clean else "unclean answer"
    if code == refusal:
        clean = not out and 1 <= len(told) <= 3 and told[0].startswith("error:")
        if not clean:
            return "unclean refusal"
        return CONTAINED if "the decoder crashed" in err else REFUSED
    return f"exit code {code}"


def run(
    count: int, seed: int, *, limit: float, memory: int, extra: Path | None = None, keep: Path | None = None
) -> Report:
    """Try the first ``count`` damaged files of a seed.

    Args:
        limit: seconds per file.
        memory: resident bytes that the worker may reach.
        extra: a folder of more originals.
        keep: a folder for the files that failed.
    """
    report, files = Report(seed), originals(extra)
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(limit, memory)
        try:
            for index in range(count):
                made = mutant(seed, index, files)
                path = Path(folder) / made.name
                path.write_bytes(made.data)
                report.endings.append((made, worker.ask(path)))
                if report.endings[-1][1].outcome not in GOOD and keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / made.name).write_bytes(made.data)
                path.unlink()
        finally:
            worker.close()
    return report


# The worker's side.


def serve(sabotage: str) -> None:
    """Read paths as JSON, a line each, and answer with exit code and streams."""
    control = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    main = _command(loaded=sabotage != "plain") if sabotage in ("", "plain") else _sabotaged(sabotage)
    with _Stream(1) as out, _Stream(2) as err:  # the descriptors, so that what C code writes is caught as well
        print(json.dumps({}), file=control, flush=True)
        for request in requests:
            sys.argv = ["echopix", *json.loads(request)]
            code: object = 0
            try:
                main()
            except SystemExit as left:
                code = left.code or 0
            reply = {"code": int(str(code)), "out": out.take(), "err": err.take()}
            print(json.dumps(reply), file=control, flush=True)


class _Stream:
    """A descriptor that writes to a file, whose content can be taken."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._file = descriptor, tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> _Stream:
        os.dup2(self._file.fileno(), self._descriptor)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def take(self) -> str:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self._file.seek(0)
        text = self._file.read().decode(errors="replace")
        self._file.seek(0)
        self._file.truncate()
        return text


def _command(loaded: bool) -> Callable[[], object]:
    """The program's entrance, all of it as on a terminal's command line.

    Args:
        loaded: whether one model is loaded once and for all.
    """
    from echopix_cli.cli.app import main
    from echopix_cli.decoding.nursery import warm_up

    warm_up()  # as the command does; or the first file would be charged for it
    from echopix_cli.engine import Engine

    if loaded:
        model = Engine.load("tiny", "cpu")
        Engine.load = staticmethod(lambda *arguments, **options: model)  # type: ignore[assignment]
    return main


def _sabotaged(how: str) -> Callable[[], object]:
    """Ways to fail, for the harness's own tests."""

    def fail() -> None:
        match how:
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                time.sleep(1000)
            case "memory":
                held = []
                while True:
                    held.append(b"x" * 2**24)
                    time.sleep(0.005)
            case "traceback":
                print("Traceback (most recent call last):", file=sys.stderr)
                sys.exit(4)
            case "chatter":
                os.write(2, b"[mov] moov atom not found\n")
                print('{"schema_version": 1, "answer": "x"}')
                sys.exit(0)
            case _:
                sys.exit(int(how))

    return fail


def _options() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "--count", {"type": int, "default": 400, "help": "files to try"}
    yield "--seed", {"type": int, "default": 1, "help": "which files"}
    yield "--limit", {"type": float, "default": 60.0, "help": "seconds per file"}
    yield "--memory", {"type": float, "default": 3.0, "help": "GiB that the worker may reach"}
    yield "--extra", {"type": Path, "help": "folder with more originals"}
    yield "--keep", {"type": Path, "help": "folder for the files that failed"}


def _main() -> int:
    parser = argparse.ArgumentParser(description="Ask about damaged files and count how that ends.")
    for name, settings in _options():
        parser.add_argument(name, **settings)
    wanted = parser.parse_args()
    report = run(
        wanted.count,
        wanted.seed,
        limit=wanted.limit,
        memory=int(wanted.memory * 2**30),
        extra=wanted.extra,
        keep=wanted.keep,
    )
    print(report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        serve(sys.argv[2])
    else:
        sys.exit(_main())
