"""What is typed into a conversation: how it is read, and completed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from echopix_cli.cli.chat_lines import COMMANDS, Order, help_lines, read_line, written
from echopix_cli.cli.chat_prompt import Words
from echopix_cli.errors import UsageError


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("What is playing?", "What is playing?"),
        ("  What is / playing?  ", "What is / playing?"),
        ("", []),
        ("/start 1:20 /end 1:40", [Order("/start", "1:20"), Order("/end", "1:40")]),
        ("/start /end", [Order("/start"), Order("/end")]),
        ("/open '/a b/c.mp4' /budget 10%", [Order("/open", "/a b/c.mp4"), Order("/budget", "10%")]),
        ("/open /a b/my film.mp4 /budget 10%", [Order("/open", "/a b/my film.mp4"), Order("/budget", "10%")]),
        ("/open /end", [Order("/open", "/end")]),
        ("/open it's me.mp4", [Order("/open", "it's me.mp4")]),
        ('/save say "hi.jsonl', [Order("/save", 'say "hi.jsonl')]),
        ("/open a  b.mp4 /new", [Order("/open", "a  b.mp4"), Order("/new")]),
        ("/open back\\slash.mp4", [Order("/open", "back\\slash.mp4")]),
        ("/open \"a /new\".mp4  /end '1:20'", [Order("/open", "a /new.mp4"), Order("/end", "1:20")]),
        ("/where", [Order("/where")]),
    ],
)
def test_lines_are_questions_or_commands(line: str, read: str | list[Order]) -> None:
    assert read_line(line) == read


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("/o", ["/open"]), ("/open {}/fi", ["lms/", "rst.mp4"]), ("/save {}/films/", ["one.mp4"]), ("What /o", [])],
)
def test_tab_completes_commands_and_paths(tmp_path: Path, typed: str, offered: list[str]) -> None:
    """A folder's name goes on with its slash, so that Tab can be pressed again."""
    (tmp_path / "films").mkdir()
    for name in ("films/one.mp4", "first.mp4"):
        (tmp_path / name).touch()
    document = Document(typed.format(tmp_path))
    assert sorted(found.text for found in Words().get_completions(document, CompleteEvent())) == offered


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
ODD = st.lists(st.sampled_from(["'", '"', " ", "  ", "\\", "a", "new", "\n", "\u00a0", "~", "#", "\udcff"]), min_size=1)


@given(st.data())
@settings(max_examples=100)
def test_what_is_completed_is_what_is_opened(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """From any beginning of its name on, whatever it is; in a folder of any name, too."""
    name = (NAMES | ODD.map("".join)).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) < 200)
    folder, file, command = data.draw(name), data.draw(name), data.draw(st.sampled_from(["/open", "/save"]))
    place = tmp_path_factory.mktemp("named")
    (place / folder).mkdir()
    (place / folder / file).touch()

    def completed(line: str, shown: str) -> str:
        (found,) = [
            found for found in Words().get_completions(Document(line), CompleteEvent()) if found.display_text == shown
        ]
        return line[: len(line) + found.start_position] + found.text

    line = f"{command} {written(f'{place}/{folder[: data.draw(st.integers(0, len(folder)))]}')}"
    line = completed(line, f"{folder}/")
    assert read_line(line) == [Order(command, f"{place}/{folder}/")]
    line = completed(line, file)
    assert read_line(line) == [Order(command, f"{place}/{folder}/{file}")]
    assert read_line(f"{line} /new") == [Order(command, f"{place}/{folder}/{file}"), Order("/new")]


def test_names_that_begin_with_a_quotation_mark_are_completed_in_quotation_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("'tis.mp4", " first", "it's"):
        Path(name).touch()
    found = [found.text for found in Words().get_completions(Document("/open "), CompleteEvent())]
    assert set(found) == {"''\"'\"'tis.mp4'", "' first'", "it's"}
    (found,) = Words().get_completions(Document("/open ' fi"), CompleteEvent())
    assert (found.text, found.start_position) == ("rst'", 0)
    assert list(Words().get_completions(Document("/open it /new"), CompleteEvent())) == []


@pytest.mark.parametrize("line", ["/nothing", "/open", "/save", "/where now", "/open 'x", "/budget 1 2"])
def test_what_is_no_command_is_said(line: str) -> None:
    with pytest.raises(UsageError):
        read_line(line)


@given(st.text(), st.lists(st.sampled_from([*COMMANDS, "1:20", "a b", "'", "x.mp4"])))
@settings(max_examples=100)
def test_any_line_is_read_or_refused(text: str, words: list[str]) -> None:
    for line in (text, f"/{text}", " ".join(words)):
        try:
            read = read_line(line)
        except UsageError as error:
            assert error.message
            continue
        assert isinstance(read, str) or all(order.name in COMMANDS for order in read)


def test_help_names_every_command() -> None:
    assert [line.split()[0] for line in help_lines()] == list(COMMANDS)
    assert max(map(len, help_lines())) <= 79
