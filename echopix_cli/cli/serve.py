"""``echopix serve``: one loaded model that stays, and what is known of those that run."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
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
    from echopix_cli.serving.messages import Welcome
    from echopix_cli.serving.place import Holder

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
    from echopix_cli.serving.place import listening, locked, name_of, opened_folder, sign, unlisten

    wish = run.wish()
    with opened_folder(make=True) as folder:
        assert folder is not None
        name = name_of(wish)
        lock = locked(folder, name)
        if lock is None:
            raise UsageError("a server for this model runs already", "echopix serve --status")
        try:
            sign(lock, wish.model, "loading")
            from echopix_cli.weights.opening import folder_revision

            named = folder_revision(Path(wish.model)) if os.path.isabs(wish.model) else None  # before it is read
            engine = run.engine(keeps=True)
            from echopix_cli.serving.desk import Desk
            from echopix_cli.serving.server import Listener

            desk = Desk(engine, wish, named)
            ending = partial(sign, lock, wish.model, "ending")
            with closing(listening(folder, name)) as listener, stopping(ending) as received:
                sign(lock, wish.model)
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
    found = [one.facts for one in _found()]
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
        EchopixError: one is in a container of its own; the others have ended.
    """
    one = run.wish().model if run.resolved.origins["model"] == "flag" else None
    ended, beyond = [], False
    for found in _found():
        if one is not None and one not in found.models:
            continue
        if found.pid <= 0:
            beyond = True
            continue
        if found.state != "ending":  # a second signal would end it at once
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(found.pid, signal.SIGTERM)
        ended.append(found)
    with run.output.progress("waiting for what is being answered"):
        for found in ended:
            _wait_for(found.name, found.pid)
    if json:
        run.output.record({"schema_version": SCHEMA_VERSION, "servers": [found.facts for found in ended]})
    for found in ended:
        run.output.notice(f"{found.model or 'a server'} (process {found.pid}) has ended")
    if beyond:
        raise EchopixError("a server runs where its process cannot be reached", "end it in its own container")
    if not ended:
        run.output.notice("no server runs" + (" for this model" if one else ""))
        raise typer.Exit(ExitCode.FAILURE)


@dataclass(frozen=True)
class _Found:
    """A server of this user.

    Attributes:
        name: of its lock.
        pid: its process.
        welcome: what it says of itself; None where it does not.
        holder: what stands in its lock; None where nothing does.
    """

    name: str
    pid: int
    welcome: "Welcome | None"
    holder: "Holder | None"

    @property
    def models(self) -> set[str]:
        """Names of what it holds, and of what it was begun for; none where that is unknown."""
        said = set() if self.welcome is None else {self.welcome.held.model, self.welcome.asked}
        return said | (set() if self.holder is None else {self.holder.model})

    @property
    def model(self) -> str | None:
        """What it holds, for people; None where that is unknown."""
        if self.welcome is not None:
            return self.welcome.model.name
        return None if self.holder is None else self.holder.model

    @property
    def state(self) -> str | None:
        """``loading``, ``answering`` or ``ending``; None where that is unknown."""
        state = "" if self.holder is None else self.holder.state
        return state or (None if self.welcome is None else "answering")

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of it; what only the server itself could say is null where it does not."""
        said = self.welcome
        return {
            "model": self.model,
            "revision": said and said.model.revision,
            "dtype": said and said.model.dtype,
            "device": said and said.model.device,
            "quantization": said and said.model.quantization,
            "pid": self.pid,
            "version": said and said.version,
            "since": said and datetime.fromtimestamp(said.since, UTC).isoformat(timespec="seconds"),
            "answers": said and said.answers,
            "running": said and said.running,
            "idle_s": said and said.idle,
            "http": said and (said.http or None),
            "state": self.state,
        }


def _found() -> Iterator[_Found]:
    """All servers of this user, whatever they hold and are doing; each as it is when it is taken."""
    from echopix_cli.serving.client import greet_all
    from echopix_cli.serving.messages import Wish
    from echopix_cli.serving.place import holder_of, locks, opened_folder

    any_wish, seen = Wish("auto", "auto", "auto", "auto"), set[str]()  # whatever the settings say of a model
    with opened_folder() as folder:
        if folder is None:
            return
        for greeted in greet_all(lambda: any_wish):
            greeted.connection.close()
            seen.add(greeted.name)
            yield _Found(greeted.name, greeted.pid, greeted.welcome, holder_of(folder, greeted.name))
        for name in locks(folder):
            if name not in seen and (holder := holder_of(folder, name)) is not None:
                yield _Found(name, holder.pid, None, holder)


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


def _row(facts: dict[str, Any]) -> list[str]:
    head, process = facts["model"] or "?", f"process {facts['pid']}"
    if facts["version"] is None:
        state = facts["state"]
        return [head, "", process, f"is {state}" if state else "does not say what it holds"]
    held = facts["dtype"] if facts["quantization"] == "none" else f"{facts['quantization']} and {facts['dtype']}"
    words = [f"since {facts['since']}", f"{facts['answers']} answers", f"{facts['running']} under way"]
    if facts["idle_s"]:
        words.append(f"ends after {clock(facts['idle_s'])} without a question")
    if facts["http"]:
        words.append(facts["http"])
    return [head, f"{held} on {facts['device']}", process, ", ".join(words)]


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
