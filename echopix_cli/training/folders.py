"""Folders that are made for something, and go again where nothing comes of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from echopix_cli.errors import EchopixError
from echopix_cli.files import sync
from echopix_cli.weights.checkpoint import refusals

_STAGE = ".echopix-"  # how the name of a folder begins in which files wait for their places


def is_stage(path: Path) -> bool:
    """Whether files wait there for their places, or did when the process that wrote them was killed."""
    return path.name.startswith(_STAGE) and path.is_dir()


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """A folder, made with those above it that are missing; each that was made goes again where it stays empty.

    Raises:
        OSError: it cannot be made.
    """
    with ExitStack() as held:
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            held.callback(_remove_empty, missing)
        folder.mkdir(parents=True, exist_ok=True)
        yield


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


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
