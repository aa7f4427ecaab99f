"""``echopix config``: every setting, its value and where it came from."""

import json as json_module
from dataclasses import asdict

from echopix_cli.cli import options as opt
from echopix_cli.settings import TABLE, config_path


@opt.taking("no_color", "debug")
def config(run: opt.Run, json: opt.Json = False) -> None:
    """Show every setting with its value and where it came from."""
    path, origins = config_path(), run.resolved.origins
    found = asdict(run.settings)
    if json:
        values = {name: {"value": value, "origin": origins[name]} for name, value in found.items()}
        run.output.record({"file": str(path), "file_exists": path.exists(), "settings": values})
        return
    widths = [max(map(len, TABLE)), 16, max(map(len, origins.values()))]
    state = "" if path.exists() else " (not there)"
    run.output.answer(f"# {path}{state}")
    for name, value in found.items():
        shown = "-" if value is None else json_module.dumps(TABLE[name].written(value), ensure_ascii=False)
        run.output.columns((name, shown, origins[name], TABLE[name].variable), widths)
