"""Where lines of a conversation are typed: with editing, a history, and completion of commands and paths."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.output import create_output
from prompt_toolkit.styles import Style

from echopix_cli.cli.chat_lines import COMMANDS, meant, written


class Prompt:
    """Asks for lines on a terminal; what it draws goes to stderr, as all but answers does.

    Args:
        history: file of the lines that were typed before; one that cannot be written keeps them for now only.
        status: is shown below the line that is typed.
    """

    def __init__(self, history: Path, status: Callable[[], str]) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            completer=Words(),
            complete_while_typing=False,
            bottom_toolbar=status,
            style=Style.from_dict({"bottom-toolbar": "noreverse"}),
            output=create_output(stdout=sys.stderr, always_prefer_tty=False),
        )

    def lines(self) -> Iterator[str]:
        """Lines as they are typed, up to Ctrl-D. Ctrl-C drops the one that is being typed."""
        while True:
            try:
                yield self._session.prompt("> ")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return


def _history(path: Path) -> History:
    """Only its user may read it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError:
        return InMemoryHistory()
    return _Kept(str(path))


class _Kept(FileHistory):
    """Lines in a file, as far as the disk takes them and gives them back."""

    def load_history_strings(self) -> Iterable[str]:
        """As of the library."""
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        """As of the library."""
        with suppress(OSError):
            super().store_string(string)


class Words(Completer):
    """Commands at the beginning of a line, paths behind those that take a file."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """As of the library."""
        text = document.text_before_cursor
        for name, (metavar, _, what) in COMMANDS.items():
            if metavar == "FILE" and text.startswith(f"{name} "):
                typed = text[len(name) + 1 :]
                if (path := meant(typed)) is None:
                    return
                for found in self._paths.get_completions(Document(path, len(path)), complete_event):
                    slash = "/" if found.display_text.endswith("/") else ""  # the library shows it, and leaves it out
                    whole = written(path + found.text + slash)
                    same = len(typed) if whole.startswith(typed) else 0
                    yield Completion(whole[same:], same - len(typed), display=found.display)
            elif text.startswith("/") and name.startswith(text):
                yield Completion(name, -len(text), display_meta=what)
