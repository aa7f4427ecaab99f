"""The part of ``echopix ask`` that one file has to itself: a person waits for its answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from echopix_cli.cli import options as opt
from echopix_cli.cli.formats import Records
from echopix_cli.cli.output import answer_record, one_line, unkept
from echopix_cli.cli.waiting import Waited, since_start
from echopix_cli.media import require_file
from echopix_cli.times import clock

if TYPE_CHECKING:
    from echopix_cli.cli.answer_files import AnswerFiles
    from echopix_cli.engine import AskOptions, Encoded, Engine
    from echopix_cli.engine.film import Film
    from echopix_cli.results import Answer


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
    require_file(path)  # before the model is loaded for nothing
    files.check()
    engine = run.engine([path], keeps=True)
    started = since_start()
    plan, asking = run.plan(engine), replace(run.asking(engine), list_kept=files.report is not None)
    from echopix_cli.decoding.worker import probe
    from echopix_cli.engine.choices import posed
    from echopix_cli.engine.opening import open_media

    with run.output.progress(f"reading {path}") as say:
        asked = [posed(question, choices) for question in questions]
        info, watch = run.look(path) or probe(path, plan.limits), films_progress(say, path)

        def settled(film: Film) -> None:
            run.output.notice(f"{path}: {run.sampling_words(info, film)}")

        opened = open_media(engine, path, plan, asked, asking, run.films(), watch, info, settled)
    encoded = opened[0]
    waited = Waited(started - engine.load_seconds, engine.load_seconds, since_start() - started, 0.0)
    if run.settings.verbose:
        run.describe(path, encoded.info)
    for notice in encoded.notices:
        run.output.warn(f"{path}: {notice}")
    answers = _Asking(run, engine, asking, choices, form).ask(list(zip(questions, opened, strict=True)), waited)
    if files.vtt or files.report:
        with run.output.progress("writing about the answers"):
            files.write(path, answers, plan)


def films_progress(say: Callable[[str], None], path: str) -> Callable[[float, float, str], None]:
    """What tells how far the reading of a film has come, and when it will be done."""
    began: dict[str, float] = {}

    def watch(done: float, total: float, stage: str) -> None:
        passed = time.monotonic() - began.setdefault(stage, time.monotonic())
        left = f", {clock(round(passed * (total - done) / done))} left" if done and done < total else ""
        what = path if stage == "reading" else f"at {path}"
        say(f"{stage} {what}: {clock(round(done))} of {clock(round(total))}{left}")

    return watch


class _Asking:
    """Questions about one file, and where their answers go."""

    def __init__(
        self,
        run: opt.Run,
        engine: Engine,
        asking: AskOptions,
        choices: tuple[str, ...],
        form: str,
    ) -> None:
        self.run, self.engine, self.asking, self.choices = run, engine, asking, choices
        self.records = None if form == "text" else Records(run.output, form)
        self.live = self.records is None and run.output.answers_on_terminal

    def ask(self, asked: Sequence[tuple[str, Encoded]], waited: Waited) -> list[Answer]:
        """Ask all, each about what was read for it; then one table."""
        answers: list[Answer] = []
        said: set[str] = set()
        for question, encoded in asked:
            began = time.perf_counter()
            answer = self._answered(question, encoded, f"{one_line(question)} → " if len(asked) > 1 else "")
            waited = replace(waited, answer=waited.answer + time.perf_counter() - began)
            answers.append(answer)
            if self.records is not None:
                seconds = {name: round(value, 3) for name, value in (*asdict(waited).items(), ("total", waited.total))}
                self.records.write(answer_record(answer) | {"waited_s": seconds})
            for name, words in unkept(answer).items():
                if name not in said:
                    self.run.output.warn(f"{answer.media}: {words}; a larger --budget keeps more")
                    said.add(name)
        if self.records is None and not self.run.settings.quiet:
            from echopix_cli.cli.answer_tables import answers_table

            self.run.output.show(answers_table(answers, waited))
        return answers

    def _answered(self, question: str, encoded: Encoded, head: str) -> Answer:
        """One answer; as text, it is on stdout when this returns: ``head`` first, then pieces as they come."""
        from echopix_cli.results import Answer

        output, engine = self.run.output, self.engine
        first = None
        with output.progress("answering"):
            if self.choices:
                answer = engine.decide(encoded, question, self.choices, self.asking)
            else:
                events = engine.stream(encoded, question, self.asking)
                if self.live:
                    first = next(events)
                else:
                    *_, last = events
                    assert isinstance(last, Answer)
                    answer = last
        if first is None:
            if self.records is None:
                output.answer(head + answer.answer)
            return answer
        output.answer(head, end="")
        try:
            while not isinstance(first, Answer):
                output.answer(first.text, end="")
                first = next(events)
            return first
        finally:
            output.answer("")  # an answer that broke off still ends its line
