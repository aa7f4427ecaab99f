"""A conversation under way: what was said, what is asked next and how, on a terminal or from a pipe."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from echopix_cli.cli import demo
from echopix_cli.cli import options as opt
from echopix_cli.cli.answer_files import AnswerFiles
from echopix_cli.cli.ask_one import Display
from echopix_cli.cli.chat_lines import Order, help_lines, read_line
from echopix_cli.cli.output import SCHEMA_VERSION, AnswersLost, ReaderGone, answer_record, inert, one_line
from echopix_cli.cli.waiting import since_start
from echopix_cli.errors import EchopixError, UsageError, told
from echopix_cli.parsers import is_whole, parse_budget
from echopix_cli.results import Answer, Turn
from echopix_cli.serving.messages import Ask
from echopix_cli.times import clock, parse_time

if TYPE_CHECKING:
    from echopix_cli.cli.answering import Answering
    from echopix_cli.files import Look
    from echopix_cli.serving.messages import Manner

_UNHEARD = (AnswersLost, ReaderGone)  # whatever else would be answered
_ENDS = ("/start", "/end")  # of the part that is asked about


class Talk:
    """What a conversation has said so far, and how it goes on."""

    def __init__(self, run: opt.Run, answering: Answering, media: list[str]) -> None:
        from echopix_cli.media import require_file

        for path in media:
            require_file(path)
        self.run, self.answering, self.media = run, answering, media
        self.manner: Manner = run.manner()
        self.answers: list[Answer] = []
        self._served: list[bool] = []  # of each, whether a server gave it
        self._turns: dict[str, list[Turn]] = {}  # about each file, as it is read now
        self._saved: dict[str, Look] = {}  # files that this conversation wrote, as they were then

    def obey_all(self, orders: Sequence[Order]) -> bool:
        """Follow the commands of a line; whether the conversation goes on. The two ends of a part are one command.

        Raises:
            EchopixError: that is not possible.
        """
        for together, group in groupby(orders, lambda order: order.name in _ENDS):
            if together:
                self._span(list(group))
            elif not all(map(self._obey, group)):
                return False
        return True

    def _obey(self, order: Order) -> bool:
        """Follow a command; whether the conversation goes on.

        Raises:
            EchopixError: that is not possible.
        """
        say = self.run.output.notice
        match order.name:
            case "/quit":
                return False
            case "/help":
                for line in help_lines():
                    self.run.output.stderr.write(f"{line}\n")
                self.run.output.stderr.write("turns before are read with a question where the model takes them\n")
            case "/budget":
                if order.value:
                    self.manner = replace(self.manner, budget=_read(parse_budget, order))
                own = "the model's own" if self.manner.budget is None else f"{self.manner.budget:g}"
                self.run.output.stderr.write(f"the budget is {own}\n")
            case "/open":
                from echopix_cli.media import require_file

                path = os.path.expanduser(demo.media_path(order.value))
                require_file(path)
                self.media = [path]
                self._turns.clear()
                self.manner = replace(self.manner, plan=replace(self.manner.plan, start=None, end=None))
                say(f"now about {path}, from its start to its end")
            case "/new":
                self._turns.clear()
                say("turns before are left out")
            case "/where":
                self._where()
            case "/save":
                self._save(Path(os.path.expanduser(order.value)))
        return True

    def _span(self, orders: Sequence[Order]) -> None:
        plan = self.manner.plan
        ends = {order.name: _read(parse_time, order) if order.value else None for order in orders}
        start, end = ends.get("/start", plan.start), ends.get("/end", plan.end)
        if start is not None and end is not None and end <= start:
            raise UsageError(f"{clock(end)} is not after {clock(start)}", "/start and /end alone take all of it")
        self.manner = replace(self.manner, plan=replace(plan, start=start, end=end))
        self._turns.clear()
        whole = "the end" if end is None else clock(end)
        self.run.output.notice(f"from {clock(start or 0.0)} to {whole}")

    def _where(self) -> None:
        if not self.answers:
            raise UsageError("nothing was answered yet", "type a question")
        from echopix_cli.cli.timeline import Where

        self.run.output.console.print(Where(self.answers[-1:]))

    def _save(self, path: Path) -> None:
        if not self.answers:
            raise UsageError("nothing was answered yet", "type a question")
        from echopix_cli.cli.own_files import write_own
        from echopix_cli.files import check_target, look_at

        own = self._saved.get(str(path))
        if os.path.lexists(path) and (own is None or look_at(path) != own):
            changed = "exists already" if own is None else "was changed since it was saved"
            raise UsageError(f"{path} {changed}", "/save another name")
        check_target(path)
        records = map(answer_record, self.answers, self._served)
        lines = [json.dumps(record) for record in records]
        write_own(path, ("\n".join(lines) + "\n").encode())
        self._saved[str(path)] = look_at(path)
        self.run.output.notice(f"{len(lines)} answer{'' if len(lines) == 1 else 's'} in {path}")

    def ask_each(self, question: str, form: str) -> Iterator[tuple[str, EchopixError]]:
        """Put a question about each of the files, whatever becomes of the others; those that failed, and why.

        Raises:
            AnswersLost, ReaderGone: nobody hears the answers.
        """
        for path in list(self.media):
            try:
                self.ask(path, question, form)
            except _UNHEARD:
                raise
            except Exception as error:
                yield path, told(error)

    def tell(self, error: EchopixError) -> None:
        """Say what failed; with ``--debug``, after the traceback."""
        if self.run.settings.debug:
            self.run.output.stderr.write(inert("".join(traceback.format_exception(error))))
        self.run.output.error(error)

    def ask(self, path: str, question: str, form: str) -> None:
        """Put a question about one of the files.

        Raises:
            EchopixError: it cannot be answered.
        """
        if not is_whole(question):
            raise UsageError("the question is not valid UTF-8", "check the encoding of the terminal or file")
        label = f"{one_line(path)}: " if len(self.media) > 1 else ""
        turns = self._turns.setdefault(path, [])
        request = Ask(path, (question,), (), self.manner, tuple(turns))
        with closing(Display(self.run, request, form, AnswerFiles(), label, since_start())) as display:
            self.answering.answer(request, display)
            if self.run.settings.verbose:
                display.finish()
            answer = display.answers[-1]
        self.answers.append(answer)
        self._served.append(display.server is not None)
        if words := unread_words(len(turns), answer.turns_seen or 0):
            self.run.warn(words[1], words[0])
        turns.append(Turn(question, answer.answer))

    @property
    def status(self) -> str:
        """What the next question is about, and what the last answer took into account."""
        names = ", ".join(one_line(os.path.basename(path)) for path in self.media)
        plan, budget = self.manner.plan, self.manner.budget
        parts = [names]
        if plan.start is not None or plan.end is not None:
            parts.append(f"{clock(plan.start or 0.0)} to {'the end' if plan.end is None else clock(plan.end)}")
        if budget is not None:
            parts.append(f"budget {budget:g}")
        if self.answers and self.answers[-1].turns_seen is not None:
            parts.append(f"turns read before the last question: {self.answers[-1].turns_seen}")
        return " · ".join(parts)


class Conversation(Talk):
    """On a terminal."""

    def talk(self) -> None:
        """Until the user ends it."""
        from echopix_cli.cli.chat_prompt import Prompt

        self.run.output.notice("ask, or type /help; Ctrl-C stops an answer, Ctrl-D ends")
        history = Path(self.run.settings.cache_dir) / "chat-history"
        for line in Prompt(history, lambda: self.status).lines():
            try:
                if not self._take(line):
                    return
            except _UNHEARD:
                raise
            except Exception as error:
                self.tell(told(error))
            except KeyboardInterrupt:
                self.run.output.notice("stopped")

    def _take(self, line: str) -> bool:
        said = read_line(line)
        if isinstance(said, str):
            for _, error in self.ask_each(said, "text"):
                self.tell(error)
            return True
        return self.obey_all(said)


class Script(Talk):
    """From a pipe: a record a line and file, whatever becomes of the others."""

    def read(self, lines: Iterable[str]) -> int:
        """Answer all; how many were not. Bytes that are no text come as lone surrogates.

        Raises:
            UsageError: a command that cannot be followed, after which nothing would be about what was meant.
        """
        failed = 0
        for number, line in enumerate(lines):
            said = read_line(line if number else line.removeprefix("\ufeff"))
            if isinstance(said, str):
                for path, error in self.ask_each(said, "jsonl"):
                    self._failed(path, said, error)
                    failed += 1
            elif not self.obey_all(said):
                break
        return failed

    def _failed(self, path: str, question: str, error: EchopixError) -> None:
        from echopix_cli.cli.ask_many import error_record
        from echopix_cli.files import named

        whole = "".join(character if is_whole(character) else "\ufffd" for character in question)
        head = {"schema_version": SCHEMA_VERSION, **named(path), "question": whole}
        self.run.output.record(head | {"error": error_record(error)})
        self.tell(error)


def unread_words(earlier: int, seen: int) -> tuple[str, str] | None:
    """What is said of earlier turns that were not read, after its kind; None where all were.

    Args:
        earlier: turns that there were.
        seen: how many of them the model read.
    """
    if seen == earlier:
        return None
    if seen == 0:
        return "none", "turns before were not read: the model takes single questions only, or they are too long"
    return "some", f"of {earlier} turns before, the last {seen} were read: more do not fit"


def _read(parse: Callable[[str], float], order: Order) -> float:
    try:
        return parse(order.value)
    except ValueError as error:
        raise UsageError(f"{order.name}: {error}", "/help") from None
