"""Folders that are filled whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from echopix_cli.errors import EchopixError
from echopix_cli.files import made, sync
from echopix_cli.weights.checkpoint import refusals

_STAGE = ".echopix-"  # how the name of a folder begins in which files wait for their places


def is_stage(path: Path) -> bool:
    """Whether files wait there for their places, or did when the process that wrote them was killed."""
    return path.name.startswith(_STAGE) and path.is_dir()


@contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """Where to write the files of a new or empty folder: they get their places once all are there, or none does.

    What a killed process has left there of such files goes.

    Raises:
        EchopixError: the disk or the folder refuses; errors name files by the places that they would have had.
    """
    with refusals(folder), made(folder), TemporaryDirectory(prefix=_STAGE, dir=folder) as hidden:
        stage = folder / Path(hidden).name
        for left in folder.iterdir():
            if is_stage(left) and left != stage:
                shutil.rmtree(left)
        try:
            yield stage
        except EchopixError as error:
            error.message = error.message.replace(str(stage), str(folder))
            raise
        for path in stage.iterdir():
            os.replace(path, folder / path.name)
        sync(folder)
