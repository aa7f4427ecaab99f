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

from echopix_cli.scenes import SPLITS, families_of

pytest.importorskip("PIL", reason="outside.py, which it imports, draws with Pillow")


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "path", [str(TESTS / "benchmarks"), *sys.path])
        return load_script(TESTS / "benchmarks" / "figures.py")


def test_nothing_that_was_trained_on_is_measured(figures: ModuleType) -> None:
    names = [run.name for run in figures.RUNS]
    assert len(set(names)) == len(names) and {"unseen-font", "files-test", "files-wide-test", "outside"} <= set(names)
    assert not {name for name in names if name.endswith(("train", "val"))}
    assert {split for split in SPLITS if not split.endswith(("train", "val"))} <= set(names)
    assert set(figures.AS_FILES) <= set(figures.UNTOUCHED) <= set(names)


def test_a_whole_run_is_not_run_again(figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def evaluates(*words: Any) -> None:
        ran.append(list(map(str, words)))
        if "scenes:unseen-font" in ran[-1]:
            raise subprocess.CalledProcessError(1, [sys.executable, "-m", "echopix_cli", "eval"])
        Path(words[words.index("--output") + 1]).write_text(json.dumps({"made": len(ran)}))

    monkeypatch.setattr(figures, "echopix", evaluates)
    monkeypatch.setattr(figures, "report_markdown", lambda record: f"run {record['made']}\n")
    monkeypatch.setattr(figures, "recovered_markdown", lambda record: "")
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


def test_a_run_is_of_its_count_its_data_and_its_weights(
    figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where data and model lie at the path at which others lay."""
    ran: list[list[str]] = []
    data, model = tmp_path / "questions.jsonl", tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")

    def evaluates(*words: Any) -> None:
        ran.append(list(map(str, words)))
        Path(words[words.index("--output") + 1]).write_text(json.dumps({"made": len(ran)}))

    monkeypatch.setattr(figures, "echopix", evaluates)
    run = figures.Run("mine", "Mine", 2000, lambda out, count: str(data))

    def made(count: int | None) -> int:
        return int(figures.measured(run, tmp_path, count, str(model))["made"])

    data.write_text("one\n")
    (model / "model.safetensors").write_bytes(b"first")
    assert [made(10), made(10), made(None), made(None), made(10)] == [1, 1, 2, 2, 1]
    assert {Path(words[words.index(name) + 1]).name for words in ran for name in ("--output", "--items")} == {
        "mine-10.json", "mine-10.items.jsonl", "mine-2000.json", "mine-2000.items.jsonl"
    }  # fmt: skip
    data.write_text("two\n")
    assert [made(10), made(10)] == [3, 3]
    (model / "model.safetensors").write_bytes(b"other")
    assert [made(10), made(10), made(None)] == [4, 4, 5]


def test_the_full_token_model_is_asked_the_same_first(
    figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def evaluates(*words: Any) -> None:
        ran.append(list(map(str, words)))
        Path(words[words.index("--output") + 1]).write_text("{}")

    monkeypatch.setattr(figures, "echopix", evaluates)
    (run,) = (run for run in figures.RUNS if run.name == "wide-test")
    figures.measured(run, tmp_path, 13, "mine", "before")
    first, second = ran
    asked = ["--data", "scenes:wide-test", "--seed", str(figures.SEED), "--count", "13"]
    assert first[:7] == second[:7] == ["eval", *asked]
    assert first[7:14] == ["--model", "before", "--budget", "1.0", "--sieve", "auto", "--around-sieve"]
    assert second[second.index("--model") + 1] == "mine" and "none" in second
    assert second[second.index("--full") + 1] == first[first.index("--output") + 1]
    figures.measured(run, tmp_path, 13, "mine", "before")
    assert len(ran) == 2
    figures.measured(run, tmp_path, 13, "mine", "another")
    assert [words[words.index("--model") + 1] for words in ran[2:]] == ["another", "mine"], "its report is another"


def test_intervals_of_movies_are_the_wider_ones() -> None:
    """A dozen questions share a haystack, and are right and wrong together."""
    script = load_script(TESTS / "benchmarks" / "movies.py")
    share = {"accuracy": 0.5, "low": 0.4, "high": 0.6}
    setting = {
        "sieve": "cs2", "overall": {"right": 12, "total": 24, "failed": 0, **share}, "top_moment_on_evidence": None,
        "by_clip": {"overall": {"value": 0.5, "low": 0.0, "high": 1.0}}, "families": {}, "mean_rows_in_last_prompt": 1,
    }  # fmt: skip
    report = {"settings": [setting], "count": 24, "clips": 2, "recordings": 0, "seconds": None}
    (row,) = script.rows_of("1:00", "both", report, None)
    assert (row["questions"], row["right"]) == (24, {"accuracy": 0.5, "low": 0.0, "high": 1.0})
    (alone,) = script.rows_of("1:00", "both", {**report, "clips": 24}, row)
    assert (alone["right"], alone["relative_to_8_s"]) == (share, 1.0)


@pytest.mark.parametrize("split", ["test", "wide-test"])
def test_files_are_of_the_split_and_of_all_its_families(
    figures: ModuleType, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writes(*words: Any) -> None:
        given = dict(zip(words[1:-3:2], words[2:-3:2], strict=False))
        line = {"id": f"{given['--split']}-{given['--family']}", "media": "scene.mp4", "family": given["--family"]}
        assert given["--count"] == 1 and words[0] == "scene"
        given["--data"].write_text(json.dumps(line) + "\n")

    monkeypatch.setattr(figures, "echopix", writes)
    (run,) = (run for run in figures.RUNS if run.name == f"files-{split}")
    lines = [json.loads(line) for line in Path(run.data(tmp_path, 10)).read_text().splitlines()]
    assert [line["family"] for line in lines] == list(families_of(split))
    assert all(line["id"] == f"{split}-{line['family']}" for line in lines)
    assert all(line["media"] == f"{line['family']}/scene.mp4" for line in lines)


def test_movies_are_of_the_split_that_is_asked_for(
    figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both scripts as they call each other, down to the words of ``echopix eval``."""
    ran: list[list[str]] = []

    def runs(words: list[Any], **rest: Any) -> subprocess.CompletedProcess[str]:
        ran.append(list(map(str, words)))
        (tmp_path / "movies-wide-test").mkdir()
        (tmp_path / "movies-wide-test" / "movies.md").write_text("a table\n")
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(figures.subprocess, "run", runs)
    assert figures.movies("wide-test", tmp_path, 12, "mine") == ("## Movies of wide-test\n\na table\n", True)
    script = load_script(Path(ran[0][1]))
    called: list[list[str]] = []

    def evaluates(words: list[str], **rest: Any) -> None:
        called.append(words)
        raise KeyboardInterrupt

    monkeypatch.setattr(script.subprocess, "run", evaluates)
    monkeypatch.setattr(sys, "argv", ran[0][1:])
    with pytest.raises(KeyboardInterrupt):
        script.main()
    (words,) = called
    assert words[words.index("--data") + 1] == "scenes:movie-wide-test"
    assert words[words.index("--model") + 1] == "mine" and words[words.index("--count") + 1] == "12"
