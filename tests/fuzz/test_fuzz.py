"""Damaged files through the command: an answer or a clean refusal each, and a harness that would notice otherwise.

``ECHOPIX_FUZZ=400`` tries so many instead of a few, ``ECHOPIX_FUZZ_SEED`` other ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside, whatever pytest's import mode
import harness
import mutate

from echopix_cli.media import load_clip

# Read now: no test sees the ECHOPIX_* variables.
COUNT = int(os.environ.get("ECHOPIX_FUZZ", "40"))
SEED = int(os.environ.get("ECHOPIX_FUZZ_SEED", "1"))
FULL = 300  # files from which on every damage has to have left something to answer, and something to refuse
MEMORY = 2 * 2**30  # bytes; the model and its libraries take a fifth of it


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is watched by way of /proc")
def test_damaged_files_end_in_an_answer_or_a_refusal(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    keep = tmp_path_factory.mktemp("fuzz")
    report = harness.run(COUNT, SEED, limit=60.0 if COUNT >= FULL else 20.0, memory=MEMORY, keep=keep)
    with capsys.disabled():
        print(f"\n{report}")
    assert len(report.endings) == COUNT
    assert not report.failures, f"{len(report.failures)} files, kept in {keep}:\n{report}"
    if COUNT >= 40:
        assert min(report.count(harness.ANSWERED), report.count(harness.REFUSED)) >= COUNT // 10


@pytest.mark.slow
def test_the_real_command_ends_as_in_the_harness(tmp_path: Path) -> None:
    """In a process of its own, with a model of its own: half a clip, whose index is missing."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(mutate.DEMO.read_bytes()[:30_000])
    environment = {**os.environ, "ECHOPIX_MAX_NEW_TOKENS": "1", "ECHOPIX_MAX_FRAMES": "4"}
    done = subprocess.run(
        [sys.executable, "-m", "echopix_cli", "ask", "-m", "tiny", path, "What is this?", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=environment,
    )
    reply = {"code": done.returncode, "out": done.stdout, "err": done.stderr}
    assert harness.judged(reply) == harness.REFUSED, reply


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "outcome"),
    [
        ("crash", "crashed (SIGSEGV)"),
        ("hang", "hung"),
        ("memory", "ran away with the memory"),
        ("traceback", "traceback"),
        ("chatter", "unclean answer"),
        ("0", "unclean answer"),
        ("1", "exit code 1"),
        ("4", "unclean refusal"),
    ],
)
def test_the_harness_notices(tmp_path: Path, sabotage: str, outcome: str) -> None:
    # Only what hangs may run into the limit, however busy the machine.
    limit = 1.0 if outcome == "hung" else 30.0
    worker = harness.Worker(limit=limit, memory=2**28, sabotage=sabotage)
    try:
        assert worker.ask(tmp_path).outcome == outcome
        assert worker.ask(tmp_path).outcome == outcome, "it was started again"
    finally:
        worker.close()


@pytest.fixture(scope="module")
def files() -> mutate.Originals:
    return mutate.originals()


def test_a_damaged_file_follows_from_its_numbers(files: mutate.Originals) -> None:
    assert files == mutate.originals(), "encoders and containers give the same bytes again"
    made = [mutate.mutant(5, index, files) for index in range(120)]
    assert made == [mutate.mutant(5, index, files) for index in range(120)]
    assert made != [mutate.mutant(6, index, files) for index in range(120)]
    changed = sum(file.data != files[file.recipe.partition(":")[0]] for file in made)
    assert changed > 100, "what is left as it was only had its name swapped"
    assert len({file.recipe.partition(": ")[2].partition(", ")[0] for file in made}) == len(mutate.MUTATIONS)
    assert {Path(file.recipe.partition(":")[0]).suffix for file in made} >= {".mp4", ".mkv", ".avi", ".ts", ".wav"}


def test_every_original_is_sound(files: mutate.Originals, tmp_path: Path) -> None:
    """Only what can be read undamaged is worth damaging."""
    found = {}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        clip = load_clip(tmp_path / name)
        assert not clip.notices, name
        found[name] = (clip.frames is not None, clip.waveform is not None)
    pictures = {name for name in files if name.startswith("picture")}
    sounds = {name for name in files if name.startswith("sound")}
    assert found == {name: (name not in sounds, name not in pictures) for name in files}
