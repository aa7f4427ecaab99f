"""Words and tables on a terminal: broken where a reader would break them, with nothing at the ends of lines."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from answers import an_answer
from hypothesis import given
from hypothesis import strategies as st
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from echopix_cli.cli.answer_tables import answers_table
from echopix_cli.cli.layout import Trimmed, Words
from echopix_cli.cli.output import Output
from echopix_cli.cli.pages import laid_out
from echopix_cli.cli.tables import facts_grid
from echopix_cli.cli.timeline import Where
from echopix_cli.cli.waiting import Waited
from echopix_cli.errors import EchopixError
from echopix_cli.results import Moment

WAITED = "12.89 s: start-up 6.19 s, load 314 ms, read 295 ms, answer 87 ms"
PARTS = ("12.89 s:", "6.19 s,", "314 ms,", "295 ms,", "87 ms", "start-up")


def drawn(shown: RenderableType, width: int, color: bool = False) -> str:
    file = io.StringIO()
    kind = {"force_terminal": True, "color_system": "truecolor"} if color else {"color_system": None}
    Console(width=width, file=file, **kind).print(shown)  # type: ignore[arg-type]
    return file.getvalue()


@given(st.integers(24, 120))
def test_a_number_stays_with_its_unit(width: int) -> None:
    lines = drawn(facts_grid([("waited", WAITED)]), width).splitlines()
    assert " ".join(" ".join(lines).split()) == f"waited {WAITED}"
    for part in PARTS:
        assert any(part in line for line in lines), (part, lines)
    assert max(map(len, lines)) <= width


@given(st.text("ab1 2%", max_size=60).map(lambda text: " ".join(text.split())), st.integers(4, 40))
def test_words_lose_nothing(text: str, width: int) -> None:
    lines = drawn(Words(Text(text)), width).splitlines()
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) <= width and line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("hint", "lines"),
    [
        ("--budget, -b FRACTION: a share of tokens", ["  try: --budget, -b FRACTION: a", "share of tokens"]),
        ('echopix ask clip.mp4 "What is playing?"', ['  try: echopix ask clip.mp4 "What is playing?"']),
    ],
)
def test_hints_are_broken_between_words_but_commands_are_whole(hint: str, lines: list[str]) -> None:
    file = io.StringIO()
    output = Output()
    output._console = Console(width=32, file=file, force_terminal=True, color_system=None)
    output.error(EchopixError("no", hint))
    assert file.getvalue().splitlines() == ["error: no", *lines]


def test_pages_name_each_other_by_command() -> None:
    shown = laid_out("See [trust](trust.md) and [all](../COMMANDS.md).", 80, color=False)
    assert "See trust (echopix help trust) and" in re.sub(r"\x1b\[[0-9;]*m", "", shown)


def test_tables_leave_no_spaces_at_the_ends_of_lines_and_one_blank_line_between_them() -> None:
    table = Table("name", "number", box=box.SIMPLE_HEAD)
    table.add_row("a", "1")
    for color in (False, True):
        shown = drawn(Trimmed(Group(table, Text(), table, Text("end   "), Text(), Text(" "))), 40, color)
        lines = Text.from_ansi(shown.removesuffix("\n"), end="").plain.split("\n")
        assert [line.strip() for line in lines] == [
            "", "name   number", "─" * 15, "a      1", "", "name   number", "─" * 15, "a      1", "", "end",
        ]  # fmt: skip
        assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [28, 30, 41, 42, 60])
def test_moments_are_named_whole_at_any_width(width: int) -> None:
    moments = (Moment(1.0, 2.5, "audio", 0.9), Moment(3.25, 4.0, "video", 0.1))
    shown = drawn(Where([an_answer(moments)]), width)
    assert max(map(len, shown.splitlines())) <= width
    words = " ".join(shown.split())
    for part in ("moments", "sound 90 %", "picture 10 %"):
        assert part in words


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(("frames", "words"), [(1, "1 frame, 112×112"), (16, "16 frames at 2 fps, 112×112")])
def test_the_table_of_an_answer(width: int, frames: int, words: str) -> None:
    answer = an_answer((Moment(1.0, 2.5, "audio", 1.0),))
    answer = replace(answer, sampling=replace(answer.sampling, frames=frames))
    shown = drawn(Trimmed(answers_table([answer], Waited(6.19, 0.314, 0.295, 12.5))), width)
    lines = shown.splitlines()
    assert all(len(line) <= width and line == line.rstrip() for line in lines)
    assert "\n\n\n" not in shown
    assert words in shown
    for part in ("19.30 s:", "6.19 s,", "314 ms,", "295 ms,", "12.50 s"):
        assert any(part in line for line in lines)
