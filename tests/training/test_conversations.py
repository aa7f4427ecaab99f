"""Conversations as they stand in people's own JSONL files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.errors import UsageError
from echopix_cli.training.conversations import MARKS, Conversation, read_conversations

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)
WORDS = TEXTS.filter(lambda text: not any(mark in text for mark in MARKS))


def record(question: str, answer: str) -> dict[str, object]:
    said = [{"role": "user", "content": f"<video>{question}"}, {"role": "assistant", "content": answer}]
    return {"messages": said, "videos": ["clip.mp4"]}


@given(said=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4), mark=st.booleans(), end=st.sampled_from("\r\n"))
def test_any_text_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, str]], mark: bool, end: str
) -> None:
    """Separators that Python takes for ends of lines, a byte-order mark, blank lines and Windows' ends included."""
    path = tmp_path_factory.getbasetemp() / "talk.jsonl"
    lines = [json.dumps(record(*one), ensure_ascii=False) + ("\r\n\n" if end == "\r" else "\n") for one in said]
    path.write_bytes(("\ufeff" if mark else "").encode() + "".join(lines).encode())
    assert read_conversations(path) == tuple(Conversation(path.parent / "clip.mp4", *one) for one in said)


@given(said=st.lists(st.sampled_from([*MARKS, "a", "é", " ", "<"]), max_size=6).map("".join))
def test_marks_of_media_are_no_words(tmp_path_factory: pytest.TempPathFactory, said: str) -> None:
    """Wherever they stand; a line of nothing but marks has no question, or no answer."""
    path = tmp_path_factory.getbasetemp() / "marks.jsonl"
    words = said
    for mark in MARKS:
        words = words.replace(mark, "")
    for line, asked in ((record(said, "b"), (words.strip(), "b")), (record("a", said), ("a", words.strip()))):
        path.write_text(json.dumps(line), encoding="utf-8")
        if words.strip():
            assert read_conversations(path) == (Conversation(path.parent / "clip.mp4", *asked),)
        else:
            with pytest.raises(UsageError, match=":1: the question or the answer is empty"):
                read_conversations(path)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", ":3: not JSON: "),
        ('{"messages": ' + "[" * 100_000, ":3: nested too deeply"),
        ("[1]", ":3: no JSON object"),
        ('{"videos": ["a.mp4"]}', ":3: no 'messages'"),
        (json.dumps({**record("a", "b"), "videos": []}), ":3: videos must name one file"),
        (json.dumps({**record("a", "b"), "videos": ["a.mp4", "b.mp4"]}), ":3: videos must name one file"),
        (
            json.dumps({**record("a", "b"), "videos": ["a.mp4"], "audios": ["b.wav"], "images": ["c.png"]}),
            ":3: a line is about one file, and this one names more: "
            "videos ['a.mp4'], audios ['b.wav'], images ['c.png']",
        ),
        (json.dumps({**record("a", "b"), "videos": ["a.mp4"], "images": ["a.mp4"]}), ":3: a line is about one file"),
        (json.dumps({**record("a", "b"), "videos": [], "images": ["c.png"]}), ":3: videos must name one file"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps(record("a", "b")) + "\n\n" + line + "\n")
    with pytest.raises(UsageError) as caught:
        read_conversations(path)
    assert str(path) + what in caught.value.message


@pytest.mark.parametrize("keys", [("videos",), ("audios",), ("videos", "audios")])
def test_the_file_of_a_line_may_stand_under_either_name_or_both(tmp_path: Path, keys: tuple[str, ...]) -> None:
    line = {**{name: value for name, value in record("a", "b").items() if name != "videos"}, "images": []}
    (tmp_path / "talk.jsonl").write_text(json.dumps({**line, **{key: ["a.mp4"] for key in keys}}) + "\n")
    (found,) = read_conversations(tmp_path / "talk.jsonl")
    assert found.media == tmp_path / "a.mp4"
