"""Scenes and JSONL files as questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.evaluation.questions import load_questions
from echopix_cli.scenes import FAMILIES, make_script, recording_of
from echopix_cli.scenes.notes import recordings


def test_scenes_take_families_in_turn_and_seeds_in_order() -> None:
    questions = load_questions("scenes:test", 23, 5)
    assert [question.family for question in questions] == [FAMILIES[i % 10] for i in range(23)]
    assert [question.id for question in questions] == [f"scene:test:{5 + i}" for i in range(23)]
    for index, question in enumerate(questions):
        script = make_script("test", 5 + index, FAMILIES[index % 10])
        assert question.script == script
        assert question.prompt == script.items[0].question
        assert (question.answer, question.evidence) == (script.items[0].answer, script.items[0].evidence)
        assert question.evidence
    assert questions == load_questions("scenes:test", 23, 5)


def test_a_question_knows_the_recordings_that_its_clip_plays() -> None:
    """Two pitches may play one recording; of a movie those count that its needles play."""
    listed = recordings()
    by_split = {}
    for split in ("wide-train", "wide-test", "wide-font"):
        questions = load_questions(f"scenes:{split}", 39, 0)
        by_split[split] = {name for question in questions for name in question.recordings}
        for question in questions:
            assert question.script is not None
            keys = [(n.font, n.instrument, n.source, n.velocity) for n in question.script.notes]
            assert set(question.recordings) == {f"{key[0]} {listed[key][0]}" for key in keys}
    assert not by_split["wide-train"] & by_split["wide-test"] and not by_split["wide-test"] & by_split["wide-font"]
    for question in load_questions("scenes:movie-wide-test", 6, 0, length=40):
        assert question.movie is not None
        notes = [note for needle in question.movie.needles for note in needle.script.notes]
        assert set(question.recordings) == set(map(recording_of, notes))


def test_scenes_of_some_families() -> None:
    assert [q.family for q in load_questions("scenes:val", 4, 0, ["sync", "dark"])] == ["sync", "dark"] * 2
    assert len(load_questions("scenes:test", None, 0, ["dark"])) == 200


def test_unseen_font_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPIX_UNSEEN_FONT", str(tmp_path / "none.ogg"))
    with pytest.raises(EchopixError, match="note bank") as caught:
        load_questions("scenes:unseen-font", 2, 0)
    assert "scene_assets.py" in caught.value.hint


@pytest.mark.parametrize(("data", "families"), [("scenes:tset", []), ("scenes:", []), ("scenes:test", ["instrment"])])
def test_unknown_scenes(data: str, families: list[str]) -> None:
    with pytest.raises(UsageError, match="unknown") as caught:
        load_questions(data, 2, 0, families)
    assert "choose one of" in caught.value.hint


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_jsonl(tmp_path: Path) -> None:
    path = write(
        tmp_path / "data.jsonl",
        {"media": "clips/a.mp4", "question": "What plays?", "answer": "violin"},
        "",
        {
            "media": "/abs/b.mp4", "question": "Which?", "answer": "B", "choices": ["A. piano", "B. violin"],
            "family": "music", "id": 17,
        },
        {"media": "b.mp4", "question": "Which?", "answer": "The Violin", "choices": ["piano", "violin"], "id": "x"},
    )  # fmt: skip
    first, second, third = load_questions(str(path), None, 0)
    assert first.media == str(tmp_path / "clips/a.mp4")
    assert (first.id, first.family, first.prompt, first.evidence) == ("1", "all", "What plays?", ())
    assert (second.index, second.id, second.family, second.media) == (1, "17", "music", "/abs/b.mp4")
    assert second.prompt == "Which?\nA. piano\nB. violin"
    assert (second.answer, third.answer, third.id) == ("violin", "violin", "x")
    assert [q.id for q in load_questions(str(path), 1, 0)] == ["1"]
    assert [q.id for q in load_questions(str(path), None, 0, ["music"])] == ["17"]


GOOD = {"media": "a.mp4", "question": "What plays?", "answer": "violin"}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "no JSON object"),
        ({**GOOD, "answre": "x"}, "unknown field 'answre'"),
        ({"media": "a.mp4", "question": "What?"}, "'answer' is missing"),
        ({**GOOD, "answer": 3}, "'answer' is missing or not text"),
        ({**GOOD, "media": "  "}, "'media' is missing"),
        ({**GOOD, "family": 3}, "'family' is not text"),
        ({**GOOD, "id": ""}, "'id' is not text"),
        ({**GOOD, "answer": "?!"}, "nothing is left"),
        ({**GOOD, "choices": "piano"}, "not a list"),
        ({**GOOD, "choices": ["violin"]}, "between 2 and 26"),
        ({**GOOD, "choices": ["violin"] * 27}, "between 2 and 26"),
        ({**GOOD, "choices": ["violin", "The violin"]}, "the same"),
        ({**GOOD, "choices": ["violin", ""]}, "empty"),
        ({**GOOD, "choices": ["piano", "drum"]}, "none of the choices"),
        ({**GOOD, "question": "\ud800"}, "surrogate"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, bad: object, said: str) -> None:
    path = write(tmp_path / "data.jsonl", GOOD, "", bad, GOOD)
    with pytest.raises(UsageError) as caught:
        load_questions(str(path), None, 0)
    assert caught.value.message.startswith(f"{path}:3: ")
    assert said in caught.value.message


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"", b"\n\n"])
def test_a_file_without_questions(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "data.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"data\.jsonl") as caught:
        load_questions(str(path), None, 0)
    assert caught.value.hint


def test_a_byte_order_mark_and_dos_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")
    assert len(load_questions(str(path), None, 0)) == 1


def test_a_family_that_the_file_does_not_have(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", GOOD)
    with pytest.raises(UsageError, match="no question of family music"):
        load_questions(str(path), None, 0, ["music"])
