"""``echopix eval`` on media whose sound is lost: said, counted, kept for the next run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clips import garble_sound


@pytest.fixture
def data(clips: dict[str, Path], tmp_path: Path) -> Path:
    """Seven files without their sound, one of them asked about twice, and three that are as they should be."""
    garbled = [garble_sound(tmp_path / f"garbled{index}.mp4", clips["both"]) for index in range(7)]
    media = [garbled[0], *garbled, clips["both"], clips["silent"], clips["dark"]]
    lines = [{"media": str(path), "question": f"What? {n}", "answer": "dog"} for n, path in enumerate(media)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "data.jsonl"


def test_of_a_film_too(run, clips: dict[str, Path], tmp_path: Path) -> None:
    garbled = garble_sound(tmp_path / "garbled.mp4", clips["both"])
    lines = [{"media": str(path), "question": "What?", "answer": "dog"} for path in (clips["both"], garbled)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ("--data", tmp_path / "data.jsonl", "-b", "0.1", "--sieve", "cs2", "--sieve", "random")
    ran = run("eval", *arguments, "--window", "1", "--json")
    assert ran.code == 0
    (record,) = ran.records
    assert record["audio"] == {"used": 1, "undecodable": 1}
    assert {one["media"] for one in record["notices"]} == {str(garbled)}
    assert f"note: {garbled}: " in ran.err and str(clips["both"]) not in ran.err


def test_sound_that_is_lost_is_said_and_counted(run, data: Path, tmp_path: Path) -> None:
    items, output = tmp_path / "i.jsonl", tmp_path / "r.json"
    arguments = ("eval", "--data", data, "-b", "0.1", "--sieve", "cs2", "--items", items, "-o", output)
    ran = run(*arguments, "--quiet")
    assert ran.code == 0 and ran.out == ""
    said = ran.err.splitlines()
    assert [line.partition(": ")[2].partition(": ")[0] for line in said[:5]] == [
        str(tmp_path / f"garbled{index}.mp4") for index in range(5)
    ]
    assert said[5:] == ["note: 2 more such notices are listed in the JSON report"]
    record = json.loads(output.read_text())
    assert record["audio"] == {"used": 2, "absent": 1, "undecodable": 8}
    assert [Path(one["media"]).name for one in record["notices"]] == [f"garbled{index}.mp4" for index in range(7)]
    assert [item.get("audio") for item in record["items"]] == [*["undecodable"] * 8, None, None, None]
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    assert [bool(line.get("notices")) for line in lines] == [line["audio"] == "undecodable" for line in lines]
    again = run(*arguments)
    assert "11 of 11 questions were answered before" in again.err
    assert "it could not be decoded, 8 questions" in " ".join(again.err.split())
    resumed = json.loads(output.read_text())
    assert {name: resumed[name] for name in ("audio", "notices", "items", "seconds")} == {
        **{name: record[name] for name in ("audio", "notices", "items")}, "seconds": None
    }  # fmt: skip
    assert record["seconds"] > 0
    assert "Sound: it could not be decoded, 8 questions." in run(*arguments, "--markdown").out


def test_items_of_an_earlier_version_go_on(run, data: Path, tmp_path: Path) -> None:
    items = tmp_path / "i.jsonl"
    arguments = ("eval", "--data", data, "-b", "0.1", "--sieve", "cs2", "--items", items, "--json")
    whole = run(*arguments).records[0]
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    earlier = [{name: value for name, value in line.items() if name not in ("audio", "notices")} for line in lines]
    items.write_text("".join(json.dumps(line) + "\n" for line in earlier))
    ran = run(*arguments)
    assert (ran.code, "11 of 11 questions were answered before" in ran.err) == (0, True)
    (record,) = ran.records
    assert (record["audio"], record["notices"]) == ({}, [])
    assert record["settings"] == whole["settings"]


def test_an_unfinished_share_keeps_the_answers_of_the_others(run, clips: dict[str, Path], tmp_path: Path) -> None:
    """Files that a share's end removes are those that hold its own answers alone."""
    data, output = tmp_path / "d.jsonl", tmp_path / "r.json"
    media = (clips["both"], tmp_path / "gone.mp4", clips["silent"], clips["dark"])
    lines = [{"media": str(path), "question": "What?", "answer": "dog"} for path in media]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    unfinished = tmp_path / "r.json.unfinished.jsonl"
    arguments = ("eval", "--data", data, "-b", "0.1", "--sieve", "cs2", "-o", output)
    assert run(*arguments).code == 1  # one is to be tried again
    assert len(unfinished.read_text().splitlines()) == 4
    shares = [run(*arguments, "--shard", share) for share in ("1/2", "2/2")]
    assert sorted(ran.code for ran in shares) == [0, 1]
    kept = [json.loads(line) for line in unfinished.read_text().splitlines()]
    assert len([line for line in kept if "error" not in line]) == 3
    assert run(*arguments, "--shard", "1/1").code == 1
    (tmp_path / "gone.mp4").symlink_to(clips["both"])
    ran = run(*arguments)
    assert (ran.code, "3 of 4 questions were answered before" in ran.err) == (0, True)
    assert not unfinished.exists()
