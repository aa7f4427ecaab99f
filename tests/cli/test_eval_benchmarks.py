"""``echopix eval --data`` on files of benchmarks: what is counted, how it is told, and what is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from places import TESTS

FILES = TESTS / "evaluation" / "benchmarks"
ONE = ("--sieve", "cs2", "-b", "0.1", "--fps", "1")


@pytest.fixture
def worldsense(tmp_path: Path, clips: dict[str, Path]) -> Path:
    """The file as it is published, with the first of its two videos beside it."""
    (tmp_path / "videos").mkdir()
    shutil.copy(clips["both"], tmp_path / "videos/aBcD1234.mp4")
    return Path(shutil.copy(FILES / "worldsense.json", tmp_path / "worldsense_qa.json"))


def test_the_denominator_is_the_whole_file(run, worldsense: Path, tmp_path: Path) -> None:
    """A missing video's question is failed, counted in every group that it belongs to, and never right."""
    items = tmp_path / "items.jsonl"
    ran = run("eval", "--data", worldsense, *ONE, "--items", items, "--json")
    assert ran.code == 1
    (record,) = ran.records
    assert record["count"] == 3
    assert record["families"] == ["Audio Recognition", "Audio Counting", "Temporal Prediction"]
    assert (record["options"]["format"], record["options"]["answers"]) == ("worldsense", "letters")
    assert record["options"]["wording"].startswith("Carefully watch this video and pay attention to every detail. ")
    assert record["options"]["wording_from"] == "worldsense.py, github.com/open-compass/VLMEvalKit"
    (setting,) = record["settings"]
    assert (setting["overall"]["total"], setting["overall"]["failed"]) == (3, 1)
    counts = {
        field: {value: (share["total"], share["failed"]) for value, share in values.items()}
        for field, values in setting["groups"].items()
    }
    assert counts == {
        "duration": {"1-2min": (2, 0), "<1min": (1, 1)},
        "audio": {"Music": (2, 0), "Speech": (2, 0), "Event": (1, 1)},
        "domain": {"Music": (2, 0), "Sports": (1, 1)},
    }
    assert setting["groups"]["domain"]["Sports"]["right"] == 0
    assert [failure["id"] for failure in record["failures"]] == ["zZ/task0"]
    assert "zZ.mp4" in record["failures"][0]["reason"]
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    assert lines[0]["groups"][:2] == [["duration", "1-2min"], ["audio", "Music"]]
    assert lines[0]["settings"]["cs2@0.1"]["answer"][:3] in ("A. ", "B. ", "C. ", "D. ")  # always one of the letters
    again = run("eval", "--data", worldsense, *ONE, "--items", items, "--json")
    assert "note: 2 of 3 questions were answered before" in again.err
    assert again.records[0]["settings"][0]["groups"] == setting["groups"]


def test_what_the_file_makes_impossible_is_not_to_be_tried_again(run, worldsense: Path, tmp_path: Path) -> None:
    """A video that is missing may be there next time; an answer that is none of the options is none then either."""
    output, unfinished = tmp_path / "r.json", tmp_path / "r.json.unfinished.jsonl"
    arguments = ("eval", "--data", worldsense, *ONE, "--output", output)
    ran = run(*arguments)
    assert ran.code == 1 and "the same command tries 1 failed question again" in ran.err and unfinished.exists()
    entries = json.loads(worldsense.read_text())
    entries["zZ"]["task0"]["answer"] = "E"
    worldsense.write_text(json.dumps(entries))
    ran = run(*arguments)
    assert ran.code == 1 and "2 of 3 questions were answered before" in ran.err
    assert "question zZ/task0 failed: the file gives it the answer" in ran.err
    assert "again" not in ran.err and not unfinished.exists()


def test_tables_tell_the_wording_the_groups_and_the_shares(run, worldsense: Path) -> None:
    told = run("eval", "--data", worldsense, *ONE).err
    for word in ("duration", "1-2min", "audio", "Speech", "domain", "Sports", "share"):
        assert word in told
    words = " ".join(told.split())
    assert "format worldsense, worded as in worldsense.py, github.com/open-compass/VLMEvalKit" in words
    assert "answers the likeliest of the options' letters" in words


def test_markdown_has_the_groups_the_shares_and_the_wording(run, worldsense: Path, tmp_path: Path) -> None:
    """More families than a page has room for are rows; fewer, columns."""
    written = run("eval", "--data", worldsense, *ONE, "--markdown").out
    heads = "| kept | Audio Recognition | Audio Counting | Temporal Prediction | mean | of video, % | of audio, % |"
    assert written.startswith(heads)
    for head in ("duration", "audio", "domain"):
        assert f"\n| {head} | questions | cs2@0.1 |\n| --- | ---: | ---: |\n" in written
    assert "| 1-2min | 2 | " in written and "| \\<1min | 1 | 0.0 |" in written
    assert (
        "Format: worldsense, worded as in worldsense.py, github.com/open-compass/VLMEvalKit; answers: the likeliest"
        in (written)
    )
    video = json.loads(worldsense.read_text())["zZ"]
    many = {f"v{number}": {**video, "task0": {**video["task0"], "task_type": f"kind {number}"}} for number in range(14)}
    many["v14"] = many["v0"]
    path = tmp_path / "many.json"
    path.write_text(json.dumps(many))
    written = run("eval", "--data", path, *ONE, "--markdown").out
    assert written.startswith("| kept | mean | all questions |")
    assert (
        "\n| family | questions | cs2@0.1 |\n| --- | ---: | ---: |\n| kind 0 | 2 | 0.0 |\n| kind 1 | 1 | 0.0 |"
        in written
    )


def test_text_is_generated_where_it_is_asked_for(run, worldsense: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    (record,) = run(
        "eval", "--data", worldsense, *ONE, "--answers", "text", "--count", "1", "--items", items, "--json"
    ).records
    assert record["options"]["answers"] == "text"
    (line,) = (json.loads(line) for line in items.read_text().splitlines())
    assert not line["settings"]["cs2@0.1"]["right"]  # a random model's words name no option
    assert line["settings"]["cs2@0.1"]["failure"] is None


def test_a_media_root_and_marked_questions(run, tmp_path: Path, clips: dict[str, Path]) -> None:
    for name in ("00000093", "sa00007434"):
        shutil.copy(clips["both"], tmp_path / f"{name}.mp4")
    ran = run("eval", "--data", FILES / "music_avqa.json", "--media-root", tmp_path, *ONE, "--json")
    assert ran.code == 0
    (record,) = ran.records
    assert (record["count"], record["options"]["marked_as_deleted"]) == (3, 1)
    assert "answers" not in record["options"]  # nothing to choose from


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--format", "worldsens"), "unknown format 'worldsens'"),
        (("--format", "avut"), "holds no AVUT question that can be asked"),
        (("--media-root", "gone"), "gone is no folder"),
        (("--answers", "guess"), "unknown --answers 'guess'"),
        (("--data", "scenes:test", "--format", "jsonl"), "--format is that of a file of questions"),
        (("--data", "scenes:test", "--media-root", "."), "--media-root is that of a file of questions"),
        (("--data", str(FILES / "music_avqa.json"), "--answers", "letters"), "none of the questions has options"),
    ],
)
def test_refusals_come_before_the_model_is_loaded(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECHOPIX_MODEL", "/no/such/model")
    ran = run("eval", "--data", FILES / "worldsense.json", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert ran.out == ""


def test_a_signal_ends_a_film_at_its_next_window(
    run, worldsense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after all of it: a film's questions wait for its last window."""
    from echopix_cli.cli import ask_one

    told: list[float] = []

    def films_progress(say: object, path: str) -> Callable[[float, float, str], None]:
        assert path.endswith("aBcD1234.mp4")

        def watch(done: float, total: float, stage: str) -> None:
            told.append(done)
            os.kill(os.getpid(), signal.SIGTERM)

        return watch

    output = tmp_path / "r.json"
    with monkeypatch.context() as patched:
        patched.setattr(ask_one, "films_progress", films_progress)
        ran = run("eval", "--data", worldsense, *ONE, "--window", "1", "-o", output)
    assert (ran.code, len(told)) == (143, 1)
    assert "Interrupted; 0 of 3 done" in ran.err
    assert not output.exists()
    (record,) = run("eval", "--data", worldsense, *ONE, "--window", "1", "--count", "2", "--json").records
    assert record["options"]["window"] == 1.0
    assert record["settings"][0]["overall"]["failed"] == 0


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_by_the_fields_of_the_data_fit_the_terminal(width: int) -> None:
    from rich.console import Console

    from echopix_cli.cli.eval_tables import report_tables
    from echopix_cli.evaluation.report import make_report
    from echopix_cli.evaluation.values import SIEVES, Condition, Facts, Graded, ItemResult, Rows
    from echopix_cli.results import ModelFacts

    settings = [Condition(sieve, budget) for sieve in SIEVES[:-1] for budget in (1.0, 0.2, 0.1)]
    outcomes = {setting: Graded("A. x", True, Rows(6, 35, 0), 0.1) for setting in settings}
    fields = (("duration", "short"), ("domain", "x" * 60), ("audio", "[red]Speech"), ("audio", "Music\n\x1b[31m"))
    items = [ItemResult("i", "m", "f", "q", "A", 200, 0, outcomes, 100, groups) for groups in (fields, fields[:1])]
    facts = Facts(
        "0", "d", "c", ModelFacts("tiny", None, 1, "float32", "cpu"), "d", 2, ("f",), 0, {"answers": "letters"}
    )
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(report_tables(make_report(facts, items, settings, 1.0), width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "[red]Speech" in text and "\x1b" not in text
    for name in ("duration", "domain", "audio"):
        assert f"\n {name} " in text
    assert text.count("6.0 %") == text.count("35.0 %") == len(settings)
