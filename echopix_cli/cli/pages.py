"""Markdown on a terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown
from rich.text import Text

_OTHER_PAGE = re.compile(r"\[([^\]]+)\]\((\w+)\.md\)")


class _Code(CodeBlock):
    """Code as it stands, its lines never broken: what is copied from a terminal can be run."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(str(self.text).rstrip(), style="markdown.code_block", no_wrap=True, overflow="ignore")


class _Page(Markdown):
    elements = {**Markdown.elements, "fence": _Code, "code_block": _Code}  # noqa: RUF012 - as the base has it


def laid_out(markdown: str, width: int, color: bool | None = None) -> str:
    """A page for a terminal, on which only lines of code may be wider than ``width``.

    Links to other pages become the commands that show them.

    Args:
        markdown: without control characters.
        width: in columns.
        color: None decides by the terminal and ``NO_COLOR``.
    """
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        no_color=True if color is False else None,
        emoji=False,
        highlight=False,
    )
    typed = _OTHER_PAGE.sub(r"\1 (`echopix help \2`)", markdown)
    with console.capture() as shown:
        console.print(_Page(typed, hyperlinks=False), crop=False)
    return "\n".join(line.rstrip() for line in shown.get().splitlines()) + "\n"
