"""How a fleet is laid out over machines, and what its options may say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.batch.cluster import FleetOptions, Layout, layout
from echopix_cli.errors import UsageError


def machine(cores: float, gpus: float = 0) -> dict[str, float]:
    return {"CPU": cores, "memory": 1e9} | ({"GPU": gpus} if gpus else {})


@pytest.mark.parametrize(
    ("machines", "options", "expected"),
    [
        ([machine(2)], FleetOptions(), Layout(1, 0.0, 2, 1)),
        ([machine(1)], FleetOptions(), Layout(1, 0.0, 1, 1)),
        ([machine(1), machine(1)], FleetOptions(), Layout(2, 0.0, 1, 1)),
        ([machine(16), machine(8)], FleetOptions(), Layout(6, 0.0, 4, 2)),
        ([machine(2)], FleetOptions(workers=2), Layout(2, 0.0, 1, 1)),
        ([machine(8)], FleetOptions(workers=3), Layout(3, 0.0, 2, 1)),
        ([machine(2)], FleetOptions(workers=5), Layout(5, 0.0, 0, 1)),
        ([machine(96, 8), machine(64)], FleetOptions(), Layout(8, 1.0, 0, 4)),
        ([machine(16, 1), machine(16, 1)], FleetOptions(gpus=0.5), Layout(4, 0.5, 0, 4)),
        ([machine(12, 3)], FleetOptions(workers=2), Layout(2, 1.0, 0, 3)),
        ([machine(8, 1)], FleetOptions(gpus=0.0), Layout(2, 0.0, 4, 2)),
    ],
)
def test_layouts(machines: list[dict[str, float]], options: FleetOptions, expected: Layout) -> None:
    assert layout(machines, options) == expected


@given(st.lists(st.integers(0, 64), min_size=1, max_size=5), st.one_of(st.none(), st.integers(1, 40)))
def test_engines_on_cpus_fit_on_the_machines(cores: list[int], workers: int | None) -> None:
    """None waits for a machine that never comes: together they reserve no more than each machine has."""
    found = layout([machine(count) for count in cores], FleetOptions(workers=workers))
    assert found.engines == workers or workers is None
    assert found.cores == 0 or sum(count // found.cores for count in cores) >= found.engines >= 1
    assert 1 <= found.decoders <= 4


def test_gpus_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="no machine of the cluster has a GPU"):
        layout([machine(8)], FleetOptions(gpus=0.5))


def test_without_the_extra(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").touch()
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = ask(tmp_path, "What?", "--engine", "ray")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "error: --engine ray needs Ray, which is not installed",
        "  try: pip install 'echopix[fleet]'",
    ]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "localhost:99999", "no host:6379"])
def test_a_cluster_that_is_not_there(ask: Any, tmp_path: Path, address: str) -> None:
    """Said at once: Ray itself would try for minutes."""
    (tmp_path / "a.mp4").touch()
    ran = ask(tmp_path, "What?", "--engine", "ray", "--address", address)
    assert (ran.code, ran.out) == (1, "")
    error, hint = ran.err.splitlines()
    assert error.startswith(f"error: no Ray cluster answers at {address}: ")
    assert hint == "  try: ray status shows yours"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--engine", "spark"], "--engine 'spark' is none"),
        (["--workers", "2"], "--workers is for a fleet"),
        (["--address", "auto"], "--address is for a fleet"),
        (["--engine", "ray", "--workers", "0"], "leaves nobody to work"),
        (["--engine", "ray", "--gpus-per-worker", "2"], "is no share of a GPU"),
        (["--engine", "ray", "--device", "cuda:1"], "Ray decides"),
        (["--engine", "ray", "--device", "cpu", "--gpus-per-worker", "1"], "do not go together"),
    ],
)
def test_options_that_do_not_fit(ask: Any, tmp_path: Path, flags: list[str], says: str) -> None:
    (tmp_path / "a.mp4").touch()
    ran = ask(tmp_path, "What?", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err.splitlines()[0]
    assert ran.err.count("\n") == 2
