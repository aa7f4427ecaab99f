"""The command line's door: commands, and the only map from exceptions to exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from echopix_cli import __version__
from echopix_cli.cli.ask import ask
from echopix_cli.cli.config import config
from echopix_cli.cli.output import Output
from echopix_cli.cli.profile import profile
from echopix_cli.errors import EchopixError, ExitCode

EPILOG = (
    "Exit codes: 0 ok, 1 failure, 2 usage, 3 model unavailable, 4 media, 5 device or memory, 130 interrupted. "
    "Every option is also read from ECHOPIX_* and config.toml; see echopix config."
)

app = typer.Typer(
    name="echopix",
    help="Ask questions about what is seen and heard in local videos.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(ask)
app.command()(profile)
app.command()(config)


def _version(wanted: bool) -> None:
    if wanted:
        Output().answer(f"echopix {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version and exit")
    ] = False,
) -> None:
    """Options before the command."""


def _debugging() -> bool:
    return "--debug" in sys.argv[1:] or os.environ.get("ECHOPIX_DEBUG", "").lower() in ("1", "true", "yes", "on")


def main() -> NoReturn:
    """Run the command line and exit."""
    output = Output(color=False if "--no-color" in sys.argv[1:] else None)
    interrupted = False
    try:
        app()
    except EchopixError as error:
        if _debugging():
            raise
        output.error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        interrupted = True
    except SystemExit as left:
        interrupted = left.code == ExitCode.INTERRUPTED  # how typer passes Ctrl-C on
        if not interrupted:
            raise
    except Exception as error:
        if _debugging():
            raise
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        output.error(EchopixError(f"unexpected failure: {what}", "run again with --debug and report what it prints"))
        sys.exit(ExitCode.FAILURE)
    if interrupted:
        output.error(EchopixError("interrupted"))
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(ExitCode.OK)
