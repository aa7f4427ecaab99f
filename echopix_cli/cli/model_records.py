"""Models, downloads and entries of the store as JSON objects and as rows of plain text."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from echopix_cli.cli.output import SCHEMA_VERSION, Output, one_line
from echopix_cli.errors import ModelError
from echopix_cli.sizes import decimal

if TYPE_CHECKING:
    from echopix_cli.weights.hub import Pulled
    from echopix_cli.weights.registry import Model
    from echopix_cli.weights.store import Entry
    from echopix_cli.weights.transfer import Plan


def all_models(store: Any) -> list[Model]:
    """Known names, and repositories that were downloaded without one."""
    from echopix_cli.weights.registry import PREFIX, find_model, known_models
    from echopix_cli.weights.store import HUB

    found = list(known_models().values())
    keys = {model.key for model in found if model.repository is not None}
    for entry in store.all():
        if entry.manifest.kind == HUB and entry.key not in keys:
            wanted = entry.manifest.settings.get("requested")
            found.append(find_model(f"{PREFIX}{entry.manifest.source}" + (f"@{wanted}" if wanted else "")))
    return found


def describe(model: Model, store: Any, files: bool = False) -> dict[str, Any]:
    """A model as a JSON object."""
    from echopix_cli.weights.copies import of_model
    from echopix_cli.weights.hub import hub_cache, parts
    from echopix_cli.weights.opening import open_checkpoint, recognise
    from echopix_cli.weights.packing import METHODS
    from echopix_cli.weights.registry import resolve_model

    entry: Entry | None = store.peek(model.key) if model.repository is not None else None
    folder = None if entry is None or entry.faults else entry.folder
    if model.folder is not None:
        state = model.origin if model.origin == "bundled" else "folder" if os.path.isdir(model.folder) else "missing"
        folder = model.folder if os.path.isdir(model.folder) else None
    elif entry is None:
        begun = sum(parts(hub_cache(), model.repository).values())
        state = f"unfinished ({decimal(begun)})" if begun else "not here"
    else:
        state = "damaged" if entry.faults else "ready"
    made = of_model(model, store)
    if made and state == "not here":
        state = "copy only"
    counts, context, layout = model.counts, model.shape and model.shape.context, None
    if folder is not None and (counts is None or entry is None):
        try:
            checkpoint = open_checkpoint(folder)
        except (ModelError, OSError):
            layout = recognise(folder)
        else:
            layout = checkpoint.layout
            if checkpoint.quantization is None and checkpoint.context is not None:
                counts, context = checkpoint.counts, checkpoint.context
    found: dict[str, Any] = {
        "name": model.name,
        "key": model.key if model.repository is not None else None,
        "source": model.source,
        "origin": model.origin,
        "revision": entry.manifest.revision if entry else model.revision,
        "layout": entry.manifest.settings.get("layout") if entry else layout,
        "licence": model.licence or (entry.manifest.settings.get("licence", "") if entry else ""),
        "state": state,
        "faults": list(entry.faults) if entry else [],
        "folder": None if folder is None else str(folder),
        "bytes": entry.size if entry else None,
        "about_bytes": model.download,
        "parameters": counts.parameters if counts else None,
        "context": context,
        "copies": [entry_record(copy) for copy in made],
        "weight_bytes": {method: counts.bytes_as(method) for method in METHODS} if counts else None,
    }
    if model.origin == "bundled":
        found["revision"] = resolve_model(model.name).revision
    if folder is not None and entry is None:
        with suppress(OSError):  # a folder that may not be looked into
            found["bytes"] = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    if files:
        manifest = entry.manifest if entry else None
        found["checked"] = f"{manifest.created}, every byte" if manifest else ""
        found["libraries"] = dict(manifest.libraries) if manifest else {}
        found["files"] = {
            name: {"size": fact.size, "sha256": fact.sha256}
            for name, fact in (manifest.files if manifest else {}).items()
        }
    return found


def entry_record(entry: Entry) -> dict[str, Any]:
    """An entry that is no model's download: a copy made of one."""
    manifest = entry.manifest
    return {
        "key": entry.key,
        "kind": manifest.kind,
        "source": manifest.source,
        "revision": manifest.revision,
        "state": "damaged" if entry.faults else "ready",
        "faults": list(entry.faults),
        "folder": str(entry.folder),
        "bytes": entry.size,
        "quantize": manifest.settings.get("quantize"),
        "dtype": manifest.settings.get("dtype"),
    }


def plan_record(plan: Plan) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "name": plan.model.name,
        "repository": plan.model.repository,
        "revision": plan.commit,
        "licence": plan.licence,
        "layout": plan.layout,
        "folder": str(plan.destination),
        "bytes": plan.total,
        "to_fetch": plan.fetch,
        "present": plan.present,
        "not_needed": plan.skipped,
        "free": plan.free,
        "files": {file.path: file.size for file in plan.files},
    }


def pulled_record(model: Model, done: Pulled) -> dict[str, Any]:
    manifest = done.entry.manifest
    return {
        "schema_version": SCHEMA_VERSION,
        "name": model.name,
        "repository": model.repository,
        "revision": manifest.revision,
        "licence": manifest.settings.get("licence", ""),
        "layout": manifest.settings.get("layout"),
        "folder": str(done.entry.folder),
        "bytes": done.entry.size,
        "fetched": done.fetched,
        "not_needed": done.plan.skipped if done.plan else None,
        "seconds": round(done.seconds, 3),
    }


def columns(output: Output, rows: list[list[str]], headings: Sequence[str] = ()) -> None:
    """In columns on a terminal, or where they do not fit, a value to a line; between tabs elsewhere.

    Args:
        output: to write to.
        rows: of equally many cells.
        headings: of the columns, for a terminal.
    """
    from rich.cells import cell_len

    cells = [[one_line(str(cell)) for cell in row] for row in rows]
    if not output.answers_on_terminal:
        for row in cells:
            output.answer("\t".join(row))
        return
    shown = [list(headings), *cells] if headings else cells
    widths = [max(map(cell_len, column)) for column in zip(*shown, strict=True)]
    if headings and sum(widths) + 2 * (len(widths) - 1) > shutil.get_terminal_size().columns:
        label = max(map(cell_len, headings))
        for row in cells:
            output.answer(row[0])
            for heading, cell in zip(headings[1:], row[1:], strict=True):
                output.answer(f"  {heading:{label}}  {cell}")
        return
    for row in shown:
        output.answer(
            "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def size_cell(record: dict[str, Any]) -> str:
    if record["bytes"] is not None:
        return decimal(record["bytes"])
    return f"about {decimal(record['about_bytes'])}" if record["about_bytes"] else "–"


def count_cell(number: int) -> str:
    """Parameters, in the unit that fits."""
    return f"{number / 1e9:.1f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"
