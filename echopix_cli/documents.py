"""JSON from elsewhere: of a model's folder, of a hub, a line of a user's file; explained when it is none."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from echopix_cli.errors import ModelError

LARGEST = 16 * 2**20  # bytes; the family's largest configuration or index has a hundredth of that


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read its bytes; never wait for a pipe that nobody writes to.

    Raises:
        FileNotFoundError, OSError: there is none, or it cannot be opened.
        ModelError: it is a pipe or a device.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - returned
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ModelError(f"{path} is a pipe or device, not a file", "give a checkpoint's own folder")
    return file


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object.

    Args:
        data: UTF-8.
        where: what it is called when it is none.

    Raises:
        ModelError: it is something else, or nested more deeply than Python reads.
    """
    try:
        value = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ModelError(f"{where} is nested too deeply to be read") from None
    except ValueError as error:
        raise ModelError(f"{where} {_kind(data, error)}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{where} holds a {type(value).__name__}, not an object")
    return value


def read_object(path: Path, most: int = LARGEST) -> dict[str, Any]:
    """The JSON object that a file holds.

    Args:
        path: of the file.
        most: bytes that are read at all.

    Raises:
        FileNotFoundError: there is no such file.
        ModelError: it cannot be read, is larger, or holds something else.
    """
    try:
        with open_regular(path) as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) > most:
        raise ModelError(f"{path} is unusually large: more than {most / 1e6:.0f} MB")
    return parse_object(data, str(path))


def numbered_lines(data: bytes) -> list[tuple[int, str]]:
    """Lines of a text that are not blank, with their numbers from 1; a byte-order mark is no part of the first.

    Lines end at newlines alone. ``str.splitlines`` would also split JSON at characters that may stand in its strings.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    return [(number, line) for number, line in enumerate(data.decode("utf-8-sig").split("\n"), 1) if line.strip()]


def line_object(line: str) -> dict[str, Any]:
    """The JSON object of one line.

    Raises:
        ValueError: what it is instead, to follow "is": ``not JSON: …``, ``nested too deeply``, ``no JSON object``.
    """
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def _kind(data: bytes, error: ValueError) -> str:
    """What bytes are that are no JSON."""
    start = data[:1000].lstrip().lower()
    if not start:
        return "is empty"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not JSON"
    if isinstance(error, UnicodeDecodeError):
        return "is not JSON: it is not UTF-8"
    return f"is not JSON: {error}"
