"""``echopix serve``: one loaded model that stays, and what is known of those that run."""

import os
import signal
import time
from contextlib import closing, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echopix_cli.cli import options as opt
from echopix_cli.cli.output import SCHEMA_VERSION
from echopix_cli.cli.signals import stopping
from echopix_cli.errors import EchopixError, ExitCode, UsageError
from echopix_cli.parsers import parse_duration
from echopix_cli.times import clock

if TYPE_CHECKING:
    from echopix_cli.cli.serve_http import AskedHttp
    from echopix_cli.serving.client import Greeted

SERVING = "Serving"
_LOOK = 0.1  # seconds between looks at whether a server has ended


def own(help: str, *flags: str, metavar: str | None = None) -> Any:
    """An option about the server itself."""
    return typer.Option(*flags, help=help, metavar=metavar, rich_help_panel=SERVING, show_default=False)


@opt.taking(*opt.LOADING, "budget", *opt.SAMPLING, "window", "max_new_tokens", "cache", *opt.PRINTING_MORE)
def serve(
    run: opt.Run,
    idle: Annotated[
        str | None,
        own("end after so long without a question, such as 10m (default: never)", "--idle", metavar="TIME"),
    ] = None,
    status: Annotated[bool, own("say which servers run, and exit", "--status")] = False,
    stop: Annotated[
        bool, own("end them once they have answered what they are asked, with --model only its own", "--stop")
    ] = False,
    http: Annotated[
        str | None, own("answer over HTTP too, as OpenAI's chat completions do", "--http", metavar="HOST:PORT")
    ] = None,
    root: Annotated[
        Path | None, own("the folder whose files may be asked about over HTTP", "--root", metavar="DIR")
    ] = None,
    token: Annotated[
        Path | None,
        own(
            "file with the token that HTTP clients must bear; needed beyond this machine",
            "--token-file",
            metavar="FILE",
        ),
    ] = None,
    queue: Annotated[
        int | None,
        own("HTTP requests that are answered or wait (default 16); more are told 429", "--queue", metavar="N"),
    ] = None,
    json: opt.Json = False,
) -> None:
    """Load a model once and answer every echopix ask that wants it, until told to end.

    It listens on a socket that only you can open. ask uses it by itself, with the same output, unless it is told
    --no-server.
    """
    if status or stop:
        _refuse_both(status, stop)
        (_status if status else _stop)(run, json)
        return
    seconds = None if idle is None else _idle(idle)
    asked = None
    if http is not None:
        from echopix_cli.cli.serve_http import asked_for

        asked = asked_for(http, root, token, 16 if queue is None else queue)
    elif root or token or queue is not None:
        raise UsageError("--root, --token-file and --queue are about HTTP", "add --http 127.0.0.1:8080")
    if json:
        raise UsageError("--json is for --status and --stop", "echopix serve --status --json")
    with closing(asked) if asked else nullcontext():
        _serve(run, seconds, asked)


def _serve(run: opt.Run, idle: float | None, http: "AskedHttp | None") -> None:
    from echopix_cli.serving.place import listening, locked, name_of, opened_folder, unlisten

    wish = run.wish()
    with opened_folder(make=True) as folder:
        assert folder is not None
        name = name_of(wish)
        lock = locked(folder, name)
        if lock is None:
            raise UsageError("a server for this model runs already", "echopix serve --status")
        try:
            from echopix_cli.weights.opening import folder_revision

            named = folder_revision(Path(wish.model)) if os.path.isabs(wish.model) else None  # before it is read
            engine = run.engine(keeps=True)
            from echopix_cli.serving.desk import Desk
            from echopix_cli.serving.server import Listener

            desk = Desk(engine, wish, named)
            with closing(listening(folder, name)) as listener, stopping() as received:
                over = None if http is None else http.serve(desk, run.manner())
                until = "Ctrl-C or echopix serve --stop" + (f", or {clock(idle)} without a question" if idle else "")
                run.output.notice(f"{engine.facts.name} answers every echopix ask that wants it, until {until}")
                if over is not None:
                    run.output.notice(f"also over HTTP: {over.address}/v1, files below {over.root}")
                try:
                    address = "" if over is None else over.address
                    why = Listener(listener, desk, idle, address).serve(lambda: bool(received))
                finally:
                    unlisten(listener)
                    if over is not None:
                        over.stop()
            if why == "idle":
                run.output.notice(f"ended: nothing was asked for {clock(idle or 0.0)}")
        finally:
            os.close(lock)


def _status(run: opt.Run, json: bool) -> None:
    found = [_facts(greeted) for greeted in _greeted()]
    if json:
        run.output.record({"schema_version": SCHEMA_VERSION, "servers": found})
    else:
        from echopix_cli.cli.model_records import columns

        columns(run.output, [_row(facts) for facts in found])
        if not found:
            run.output.notice("no server runs")
    if not found:
        raise typer.Exit(ExitCode.FAILURE)


def _stop(run: opt.Run, json: bool) -> None:
    """End servers, of any version, and wait until they have.

    Raises:
        EchopixError: one is in a container of its own.
    """
    one = run.wish().model if run.resolved.origins["model"] == "flag" else None
    ended = []
    for greeted in _greeted():
        if one not in (None, greeted.welcome.held.model, greeted.welcome.asked):
            continue
        if greeted.pid <= 0:
            raise EchopixError("a server runs where its process cannot be reached", "end it in its own container")
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(greeted.pid, signal.SIGTERM)
        ended.append((greeted.name, _facts(greeted)))
    with run.output.progress("waiting for what is being answered"):
        for name, facts in ended:
            _wait_for(name, facts["pid"])
    if json:
        run.output.record({"schema_version": SCHEMA_VERSION, "servers": [facts for _, facts in ended]})
    for _, facts in ended:
        run.output.notice(f"{facts['model']} (process {facts['pid']}) has ended")
    if not ended:
        run.output.notice("no server runs" + (" for this model" if one else ""))
        raise typer.Exit(ExitCode.FAILURE)


def _greeted() -> "list[Greeted]":
    """All servers of this user, whatever they hold."""
    from echopix_cli.serving.client import greet_all
    from echopix_cli.serving.messages import Wish

    any_wish, found = Wish("auto", "auto", "auto", "auto"), []  # whatever the settings say of a model
    for greeted in greet_all(lambda: any_wish):
        greeted.connection.close()
        found.append(greeted)
    return found


def _wait_for(name: str, process: int) -> None:
    """Wait until the server of this name and process is gone; a supervisor may begin another one at once."""
    from echopix_cli.serving.place import locked, opened_folder

    lock = None
    with opened_folder() as folder, suppress(ProcessLookupError):
        while folder is not None and (lock := locked(folder, name)) is None:
            os.kill(process, 0)
            time.sleep(_LOOK)
    if lock is not None:
        os.close(lock)


def _facts(greeted: "Greeted") -> dict[str, Any]:
    welcome, model = greeted.welcome, greeted.welcome.model
    return {
        "model": model.name,
        "revision": model.revision,
        "dtype": model.dtype,
        "device": model.device,
        "quantization": model.quantization,
        "pid": greeted.pid,
        "version": welcome.version,
        "since": datetime.fromtimestamp(welcome.since, UTC).isoformat(timespec="seconds"),
        "answers": welcome.answers,
        "running": welcome.running,
        "idle_s": welcome.idle,
        "http": welcome.http or None,
    }


def _row(facts: dict[str, Any]) -> list[str]:
    held = facts["dtype"] if facts["quantization"] == "none" else f"{facts['quantization']} and {facts['dtype']}"
    words = [f"since {facts['since']}", f"{facts['answers']} answers", f"{facts['running']} under way"]
    if facts["idle_s"]:
        words.append(f"ends after {clock(facts['idle_s'])} without a question")
    if facts["http"]:
        words.append(facts["http"])
    return [facts["model"], f"{held} on {facts['device']}", f"process {facts['pid']}", ", ".join(words)]


def _idle(text: str) -> float:
    """Seconds of ``--idle``.

    Raises:
        UsageError: it is no time.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--idle: {error}", "--idle 10m") from None


def _refuse_both(status: bool, stop: bool) -> None:
    if status and stop:
        raise UsageError("--status and --stop are two things", "give one of them")
