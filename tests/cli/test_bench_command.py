"""``echopix bench``: a table for people, a record for scripts, and what it refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
QUICK = ("--shape", "tiny", "--seconds", "2", "--trials", "1", "--warmup", "0", "--new-tokens", "2")


def test_the_record_holds_what_the_table_shows(command: Command) -> None:
    ran = command("bench", *QUICK, "-b", "0.1", "--json")
    assert ran.code == 0
    (record,) = ran.records
    assert (record["shape"], record["trials"], record["warmup"], record["new_tokens"]) == ("tiny", 1, 0, 2)
    assert record["rounds"] in (1, 2)
    assert bool(ran.err) is (record["inconclusive"] is not None)
    assert (record["inconclusive"] or "") in ran.err
    assert record["clip"] | {"text_tokens": 0} == {
        "media": None, "seconds": 2.0, "video_tokens": 30, "audio_tokens": 50, "text_tokens": 0,
    }  # fmt: skip
    whole, tenth = record["rows"]
    assert (whole["budget"], whole["sieve"], whole["kept_tokens"], whole["speedup"]) == (1.0, None, 80, 1.0)
    assert (tenth["budget"], tenth["sieve"], tenth["kept_tokens"]) == (0.1, "cs2", 8)
    assert tenth["share_of_bound"] == pytest.approx(tenth["speedup"] / tenth["bound"])
    stages = {"place", "prefill", "generate", "forward", "first_token"}
    assert (set(whole["stages_s"]), set(tenth["stages_s"])) == (stages, stages | {"sieve"})
    assert set(tenth["speedup_interval"]) == {"low", "high", "confidence"}
    assert (tenth["speedup_interval"]["low"] is None) is (record["rounds"] == 1)
    assert set(record["stages_s"]) == {"decode", "vision", "audio"}
    assert set(record["machine"]) == {
        "device", "threads", "openmp_wait_policy", "torch", "transformers", "python", "echopix",
    }  # fmt: skip


def test_the_table(command: Command) -> None:
    ran = command("bench", *QUICK)
    assert (ran.code, ran.out) == (0, "")
    assert [line.split()[0] for line in ran.err.splitlines() if "×" in line][:4] == ["1,", "0.2", "0.1", "0.05"]
    for words in ("share", "tokens/s", "smaller", "random parameters", "CS2 layer", "30 video, 50 audio and"):
        assert words in ran.err


def test_threads_wait_passively_while_measuring_and_not_in_a_library() -> None:
    """OpenMP itself says how its threads wait; in a process of its own, as it reads this once."""
    measuring = "import sys\nfrom echopix_cli.cli.app import main\nsys.argv = ['echopix', 'bench', '--shape', 'tiny', "
    measuring += "'--device', 'cuda:99']\nmain()"  # an error after torch is loaded, before anything is made
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    spins = []
    for code in (measuring, "import echopix_cli.engine.bench"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "OMP_DISPLAY_ENV": "verbose"},
            capture_output=True,
            text=True,
            check=False,
        )
        spins += [int(count) for count in re.findall(r"GOMP_SPINCOUNT *= *'(\d+)'", done.stderr)]
    assert spins[0] == 0
    assert spins[1] > 0


def test_a_file_in_place_of_noise(command: Command, clips: dict[str, Path]) -> None:
    ran = command("bench", clips["dark"], "--shape", "tiny", "--trials", "1", "--warmup", "0", "-b", "1.0", "--json")
    assert ran.code == 0
    assert ran.records[0]["clip"]["media"] == str(clips["dark"])
    assert ran.records[0]["clip"]["video_tokens"] == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--shape", "huge"), "there is no shape 'huge'"),
        (("--budget", "2"), "--budget: '2' does not fit"),
        (("--quiet",), "--quiet leaves nothing to print"),
        (("nothing.mp4", "--seconds", "3"), "--seconds is the length of the noise"),
        (("--device", "cuda:99"), "device 'cuda:99' is not available"),
    ],
)
def test_what_it_refuses(command: Command, flags: tuple[str, ...], says: str) -> None:
    ran = command("bench", *flags)
    assert ran.code in (2, 5)
    assert ran.out == ""
    assert says in ran.err
    assert len(ran.err.splitlines()) == 2


def test_the_shapes_offered_are_those_there_are() -> None:
    """The command line names them without loading what describes them."""
    from echopix_cli.cli.bench import SHAPE_NAMES
    from echopix_cli.model.shapes import SHAPES

    assert tuple(SHAPES) == SHAPE_NAMES


def test_a_missing_file(command: Command, tmp_path: Path) -> None:
    ran = command("bench", tmp_path / "none.mp4", "--shape", "tiny")
    assert (ran.code, ran.out) == (4, "")
