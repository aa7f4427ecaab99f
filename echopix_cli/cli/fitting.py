"""Tables that lose nothing on a narrow terminal: where columns do not fit, rows are stacked."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from echopix_cli.cli.output import one_line


class Fitted:
    """Rows of cells, as a table where all of it fits; otherwise each row is a heading and a line a cell.

    Args:
        columns: their names; the first column heads its row.
        rows: cells, each as plain text.
        bold: numbers of rows that stand out.
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[str]], bold: Sequence[int] = ()) -> None:
        self.columns = columns
        self.rows = [[one_line(cell) for cell in row] for row in rows]
        self.bold = bold

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._table()
        if Measurement.get(console, options.update(max_width=10_000), table).maximum <= options.max_width:
            yield table
            return
        for row in self.rows:
            yield Text(f"{self.columns[0]} {row[0]}".strip(), style="bold")
            grid = Table.grid(padding=(0, 2))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(overflow="fold")
            for name, cell in zip(self.columns[1:], row[1:], strict=True):
                if cell:
                    grid.add_row(f"  {name}", Text(cell))
            yield grid
        yield ""

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(self.columns):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for number, row in enumerate(self.rows):
            table.add_row(*(Text(cell) for cell in row), style="bold" if number in self.bold else None)
        return table
