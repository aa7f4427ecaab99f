"""Batches on Ray: a cluster of two machines in one, and what is killed in it while they run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_files import free_box, records_of
from clips import write_clip
from fleet_processes import actors, children, kill, raylet, title
from waiting import lines_in, wait_until

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="the extra fleet is not installed")
QUESTIONS = ("What do you see?", "What instrument is playing?", "What?")
STARTING = 300.0  # seconds: Ray, and a model in each actor
ASKED = [argument for question in QUESTIONS for argument in ("-Q", question)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines with a core each; the command runs on the first."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    made.second = made.add_node(**small)
    yield made
    made.shutdown()


@pytest.fixture
def folder(clips: dict[str, Path], tmp_path: Path) -> Callable[[int], Path]:
    """A folder with so many clips, each with a content of its own."""

    def make(count: int) -> Path:
        (tmp_path / "clips").mkdir()
        for number in range(count):
            (tmp_path / "clips" / f"{number:03}.mp4").write_bytes(clips["both"].read_bytes() + free_box(number))
        return tmp_path / "clips"

    return make


@pytest.fixture
def begin(random_checkpoint: Path) -> Callable[..., Any]:
    """``begin(folder, "-o", out)``: the command on Ray."""
    own = {"ECHOPIX_MODEL": str(random_checkpoint), "ECHOPIX_MAX_NEW_TOKENS": "4", "TERM": "dumb"}

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "echopix_cli", "ask", *map(str, arguments), *ASKED, "--engine", "ray"]
        return subprocess.Popen(
            command, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def whole(out: Path, count: int) -> None:
    """Every question about every file is answered, once."""
    found = Counter((os.path.basename(one["media"]), one["question"]) for one in records_of(out) if "error" not in one)
    assert found == Counter((f"{number:03}.mp4", question) for number in range(count) for question in QUESTIONS)


def test_a_fleet_says_what_a_batch_says(begin: Any, ask: Any, folder: Any, tmp_path: Path) -> None:
    """The same answers under the same keys, nothing else on stdout, and nothing left behind: no process, no file."""
    place, out = folder(3), tmp_path / "ray.jsonl"
    (place / "broken.mp4").write_text("no film")
    write_clip(place / "film.mkv", seconds=7)
    plain = ask(place, *ASKED, "--window", "3", "-o", tmp_path / "plain.jsonl")
    assert plain.code == 1
    before = set(Path("/tmp").glob("echopix-ray-*"))
    with begin(place, "--window", "3", "-o", out, "--format", "jsonl") as batch:
        wait_until(lambda: lines_in(out), STARTING)
        started = list(children(batch.pid))
        stdout, stderr = batch.communicate(timeout=300)
    assert batch.returncode == 1
    assert sorted(stdout.splitlines()) == sorted(out.read_text().splitlines())
    assert stderr.splitlines()[0].startswith(f"error: {place}/broken.mp4")
    assert stderr.splitlines()[-1].startswith("note: 12 answered, 3 failed")
    assert set(Path("/tmp").glob("echopix-ray-*")) <= before
    wait_until(lambda: not [pid for pid in started if title(pid)])

    def said(path: Path) -> list[tuple[Any, ...]]:
        names = ("key", "media", "question", "answer", "error", "tokens", "file", "film")
        return sorted(tuple(json.dumps(one.get(name)) for name in names) for one in records_of(path))

    assert said(out) == said(tmp_path / "plain.jsonl")


def test_every_question_is_answered_once_whatever_is_killed(
    begin: Any, cluster: Any, folder: Any, tmp_path: Path
) -> None:
    """An engine, an actor that decodes, a process that decodes, a machine; then the command itself, which goes on."""
    count, out = 24, tmp_path / "out.jsonl"
    place = folder(count)
    machines = raylet(cluster.head_node), raylet(cluster.second)
    command = (place, "-o", out, "--address", cluster.address)

    def after(more: int) -> None:
        wanted = lines_in(out) + more
        wait_until(lambda: lines_in(out) >= wanted, STARTING, batch)
        assert batch.poll() is None, batch.communicate()

    with begin(*command) as batch:
        wait_until(lambda: len(actors("EngineActor", *machines)) == 2 and lines_in(out) > 2, STARTING)
        kill(actors("EngineActor", *machines)[0])
        after(6)
        decoder = actors("DecodingActor", *machines)[0]  # where Ray put it: both may be on one machine
        kill([pid for pid in children(decoder) if list(children(pid)) == []][-1])
        after(3)
        kill(decoder)
        after(6)
        cluster.remove_node(cluster.second, allow_graceful=False)
        after(6)
        batch.send_signal(signal.SIGKILL)
        batch.communicate(timeout=60)
    done = [one for one in records_of(out) if "error" not in one]
    assert len(done) < count * len(QUESTIONS)
    wait_until(lambda: not actors("EngineActor", machines[0]))
    with begin(*command) as batch:
        stdout, stderr = batch.communicate(timeout=300)
    assert (batch.returncode, stdout) == (0, ""), stderr
    assert f", {len(done)} before; " in stderr
    assert [one for one in records_of(out) if "error" in one] == []
    whole(out, count)
