"""``echopix config``: every setting, its value and where it came from."""

import json as json_module

from echopix_cli.cli import options as opt
from echopix_cli.settings import SETTINGS, config_path


def config(json: opt.Json = False, no_color: opt.NoColor = None, debug: opt.Debug = None) -> None:
    """Show every setting with its value and where it came from."""
    run = opt.Run.begin({"no_color": no_color, "debug": debug})
    path = config_path()
    if json:
        values = {name: {"value": found.value, "origin": found.origin} for name, found in run.settings.items()}
        run.output.record({"file": str(path), "file_exists": path.exists(), "settings": values})
        return
    widths = [
        max(len(setting.name) for setting in SETTINGS),
        16,
        max(len(run.settings[s.name].origin) for s in SETTINGS),
    ]
    state = "" if path.exists() else " (not there)"
    run.output.answer(f"# {path}{state}")
    for setting in SETTINGS:
        found = run.settings[setting.name]
        shown = "-" if found.value is None else json_module.dumps(found.value, ensure_ascii=False)
        run.output.columns((setting.name, shown, found.origin, setting.variable), widths)
