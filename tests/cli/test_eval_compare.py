"""``echopix eval``: two reports compared, shares of the clips, Markdown, and what an interruption leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from echopix_cli.cli.eval_records import report_record
from echopix_cli.evaluation.report import make_report
from echopix_cli.evaluation.values import Condition, Facts, Graded, ItemResult, Rows
from echopix_cli.results import ModelFacts

FEW = ("--count", "4", "--sieve", "cs2", "--sieve", "none")


def report(path: Path, seed: int = 0, **marks: str) -> Path:
    """A report about four scenes, made by hand: ``report(path, cs2_01="1101")``."""
    names = {name.replace("_0", "@0.").replace("_1", "@1"): text for name, text in marks.items()}
    settings = [Condition(name.partition("@")[0], float(name.partition("@")[2] or 0)) for name in names]
    graded = {"1": Graded("x", True, Rows(1, 1, 0), 0.1), "0": Graded("y", False, Rows(1, 1, 0), 0.1)}
    graded["-"] = Graded.failed("no room")
    items = [
        ItemResult(f"scene:test:{seed + place}", f"scene:test:{seed + place}", family, "q", "x", 9, 0, {
            setting: graded[text[place]] for setting, text in zip(settings, names.values(), strict=True)
        })
        for place, family in enumerate(("instrument", "object", "count", "sync"))
    ]  # fmt: skip
    facts = Facts("0", "d", "c", ModelFacts("tiny", None, 1, "float32", "cpu"), "scenes:test", 4, (), seed, {})
    path.write_text(json.dumps(report_record(make_report(facts, items, settings, 1.0))))
    return path


@pytest.fixture
def reports(tmp_path: Path) -> tuple[Path, Path]:
    """Two reports about the same questions, at two budgets and with one control in common."""
    return (
        report(tmp_path / "a.json", cs2_05="1101", none="0000"),
        report(tmp_path / "b.json", cs2_01="0-01", none="0000"),
    )


def test_two_reports_are_compared(command, reports: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = reports
    ran = command("eval", "--compare", first, second, "--json", "-o", tmp_path / "c.json")
    assert ran.code == 0, ran.err
    (record,) = ran.records
    assert json.loads((tmp_path / "c.json").read_text()) == record
    assert [one["file"] for one in record["compared"]] == [str(first), str(second)]
    assert (record["count"], record["clips"]) == (4, 4)
    (pair,) = record["settings"]  # of none; no budget of CS2 is in both
    assert (pair["setting"], pair["reference"]) == ("none", "none")
    assert pair["mean_over_families"]["value"] == 0.0
    assert -pair["mean_over_families"]["low"] == pair["mean_over_families"]["high"] > 0.1, "four questions are few"
    assert list(pair["families"]) == ["instrument", "object", "count", "sync"]
    table = command("eval", "--compare", first, second)
    assert table.out == "" and "first less second, on the same 4 questions" in table.err
    words = command("eval", "--compare", first, second, "--markdown").out
    assert words.splitlines()[0].startswith("| setting | first | second | difference of means | instrument |")


def test_the_difference_is_that_of_marks_by_hand(command, reports: tuple[Path, Path]) -> None:
    first, second = (report(path, cs2_05=marks) for path, marks in zip(reports, ("1101", "0-01"), strict=True))
    (record,) = command("eval", "--compare", first, second, "--json").records
    (pair,) = record["settings"]
    assert (pair["accuracy"]["value"], pair["reference_accuracy"]["value"]) == (0.75, 0.25)
    assert pair["overall"]["value"] == 0.5 and -1.0 <= pair["overall"]["low"] < 0.5 < pair["overall"]["high"] <= 1.0
    assert [gap["value"] for gap in pair["families"].values()] == [1.0, 1.0, 0.0, 0.0]
    markdown = command("eval", "--compare", first, second, "--markdown").out
    assert "| cs2@0.5 | 75.0 | 25.0 | +50.0 (" in markdown


def one_error(ran: Any) -> str:
    """The one line that says what is wrong."""
    assert ran.code == 2 and ran.out == ""
    lines = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return str(lines[0])


def test_what_cannot_be_compared(command, reports: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = reports
    text, other = tmp_path / "text.json", report(tmp_path / "other.json", 9, cs2_05="1101")
    assert "different questions: 'scene:test:0' stands in the place of 'scene:test:9'" in one_error(
        command("eval", "--compare", first, other)
    )
    text.write_text("Dear diary")
    assert f"{text} is no report of an evaluation" in one_error(command("eval", "--compare", first, text))
    assert "cannot read" in one_error(command("eval", "--compare", tmp_path / "gone.json", first))
    old = {key: value for key, value in json.loads(first.read_text()).items() if key != "items"}
    text.write_text(json.dumps(old))
    assert "does not say which questions were answered rightly" in one_error(command("eval", "--compare", text, first))
    for field, value in (("marks", "11x0"), ("marks", "1"), ("marks", None), ("setting", 3)):
        record = json.loads(first.read_text())
        record["settings"][0][field] = value
        text.write_text(json.dumps(record))
        assert "cannot be compared" in one_error(command("eval", "--compare", text, first))
    for others in (("--count", "4"), ("--data", "scenes:test"), ("--model", "x"), ("--around-sieve",), ("--seed", "0")):
        assert f"--compare asks no questions, and {others[0]} is about those" in one_error(
            command("eval", "--compare", first, second, *others, "-q", "--json", "--debug")
        )
    assert "print the same to one place" in one_error(
        command("eval", "--compare", first, second, "--json", "--markdown")
    )
    assert "leaves nothing to print" in one_error(command("eval", "--compare", first, second, "-q"))


def test_what_is_read_is_never_written(command, reports: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = reports
    content, link, compared = first.read_bytes(), tmp_path / "link.json", tmp_path / "compared.json"
    link.hardlink_to(first)
    data = tmp_path / "data.jsonl"
    data.write_text('{"media": "x.mp4", "question": "What?", "answer": "dog"}\n')
    compare = ("eval", "--compare", first, second)
    for ran in (
        command(*compare, "-o", first, "--force"),
        command(*compare, "-o", link, "--force"),
        command("eval", *FEW, "--full", first, "-o", link, "--force"),
        command("eval", "--data", data, "-o", data, "--force"),
    ):
        assert "is read, and would be replaced" in one_error(ran)
    other = tmp_path / "other.json"
    other.write_bytes(content)
    assert f"{other} exists and is no comparison of two reports" in one_error(command(*compare, "-o", other))
    for _ in range(2):
        assert command(*compare, "-o", compared).code == 0
    assert f"{compared} exists and is no report of an evaluation" in one_error(command("eval", *FEW, "-o", compared))
    assert first.read_bytes() == other.read_bytes() == content and "dog" in data.read_text()


def test_budgets_are_measured_against_the_better_model(run, reports: tuple[Path, Path], tmp_path: Path) -> None:
    first = tmp_path / "first.json"
    same = ("eval", *FEW, "-b", "1", "-b", "0.1", "--family", "instrument")  # of one question alone nothing is sure
    assert run(*same, "-o", first).code == 0
    record = json.loads(first.read_text())
    assert {setting["marks"] for setting in record["settings"]} == {"0000"}, "the random model knows nothing"
    record["settings"] = [{**record["settings"][0], "setting": "without-cs2", "marks": "1111"}]
    full = tmp_path / "full.json"
    full.write_text(json.dumps(record))
    (made,) = run(*same, "--full", full, "--json").records
    assert made["recovered"]["full"] == "before CS2: without-cs2"
    assert {one["setting"]: one["share"]["value"] for one in made["recovered"]["settings"]} == {
        "cs2@1": 0.0, "cs2@0.1": 0.0,
    }  # fmt: skip
    assert "is about other questions: 4 questions and 3" in one_error(run("eval", "--count", "3", "--full", full))
    assert "asked in other words" in one_error(run("eval", *FEW, "--full", reports[0]))
    record["settings"][0]["setting"] = "cs2@0.1"
    full.write_text(json.dumps(record))
    assert "no setting that keeps everything" in one_error(run(*same, "--full", full))


def test_markdown_shows_names_as_they_are(run, clips: dict[str, Path], tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    lines = [
        {"media": str(clips["both"]), "question": f"What? {number}", "answer": "dog", "family": family}
        for number, family in enumerate(["a|b <i>x</i>", "[link](x)", "*c*"])
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ran = run("eval", "--data", data, "--sieve", "cs2", "-b", "0.1", "--markdown")
    assert ran.code == 0, ran.err
    head, rule, row, *_ = ran.out.splitlines()
    assert head == r"| kept | a\|b \<i\>x\</i\> | \[link\](x) | \*c\* | mean | of video, % | of audio, % |"
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in (head, rule, row)]
    assert cells == [8, 8, 8]
    assert "of drawing the 1 clips anew" in ran.out, "three questions about one clip"


def test_shares_of_the_clips_make_one_report(run, clips: dict[str, Path], tmp_path: Path) -> None:
    data, whole, merged = tmp_path / "data.jsonl", tmp_path / "whole.json", tmp_path / "merged.json"
    lines = [
        {"media": str(clips[name]), "question": f"What? {number}", "answer": "dog", "id": f"{name}-{number}"}
        for number in range(2)
        for name in ("both", "silent", "dark")
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    same = ("eval", "--data", data, "-b", "0.1", "--sieve", "cs2", "--sieve", "random")
    parts = []
    for share, ids in (("1/2", "both-0 both-1 dark-0 dark-1"), ("2/2", "silent-0 silent-1")):
        items = tmp_path / f"part-{share[0]}.jsonl"
        (record,) = run(*same, "--shard", share, "--items", items, "--json").records
        assert (record["count"], record["options"]["shard"]) == (len(ids.split()), share)
        assert sorted(item["id"] for item in record["items"]) == ids.split()
        parts.append(items)
    (tmp_path / "all.jsonl").write_bytes(b"".join(part.read_bytes() for part in parts))
    ran = run(*same, "--items", tmp_path / "all.jsonl", "-o", merged)
    assert ran.code == 0 and "note: 6 of 6 questions were answered before" in ran.err
    assert run(*same, "-o", whole).code == 0

    def measured(path: Path) -> dict[str, Any]:
        report = json.loads(path.read_text())
        return {**report, "command": "", "date": "", "seconds": 0, "settings": [
            {**setting, "median_seconds": 0} for setting in report["settings"]
        ]}  # fmt: skip

    assert measured(merged) == measured(whole)
    again = run(*same, "--shard", "2/2", "--items", tmp_path / "all.jsonl", "--json")
    assert "note: 2 of 2 questions were answered before" in again.err, "others' answers may lie there, too"
    assert "--shard 4/4 is empty" in one_error(run(*same, "--shard", "4/4"))
    assert "is no share" in one_error(run(*same, "--shard", "3/2"))


def test_an_interrupted_evaluation_lies_beside_its_report(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --items, too: until the report is written, and no longer."""
    from echopix_cli.batch.journal import Journal

    output, unfinished, append = tmp_path / "r.json", tmp_path / "r.json.unfinished.jsonl", Journal.append
    same = ("eval", *FEW, "-b", "0.1", "-o", output)

    def ending(self: Journal, record: dict[str, Any]) -> None:
        append(self, record)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", ending)
        assert run(*same).code == 130
    assert not output.exists()
    assert [json.loads(line)["id"] for line in unfinished.read_text().splitlines()] == ["scene:test:0"]
    with open(unfinished, "ab") as file:
        file.write(unfinished.read_bytes()[:90])  # torn, as by a power cut
    other = run(*same, "--max-new-tokens", "3")
    assert f"{unfinished} holds answers of another evaluation" in one_error(other)
    assert f"{unfinished} is safe to delete" in other.err
    assert not output.exists() and unfinished.read_bytes().count(b"\n") == 1
    ran = run(*same)
    assert (ran.code, "note: 1 of 4 questions were answered before" in ran.err) == (0, True)
    assert json.loads(output.read_text())["count"] == 4 and not unfinished.exists()
    assert "answered before" not in run(*same).err
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", lambda self, record: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*same).code == 130
    assert not unfinished.exists(), "nothing was answered"
