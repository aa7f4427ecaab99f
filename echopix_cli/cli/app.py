"""The entry point of the command line: its commands, and the only map from exceptions to exit codes."""

import os
import signal
import sys
import traceback
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, NoReturn

import typer

from echopix_cli import __version__
from echopix_cli.cli import options as opt
from echopix_cli.cli.completion import SHELLS, current_shell, install, script
from echopix_cli.cli.help import help_text
from echopix_cli.cli.manual import page, topics
from echopix_cli.cli.misuse import WRONG_USE, explained, shown_help
from echopix_cli.cli.output import Output, ReaderGone, inert, occupy_closed_streams
from echopix_cli.cli.signals import terminate
from echopix_cli.cli.threads import wait_passively
from echopix_cli.errors import EchopixError, ExitCode, UsageError, told
from echopix_cli.settings import resolve

# Read when transformers is imported, which is later: what it remarks on a model's files is not for stderr.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

EPILOG = (
    "Exit codes: 0 ok, 1 failure, 2 usage, 3 model unavailable, 4 media, 5 device or memory, 130 interrupted, "
    "141 stdout closed, 143 terminated. "
    "Settings, which echopix config lists, are also read from ECHOPIX_* and config.toml."
)

# Commands and groups of commands, in the order of the help, each where it stands: of a command line that names one, no
# other is imported.
_COMMANDS = {
    "ask": "ask:ask",
    "chat": "chat:chat",
    "serve": "serve:serve",
    "profile": "profile:profile",
    "bench": "bench:bench",
    "eval": "evaluate:evaluate",
    "scene": "scene:scene",
    "train": "train:train",
    "models": "models:models",
    "cache": "cache:cache",
    "records": "records:records",
    "doctor": "doctor:doctor",
    "config": "config:config",
}


def command_line(*names: str) -> opt.Commands:
    """The program as typer has it.

    Args:
        names: of the commands that it shall have beside ``help``; none for all.
    """
    app = opt.group(
        "echopix",
        "Ask questions about what is seen and heard in local videos.",
        epilog=EPILOG,
        pretty_exceptions_enable=False,
    )
    for name in names or _COMMANDS:
        module, _, attribute = _COMMANDS[name].partition(":")
        part = getattr(import_module(f"echopix_cli.cli.{module}"), attribute)
        if isinstance(part, opt.Commands):
            app.add_typer(part)
        else:
            app.command(name)(part)
    app.command("help")(help_command)
    app.callback(invoke_without_command=True)(root)
    return app


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
    except Exception:  # whatever it is: this one is asked while another is told
        return given


def _fail(error: EchopixError) -> NoReturn:
    """Report a failure and leave with its code; with ``--debug``, after the traceback."""
    if _preference("debug"):
        Output().stderr.write(inert(traceback.format_exc()))
    Output(color=False if _preference("no_color") else None).error(error)
    sys.exit(error.exit_code)


def _require_folder() -> None:
    """The working folder may have been deleted; the libraries under torch then end the process in words of their own.

    Raises:
        EchopixError: it is gone.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise EchopixError("the working folder was deleted", "cd to a folder that exists, and run it again") from None


def _named() -> list[str]:
    """The command that the command line begins with; nothing where help or an error may need all."""
    return [word for word in sys.argv[1:2] if word in _COMMANDS]


def main() -> NoReturn:
    """Run the command line and exit."""
    occupy_closed_streams()
    signal.signal(signal.SIGTERM, terminate)
    wait_passively()
    code = int(ExitCode.OK)
    try:
        _require_folder()
        code = (
            command_line(*_named())(prog_name="echopix", standalone_mode=False) or code
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
        _fail(told(error))
    if code == ExitCode.INTERRUPTED:
        Output().error(EchopixError("interrupted"))
    sys.exit(code)
