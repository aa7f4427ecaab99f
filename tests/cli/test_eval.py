"""``echopix eval``: its JSON, files, tables and refusals, with a random model."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from waiting import lines_in, wait_until

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
        "options", "seconds", "settings", "comparisons", "failures", "audio", "notices", "clips", "recordings",
        "resampling", "recovered", "items",
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
    cs2, none, around = record["settings"]
    assert set(cs2["families"]) == set(record["families"])
    assert cs2["overall"]["total"] == 3
    assert set(cs2["overall"]) == {"right", "total", "failed", "accuracy", "low", "high"}
    assert set(cs2["mean_over_families"]) == {"value", "low", "high"}
    assert set(cs2["evidence"]) == {"items", "on_evidence", "at_random", "ratio", "recall"}
    assert cs2["median_seconds"] > 0
    assert none["evidence"]["on_evidence"] is none["evidence"]["ratio"] is none["median_seconds"] is None
    assert none["mean_rows_kept"] == {"video": 0.0, "audio": 0.0}
    assert none["share_kept"] == {"video": 0.0, "audio": 0.0}
    assert around["share_kept"] == {"video": 1.0, "audio": 1.0}
    assert [(c["setting"], c["reference"]) for c in record["comparisons"]] == [("cs2@0.1", "none")]
    assert [(item["id"], item["family"], item["clip"]) for item in record["items"]] == [
        ("scene:test:0", "instrument", 0), ("scene:test:1", "object", 1), ("scene:test:2", "count", 2)
    ]  # fmt: skip
    for setting in record["settings"]:
        assert [setting["marks"].count(mark) for mark in "1-"] == [
            setting["overall"][name] for name in ("right", "failed")
        ]
        assert setting["by_clip"]["overall"]["value"] == setting["overall"]["accuracy"]
    assert record["clips"] == 3 and set(record["recovered"]) == {"full", "needing", "apart", "settings"}
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


def test_budgets_are_as_many_settings_as_they_are(run, tmp_path: Path) -> None:
    """However near one another they are; and one that is written in two ways is one."""
    items, budgets = tmp_path / "i.jsonl", [word for b in ("1", "0.9999999", "0.333", "33.3%") for word in ("-b", b)]
    (record,) = run("eval", "--count", "1", "--sieve", "auto", *budgets, "--items", items, "--json").records
    names = ["cs2@1", "cs2@0.9999999", "cs2@0.333"]
    assert [setting["setting"] for setting in record["settings"]] == names
    assert [setting["budget"] for setting in record["settings"]] == [1.0, 0.9999999, 0.333]
    assert list(json.loads(items.read_text())["settings"]) == names


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
    from echopix_cli.evaluation.values import SIEVES, Condition, Facts, Graded, ItemResult, Rows
    from echopix_cli.results import ModelFacts

    budgets = (1.0, 0.2, 0.1, 0.05)
    settings = [Condition(sieve, budget) for sieve in SIEVES[:-1] for budget in budgets]
    settings += [Condition("none", 0.0), Condition("without-cs2", 1.0)]
    outcomes = {setting: Graded("yes", True, Rows(1234, 1234, 1), 0.1) for setting in settings}
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
    assert "question gone0 failed: " in ran.err
    assert "1 more failures" in ran.err
    assert "6 questions, counted as wrong" in run("eval", "--data", data, "--sieve", "cs2", "-b", "0.1").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sieve", "csv2"), "unknown sieve 'csv2'"),
        (("--data", "questions.jsonl", "--sieve", "other-question"), "unknown sieve 'other-question'"),
        (("-b", "1.5"), "--budget: '1.5' does not fit"),
        (("--data", "scenes:tset"), "unknown data 'scenes:tset'"),
        (("--data", "gone.jsonl"), "cannot read questions from gone.jsonl"),
        (("--family", "dork"), "unknown question family 'dork'"),
        (("--sieve", "random", "-b", "1"), "chooses nothing"),
        (("-q",), "--quiet leaves nothing to print"),
        (("--output", "no/such/folder.json"), "does not exist"),
        (("--plot", "a.pdf"), "neither"),
        (("--plot", "a.png", "-o", "./a.png"), "one file twice"),
        (("--output", "precious.txt"), "precious.txt exists and is no report of an evaluation"),
        (("--items", "precious.txt"), "precious.txt, line 1, is no record of an evaluation"),
        (("--plot", "precious.png"), "precious.png exists and is no plot of an evaluation"),
        (("--no-audio", "--no-video"), "nothing is left to ask about"),
        (("--count", "0"), "--count"),
    ],
)
def test_refusals_come_before_the_model_is_loaded(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECHOPIX_MODEL", "/no/such/model")
    precious = [tmp_path / "precious.txt", tmp_path / "precious.png"]
    for path in precious:
        path.write_text("Dear diary\n")
    ran = run("eval", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert ran.out == ""
    assert {path.read_text() for path in precious} == {"Dear diary\n"}


def test_the_unseen_font_says_how_to_get_it(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPIX_UNSEEN_FONT", str(tmp_path / "none.ogg"))
    ran = run("eval", "--data", "scenes:unseen-font")
    assert ran.code == 1
    assert "scene_assets.py --unseen-font" in ran.err


# --- what is written as it goes


def items_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    """A report without what differs from run to run."""
    settings = [{**setting, "median_seconds": None} for setting in record["settings"]]
    return {**record, "date": "", "command": "", "seconds": 0.0, "settings": settings}


def test_own_files_are_replaced_and_others_with_force(run, tmp_path: Path) -> None:
    output, items, plot = tmp_path / "r.json", tmp_path / "i.jsonl", tmp_path / "p.png"
    files = ("-o", output, "--items", items, "--plot", plot)
    one = ("--count", "1", "-b", "0.1", "--sieve", "cs2")
    for path in (output, plot):
        path.write_bytes(b"")
    assert run("eval", *one, *files).code == 0
    again = run("eval", *one, *files)
    assert (again.code, "note: 1 of 1 questions were answered before" in again.err) == (0, True)
    other = run("eval", *one, *files, "--max-new-tokens", "3")
    assert other.code == 2
    assert f"{items} holds answers of another evaluation" in other.err and "--force" in other.err
    assert len(items_of(items)) == 1
    for path in (output, plot):
        path.write_text("Dear diary\n")
        path.chmod(0o600)
        path.rename(tmp_path / f"real-{path.name}")
        path.symlink_to(f"real-{path.name}")
    assert run("eval", *one, *files, "--max-new-tokens", "3", "--force").code == 0
    assert len(items_of(items)) == 1 and json.loads(output.read_text())["count"] == 1
    assert plot.read_bytes().startswith(b"\x89PNG")
    for path in (output, plot):  # what a link leads to is written, and stays private
        assert path.is_symlink() and path.stat().st_mode & 0o777 == 0o600


def test_force_drops_what_is_of_another_evaluation_only(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the same command goes on where it was interrupted, with --force as without it."""
    from echopix_cli.batch.journal import Journal

    items, append = tmp_path / "i.jsonl", Journal.append
    arguments = ("eval", "--count", "3", "-b", "0.1", "--sieve", "cs2", "--items", items, "--force")
    assert run(*arguments, "--max-new-tokens", "3").code == 0

    def interrupted(self: Journal, record: dict[str, Any]) -> None:
        append(self, record)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", interrupted)
        ran = run(*arguments)
    assert (ran.code, ran.err) == (143, "error: Interrupted; 1 of 3 done, run again to resume\n")
    first = items.read_bytes()
    assert len(items_of(items)) == 1
    assert "note: 1 of 3 questions were answered before" in run(*arguments).err
    whole = items.read_bytes()
    assert whole.startswith(first)
    fewer = (*arguments, "--count", "2")  # of the answers, one is not asked for
    assert run(*fewer[:-3], *fewer[-2:]).code == 2 and items.read_bytes() == whole
    assert "note: 2 of 2 questions were answered before" in run(*fewer).err
    assert items.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])


@pytest.mark.slow
def test_it_goes_on_where_it_was_killed(run, tmp_path: Path, random_checkpoint: Path, clips: dict[str, Path]) -> None:
    """By a signal that says when to end and by one that does not; in the end all is as if nothing had happened."""
    data, items, output = tmp_path / "data.jsonl", tmp_path / "i.jsonl", tmp_path / "r.json"
    lines = [
        {"media": str(clips[("both", "dark", "silent")[number % 3]]), "question": f"What? {number}", "answer": "dog"}
        for number in range(40)
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["eval", "--data", data, "-b", "0.1", "--sieve", "cs2", "--sieve", "random", "--device", "cpu"]
    arguments += ["--dtype", "float32"]  # which "auto" is here, and need not be in a process of its own
    environment = {**os.environ, "ECHOPIX_MODEL": str(random_checkpoint), "ECHOPIX_MAX_NEW_TOKENS": "4"}
    done = 0
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with subprocess.Popen(
            [sys.executable, "-m", "echopix_cli", *map(str, arguments), "--items", str(items), "-o", str(output)],
            env=environment, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            wait_until(lambda wanted=done + 2: lines_in(items) >= wanted, process=process)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        assert process.returncode == code
        done = items.read_bytes().count(b"\n")
        if number == signal.SIGKILL:
            with open(items, "ab") as file:
                file.write(items.read_bytes()[:60])  # a line that it did not end
        else:
            assert said == f"error: Interrupted; {done} of 40 done, run again to resume\n"
        assert not output.exists()
    assert 6 <= done < 40
    ran = run(*arguments, "--items", items, "--json")
    assert ran.code == 0 and f"note: {done} of 40 questions were answered before" in ran.err
    by_media = [str(number) for first in (1, 2, 3) for number in range(first, 41, 3)]  # each clip is decoded once
    assert [item["id"] for item in items_of(items)] == by_media
    whole = run(*arguments, "--json")
    assert without_times(ran.records[0]) == without_times(whole.records[0])


def test_what_failed_is_tried_again(run, clips: dict[str, Path], tmp_path: Path) -> None:
    data, items = tmp_path / "data.jsonl", tmp_path / "i.jsonl"
    lines = [{"media": str(path), "question": "What?", "answer": "dog"} for path in (clips["both"], tmp_path / "a.m4a")]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ("eval", "--data", data, "-b", "0.1", "--sieve", "cs2", "--items", items)
    assert run(*arguments).code == 1
    first, failed = items_of(items)
    assert "error" not in first and "does not exist" in failed["error"]["message"]
    os.link(clips["dark"], tmp_path / "a.m4a")
    ran = run(*arguments)
    assert (ran.code, "note: 1 of 2 questions were answered before" in ran.err) == (0, True)
    again, mended = items_of(items)
    assert again == first and "error" not in mended
    os.remove(tmp_path / "a.m4a")
    os.link(clips["silent"], tmp_path / "a.m4a")
    ran = run(*arguments)
    assert ran.code == 2 and "holds answers of another evaluation" in ran.err


def test_what_failed_is_tried_again_with_the_report_alone(run, clips: dict[str, Path], tmp_path: Path) -> None:
    """The report is there, and the rest is answered already; what no later run can answer keeps no file."""
    data, output, unfinished = (tmp_path / name for name in ("data.jsonl", "r.json", "r.json.unfinished.jsonl"))
    fine = {"media": str(clips["both"]), "question": "What?", "answer": "dog"}
    data.write_text(json.dumps(fine) + "\n" + json.dumps({**fine, "media": str(tmp_path / "a.m4a")}) + "\n")
    arguments = ("eval", "--data", data, "-b", "0.1", "--sieve", "cs2", "-o", output)
    ran = run(*arguments, "-q")
    assert (ran.code, json.loads(output.read_text())["settings"][0]["overall"]["failed"]) == (1, 1)
    failure, again = ran.err.splitlines()
    assert "failed: " in failure
    assert again == f"note: the same command tries 1 failed question again; {unfinished} holds the other answers"
    assert [("error" in item) for item in items_of(unfinished)] == [False, True]
    os.link(clips["dark"], tmp_path / "a.m4a")
    ran = run(*arguments)
    assert (ran.code, "note: 1 of 2 questions were answered before" in ran.err) == (0, True)
    assert json.loads(output.read_text())["settings"][0]["overall"]["failed"] == 0
    assert "again" not in ran.err and not unfinished.exists()


def test_items_that_somebody_removes_end_it(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from echopix_cli.batch.journal import Journal

    items, append = tmp_path / "i.jsonl", Journal.append

    def appending(self: Journal, record: dict[str, Any]) -> None:
        append(self, record)
        items.unlink()

    monkeypatch.setattr(Journal, "append", appending)
    ran = run("eval", *FEW, "--items", items, "-o", tmp_path / "r.json")
    assert ran.code == 1 and f"{items} was changed by somebody else" in ran.err
    assert not (tmp_path / "r.json").exists()
