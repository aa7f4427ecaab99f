"""Model names → folders on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from echopix_cli import __version__
from echopix_cli.errors import ModelError

BUNDLED = "tiny"


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files lie, and what to say about it.

    ``demonstration`` marks the bundled model, which knows only its own little world.
    """

    name: str
    folder: Path
    revision: str | None = None
    demonstration: bool = False


def resolve_model(name: str) -> ModelSource:
    """A registered name, or the path of a checkpoint folder.

    Raises:
        ModelError: neither; the message lists the names there are.
    """
    if name == BUNDLED:
        folder = Path(str(files("echopix_cli") / "assets" / BUNDLED))
        return ModelSource(BUNDLED, folder, revision=f"echopix {__version__}", demonstration=True)
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path):  # unlike Path.is_dir, this takes names that no file can have
        return ModelSource(path.resolve().name, path)
    raise ModelError(
        f"no model named {name!r}, and no such folder",
        f"models are: {BUNDLED}; or give the path of a folder with an EchoingPixels checkpoint",
    )
