"""The field's benchmark files, in the layouts in which they are published and remade."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echopix_cli.choices import LETTERS
from echopix_cli.errors import UsageError
from echopix_cli.evaluation.questions import Question, load_questions
from echopix_cli.evaluation.readers import READERS
from echopix_cli.evaluation.readers.containers import document_of
from echopix_cli.evaluation.readers.fields import lettered, minutes, options

FILES = Path(__file__).parent / "benchmarks"
MME = [
    {
        "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Law",
        "url": "https://example.org/fFjv93ACGo8", "videoID": "fFjv93ACGo8", "question_id": "001-1",
        "task_type": "Counting Problem", "question": "How many hats are there?",
        "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."], "answer": "D",
    },
    {
        "video_id": "601", "duration": "long", "domain": "Sports Competition", "sub_category": "Esports",
        "url": "https://example.org/N1cdUjctpG8", "videoID": "N1cdUjctpG8", "question_id": "601-2",
        "task_type": "Action Reasoning", "question": "Why does the crowd rise?",
        "options": ["A. It rains.", "B. A goal.", "C. It ends.", "D. A song."], "answer": "B",
    },
]  # fmt: skip


def questions(name: str, **more: Any) -> tuple[Question, ...]:
    return load_questions(str(FILES / f"{name}.json"), None, 0, **more)


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize(
    ("name", "form", "gold", "families"),
    [
        ("lvomnibench", "lvomnibench", "BCA", ["Event Understanding", "Counting", "Event Understanding"]),
        ("lvomnibench_remake", "lvomnibench", "BCC", ["Event Understanding", "Counting", "Event Understanding"]),
        ("omnivideobench", "omnivideobench", "BCB", ["causal reasoning", "counting", "counting"]),
        ("daily_omni", "daily-omni", "ADA", ["AV Event Alignment", "Event Sequence", "Reasoning"]),
        ("daily_omni_remake", "daily-omni", "D", ["AV Event Alignment"]),
        ("worldsense", "worldsense", "CAB", ["Audio Recognition", "Audio Counting", "Temporal Prediction"]),
        ("worldsense_flat", "worldsense", "CB", ["Audio Recognition", "Temporal Prediction"]),
        ("avut", "avut", "CCA", ["Audio Event Location", "Audio Content Counting", "Audio Event Location"]),
    ],
)
def test_multiple_choice_is_recognised_by_its_content(name: str, form: str, gold: str, families: list[str]) -> None:
    found = questions(name)
    assert [question.benchmark and question.benchmark.name for question in found] == [form] * len(found)
    assert ["ABCDEF"[question.gold or 0] for question in found] == list(gold)
    assert [question.family for question in found] == families
    assert [question.fault for question in found] == [""] * len(found)
    assert [question.index for question in found] == list(range(len(found)))
    assert len({question.id for question in found}) == len(found)
    for question, letter in zip(found, gold, strict=True):
        right = question.choices["ABCDEF".index(letter)]
        assert question.is_right(letter) and question.is_right(f"({letter})") and question.is_right(question.answer)
        assert not right or question.is_right(right)
        assert not question.is_right("E" if letter == "A" else "A")
        assert not question.is_right("") and not question.is_right("I cannot see a video")


@pytest.mark.parametrize("path", sorted(FILES.glob("*.json")), ids=lambda path: path.stem)
def test_no_two_readers_take_one_file(path: Path) -> None:
    document = document_of(path.read_bytes(), path).content
    takers = [name for name, reader in READERS.items() if any(map(reader.fits, reader.entries(document)))]
    assert len(takers) == 1


def test_lvomnibench() -> None:
    first, second, third = questions("lvomnibench")
    assert first.media == str(FILES / "videos/video_0.mp4")
    assert (first.id, second.id, third.id) == ("video_0/1", "video_0/2", "video_1/1")
    assert first.groups == (("audio", "music"), ("difficulty", "hard"), ("category", "documentary"))
    assert first.choices == ("a violin", "a trumpet", "a piano", "a drum")
    assert first.answer == "B. a trumpet"
    assert first.prompt == (
        "Question: Which instrument begins after the door has closed?\n"
        "Options:\nA. a violin\nB. a trumpet\nC. a piano\nD. a drum\n\n"
        "Select the best answer from the options above. Directly provide the letter representing your choice and "
        "nothing else. Do not include the full text of the option, do not provide any explanation."
    )


def test_options_as_one_broken_text() -> None:
    first, second, third = questions("lvomnibench_remake")
    assert first.choices == ("a violin", "a trumpet", "a piano", "a drum")
    assert second.choices == ("once, perhaps", "twice", "three times", "never")
    assert third.choices == ("a map, an old one", "a bridge", "the 'Lorelei'", "a castle")


def test_omnivideobench() -> None:
    first, second, third = questions("omnivideobench")
    assert (first.media, first.media, third.media) == (
        second.media, str(FILES / "videos/video_1.mp4"), str(FILES / "videos/video_2.mp4"),
    )  # fmt: skip
    assert first.groups == (("duration", "1-5 min"), ("audio", "Speech"), ("category", "Vlog"))
    assert third.groups[0] == ("duration", "10-30 min")
    assert second.choices == ("0", "1", "2", "3")
    assert "Options:\nA.0\nB.1\nC.2\nD.3\n\nAnswer with the option's letter directly(e.g." in second.prompt


def test_daily_omni() -> None:
    first, second, third = questions("daily_omni")
    assert first.media == second.media == str(FILES / "Videos/abc-123/abc-123_video.mp4")
    assert third.groups == (("duration", "60s"), ("category", "People"))
    choices = "Choices: ['A. A red ball.', 'B. A blue car.', 'C. A tree.', 'D. A lamp.']\nYour answer should be"
    assert choices in first.prompt
    (remake,) = questions("daily_omni_remake")
    assert remake.choices[3] == "A lamp, the dog's."


def test_worldsense_nested_and_flat_ask_the_same() -> None:
    nested, flat = questions("worldsense"), questions("worldsense_flat")
    assert [question.id for question in nested] == ["aBcD1234/task0", "aBcD1234/task1", "zZ/task0"]
    assert [question.id for question in flat] == ["0", "1"]
    for one, other in zip((nested[0], nested[2]), flat, strict=True):
        assert (one.prompt, one.media, one.groups, one.gold) == (other.prompt, other.media, other.groups, other.gold)
    assert nested[0].groups == (
        ("duration", "1-2min"), ("audio", "Music"), ("audio", "Speech"), ("domain", "Music"),
    )  # fmt: skip
    assert nested[0].media == str(FILES / "videos/aBcD1234.mp4")
    assert nested[0].prompt.endswith(
        "Question: Which instrument is heard?\nA. Violin.\nB. Flute.\nC. Guitar.\nD. Drum.\nAnswer: "
    )


def test_worldsense_as_a_table_with_tabs(tmp_path: Path) -> None:
    rows = json.loads((FILES / "worldsense_flat.json").read_text())
    rows[0]["question"] = 'Which "instrument"\nis heard?'
    path = tmp_path / "WorldSense.tsv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), dialect="excel-tab")
        writer.writeheader()
        writer.writerows(rows)
    first, second = load_questions(str(path), None, 0)
    assert first.question == rows[0]["question"]
    assert first.choices == ("Violin.", "Flute.", "Guitar.", "Drum.")
    assert first.groups[1:3] == (("audio", "Music"), ("audio", "Speech"))
    assert (second.gold, second.id) == (1, "1")


def test_video_mme(tmp_path: Path) -> None:
    rows = [{**row, "video": b"not to be read"} for row in MME]
    found = load_questions(str(parquet(tmp_path / "test-00000-of-00001", rows)), None, 0)
    assert [question.benchmark and question.benchmark.name for question in found] == ["video-mme"] * 2
    assert [(q.id, q.gold, q.family) for q in found] == [
        ("001-1", 3, "Counting Problem"),
        ("601-2", 1, "Action Reasoning"),
    ]
    assert found[1].groups == (("duration", "long"), ("domain", "Sports Competition"))
    assert found[0].media == str(tmp_path / "data/fFjv93ACGo8.mp4")
    assert found[0].prompt == (
        "Select the best answer to the following multiple-choice question based on the video. "
        "Respond with only the letter (A, B, C, or D) of the correct option.\n"
        "How many hats are there?\nA. One.\nB. Two.\nC. Three.\nD. Four.\nThe best answer is:"
    )


def test_avut_keeps_the_letters_of_blank_options() -> None:
    first, second, third = questions("avut")
    assert (first.id, first.media) == ("17", str(FILES / "data/QqQ-1.mp4"))
    assert second.choices == ("1", "2", "", "4", "5", "6")
    assert "\nB. 2\nC. \nD. 4\n" in second.prompt
    assert second.is_right("C") and not second.is_right("") and not second.is_right("?") and not second.is_right("2")
    assert third.choices == ("after the joke", "before it")


def test_music_avqa() -> None:
    first, second, third = questions("music_avqa")
    assert (
        first.prompt
        == "Is the clarinet in the video always playing?\nAnswer the question using a single word or phrase."
    )
    assert third.question == "Is the left instrument violin or double bass?"
    assert (second.family, second.groups) == ("Audio, Counting", (("modality", "Audio"), ("asks", "Counting")))
    assert (second.choices, second.gold, second.answer) == ((), None, "two")
    assert second.is_right("2") and second.is_right("Two.") and not second.is_right("three")
    assert third.media == str(FILES / "videos/sa00007434.mp4")
    assert first.benchmark is not None and first.benchmark.left_out == 1


TEXTS = st.lists(st.from_regex(r"[a-z][a-z ]{0,9}[a-z]", fullmatch=True), min_size=2, max_size=8)


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["json", "python", "no commas", "spaces", "lines", "semicolons", "brackets"]))
def test_options_written_as_one_text_are_told_apart(texts: list[str], way: str) -> None:
    shown = [f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False)]
    written = {
        "json": json.dumps(shown),
        "python": str(shown),
        "no commas": "[" + " ".join(map(repr, shown)) + "]",
        "spaces": " ".join(shown),
        "lines": "\n".join(shown),
        "semicolons": "; ".join(shown),
        "brackets": " ".join(f"({letter}) {text}" for letter, text in zip(LETTERS, texts, strict=False)),
    }[way]
    bare, _ = lettered(options(written))
    assert list(bare) == texts


@pytest.mark.parametrize(
    ("duration", "between"),
    [("00:59", "0-1 min"), ("01:00", "0-1 min"), ("1:00:00", "over 30 min"), ("61", "1-5 min"), ("10:01", "10-30 min"),
     ("", ""), ("short", "short"), ("1:2:3:4", "1:2:3:4")],
)  # fmt: skip
def test_durations_are_reported_by_the_minutes_that_they_lie_between(duration: str, between: str) -> None:
    assert minutes(duration) == between


# --- places of media


def test_the_media_root_may_be_the_folder_of_the_videos_or_the_one_above(tmp_path: Path) -> None:
    for place in ("videos/video_0.mp4", "video_1.mkv"):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    above = questions("lvomnibench", media_root=tmp_path)
    assert [question.media for question in above] == [str(tmp_path / "videos/video_0.mp4")] * 2 + [
        str(tmp_path / "video_1.mkv")
    ]
    inside = questions("lvomnibench", media_root=tmp_path / "videos")
    assert inside[0].media == str(tmp_path / "videos/video_0.mp4")
    (tmp_path / "QqQ-1.mp4").write_bytes(b"")
    assert questions("avut", media_root=tmp_path)[0].media == str(tmp_path / "QqQ-1.mp4")


def test_jsonl_obeys_the_media_root_too(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"media": "a.mp4", "question": "What?", "answer": "dog"}\n')
    assert load_questions(str(path), None, 0, media_root=Path("/media"))[0].media == "/media/a.mp4"


# --- what is malformed


def altered(tmp_path: Path, name: str, **fields: Any) -> tuple[Question, ...]:
    """A benchmark's questions with fields of its first entry replaced; None takes one away."""
    entries = json.loads((FILES / f"{name}.json").read_text())
    entries[0] = {key: value for key, value in {**entries[0], **fields}.items() if value is not None}
    path = tmp_path / "data.json"
    path.write_text(json.dumps(entries))
    return load_questions(str(path), None, 0)


@pytest.mark.parametrize(
    ("name", "fields", "fault"),
    [
        ("lvomnibench", {"question": None}, "no question"),
        ("lvomnibench", {"question": ["Which?"]}, "no question"),
        ("lvomnibench", {"video_id": ""}, "no video"),
        ("lvomnibench", {"video_id": "../../secret"}, "a video outside the media's folder"),
        ("lvomnibench", {"video_id": "a\0b"}, "a video outside the media's folder"),
        ("avut", {"video_path": "/etc/secret.mp4"}, "a video outside the media's folder, '/etc/secret.mp4'"),
        ("lvomnibench", {"correct_option": "E"}, "the answer 'E', which is none of its 4 options"),
        ("lvomnibench", {"correct_option": None}, "the answer '', which is none of its 4 options"),
        ("lvomnibench", {"options": "a violin or a trumpet"}, "1 options that can be told apart"),
        ("lvomnibench", {"options": {"A": [1]}}, "0 options that can be told apart"),
        ("lvomnibench", {"options": "[" * 40_000}, "0 options that can be told apart"),
        ("lvomnibench", {"question": "\ud800"}, "half a character"),
        ("daily_omni", {"Choice": None}, "0 options that can be told apart"),
        ("music_avqa", {"templ_values": "[]"}, "no question"),
        ("music_avqa", {"templ_values": "[\"a\", \"b\"]"}, "no question"),
        ("music_avqa", {"anser": None}, "no answer"),
    ],
)  # fmt: skip
def test_a_malformed_entry_is_a_failed_question_of_its_family(
    tmp_path: Path, name: str, fields: dict[str, Any], fault: str
) -> None:
    found, whole = altered(tmp_path, name, **fields), questions(name)
    assert len(found) == len(whole)
    assert found[0].fault.startswith(fault)
    assert (found[0].family, found[0].groups) == (whole[0].family, whole[0].groups)
    assert [question.fault for question in found[1:]] == [""] * (len(whole) - 1)


WHOLE = {path.stem: json.loads(path.read_text()) for path in sorted(FILES.glob("*.json"))}
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["A", "[]", "['A. x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document that something stands at."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, below in inner for place in places(below, (*at, key)))]


@settings(deadline=None)
@given(st.data())
def test_whatever_stands_anywhere_in_a_file_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    document = json.loads(json.dumps(WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))]))
    *way, last = data.draw(st.sampled_from(places(document)[1:]))
    value = document
    for key in way:
        value = value[key]
    value[last] = data.draw(ANYTHING)
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(document))
    try:
        found = load_questions(str(path), None, 0)
    except UsageError as error:
        assert "\n" not in error.message and error.hint
        return
    assert len({question.id for question in found}) == len(found)
    for question in found:
        assert question.fault or (question.prompt and question.media and question.is_right(question.answer))


def test_entries_that_are_no_objects_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([None, "x", *json.loads((FILES / "avut.json").read_text())]))
    found = load_questions(str(path), None, 0)
    assert [bool(question.fault) for question in found] == [True, True, False, False, False]
    assert [question.id for question in found[:2]] == ["entry 1", "entry 2"]


def test_ids_that_the_file_repeats_are_told_apart(tmp_path: Path) -> None:
    found = altered(tmp_path, "avut", QA_id=18)
    assert [question.id for question in found] == ["18", "18#2", "19"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PAR1 and nothing that follows", "as Parquet"),
        (b'{"a": {"b": 1},\n "c": 2}', "has the layout of no benchmark that is known: lvomnibench, "),
        (b'[{"question": "What?"}]\n', "has the layout of no benchmark"),
        (b'[\n{"question": "What?"}]\n', "has the layout of no benchmark"),
        (b"question\tanswer\nWhat?\tdog\n", "has the layout of no benchmark"),
        (b"[" * 100_000, "q.json:1: nested too deeply"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "q.json"
    path.write_bytes(content)
    if content.startswith(b"PAR1"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    with pytest.raises(UsageError) as caught:
        load_questions(str(path), None, 0)
    assert said in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_the_format_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="holds no WorldSense question that can be asked: the first one has no question"
    ):
        questions("music_avqa", form="worldsense")
    with pytest.raises(UsageError, match="it has no entries of this layout"):
        questions("worldsense", form="avut")
    with pytest.raises(UsageError, match="not JSON"):
        questions("avut", form="jsonl")
    assert questions("avut", form="avut") == questions("avut")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from echopix_cli.evaluation.readers import containers

    monkeypatch.setattr(containers, "find_spec", lambda name: None)
    path = tmp_path / "test.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="is Parquet, and pyarrow, which reads it, is not installed") as caught:
        load_questions(str(path), None, 0)
    assert caught.value.hint == "pip install 'echopix[benchmarks]'"
