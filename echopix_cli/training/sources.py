"""What a run was begun from, so that it does not go on from something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from echopix_cli.errors import UsageError
from echopix_cli.files import identity_of, sha256_of, write_whole
from echopix_cli.training.recipe import Recipe
from echopix_cli.weights.checkpoint import open_checkpoint

FILE = "sources.json"
_ELSEWHERE = "put back what was there, or train into another folder with --out"


def sources_of(recipe: Recipe) -> dict[str, Any]:
    """The identities of the base's weight files, by name, and the SHA-256 of the data file, where there are such.

    Raises:
        ModelError: the base is no checkpoint.
        UsageError: one of them cannot be read.
    """
    found: dict[str, Any] = {}
    try:
        if recipe.base:
            files = open_checkpoint(Path(recipe.base)).shards
            found["base"] = {file.name: identity_of(file, timed=False) for file in sorted(files)}
        if recipe.splits is None:
            found["data"] = sha256_of(recipe.data)
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror or error}", _ELSEWHERE) from None
    return found


def keep_sources(recipe: Recipe, folder: Path) -> None:
    """Write down what a run begins from.

    Raises:
        EchopixError: the disk refuses.
    """
    write_whole(folder / FILE, (json.dumps(sources_of(recipe), indent=2) + "\n").encode())


def require_sources(recipe: Recipe, folder: Path) -> None:
    """Refuse to go on where base or data are not those that a run began from. Earlier runs did not write these down.

    Raises:
        UsageError: they are others.
    """
    path = folder / FILE
    if not path.exists():
        return
    try:
        kept = json.loads(path.read_bytes())
        base, data = dict(kept.get("base") or {}), kept.get("data")
    except (OSError, ValueError, TypeError, AttributeError):
        raise UsageError(f"{path} cannot be read", "train into another folder with --out") from None
    found = sources_of(recipe)
    own = found.get("base", {})
    if changed := sorted(name for name in own | base if own.get(name) != base.get(name)):
        raise UsageError(
            f"the run in {folder} cannot go on as it began: of its base {recipe.base}, {', '.join(changed)} changed",
            _ELSEWHERE,
        )
    if found.get("data") != data:
        raise UsageError(f"the run in {folder} cannot go on as it began: its data {recipe.data} changed", _ELSEWHERE)
