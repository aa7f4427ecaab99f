"""What is typed into a conversation: questions, and commands that begin with a slash."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from echopix_cli.errors import UsageError
from echopix_cli.parsers import is_whole

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


@dataclass(frozen=True)
class Order:
    """A command, and what follows it; empty where nothing does."""

    name: str
    value: str = ""


def read_line(line: str) -> str | list[Order]:
    """A question, or the commands of a line: ``/start 1:20 /end 1:40``. A blank line is no command.

    Raises:
        UsageError: a question that is not valid text; a command that there is not, or one without what must follow it.
    """
    text = line.strip()
    if not text:
        return []
    if not text.startswith("/"):
        if not is_whole(text):
            raise UsageError("the question is not valid UTF-8", "check the encoding of the terminal or file")
        return text
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text}: {error}", "/open 'a name with spaces.mp4'") from None
    orders: list[Order] = []
    while words:
        name = words.pop(0)
        if name not in COMMANDS:
            raise UsageError(f"there is no command {name!r}", "/help lists what there is")
        metavar, optional, _ = COMMANDS[name]
        value = ""
        if metavar and words and not (optional and words[0] in COMMANDS):
            value = words.pop(0)
            while metavar == "FILE" and words and words[0] not in COMMANDS:  # a name with spaces, as Tab completes it
                value += f" {words.pop(0)}"
        if metavar and not optional and not value:
            raise UsageError(f"{name} needs a {metavar}", f"{name} {metavar}")
        orders.append(Order(name, value))
    return orders


def help_lines() -> list[str]:
    """A line a command."""
    labels = {name: f"{name} {metavar}".rstrip() for name, (metavar, _, _) in COMMANDS.items()}
    width = max(map(len, labels.values()))
    return [f"{labels[name]:{width}}  {text}" for name, (_, _, text) in COMMANDS.items()]
