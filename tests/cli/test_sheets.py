"""Tables of numbers: whole at any width."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from echopix_cli.cli.sheets import Sheet, Sheets

CELLS = st.text("0123456789.×–() msMiB", min_size=1, max_size=21).filter(lambda text: text.strip() == text)


def drawn(sheets: Sheets, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    console.print(sheets)
    return console.export_text()


@given(st.lists(st.lists(CELLS, min_size=5, max_size=5), min_size=1, max_size=4), st.integers(45, 160))
def test_every_name_and_number_is_there_at_any_width(rows: list[list[str]], width: int) -> None:
    first = Sheet(("budget", "kept", "sieve+prefill"), tuple((row[0], row[1], row[2]) for row in rows))
    second = Sheet(("budget", "first token", "memory"), tuple((row[0], row[3], row[4]) for row in rows))
    shown = drawn(Sheets((first, second)), width)
    assert max(map(len, shown.splitlines())) <= width
    for row in rows:
        for cell in row:
            assert cell in shown
    for name in (*first.columns, *second.columns):
        assert name in shown


@pytest.mark.parametrize(("width", "stacked"), [(25, True), (26, False)])
def test_tables_where_they_fit_and_stacks_where_not(width: int, stacked: bool) -> None:
    sheets = Sheets((Sheet(("budget", "sieve+prefill"), (("0.1", "655 ms (646–664)"),)),))
    shown = drawn(sheets, width)
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    assert (lines[0] == "budget 0.1") is stacked, shown
