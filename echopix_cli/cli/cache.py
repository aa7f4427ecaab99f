"""``echopix cache``: features of media files that are kept on the disk."""

from typing import TYPE_CHECKING

from echopix_cli.cli import options as opt
from echopix_cli.cli.model_records import columns
from echopix_cli.cli.output import SCHEMA_VERSION
from echopix_cli.sizes import binary

if TYPE_CHECKING:
    from echopix_cli.shelf import Item, Shelf

cache = opt.group("cache", "Show or remove what is kept of media files.")


@cache.command("info")
@opt.taking(*opt.PRINTING)
def info(run: opt.Run, json: opt.Json = False) -> None:
    """Where features of media files are kept, how many, and how many bytes they take and may take."""
    shelf = _shelf(run)
    items = shelf.items()
    entries = _features(items)
    on = bool(run.settings.cache and shelf.cap)
    total = sum(item.size for item in items)
    oldest, newest = (_when(entries[at].used) if entries else None for at in (0, -1))
    if json:
        run.output.record(
            {
                "schema_version": SCHEMA_VERSION,
                "path": str(shelf.folder),
                "on": on,
                "entries": len(entries),
                "bytes": total,
                "cap_bytes": shelf.cap,
                "oldest_use": oldest,
                "newest_use": newest,
            }
        )
        return
    rows = [
        ["path", str(shelf.folder)],
        ["state", "on" if on else "off"],
        ["entries", str(len(entries))],
        ["size", f"{binary(total)} of {binary(shelf.cap)}"],
        ["oldest use", oldest or "–"],
        ["newest use", newest or "–"],
    ]
    columns(run.output, rows)


@cache.command("clear")
@opt.taking(*opt.PRINTING)
def clear(run: opt.Run, json: opt.Json = False) -> None:
    """Remove all features of media files. They are made again when they are needed."""
    shelf = _shelf(run)
    removed = shelf.clear()
    entries, total = len(_features(removed)), sum(item.size for item in removed)
    if json:
        run.output.record(
            {"schema_version": SCHEMA_VERSION, "path": str(shelf.folder), "entries": entries, "bytes": total}
        )
        return
    what = "1 entry" if entries == 1 else f"{entries} entries"
    run.output.notice(f"removed {what}, {binary(total)}, from {shelf.folder}")


def _shelf(run: opt.Run) -> "Shelf":
    from pathlib import Path

    from echopix_cli.shelf import feature_shelf

    return feature_shelf(Path(run.settings.cache_dir), run.settings.cache_size)


def _features(items: "list[Item]") -> "list[Item]":
    """Items that are features, without the small files beside them."""
    from echopix_cli.shelf import FEATURES

    return [item for item in items if item.path.suffix == FEATURES]


def _when(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
