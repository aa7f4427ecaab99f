"""What benchmark files are kept in: JSON, one object a line, a table with tabs, or Parquet. Recognised by content."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from echopix_cli.documents import line_object, numbered_lines
from echopix_cli.errors import UsageError

_PARQUET = b"PAR1"
_LONGEST_CELL = 2**24  # characters


@dataclass(frozen=True)
class Document:
    """What a file holds: a value of JSON, or a list of objects; None where it is none of these.

    ``lines`` says whether it may be one object a line: what else it may be then, only the lines' own reader can tell.
    """

    content: Any
    lines: bool


def document_of(data: bytes, path: Path) -> Document:
    """What a file holds.

    Args:
        data: all of the file.
        path: its name, for messages.

    Raises:
        UsageError: it is Parquet and pyarrow is missing, or it is broken.
    """
    if data.startswith(_PARQUET):
        return Document(_parquet(data, path), lines=False)
    try:
        lines = numbered_lines(data)
    except UnicodeDecodeError:
        return Document(None, lines=True)
    content = data.decode("utf-8-sig")
    with suppress(ValueError, RecursionError):
        value = json.loads(content)
        return Document(value, lines=len(lines) == 1 and isinstance(value, dict))
    with suppress(ValueError):
        return Document([line_object(line) for _, line in lines] or None, lines=True)
    table = list(_table(content))
    return Document(table or None, lines=not table)


def _table(content: str) -> Iterator[dict[str, str]]:
    """The rows of a table with tabs between its cells and a line of names; nothing where it is none."""
    if "\t" not in content.partition("\n")[0]:
        return
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        for row in csv.DictReader(io.StringIO(content, newline=""), dialect="excel-tab"):
            yield {name: value for name, value in row.items() if isinstance(name, str) and isinstance(value, str)}
    except csv.Error:
        return
    finally:
        csv.field_size_limit(before)


def _parquet(data: bytes, path: Path) -> list[dict[str, Any]]:
    """Rows of a Parquet file, without columns of bytes, in which some data sets keep the videos themselves."""
    if find_spec("pyarrow") is None:
        raise UsageError(
            f"{path} is Parquet, and pyarrow, which reads it, is not installed", "pip install 'echopix[benchmarks]'"
        )
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data))
        names = [field.name for field in file.schema_arrow if _is_plain(field.type)]
        rows: list[dict[str, Any]] = file.read(columns=names).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise UsageError(f"cannot read {path} as Parquet: {reason}", "fetch the file again") from None
    return rows


def _is_plain(kind: Any) -> bool:
    """Texts, numbers, and lists of them."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    plain = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(is_it(kind) for is_it in plain) or types.is_dictionary(kind)
