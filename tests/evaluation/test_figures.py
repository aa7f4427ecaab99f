"""The script that measures every figure anew: what is whole is not run again, and what fails is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from places import TESTS, load_script

from echopix_cli.scenes import SPLITS

pytest.importorskip("PIL", reason="outside.py, which it imports, draws with Pillow")


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "path", [str(TESTS / "benchmarks"), *sys.path])
        return load_script(TESTS / "benchmarks" / "figures.py")


def test_nothing_that_was_trained_on_is_measured(figures: ModuleType) -> None:
    names = [run.name for run in figures.RUNS]
    assert len(set(names)) == len(names) and {"test", "unseen-font", "files", "outside"} <= set(names)
    assert not {name for name in names if name.endswith(("train", "val"))}
    assert {split for split in SPLITS if "test" in split} <= set(names)


def test_a_whole_run_is_not_run_again(figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def evaluates(*words: Any) -> None:
        ran.append(list(map(str, words)))
        if "scenes:unseen-font" in ran[-1]:
            raise subprocess.CalledProcessError(1, [sys.executable, "-m", "echopix_cli", "eval"])
        Path(words[words.index("--output") + 1]).write_text(json.dumps({"made": len(ran)}))

    monkeypatch.setattr(figures, "echopix", evaluates)
    monkeypatch.setattr(figures, "report_markdown", lambda record: f"run {record['made']}\n")
    runs = [run for run in figures.RUNS if run.name in ("test", "unseen-font")]

    def made(count: int | None) -> list[tuple[str, bool]]:
        return list(figures.pages(runs, tmp_path, count, "tiny"))

    assert made(30) == [
        ("## Scenes: test\n\nrun 1\n", True),
        ("## Scenes: unseen-font\n\nNot measured: `echopix eval` ended with 1.\n", False),
    ]
    assert ran[0][ran[0].index("--count") + 1] == "30"
    assert made(30)[0] == ("## Scenes: test\n\nrun 1\n", True)
    assert ["scenes:unseen-font" in words for words in ran] == [False, True, True], "only what failed is run again"
    assert made(None)[0] == ("## Scenes: test\n\nrun 4\n", True), "with other words it is another run"
    assert ran[3][ran[3].index("--count") + 1] == "2000"
