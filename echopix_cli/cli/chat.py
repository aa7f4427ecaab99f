"""``echopix chat``: a conversation about one file, or several; and a script of questions from a pipe."""

import io
import sys
from contextlib import closing
from typing import Annotated

import typer

from echopix_cli.cli import demo
from echopix_cli.cli import options as opt
from echopix_cli.errors import ExitCode, UsageError

_EXAMPLE = "echopix chat clip.mp4"


@opt.taking(*opt.ASKING)
def chat(
    run: opt.Run,
    media: Annotated[
        list[str] | None, typer.Argument(metavar="MEDIA", help="media files to talk about", show_default=False)
    ] = None,
) -> None:
    """Ask about a file, line by line; it is read once.

    On a terminal each line is a question, and answers appear as they come; /help lists commands. From a pipe, each line
    is a question too, and each answer one JSON object on stdout. Turns before a question are read
    with it by models that were trained on conversations; the bundled one was not.
    """
    if not media:
        raise UsageError("no media given", _EXAMPLE)
    files = [demo.media_path(name) for name in media]
    if files != media:
        run = run.preferring(model="tiny")  # which knows the clip, whatever the GPU would hold
    from echopix_cli.cli.answering import Answering
    from echopix_cli.cli.talking import Conversation, Script

    with closing(Answering(run)) as answering:
        if sys.stdin.isatty():
            Conversation(run, answering, files).talk()
        else:
            if isinstance(sys.stdin, io.TextIOWrapper):  # a line in another encoding is one question that fails
                sys.stdin.reconfigure(errors="surrogateescape")
            failed = Script(run, answering, files).read(sys.stdin)
            if failed:
                raise typer.Exit(ExitCode.FAILURE)
