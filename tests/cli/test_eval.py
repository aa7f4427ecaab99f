"""``echopix eval``: its JSON, files, tables and refusals, with a random model."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

FEW = ("--count", "3", "-b", "0.1", "--sieve", "cs2", "--sieve", "none")


def test_json_files_and_plot(run, tmp_path: Path, random_checkpoint: Path) -> None:
    output, items, plot = tmp_path / "r.json", tmp_path / "i.jsonl", tmp_path / "p.svg"
    ran = run("eval", *FEW, "--around-sieve", "--json", "-o", output, "--items", items, "--plot", plot)
    assert ran.code == 0, ran.err
    (record,) = ran.records
    assert json.loads(output.read_text()) == record
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")
    assert list(record) == [
        "schema_version", "echopix_version", "date", "command", "model", "data", "count", "families", "seed",
        "options", "seconds", "settings", "comparisons", "failures",
    ]  # fmt: skip
    assert record["command"].startswith("echopix eval --count 3")
    assert record["model"]["name"] == random_checkpoint.name
    assert (record["data"], record["count"], record["seed"]) == ("scenes:test", 3, 0)
    assert record["families"] == ["instrument", "object", "count"]
    # The environment's limit counts as someone's wish; scenes do not obey --fps, so it is not reported.
    assert record["options"] == {
        "audio": True, "video": True, "scene_side": 112, "max_new_tokens": 4,
        "system": "You are a helpful assistant.", "question_layer": None, "prefilter": None,
    }  # fmt: skip
    assert [setting["setting"] for setting in record["settings"]] == ["cs2@0.1", "none", "without-cs2"]
    cs2, none, _ = record["settings"]
    assert set(cs2["families"]) == set(record["families"])
    assert cs2["overall"]["total"] == 3
    assert set(cs2["overall"]) == {"right", "total", "failed", "accuracy", "low", "high"}
    assert set(cs2["mean_over_families"]) == {"value", "low", "high"}
    assert set(cs2["evidence"]) == {"items", "on_evidence", "at_random", "ratio", "recall"}
    assert cs2["median_seconds"] > 0
    assert none["evidence"]["on_evidence"] is none["evidence"]["ratio"] is none["median_seconds"] is None
    assert none["mean_rows_kept"] == {"video": 0.0, "audio": 0.0}
    assert [(c["setting"], c["reference"]) for c in record["comparisons"]] == [("cs2@0.1", "none")]
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["scene:test:0", "scene:test:1", "scene:test:2"]
    assert set(lines[0]["settings"]) == {"cs2@0.1", "none", "without-cs2"}
    assert lines[0]["settings"]["none"]["kept"] == {"video": 0, "audio": 0, "on_evidence": 0}


def test_defaults_measure_every_sieve(run) -> None:
    (record,) = run("eval", "--count", "1", "--family", "dark", "--json", "--max-new-tokens", "1").records
    controls = [f"{name}@{budget}" for name in ("per-modality", "uniform", "random") for budget in (0.2, 0.1, 0.05)]
    cs2 = ["cs2@1", "cs2@0.2", "cs2@0.1", "cs2@0.05"]
    assert [setting["setting"] for setting in record["settings"]] == [*cs2, *controls, "none"]


def test_a_budget_from_the_settings_is_measured_beside_all(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPIX_BUDGET", "0.7")
    monkeypatch.setenv("ECHOPIX_TEMPERATURE", "5")
    (record,) = run("eval", "--count", "1", "--sieve", "cs2", "--json").records
    assert [setting["budget"] for setting in record["settings"]] == [1.0, 0.7]


def test_tables_go_to_stderr_and_agree_with_the_json(run, tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    ran = run("eval", *FEW, "-o", output)
    assert ran.code == 0
    assert ran.out == ""
    record = json.loads(output.read_text())
    for setting in record["settings"]:
        mean = setting["mean_over_families"]
        assert f"{100 * mean['value']:.1f} ±{50 * (mean['high'] - mean['low']):.1f}" in ran.err
        assert setting["setting"] in ran.err
    for family in record["families"]:
        assert family in ran.err
    assert "scenes:test, 3 questions, 1 a family; seed 0" in ran.err


@pytest.mark.parametrize("width", [20, 80, 100, 200])
def test_tables_fit_the_terminal(width: int) -> None:
    """At 80 columns, which is also what a pipe gets, and above, nothing is cut short."""
    from rich.console import Console

    from echopix_cli.cli.eval_tables import report_tables
    from echopix_cli.evaluation.report import make_report
    from echopix_cli.evaluation.values import SIEVES, Facts, ItemResult, Outcome, Rows, Setting
    from echopix_cli.results import ModelFacts

    budgets = (1.0, 0.2, 0.1, 0.05)
    settings = [Setting(sieve, budget) for sieve in SIEVES[:-1] for budget in budgets]
    settings += [Setting("none", 0.0), Setting("without-cs2", 1.0)]
    outcomes = {setting: Outcome("yes", True, Rows(1234, 1234, 1), 0.1) for setting in settings}
    families = ["[red]instrument", "x" * 60, "sync", "sync"]
    items = [ItemResult("i", "m", family, "q", "yes", 2468, 9, outcomes) for family in families]
    model = ModelFacts("tiny", None, 1, "float32", "cpu")
    facts = Facts("0", "d", "c", model, "scenes:test", 4, tuple(families), 0, {})
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(report_tables(make_report(facts, items, settings, 1.0), width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    if width >= 80:
        assert text.count("…") == text.count("x…") + text.count(" … ")  # a family's long name, and intervals
        assert text.count("100.0 ±39.7") == 2 * len(settings)
        assert "[red]instrument" in text
        assert "all items" in text


def test_failed_items_are_reported_and_change_the_exit_code(run, clips: dict[str, Path], tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    fine = {"media": str(clips["both"]), "question": "What?", "answer": "dog"}
    gone = [{**fine, "media": f"gone{index}.mp4", "id": f"gone{index}"} for index in range(6)]
    data.write_text("".join(json.dumps(record) + "\n" for record in [fine, *gone]))
    ran = run("eval", "--data", data, "--sieve", "cs2", "-b", "0.1", "--json", "--fps", "1")
    assert ran.code == 1
    (record,) = ran.records
    assert record["count"] == 7
    assert record["options"]["fps"] == 1.0
    assert record["families"] == ["all"]
    (setting,) = record["settings"]
    assert (setting["overall"]["total"], setting["overall"]["failed"]) == (7, 6)
    assert setting["evidence"] is None
    assert [failure["id"] for failure in record["failures"]] == [f"gone{index}" for index in range(6)]
    assert "gone0 failed: " in ran.err
    assert "1 more failures" in ran.err
    assert "6 questions, counted as wrong" in run("eval", "--data", data, "--sieve", "cs2", "-b", "0.1").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sieve", "csv2"), "unknown sieve 'csv2'"),
        (("-b", "1.5"), "--budget: '1.5' does not fit"),
        (("--data", "scenes:tset"), "unknown data 'scenes:tset'"),
        (("--data", "gone.jsonl"), "cannot read questions from gone.jsonl"),
        (("--family", "dork"), "unknown question family 'dork'"),
        (("--sieve", "random", "-b", "1"), "chooses nothing"),
        (("-q",), "--quiet leaves nothing to print"),
        (("--output", "no/such/folder.json"), "does not exist"),
        (("--plot", "a.pdf"), "neither"),
        (("--plot", "a.png", "-o", "./a.png"), "one file twice"),
        (("--no-audio", "--no-video"), "nothing is left to ask about"),
        (("--count", "0"), "--count"),
    ],
)
def test_refusals_come_before_the_model_is_loaded(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECHOPIX_MODEL", "/no/such/model")
    ran = run("eval", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert ran.out == ""


def test_the_unseen_font_says_how_to_get_it(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPIX_UNSEEN_FONT", str(tmp_path / "none.ogg"))
    ran = run("eval", "--data", "scenes:unseen-font")
    assert ran.code == 1
    assert "build_assets --unseen-font" in ran.err
