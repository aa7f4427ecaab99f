"""What is typed into a conversation: questions, and commands that begin with a slash."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO

from echopix_cli.errors import UsageError

# What follows each command, whether that may be left out, and what it does.
COMMANDS: dict[str, tuple[str, bool, str]] = {
    "/budget": ("FRACTION", True, "keep so much of the tokens from now on; alone, say how much"),
    "/where": ("", True, "the moments that the last answer rests on"),
    "/open": ("FILE", False, "ask about another file"),
    "/start": ("TIME", True, "begin there, such as 1:20; alone, at the start"),
    "/end": ("TIME", True, "stop there; alone, at the end"),
    "/new": ("", True, "leave out the turns before from now on"),
    "/save": ("FILE", False, "write all answers so far there, as JSON lines"),
    "/help": ("", True, "these commands"),
    "/quit": ("", True, "end, as Ctrl-D does"),
}
_QUOTES = ("'", '"')
_NEXT = re.compile(rf"\s+(?=(?:{'|'.join(COMMANDS)})(?:\s|$))")  # what stands before another command


@dataclass(frozen=True)
class Order:
    """A command, and what follows it; empty where nothing does."""

    name: str
    value: str = ""


def read_line(line: str) -> str | list[Order]:
    """A question, or the commands of a line: ``/start 1:20 /end 1:40``. A blank line is no command.

    The name of a file is taken as it stands, up to the next command or the end; one that begins with a quotation mark,
    as :func:`written` may write it, as a shell takes it.

    Raises:
        UsageError: a command that there is not, or one without what must follow it.
    """
    text = line.strip()
    if not text:
        return []
    if not text.startswith("/"):
        return text
    orders: list[Order] = []
    while text:
        name, text = _first(text)
        if name not in COMMANDS:
            raise UsageError(f"there is no command {name!r}", "/help lists what there is")
        metavar, optional, _ = COMMANDS[name]
        value = ""
        if metavar and text and not (optional and _first(text)[0] in COMMANDS):
            value, text = _file(text) if metavar == "FILE" else _first(text)
        if metavar and not optional and not value:
            raise UsageError(f"{name} needs a {metavar}", f"{name} {metavar}")
        orders.append(Order(name, value))
    return orders


def _first(text: str) -> tuple[str, str]:
    """The first word, as a shell takes it, and what follows.

    Raises:
        UsageError: a quotation mark without its other one.
    """
    rest = StringIO(text)
    words = shlex.shlex(rest, posix=True)
    words.whitespace_split, words.commenters = True, ""
    try:
        return words.get_token() or "", rest.read().strip()
    except ValueError as error:
        raise UsageError(f"{text}: {error}", "end it with the same quotation mark") from None


def _file(text: str) -> tuple[str, str]:
    """The name of a file, and what follows."""
    if text.startswith(_QUOTES):
        return _first(text)
    end = _NEXT.search(text)
    return (text, "") if end is None else (text[: end.start()], text[end.end() :])


def written(file: str) -> str:
    """The name of a file as :func:`read_line` takes it behind a command: as it is, or where that is something else, in
    quotation marks."""
    plain = file == file.strip() and not file.startswith(_QUOTES) and _NEXT.search(file) is None
    return file if plain else shlex.quote(file)


def meant(typed: str) -> str | None:
    """The beginning of a file's name that was typed behind a command; None where something follows it already."""
    for closing in ("", *_QUOTES):  # which may be still to come
        with suppress(UsageError):
            name, rest = _file(typed.lstrip() + closing)
            return None if rest else name
    return None


def help_lines() -> list[str]:
    """A line a command."""
    labels = {name: f"{name} {metavar}".rstrip() for name, (metavar, _, _) in COMMANDS.items()}
    width = max(map(len, labels.values()))
    return [f"{labels[name]:{width}}  {text}" for name, (_, _, text) in COMMANDS.items()]
