"""Batches killed at random moments, many times, and one that runs for long.

By default few kills and items, so that the suite stays quick. ``ECHOPIX_KILLS=60 ECHOPIX_ITEMS=1000`` is the full run;
``pytest -s`` shows its tallies.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import wave
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_files import free_box, records_of
from waiting import wait_until

from echopix_cli.batch.journal import Journal

KILLS = int(os.environ.get("ECHOPIX_KILLS", "2"))
ITEMS = int(os.environ.get("ECHOPIX_ITEMS", "60"))
QUESTIONS = ("What instrument is playing?", "What do you see?")
ARGUMENTS = ("-Q", QUESTIONS[0], "-Q", QUESTIONS[1])


def whole_records(path: Path) -> list[dict[str, Any]]:
    """Records of a file whose last line may be torn."""
    content = path.read_bytes()
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def answered(records: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter((record["media"], record["question"]) for record in records if "error" not in record)


@pytest.fixture
def folder(clips: dict[str, Path], tmp_path: Path) -> Path:
    """Twelve files, most of them the same content, three their own, and one that always fails."""
    made = tmp_path / "media"
    made.mkdir()
    for number in range(9):
        os.link(clips["dark"], made / f"{number:02}.m4a")
    for number in range(9, 12):
        (made / f"{number}.mp4").write_bytes(clips["both"].read_bytes() + free_box(number))
    (made / "05-bad.mp4").write_text("no media\n" * 9)
    return made


def expected(folder: Path) -> set[tuple[str, str]]:
    return {(str(file), question) for file in folder.iterdir() for question in QUESTIONS}


def check(out: Path, folder: Path) -> None:
    """Everything was asked, once."""
    records = records_of(out)
    assert Counter((record["media"], record["question"]) for record in records) == Counter(expected(folder))
    assert {record["media"] for record in records if "error" in record} == {str(folder / "05-bad.mp4")}


class Chain:
    """One output file after another, each written by batches that are killed until one comes to its end."""

    def __init__(self, spawn: Any, folder: Path, place: Path, seed: int) -> None:
        self.spawn, self.folder, self.place = spawn, folder, place
        self.random = random.Random(seed)
        self.kills = self.finished = self.torn = 0
        self.cuts: list[int] = []
        place.mkdir()

    @property
    def out(self) -> Path:
        return self.place / f"{self.finished}.jsonl"

    def run(self, kills: int) -> Chain:
        """The last output file is left as the last kill left it."""
        while self.kills < kills:
            if self.one(self.out):
                check(self.out, self.folder)
                self.finished += 1
        return self

    def one(self, out: Path) -> bool:
        """Start a batch and kill it some time after its first answer; whether it came to its end before that."""
        before = whole_records(out) if out.exists() else []
        with self.spawn(self.folder, *ARGUMENTS, "-o", out) as batch:
            wait_until(
                lambda: batch.poll() is not None or (out.exists() and answered(whole_records(out)) != answered(before))
            )
            try:
                batch.wait(self.random.expovariate(1 / 0.3))
            except subprocess.TimeoutExpired:
                batch.kill()
            stderr = batch.communicate()[1]
        assert "Traceback" not in stderr
        if batch.returncode != -signal.SIGKILL:
            assert batch.returncode == 1, stderr  # one file is bad
            assert "2 failed" in stderr.splitlines()[-1]
            return True
        self.kills += 1
        after = whole_records(out)
        self.cuts.append(len(after))
        self.torn += not out.read_bytes().endswith(b"\n")
        assert max(answered(after).values(), default=1) == 1
        assert not answered(before) - answered(after)  # nothing is lost
        return False


@pytest.mark.slow
def test_killed_at_random_moments_a_batch_loses_and_repeats_nothing(ask, spawn, folder: Path, tmp_path: Path) -> None:
    shares = [KILLS - KILLS // 2, KILLS // 2]  # side by side, as machines have more than one processor
    chains = [Chain(spawn, folder, tmp_path / f"chain{seed}", seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(Chain.run, chains, shares))
    for chain in chains:
        before = sum(answered(whole_records(chain.out)).values()) if chain.out.exists() else 0
        ran = ask(folder, *ARGUMENTS, "-o", chain.out)
        said = f", {before} before" if before else ""
        last = ran.err.splitlines()[-1].partition(";")[0]  # what was not kept of them follows
        assert (ran.code, last) == (1, f"note: {24 - before} answered, 2 failed{said}")
        check(chain.out, folder)
        chain.finished += 1
    kills = sum(chain.kills for chain in chains)
    assert kills == KILLS
    cuts = sorted(cut for chain in chains for cut in chain.cuts)
    print(
        f"\n{kills} kills with {cuts} lines written, {sum(chain.torn for chain in chains)} lines torn, "
        f"{sum(chain.finished for chain in chains)} files finished, each with {len(expected(folder))} tasks once"
    )


JOURNAL = """
import sys, itertools
from pathlib import Path
from echopix_cli.batch.journal import Journal
from echopix_cli.batch.tasks import Task
failed = Task("failed.mp4", "q")
def record(number, **end):
    media = "failed.mp4" if end else "m" * 300
    return {"schema_version": 1, "id": None if end else number, "key": "key", "file": None, "media": media,
            "question": "q", **end}
print(flush=True)
number = int(sys.argv[2])
while True:
    journal = Journal(Path(sys.argv[1]), [failed])
    journal.begin()
    for _ in range(3):
        journal.append(record(number))
        number += 1
    journal.append(record(0, error={}))
    journal.close()
"""


@pytest.mark.slow
def test_killed_while_it_rewrites_itself_the_output_file_loses_nothing(tmp_path: Path) -> None:
    """As above, with hardly anything between the writes: every second kill finds a file being replaced."""
    out, chance = tmp_path / "out.jsonl", random.Random(3)
    lines = replacing = torn = 0
    for _ in range(KILLS * 4):
        command = [sys.executable, "-c", JOURNAL, str(out), str(lines)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
            assert writer.stdout is not None and writer.stderr is not None
            writer.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.1))
            writer.kill()
            assert writer.stderr.read() == b""
        if not out.exists():
            continue
        records = whole_records(out)
        numbers = [record["id"] for record in records if "error" not in record]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= lines
        assert sum("error" in record for record in records) <= 1
        lines = len(numbers)
        replacing += (tmp_path / ".out.jsonl.part").exists()
        torn += not out.read_bytes().endswith(b"\n")
    assert lines > KILLS
    journal = Journal(out)
    journal.begin()
    journal.close()
    assert len(records_of(out)) >= lines
    print(f"\n{KILLS * 4} kills, {replacing} while the file was being replaced, {torn} lines torn, {lines} lines kept")


def resident() -> int:
    """Memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_memory_and_descriptors_stay_flat(ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every clip is 2 MB of sound; to hold on to them would show."""
    media = tmp_path / "media"
    media.mkdir()
    sound = np.random.default_rng(0).integers(-3000, 3000, 16000 * 30, dtype=np.int16)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(sound.tobytes())
    for number in range(ITEMS):
        os.link(tmp_path / "sound.wav", media / f"{number:05}.wav")
    seen: list[tuple[int, int]] = []
    append = Journal.append

    def appending(self: Journal, record: dict[str, Any]) -> None:
        append(self, record)
        seen.append((resident(), len(os.listdir("/proc/self/fd"))))

    monkeypatch.setattr(Journal, "append", appending)
    out = tmp_path / "out.jsonl"
    ran = ask(media, "What?", "-o", out)
    assert (ran.code, ran.err) == (0, f"note: {ITEMS} answered, 0 failed\n")
    assert len(records_of(out)) == ITEMS
    warm = ITEMS // 3
    memory = [rss / 2**20 for rss, _ in seen]
    descriptors = [count for _, count in seen]
    print(
        f"\n{ITEMS} items: resident {memory[warm]:.1f} MiB after {warm}, {memory[-1]:.1f} at the end, "
        f"at most {max(memory[warm:]):.1f}; {descriptors[warm]} descriptors, {descriptors[-1]} at the end, "
        f"at most {max(descriptors)}"
    )
    assert max(memory[warm:]) - memory[warm] < 24  # MiB; the clips of the last 40 of 60 items are 76
    assert max(descriptors[warm:]) <= descriptors[warm] + 2
