"""``echopix bench``: a table for people, a record for scripts, and what it refuses."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT
from rich.console import Console

from echopix_cli.cli.bench import bench_record
from echopix_cli.cli.bench_tables import bench_table, spread
from echopix_cli.measure.bench import Bench, bench, random_engine
from echopix_cli.measure.rounds import Spread
from echopix_cli.model.shapes import SHAPES

Command = Callable[..., Any]
QUICK = ("--shape", "tiny", "--seconds", "2", "--trials", "1", "--warmup", "0", "--new-tokens", "2")


def test_the_record_holds_what_the_table_shows(command: Command) -> None:
    ran = command("bench", *QUICK, "-b", "0.1", "--json", "--quiet")
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


@pytest.fixture(scope="module")
def measured() -> Bench:
    engine = random_engine(SHAPES["tiny"], torch.device("cpu"), torch.float32, "none")
    return bench(engine, [0.1], shape="tiny", seconds=2.0, trials=2, warmup=0, repeats=0, new_tokens=2)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_is_whole_at_any_width(measured: Bench, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(bench_table(measured))
    table = console.export_text()
    assert max(map(len, table.splitlines())) <= width
    assert "…" not in table
    for row in bench_record(measured)["rows"]:
        for name in ("forward", "prefill", "first_token"):
            assert spread(Spread(**row["stages_s"][name])) in table
        for name in ("speedup", "first_token_speedup"):
            low, high = (row[f"{name}_interval"][end] for end in ("low", "high"))
            assert f"{row[name]:.2f}× ({low:.2f}–{high:.2f})" in table
        assert f"{row['bound']:.2f}×" in table
        assert f"{row['memory_ratio']:.2f}×" in table
        assert f"{row['tokens_per_second']['median']:.1f}" in table


def test_no_sieve_has_no_time_and_one_run_no_spread(measured: Bench) -> None:
    whole = measured.rows[0]
    assert spread(whole.stages.get("sieve")) == "–"
    assert spread(Spread(0.6554)) == "655 ms"
    assert spread(Spread(0.6554, 0.6461, 0.6639)) == "655 ms (646–664)"
    assert spread(Spread(0.00944, 0.0088, 0.0101)) == "9.4 ms (8.8–10.1)"
    assert spread(Spread(1.0, 0.98, 1.1)) == "1.00 s (0.98–1.10)", "both ends in the median's unit"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "passive"),
    [  # commands fail after torch is loaded and before anything is made
        (["-m", "echopix_cli", "bench", "--shape", "tiny", "--device", "cuda:99"], True),
        (
            ["-m", "echopix_cli", "profile", ROOT / "echopix_cli/assets/demo.mp4", "-m", "tiny", "--device", "cuda:99"],
            True,
        ),
        (["-m", "echopix_cli", "ask", ROOT / "echopix_cli/assets/demo.mp4", "What?", "--device", "cuda:99"], True),
        (["-c", "import echopix_cli.measure.bench"], False),
    ],
)
def test_threads_of_a_command_wait_passively(arguments: list[object], passive: bool) -> None:
    """OpenMP itself says how long its threads spin; in a process of its own, as it reads this once."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**environment, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"GOMP_SPINCOUNT *= *'(\d+)'", done.stderr)
    if found is None:
        pytest.skip("this torch does not wait by GNU's OpenMP")
    assert (found[1] == "0") is passive


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
