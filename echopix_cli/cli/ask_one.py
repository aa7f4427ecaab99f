"""The part of ``echopix ask`` that one file has to itself: a person waits for its answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from echopix_cli.cli import options as opt
from echopix_cli.cli.answering import Answering
from echopix_cli.cli.formats import Records
from echopix_cli.cli.output import answer_record, one_line, unkept
from echopix_cli.cli.waiting import Waited, since_start
from echopix_cli.results import DEMONSTRATION, Answer
from echopix_cli.serving import messages as m
from echopix_cli.times import clock

if TYPE_CHECKING:
    from echopix_cli.cli.answer_files import AnswerFiles
    from echopix_cli.serving.client import Server


def ask_one(
    run: opt.Run, path: str, questions: Sequence[str], choices: tuple[str, ...], form: str, files: AnswerFiles
) -> None:
    """Ask one file, and show answers as they come.

    Args:
        run: of the command.
        path: of the file.
        questions: asked one after the other.
        choices: of every question; none for open ones.
        form: ``text`` or one of :class:`Records`.
        files: to write about the answers.

    Raises:
        UsageError: one of these files is not to be replaced.
        MediaError: the file cannot be read.
        ModelError: the model cannot be.
        DeviceError: memory does not suffice.
    """
    request = m.Ask(path, tuple(questions), choices, run.manner(list_kept=files.report is not None))
    with closing(Answering(run, (path,))) as answering, closing(Display(run, request, form, files)) as display:
        answering.answer(request, display)
        display.finish()


def films_progress(say: Callable[[str], None], path: str) -> Callable[[float, float, str], None]:
    """What tells how far the reading of a film has come, and when it will be done; also of another reading after it."""
    last, before, began = "", 0.0, 0.0

    def watch(done: float, total: float, stage: str) -> None:
        nonlocal last, before, began
        if stage != last or done < before:
            began = time.monotonic()
        last, before, passed = stage, done, time.monotonic() - began
        left = f", {clock(round(passed * (total - done) / done))} left" if done and done < total else ""
        what = path if stage == "reading" else f"at {path}"
        say(f"{stage} {what}: {clock(round(done))} of {clock(round(total))}{left}")

    return watch


class Display:
    """What comes of questions about one file, shown: answers on stdout, as text piece by piece; then one table.

    Args:
        run: of the command.
        request: that is answered.
        form: ``text`` or one of :class:`Records`.
        files: to write about the answers.
        label: before each answer's text.
        since: when waiting began, in seconds since the interpreter did.
    """

    def __init__(
        self,
        run: opt.Run,
        request: m.Ask,
        form: str,
        files: AnswerFiles,
        label: str = "",
        since: float = 0.0,
    ) -> None:
        self.run, self.request, self.files, self._label, self._since = run, request, files, label, since
        self.server: Server | None = None  # who answers; None for this process
        self.answers: list[Answer] = []
        self._records = None if form == "text" else Records(run.output, form)
        self._live = self._records is None and run.output.answers_on_terminal and not request.choices
        self._progress = ExitStack()
        self._watch: Callable[[float, float, str], None] = films_progress(lambda text: None, "")
        self._open = False  # whether an answer's line has begun
        self._started = self._asked = 0.0  # seconds: when reading began, and when the question was put
        self._waited = Waited(0.0, 0.0, 0.0, 0.0)
        self._opened: m.Opened | None = None

    def take(self, event: m.Event) -> None:
        """Show what came."""
        output, path = self.run.output, self.request.path
        match event:
            case m.Found():
                self.files.check()
                if self.server is not None:
                    self._wait("waiting for the server")
            case m.Loaded(seconds):
                if self.server is not None and self.server.welcome.model.demonstration:
                    self.run.warn(DEMONSTRATION)
                self._started = since_start()
                self._waited = Waited(self._started - seconds - self._since, seconds, 0.0, 0.0)
                self._watch = films_progress(self._wait(f"reading {path}"), path)
            case m.Watched(done, total, stage):
                self._watch(done, total, stage)
            case m.Notice(text, grave):
                (output.warn if grave else output.notice)(text)
            case m.Opened(info, notices, _):
                self._progress.close()
                self._opened = event
                self._waited = replace(self._waited, read=since_start() - self._started)
                if self.run.settings.verbose:
                    self.run.describe(path, info)
                for notice in notices:
                    self.run.warn(f"{path}: {notice}")
            case m.Asked():
                self._asked = time.perf_counter()
                self._wait("answering")
            case m.Piece(text) if self._live:
                self._begin()
                output.answer(text, end="")
            case m.Answered(answer):
                self._answered(answer)

    def close(self) -> None:
        """End what is half shown: an answer that broke off still ends its line."""
        self._progress.close()
        if self._open:
            self._open = False
            self.run.output.answer("")

    def finish(self) -> None:
        """The table, and files about the answers."""
        if self._records is None and not self.run.settings.quiet:
            from echopix_cli.cli.answer_tables import answers_table

            self.run.output.show(answers_table(self.answers, self._waited))
        if self.files.vtt or self.files.report:
            assert self._opened is not None
            with self.run.output.progress("writing about the answers"):
                self.files.write(self.request.path, self.answers, self._opened.plan)

    def _answered(self, answer: Answer) -> None:
        """A whole answer: on stdout, and what is to be said of it."""
        output = self.run.output
        if self._live:
            self._begin()
            self._open = False
            output.answer("")
        else:
            self._progress.close()
            if self._records is None:
                output.answer(self._head() + answer.answer)
        self._waited = replace(self._waited, answer=self._waited.answer + time.perf_counter() - self._asked)
        self.answers.append(answer)
        if self._records is not None:
            waited = self._waited
            seconds = {name: round(value, 3) for name, value in (*asdict(waited).items(), ("total", waited.total))}
            self._records.write(answer_record(answer, self.server is not None) | {"waited_s": seconds})
        for words in unkept(answer).values():
            self.run.warn(f"{answer.media}: {words}; a larger --budget keeps more")

    def _begin(self) -> None:
        """Begin an answer's line, once."""
        if not self._open:
            self._progress.close()
            self._open = True
            self.run.output.answer(self._head(), end="")

    def _head(self) -> str:
        questions = self.request.questions
        return self._label + (f"{one_line(questions[len(self.answers)])} → " if len(questions) > 1 else "")

    def _wait(self, text: str) -> Callable[[str], None]:
        """Show that something takes time, in the place of what did before; what changes its text."""
        self._progress.close()
        return self._progress.enter_context(self.run.output.progress(text))
