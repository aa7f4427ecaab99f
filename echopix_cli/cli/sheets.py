"""Tables of numbers that are never cut: side by side where the terminal is wide enough, one under another where not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_ANY_WIDTH = 100_000


@dataclass(frozen=True)
class Sheet:
    """Some columns of what there is to say about each row; the first column is the row's name."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def table(self) -> Table:
        """Names and numbers on the right, each in one line."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for name in self.columns:
            table.add_column(name, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


@dataclass(frozen=True)
class Sheets:
    """Several sheets about the same rows, as tables, or stacked by row where one of them is too wide."""

    sheets: Sequence[Sheet]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich calls to draw them."""
        tables = [sheet.table() for sheet in self.sheets]
        unbounded = options.update(max_width=_ANY_WIDTH)
        if all(console.measure(table, options=unbounded).maximum <= options.max_width for table in tables):
            yield from tables
        else:
            yield from self._stacked()

    def _stacked(self) -> Iterator[Text | Table]:
        for rows in zip(*(sheet.rows for sheet in self.sheets), strict=True):
            yield Text(f"{self.sheets[0].columns[0]} {rows[0][0]}", style="bold")
            grid = Table.grid(padding=(0, 2))
            grid.add_column(style="dim", overflow="fold")
            grid.add_column(overflow="fold")
            for sheet, row in zip(self.sheets, rows, strict=True):
                for name, cell in zip(sheet.columns[1:], row[1:], strict=True):
                    grid.add_row(f"  {name}", Text(cell))
            yield grid
            yield Text()
