"""What a batch is to do: folders, lists, task files and shares."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.batch.tasks import (
    EXTENSIONS,
    Task,
    find_media,
    parse_shard,
    read_paths,
    read_questions,
    read_tasks,
    shard,
)
from echopix_cli.errors import MediaError, UsageError

# --- folders


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder as people keep them."""
    for name in (
        "b.mp4", "a.MKV", "notes.txt", "out.jsonl", ".hidden.mp4", "noextension", "sub/c.wav", "sub/deeper/d.webm",
        "sub/readme.md", ".trash/e.mp4", "Ümlaut.mov", "folder.mp4/f.flac",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


def within(folder: Path, found: list[str]) -> list[str]:
    return [os.path.relpath(path, folder) for path in found]


def test_a_folder_is_its_media_files_by_name(tree: Path) -> None:
    expected = ["a.MKV", "b.mp4", "Ümlaut.mov", "folder.mp4/f.flac", "sub/c.wav", "sub/deeper/d.webm"]
    assert within(tree, find_media([str(tree)])) == expected
    assert within(tree, find_media([f"{tree}/"])) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mp4", ["b.mp4"]),
        ("*", ["a.MKV", "b.mp4", "noextension", "notes.txt", "out.jsonl", "Ümlaut.mov", "folder.mp4/f.flac",
               "sub/c.wav", "sub/readme.md", "sub/deeper/d.webm"]),
        ("sub/*", ["sub/c.wav", "sub/readme.md"]),
        ("[ab].*", ["a.MKV", "b.mp4"]),
    ],
)  # fmt: skip
def test_a_pattern_takes_the_place_of_the_extensions(tree: Path, pattern: str, expected: list[str]) -> None:
    assert within(tree, find_media([str(tree)], pattern)) == expected


def test_files_stand_for_themselves(tree: Path) -> None:
    """Whatever they are called, whether they exist or not, in the order given, once."""
    names = [str(tree / name) for name in ("notes.txt", ".hidden.mp4", "none.mp4", "b.mp4", "notes.txt")]
    assert find_media(names) == names[:4]
    assert find_media([str(tree / "b.mp4"), str(tree)])[0] == str(tree / "b.mp4")
    assert len(find_media([str(tree / "b.mp4"), str(tree), str(tree / "sub")])) == 6


def test_links_and_what_is_no_file(tree: Path) -> None:
    (tree / "sub" / "around").symlink_to(tree)  # or the walk would never end
    (tree / "linked.mp4").symlink_to(tree / "notes.txt")
    (tree / "dangling.mp4").symlink_to(tree / "nothing")
    os.mkfifo(tree / "pipe.mp4")
    assert within(tree, find_media([str(tree)])) == [
        "a.MKV", "b.mp4", "dangling.mp4", "linked.mp4", "Ümlaut.mov", "folder.mp4/f.flac", "sub/c.wav",
        "sub/deeper/d.webm",
    ]  # fmt: skip


def test_still_pictures_are_passed_over_and_told_of(tree: Path) -> None:
    for name in ("a.jpg", "sub/b.HEIC", ".hidden.png", "jpg"):
        (tree / name).write_text("x")
    told: list[str] = []
    before = find_media([str(tree)])
    assert find_media([str(tree)], None, told.append) == before
    assert within(tree, told) == ["a.jpg", "sub/b.HEIC"]
    told.clear()
    assert within(tree, find_media([str(tree)], "*.jpg", told.append)) == ["a.jpg"]
    assert not told


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    Path(os.fsdecode(raw)).write_text("x")
    (found,) = find_media([str(tmp_path)])
    assert os.fsencode(found) == raw


def test_nothing_found(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UsageError, match=f"no media files in {empty}"):
        find_media([str(empty)])
    with pytest.raises(UsageError, match=r"no files called \*.avi"):
        find_media([str(tree)], "*.avi")


def test_a_folder_that_cannot_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir  # permissions do not bind the superuser, who may run this

    def refuse(path: str) -> object:
        if os.path.basename(path) == "deeper":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MediaError, match=r"cannot read the folder .*deeper: Permission denied"):
        find_media([str(tree / "sub" / "deeper")])
    expected = ["a.MKV", "b.mp4", "Ümlaut.mov", "folder.mp4/f.flac", "sub/c.wav", "sub/deeper"]
    assert within(tree, find_media([str(tree)])) == expected, "asking it will say what is wrong with it"


NAMES = st.text(st.sampled_from("ab.é-_ "), min_size=1, max_size=5).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@given(st.lists(st.tuples(PATHS, st.sampled_from([*sorted(EXTENSIONS)[:4], "txt", "jsonl"])), min_size=1, max_size=12))
def test_folders_hold_what_their_rule_says(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    made = set()
    for stem, extension in files:
        path = folder / f"{stem}.{extension}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
        made.add(str(path))
    wanted = {
        path
        for path in made
        if path.rpartition(".")[2] in EXTENSIONS
        and not any(part.startswith(".") for part in os.path.relpath(path, folder).split("/"))
        and os.path.isfile(path)
    }
    if not wanted:
        with pytest.raises(UsageError):
            find_media([str(folder)])
        return
    found = find_media([str(folder)])
    assert set(found) == wanted
    assert len(found) == len(wanted)
    for place in {os.path.dirname(path) for path in found}:
        inside = [path for path in found if os.path.dirname(path) == place]
        assert inside == sorted(inside)


# --- lists


def test_paths_on_stdin() -> None:
    text = b"a.mp4\r\n\n  \nwith space .mp4\nlast"
    assert read_paths(io.BytesIO(text)) == ["a.mp4", "with space .mp4", "last"]
    assert read_paths(io.BytesIO(b"a\nb.mp4\0c\r\0\0caf\xe9"), null=True) == ["a\nb.mp4", "c\r", "caf\udce9"]
    assert read_paths(io.BytesIO(b"")) == []
    with pytest.raises(UsageError, match="null characters") as raised:
        read_paths(io.BytesIO(b"a.wav\0b.wav"))
    assert (raised.value.hint or "").startswith("-0")
    with pytest.raises(UsageError, match="newlines"):
        read_paths(io.BytesIO(b"a.wav\nb.wav\n"), null=True)


@given(st.lists(st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name and name.strip())))
def test_every_path_survives_find_print0(names: list[bytes]) -> None:
    found = read_paths(io.BytesIO(b"".join(name + b"\0" for name in names)), null=True)
    assert [os.fsencode(path) for path in found] == names


def test_questions_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "questions.txt"
    file.write_bytes(b'\xef\xbb\xbfWhat?\r\n\r\n  Who sings?  \r\n[Is this JSON?]\n"quoted"')
    assert read_questions(file) == [
        Task("", "What?"), Task("", "Who sings?"), Task("", "[Is this JSON?]"), Task("", '"quoted"')
    ]  # fmt: skip


def test_questions_as_json(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(
        '\n{"question": " What? "}\n{"question": "Who?", "id": "q2", "choices": ["A. a dog", "B. a cat"]}\n'
        '{"question": "How\u2028many?", "id": 3, "choices": null}\n Where?\n'
    )
    assert read_questions(file) == [
        Task("", "What?"),
        Task("", "Who?", "q2", choices=("a dog", "a cat")),
        Task("", "How\u2028many?", 3),
        Task("", "Where?"),
    ]


def test_tasks(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(
        '{"media": "a.mp4", "question": "What?"}\n'
        '{"id": 7, "media": "/b.mp4", "question": "Who?", "budget": 0.5, "start": "1:02", "end": 63.5}\n'
        '{"id": "7", "media": "sub/../c.mp4", "question": "x", "choices": ["yes", "no"], "budget": null, "id": "8"}'
    )
    assert read_tasks(file) == [
        Task(f"{tmp_path}/a.mp4", "What?"),
        Task("/b.mp4", "Who?", 7, 0.5, 62.0, 63.5),
        Task(f"{tmp_path}/sub/../c.mp4", "x", "8", choices=("yes", "no")),
    ]
    assert type(read_tasks(file)[1].id) is int


def test_media_beside_a_file_in_this_folder_are_called_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = '{"media": "a.mp4", "question": "What?"}'
    Path("tasks.jsonl").write_text(line)
    assert read_tasks(Path("tasks.jsonl"))[0].media == "a.mp4"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line.encode())))
    assert read_tasks(Path("-"))[0].media == "a.mp4"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"nonsense")))
    with pytest.raises(UsageError, match=r"^stdin, line 1 is not JSON"):
        read_tasks(Path("-"))


GOOD_TASK = '{"media": "a.mp4", "question": "What?"}'
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("nonsense", "is not JSON"),
        ('{"media": "a.mp4", "question": "What?"} {}', "is not JSON"),
        ('{"media": "a.mp4"\u2028, "question": "What?"}', "is not JSON"),
        (DEEP, "nested too deeply"),
        ('{"media": ' + DEEP, "nested too deeply"),
        ('{"budget": ' + "1" * 5000 + "}", "is not JSON"),
        ("[1]", "no JSON object"),
        ('"text"', "no JSON object"),
        ("null", "no JSON object"),
        ("{}", "'media' is missing"),
        ('{"media": "a.mp4"}', "'question' is missing"),
        ('{"media": "a.mp4", "question": ""}', "'question' is missing, empty"),
        ('{"media": "a.mp4", "question": " "}', "'question' is missing, empty"),
        ('{"media": "a.mp4", "question": 3}', "'question' is missing, empty or not text"),
        ('{"media": ["a.mp4"], "question": "What?"}', "'media' is missing, empty or not text"),
        ('{"media": "", "question": "What?"}', "'media' is missing, empty"),
        ('{"media": "a.mp4", "question": "\\ud800?"}', "lone surrogate"),
        ('{"media": "a.mp4", "question": "What?", "choices": ["a", "\\udc00"]}', "lone surrogate"),
        ('{"media": "\\ud800.mp4", "question": "What?"}', "lone surrogate"),
        ('{"media": "a\\udc00.mp4", "question": "What?"}', "lone surrogate"),
        ('{"media": "a.mp4", "question": "What?", "file": "b.mp4"}', "unknown field 'file'"),
        ('{"media": "a.mp4", "question": "What?", "id": [1]}', "'id' is neither"),
        ('{"media": "a.mp4", "question": "What?", "id": 1.5}', "'id' is neither"),
        ('{"media": "a.mp4", "question": "What?", "id": true}', "'id' is neither"),
        ('{"media": "a.mp4", "question": "What?", "budget": 0}', "not a budget"),
        ('{"media": "a.mp4", "question": "What?", "budget": 1.01}', "not a budget"),
        ('{"media": "a.mp4", "question": "What?", "budget": "ten"}', "not a budget"),
        ('{"media": "a.mp4", "question": "What?", "budget": true}', "not a budget"),
        ('{"media": "a.mp4", "question": "What?", "budget": NaN}', "not a budget"),
        ('{"media": "a.mp4", "question": "What?", "budget": [0.1]}', "0.1"),
        ('{"media": "a.mp4", "question": "What?", "start": -1}', "not a time"),
        ('{"media": "a.mp4", "question": "What?", "start": 1e999}', "not a time"),
        ('{"media": "a.mp4", "question": "What?", "end": "soon"}', "not a time"),
        ('{"media": "a.mp4", "question": "What?", "end": {}}', "not a time"),
        ('{"media": "a.mp4", "question": "What?", "start": 2, "end": 2}', "not after its start"),
        ('{"media": "a.mp4", "question": "What?", "end": 0}', "not after its start"),
        ('{"media": "a.mp4", "question": "What?", "choices": "ab"}', "not a list of texts"),
        ('{"media": "a.mp4", "question": "What?", "choices": ""}', "not a list of texts"),
        ('{"media": "a.mp4", "question": "What?", "choices": false}', "not a list of texts"),
        ('{"media": "a.mp4", "question": "What?", "choices": [1, 2]}', "not a list of texts"),
        ('{"media": "a.mp4", "question": "What?", "choices": ["one"]}', "between 2 and 26"),
        ('{"media": "a.mp4", "question": "What?", "choices": ["a", " a "]}', "the same"),
        ('{"media": "a.mp4", "question": "What?", "choices": ["a", ""]}', "a choice is empty"),
        (json.dumps({"media": "a.mp4", "question": "What?", "choices": list(map(str, range(27)))}), "27 choices"),
    ],
    ids=lambda value: value[:60],
)
def test_a_malformed_task_names_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(f"{GOOD_TASK}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        read_tasks(file)
    message = raised.value.message
    assert message.startswith(f"{file}, line 3")
    assert said in message
    assert "\n" not in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ('{"question": "What?", "media": "a.mp4"}', "unknown field 'media'"),
        ('{"question": "What?", "budget": 0.5}', "unknown field 'budget'"),
        ('{"id": "q"}', "'question' is missing"),
    ],
)
def test_a_malformed_question_names_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(f'{{"question": "Who?"}}\n{line}')
    with pytest.raises(UsageError) as raised:
        read_questions(file)
    assert raised.value.message.startswith(f"{file}, line 2")
    assert said in raised.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "holds nothing"), (b" \n\r\n", "holds nothing"), (b"caf\xe9", "cannot read"), (None, "cannot")],
)
@pytest.mark.parametrize("read", [read_tasks, read_questions])
def test_lists_that_are_no_lists(tmp_path: Path, read: object, content: bytes | None, said: str) -> None:
    file = tmp_path / "list"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read(file)  # type: ignore[operator]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.fixed_dictionaries(
    {"media": st.just("a.mp4") | JSON, "question": st.just("What?") | JSON},
    optional={name: JSON for name in ("id", "budget", "start", "end", "choices")},
)


@given(st.lists(FIELDS.map(json.dumps) | st.text(max_size=30), min_size=1, max_size=4))
def test_a_list_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    """Whatever is in it: tasks that can be asked, or one UsageError."""
    file = tmp_path_factory.getbasetemp() / "anything.jsonl"
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        tasks = read_tasks(file)
    except UsageError as error:
        assert str(file) in error.message
        return
    for task in tasks:
        assert task.question.strip() and task.media
        task.question.encode()
        assert task.budget is None or 0 < task.budget <= 1
        assert task.start is None or 0 <= task.start < float("inf")
        assert task.id is None or type(task.id) in (str, int)


# --- shares

TASKS = st.lists(
    st.builds(Task, st.sampled_from("abcdefgh"), st.sampled_from(["What?", "Who?"]), st.integers(0, 3)), max_size=30
)


@given(TASKS, st.integers(1, 12))
def test_shares_are_disjoint_and_complete(tasks: list[Task], count: int) -> None:
    shares = [shard(tasks, own, count) for own in range(1, count + 1)]
    assert sorted((task for share in shares for task in share), key=repr) == sorted(tasks, key=repr)
    holders = [{task.media for task in share} for share in shares]
    assert sum(map(len, holders)) == len({task.media for task in tasks})  # a file is decoded in one share only
    assert max(map(len, holders)) - min(map(len, holders)) <= 1
    for share in shares:
        assert share == [task for task in tasks if task in share]  # in the same order


@given(st.integers(-2, 15), st.integers(-2, 15))
def test_shares_are_numbered_from_one(own: int, count: int) -> None:
    if 1 <= own <= count:
        assert parse_shard(f"{own}/{count}") == (own, count)
        return
    with pytest.raises(UsageError, match="--shard"):
        parse_shard(f"{own}/{count}")


@pytest.mark.parametrize(
    "text", ["", "/", "1/", "/2", "1/2/3", "a/b", "1.0/2", "²/3", "+1/2", " 1/2", "1" * 5000 + "/2"]
)
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_shard(text)
    assert raised.value.hint == "--shard 1/8 is the first of eight"
