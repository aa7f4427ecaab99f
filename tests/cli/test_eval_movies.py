"""``echopix eval --data scenes:movie``: its JSON, items, table and refusals, with a random model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

MOVIE = ("--data", "scenes:movie", "--length", "0:16", "--count", "2", "--max-new-tokens", "1")


def test_json_and_items_tell_of_moments(run, tmp_path: Path) -> None:
    items = tmp_path / "i.jsonl"
    arguments = ("eval", *MOVIE, "--sieve", "auto", "--sieve", "single-pass", "--json", "--items", items)
    ran = run(*arguments)
    assert ran.code == 0, ran.err
    (record,) = ran.records
    assert (record["data"], record["families"]) == ("scenes:movie", ["instrument", "object"])
    assert [record["options"][name] for name in ("length", "window", "look")] == [16.0, None, 4]
    assert [setting["setting"] for setting in record["settings"]] == ["cs2@1", "single-pass@1"]
    for setting in record["settings"]:
        assert set(setting["top_moment_on_evidence"]) == {"right", "total", "failed", "accuracy", "low", "high"}
        assert setting["top_moment_on_evidence"]["total"] == 2
        assert setting["mean_rows_in_last_prompt"] == sum(setting["mean_rows_kept"].values())
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["movie:test:0:16s:instrument:0", "movie:test:0:16s:object:1"]
    assert {type(line["settings"]["cs2@1"]["moment_right"]) for line in lines} == {bool}
    for line in lines:
        own = line["settings"]["single-pass@1"]
        assert own["pool"]["rows"] == own["kept"]["video"] + own["kept"]["audio"]  # a budget of 1 keeps all of its own
    again = run(*arguments)
    assert "2 of 2 questions were answered before" in again.err
    assert again.records[0]["settings"] == record["settings"]
    other = run(*("0:24" if part == "0:16" else part for part in arguments))
    assert other.code == 2 and "another evaluation" in other.err


def test_the_table_of_movies(run) -> None:
    ran = run("eval", *MOVIE, "--sieve", "auto")
    assert "top moment on" in ran.err and "last prompt" in ran.err
    assert "top moment" not in run("eval", "--count", "1", "--sieve", "auto", "-b", "1.0").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--length", "1:00"), ["--length is that of movies", "--data scenes:movie"]),
        (("--sieve", "single-pass"), ["unknown sieve 'single-pass'"]),
        (("--data", "scenes:movie", "--length", "soon"), ["not a time", "--length 10:00"]),
        (("--data", "scenes:movie", "--length", "5"), ["5 s", "8 s to 4:00:00"]),
        (("--data", "scenes:movie", "--family", "sync"), ["sync", "instrument, object, when"]),
        (("--data", "scenes:movie", "--around-sieve"), ["--sieve single-pass"]),
    ],
)
def test_refusals(run, arguments: tuple[str, ...], said: list[str]) -> None:
    ran = run("eval", *arguments, "--json")
    assert ran.code == 2 and ran.out == ""
    assert all(words in ran.err.replace("\n", " ") for words in said), ran.err
