"""A download on the terminal: one progress display, or plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from echopix_cli.cli.output import Output, one_line
from echopix_cli.sizes import decimal
from echopix_cli.weights.copies import Watcher
from echopix_cli.weights.transfer import Plan, Progress, RemoteFile

if TYPE_CHECKING:
    from rich.progress import Progress as Display
    from rich.progress import TaskID

    from echopix_cli.weights.hub import Pulled
    from echopix_cli.weights.registry import Model

_LINE_EVERY = 15.0  # seconds between lines about one file, where there is no terminal


class Shown(Progress):
    """A download on the terminal: one progress display, or plain lines where there is none."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._plan: Plan | None = None
        self._before = 0  # bytes of files that are done
        self._number = 0
        self._said = 0.0
        self._progress: Display | None = None
        self._task: TaskID | None = None

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Show the progress display within this context, on a terminal."""
        if self._output.quiet or not self._output.console.is_terminal:
            yield
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        text = TextColumn("{task.description}", markup=False)
        bar, size, rest = BarColumn(), DownloadColumn(), TimeRemainingColumn(compact=True)
        with Progress(text, bar, size, Speed(), rest, console=self._output.console, transient=True) as progress:
            self._progress = progress
            try:
                yield
            finally:
                self._progress = None

    def planned(self, plan: Plan) -> None:
        """Say licence, sizes and destination before anything large is fetched."""
        self._plan = plan
        say = self._output.notice
        model = plan.model
        say(f"{model.name}: {plan.layout} from {model.repository}, revision {plan.commit}")
        stated = f"the hub states: {plan.licence}" if plan.licence else "the hub states none"
        known = model.licence and model.licence != plan.licence
        say(f"licence: {model.licence} ({stated})" if known else f"licence: {stated}")
        say(
            f"{decimal(plan.fetch)} to fetch, {decimal(plan.present)} there already; {decimal(plan.skipped)} in "
            f"{plan.skipped_files} files not needed and not fetched"
        )
        say(f"to {plan.destination}, {decimal(plan.free)} free")
        if self._progress is not None:
            self._task = self._progress.add_task("", total=plan.total)

    def fetching(self, file: RemoteFile, at: int) -> None:
        """Show the bytes that have come of a file: in the display, or as a line now and then."""
        if self._plan is None:
            return
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=one_line(file.path), completed=self._before + at)
        elif time.monotonic() - self._said > _LINE_EVERY:
            self._said = time.monotonic()
            if 0 < at < file.size:
                self._output.notice(f"{file.path}: {decimal(at)} of {decimal(file.size)}")

    def checking(self, file: RemoteFile) -> None:
        """Say that a file is compared with its checksum, which takes a while without new bytes."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=one_line(f"checking {file.path}"))

    def done(self, file: RemoteFile) -> None:
        """Count a file that is complete."""
        if self._plan is None or file not in self._plan.files:
            return
        self._before += file.size
        self._number += 1
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._before)
        else:
            self._output.notice(f"{file.path}, {decimal(file.size)}: {self._number} of {len(self._plan.files)} files")

    def notice(self, text: str) -> None:
        """Write a notice, above the display where there is one."""
        self._output.notice(text)


def fetch(output: Output, model: Model) -> Pulled:
    """Download a model's full-precision files where they are not here, with progress shown.

    Raises:
        ModelError: it cannot be fetched.
    """
    from echopix_cli.weights import hub

    watcher = Shown(output)
    try:
        with watcher.drawn():
            done = hub.pull(model, watcher)
    except KeyboardInterrupt:
        output.notice(f"what is there is kept, and this goes on: echopix models pull {model.name}")
        raise
    said = "is on this machine already" if done.plan is None else "is whole and checked"
    output.notice(f"{model.name} {said}: {done.entry.folder}")
    return done


class Quantizing(Watcher):
    """A quantized copy in the making: the text of a spinner, or now and then a line."""

    def __init__(self, output: Output, say: Callable[[str], None]) -> None:
        self._output = output
        self._say = say
        self._said = time.monotonic()

    def notice(self, text: str) -> None:
        """Write a notice."""
        self._output.notice(text)

    def quantizing(self, done: int, total: int) -> None:
        """Show how many bytes are quantized."""
        text = f"quantizing: {decimal(done)} of {decimal(total)}; this is done once"
        self._say("comparing the copy with what was quantized" if done == total else text)
        if not self._output.console.is_terminal and time.monotonic() - self._said > _LINE_EVERY:
            self._output.notice(text)
            self._said = time.monotonic()
