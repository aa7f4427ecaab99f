"""The entry point of the command line: its commands, and the only map from exceptions to exit codes."""

import os
import sys
import traceback
from difflib import get_close_matches
from typing import Annotated, NoReturn

import typer

from echopix_cli import __version__
from echopix_cli.cli import options as opt
from echopix_cli.cli.ask import ask
from echopix_cli.cli.bench import bench
from echopix_cli.cli.cache import cache
from echopix_cli.cli.completion import SHELLS, current_shell, install, script
from echopix_cli.cli.config import config
from echopix_cli.cli.doctor import doctor
from echopix_cli.cli.evaluate import evaluate
from echopix_cli.cli.help import help_text
from echopix_cli.cli.manual import page, topics
from echopix_cli.cli.misuse import WRONG_USE, explained, shown_help
from echopix_cli.cli.models import models
from echopix_cli.cli.output import Output, ReaderGone, occupy_closed_streams
from echopix_cli.cli.profile import profile
from echopix_cli.cli.scene import scene
from echopix_cli.cli.serve import serve
from echopix_cli.cli.train import train
from echopix_cli.errors import EchopixError, ExitCode, UsageError, described
from echopix_cli.settings import resolve

# Read when transformers is imported, which is later: what it remarks on a model's files is not for stderr.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

EPILOG = (
    "Exit codes: 0 ok, 1 failure, 2 usage, 3 model unavailable, 4 media, 5 device or memory, 130 interrupted, "
    "141 stdout closed, 143 terminated. "
    "Every option is also read from ECHOPIX_* and config.toml; see echopix config."
)

app = opt.group(
    "echopix",
    "Ask questions about what is seen and heard in local videos.",
    epilog=EPILOG,
    pretty_exceptions_enable=False,
)
app.command()(ask)
app.command()(serve)
app.command()(profile)
app.command()(bench)
app.command("eval")(evaluate)
app.command()(scene)
app.command()(train)
app.add_typer(models)
app.add_typer(cache)
app.command()(doctor)
app.command()(config)


@app.command("help")
def help_command(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND|TOPIC", help="whose help, or a page of the manual", show_default=False),
    ] = None,
) -> None:
    """Show the help of a command, or a page of the manual; without either, what there is."""
    assert ctx.parent is not None
    shown, own = ctx.parent.command, ctx.parent
    for name in command or []:
        below = getattr(shown, "commands", {})
        if name not in below:
            if own is ctx.parent:
                _page(command or [], list(below))
                return
            near = get_close_matches(name, below, 1)
            hint = " ".join([own.command_path, *(near or ["--help"])])
            raise UsageError(f"{own.command_path} has no command {name!r}", hint)
        shown = below[name]
        own = typer.Context(shown, info_name=name, parent=own)
    Output().answer(help_text(shown, own))


def _page(words: list[str], commands: list[str]) -> None:
    """Show the page of the manual that is named.

    Raises:
        UsageError: there is none of this name, with the nearest one.
    """
    topic, *more = words
    if topic in (pages := topics()):
        if more:
            raise UsageError(f"the page {topic} has no parts to choose from", f"echopix help {topic}")
        Output(color=False if _preference("no_color") else None).page(page(topic))
        return
    near = get_close_matches(topic.lower(), [*commands, *pages], 1)
    raise UsageError(f"there is no command and no topic {topic!r}", " ".join(["echopix help", *near]))


def _version(wanted: bool) -> None:
    if wanted:
        Output().answer(f"echopix {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version and exit")
    ] = False,
    install_completion: Annotated[
        bool, typer.Option("--install-completion", help="install the completion of your shell ($SHELL) and exit")
    ] = False,
    show_completion: Annotated[
        str | None,
        typer.Option(
            "--show-completion", metavar="|".join(SHELLS), help="print a completion and exit", show_default=False
        ),
    ] = None,
) -> None:
    """Options before the command."""
    if install_completion:
        Output().notice(install(current_shell()))
    elif show_completion is not None:
        Output().answer(script(show_completion), end="")
    elif ctx.invoked_subcommand is not None:
        return
    elif not sys.argv[1:]:
        Output().stderr.write(help_text(ctx.command, ctx) + "\n")
        raise typer.Exit(ExitCode.USAGE)
    raise typer.Exit


def _preference(name: str) -> bool:
    """A switch that matters to errors, wherever it is set; off when the settings themselves are the error."""
    given = f"--{name.replace('_', '-')}" in sys.argv[1:]
    try:
        return bool(getattr(resolve({name: True if given else None}).settings, name))
    except EchopixError:
        return given


def _fail(error: EchopixError) -> NoReturn:
    """Report a failure and leave with its code; with ``--debug``, after the traceback."""
    if _preference("debug"):
        traceback.print_exc()
    Output(color=False if _preference("no_color") else None).error(error)
    sys.exit(error.exit_code)


def main() -> NoReturn:
    """Run the command line and exit."""
    occupy_closed_streams()
    code = int(ExitCode.OK)
    try:
        code = (
            app(prog_name="echopix", standalone_mode=False) or code
        )  # typer hands back the code of typer.Exit; commands return nothing
    except EchopixError as error:
        _fail(error)
    except WRONG_USE as error:
        if (help := shown_help(error)) is not None:
            Output().stderr.write(help + "\n")
            sys.exit(ExitCode.USAGE)
        _fail(explained(error))
    except (KeyboardInterrupt, typer.Abort):  # the latter, where a question is broken off
        code = ExitCode.INTERRUPTED
    except ReaderGone:
        code = ExitCode.PIPE_CLOSED
    except Exception as error:
        _fail(
            EchopixError(f"unexpected failure: {described(error)}", "run again with --debug and report what it prints")
        )
    if code == ExitCode.INTERRUPTED:
        Output().error(EchopixError("interrupted"))
    sys.exit(code)
