"""What a batch is to do: which files, which questions, in which order, and which share of them is ours."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO, Protocol, TypeVar

from echopix_cli.choices import clean_choices
from echopix_cli.documents import line_object, numbered_lines
from echopix_cli.errors import MediaError, UsageError
from echopix_cli.media import parse_time
from echopix_cli.parsers import is_whole, parse_budget
from echopix_cli.times import clock

# What a folder is searched for. A file that is named outright may be called anything.
EXTENSIONS = frozenset(
    {
        "3g2", "3gp", "asf", "avi", "dv", "f4v", "flv", "gif", "m2ts", "m2v", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg",
        "mts", "mxf", "nut", "ogv", "rm", "rmvb", "ts", "vob", "webm", "wmv",
        "aac", "ac3", "aif", "aifc", "aiff", "amr", "ape", "au", "caf", "eac3", "flac", "m4a", "mka", "mp2", "mp3",
        "oga", "ogg", "opus", "tak", "tta", "w64", "wav", "weba", "wma", "wv",
    }
)  # fmt: skip
# Frames of a film often lie beside it: pictures are taken from a folder only where that is asked for.
STILLS = frozenset({"avif", "bmp", "heic", "heif", "jpeg", "jpg", "png", "tif", "tiff", "webp"})
_TASK_FIELDS = {"id", "media", "question", "budget", "start", "end", "choices"}
_QUESTION_FIELDS = {"id", "question", "choices"}


@dataclass(frozen=True)
class Task:
    """One question about one media file.

    ``budget``, ``start`` and ``end`` (seconds) take the place of the settings' where they are given. ``choices``
    are the texts of the options, without letters. ``id`` comes back in the record.
    """

    media: str
    question: str
    id: str | int | None = None
    budget: float | None = None
    start: float | None = None
    end: float | None = None
    choices: tuple[str, ...] = ()


class _OfMedia(Protocol):
    """Anything about one media file."""

    @property
    def media(self) -> str:
        """Its path, or another name."""


About = TypeVar("About", bound=_OfMedia)


def find_media(
    named: Sequence[str], pattern: str | None = None, still: Callable[[str], None] = lambda path: None
) -> list[str]:
    """The files that names stand for: a file is itself, a folder all media files in it and below, by name.

    Hidden files and folders are passed over, links to folders are not followed. A name that does not exist stays in
    the list, and so do a folder below that cannot be read and a link that leads nowhere: asking them fails, and says
    so.

    Args:
        named: files and folders.
        pattern: what files found in folders are called, in place of the known extensions; with a ``/`` in it, the
            path within the folder, part by part: ``*`` stands for no ``/``, ``**`` for any number of folders.
        still: is told of still pictures in folders, which without a pattern are passed over.

    Raises:
        MediaError: a folder that was named cannot be read.
        UsageError: there is nothing in any of them, or the pattern is empty.
    """
    if pattern == "":
        raise UsageError("the pattern of --glob is empty", "--glob '*.wav', or leave it out")
    found: list[str] = []
    for name in named:
        found += _search(name, pattern, still) if os.path.isdir(name) else [name]
    if not found:
        what = "media files" if pattern is None else f"files called {pattern}"
        raise UsageError(f"no {what} in {', '.join(named)}", "name a folder that holds some, or give --glob '*'")
    return list(dict.fromkeys(found))


def _search(folder: str, pattern: str | None, still: Callable[[str], None]) -> list[str]:
    found = []

    def refuse(error: OSError) -> None:
        if error.filename == folder:
            raise MediaError(f"cannot read the folder {folder}: {error.strerror}", "check its permissions")
        found.append(error.filename)

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = os.path.join(place, name)
            if name.startswith(".") or not (os.path.isfile(path) or not os.path.exists(path)):
                continue
            if _wanted(os.path.relpath(path, folder), pattern):
                found.append(path)
            elif pattern is None and _extension(name) in STILLS:
                still(path)
    return found


def _wanted(path: str, pattern: str | None) -> bool:
    name = os.path.basename(path)
    if pattern is None:
        return _extension(name) in EXTENSIONS
    return _fits(path.split("/"), pattern.split("/")) if "/" in pattern else fnmatchcase(name, pattern)


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a file's path are those of a pattern, of which ``**`` is any number of folders."""
    *folders, last = pattern
    parts = [*(part for part in folders if part != "."), last]
    if last == "**":  # whatever lies in them
        parts.append("*")
    taken = {0}  # how many names the parts so far may have taken
    for part in parts:
        if part == "**":
            taken = {count for count in range(len(names)) if count >= min(taken, default=len(names))}
        else:
            taken = {count + 1 for count in taken if count < len(names) and fnmatchcase(names[count], part)}
    return len(names) in taken


def _extension(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()


def read_paths(stream: BinaryIO, null: bool = False) -> list[str]:
    """Paths on stdin, one per line, or ended by NUL as ``find -print0`` writes them.

    Raises:
        UsageError: they end otherwise than was said.
    """
    content = stream.read().removeprefix(codecs.BOM_UTF8)
    if not null and b"\0" in content:
        raise UsageError("the paths on stdin hold null characters, which no name can", "-0, if they end the paths")
    parts = content.split(b"\0" if null else b"\n")
    paths = [os.fsdecode(part if null else part.removesuffix(b"\r")) for part in parts if part.strip()]
    if null and b"\0" not in content and b"\n" in content and not all(map(os.path.lexists, paths)):
        raise UsageError("no null character ends a path on stdin, but newlines are there", "leave -0 out")
    return paths


def read_questions(path: Path) -> list[Task]:
    """Questions of a file, one per line: as text, or a JSON object of ``question`` and perhaps ``id`` and ``choices``.

    Returns:
        Tasks whose media is yet to be said.

    Raises:
        UsageError: the file cannot be read, or a line is no question.
    """
    return [
        _task(_object(line, where), _QUESTION_FIELDS, where)
        if line.lstrip().startswith("{")
        else Task("", line.strip())
        for where, line in _lines(path)
    ]


def read_tasks(path: Path) -> list[Task]:
    """Tasks of a JSONL file: ``media`` and ``question``, perhaps ``id``, ``budget``, ``start``, ``end``, ``choices``.

    Relative media paths start at the file's folder; ``-`` reads stdin, where they start at the current one.

    Raises:
        UsageError: the file cannot be read, or a line is no task.
    """
    folder = os.path.dirname(path)
    tasks = [_task(_object(line, where), _TASK_FIELDS, where) for where, line in _lines(path)]
    return [replace(task, media=os.path.join(folder, task.media)) for task in tasks]


def _lines(path: Path) -> list[tuple[str, str]]:
    """Lines that hold something, after where they stand."""
    name = "stdin" if str(path) == "-" else str(path)
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        lines = numbered_lines(raw)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {name}: {error}", "give a UTF-8 text file") from None
    if not lines:
        raise UsageError(f"{name} holds nothing", "write one question or task a line into it")
    return [(f"{name}, line {number}", line) for number, line in lines]


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        return line_object(line)
    except ValueError as error:
        raise UsageError(f"{where} is {error}", "write one JSON object a line") from None


def _task(raw: dict[str, Any], known: set[str], where: str) -> Task:
    if unknown := sorted(set(raw) - known):
        raise UsageError(f"{where}: unknown field {unknown[0]!r}", f"fields are: {', '.join(sorted(known))}")
    for name in ("media", "question"):
        if name in known and not (isinstance(raw.get(name), str) and raw[name].strip()):
            raise UsageError(f"{where}: {name!r} is missing, empty or not text", f'write {{"{name}": "…"}}')
    own = raw.get("id")
    if isinstance(own, bool) or not isinstance(own, (str, int, NoneType)):
        raise UsageError(f"{where}: 'id' is neither text nor a whole number", 'write {"id": "clip-1"}')
    choices = [] if raw.get("choices") is None else raw["choices"]
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise UsageError(f"{where}: 'choices' is not a list of texts", 'write {"choices": ["yes", "no"]}')
    texts = (raw["question"], *choices)
    if not (all(map(is_whole, texts)) and _is_name(raw.get("media", ""))):
        raise UsageError(f"{where}: half of a character is missing (a lone surrogate)", "write it whole")
    try:
        task = Task(
            media=raw.get("media", ""),
            question=raw["question"].strip(),
            id=own,
            budget=None if raw.get("budget") is None else parse_budget(str(raw["budget"])),
            start=None if raw.get("start") is None else parse_time(str(raw["start"])),
            end=None if raw.get("end") is None else parse_time(str(raw["end"])),
            choices=_cleaned(choices),
        )
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from None
    if task.end is not None and task.end <= (task.start or 0.0):
        raise UsageError(
            f"{where}: it ends at {clock(task.end)}, not after its start", "give an end later than the start"
        )
    return task


def _is_name(text: str) -> bool:
    """Whether a file can be called so; U+DC80 to U+DCFF stand for bytes of names that are not UTF-8."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _cleaned(choices: list[str]) -> tuple[str, ...]:
    return clean_choices(choices) if choices else ()


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8`` → (2, 8).

    Raises:
        UsageError: not a share that there is.
    """
    match = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
    if match is not None and 1 <= int(match[1]) <= int(match[2]):
        return int(match[1]), int(match[2])
    raise UsageError(f"--shard {text!r} is no share", "--shard 1/8 is the first of eight")


def shard(tasks: Sequence[About], own: int, count: int) -> list[About]:
    """The ``own``-th of ``count`` shares: every ``count``-th media file, with all that is asked about it.

    The same list gives the same shares everywhere, disjoint, and together the whole.
    """
    place = {media: number for number, media in enumerate(dict.fromkeys(task.media for task in tasks))}
    return [task for task in tasks if place[task.media] % count == own - 1]
