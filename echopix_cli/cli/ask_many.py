"""The part of ``echopix ask`` that takes folders, lists and several files: one record per file and question."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from echopix_cli.cli import options as opt
from echopix_cli.cli.formats import Records
from echopix_cli.cli.output import SCHEMA_VERSION, Tally, answer_record, one_line, unkept
from echopix_cli.cli.signals import stopping
from echopix_cli.errors import EchopixError, ExitCode, Interrupted, UsageError
from echopix_cli.files import folder_of, named, shown
from echopix_cli.results import DEMONSTRATION

if TYPE_CHECKING:
    from echopix_cli.batch.cluster import FleetOptions
    from echopix_cli.batch.journal import Journal
    from echopix_cli.batch.outcomes import Outcome, Summary
    from echopix_cli.batch.tasks import Task
    from echopix_cli.cli.report_folder import ReportFolder
    from echopix_cli.media import DecodePlan
    from echopix_cli.results import Answer
    from echopix_cli.serving.client import Server


@dataclass(frozen=True)
class Many:
    """What the command line says about more than one file.

    Args:
        media: files, folders, or ``-`` for paths on stdin.
        questions: asked of every file.
        choices: of every question that brings none of its own.
        glob: what files in folders are called.
        null: paths on stdin end with NUL.
        questions_file, tasks_file: of questions, and of whole tasks.
        output: records are appended there.
        overwrite: begin it anew.
        shard: ``I/N``.
        fail_fast: end at the first failure.
        form: of what is printed; None takes lines on a terminal, and in a pipe JSON or, beside an output file, nothing.
        report: folder of pages about the answers.
        fleet: asks on Ray; None does in this process.
    """

    media: Sequence[str]
    questions: Sequence[str]
    choices: tuple[str, ...]
    glob: str | None
    null: bool
    questions_file: Path | None
    tasks_file: Path | None
    output: Path | None
    overwrite: bool
    shard: str | None
    fail_fast: bool
    form: str | None
    report: Path | None = None
    fleet: FleetOptions | None = None


def tasks_of(many: Many, still: Callable[[str], None] = lambda path: None) -> list[Task]:
    """Every question about every file, file by file; of them, the share that was asked for.

    Args:
        many: what the command line says.
        still: is told of still pictures that folders hold and that are not asked about.

    Raises:
        UsageError: nothing to ask, or a list that cannot be read.
    """
    from echopix_cli.batch.tasks import Task, find_media, parse_shard, read_paths, read_questions, read_tasks, shard

    if many.tasks_file is not None:
        tasks = read_tasks(many.tasks_file)
    else:
        asked = [Task("", question) for question in many.questions]
        if many.questions_file is not None:
            asked += read_questions(many.questions_file)
        named: list[str] = []
        for name in many.media:
            named += read_paths(sys.stdin.buffer, many.null) if name == "-" else [name]
        if not named:
            raise UsageError("no paths came in on stdin", "find . -name '*.mp4' | echopix ask - QUESTION")
        tasks = [replace(task, media=media) for media in find_media(named, many.glob, still) for task in asked]
    tasks = [task if task.choices else replace(task, choices=many.choices) for task in tasks]
    first: dict[tuple[str, str, str | int | None], Task] = {}
    for task in tasks:
        if (other := first.setdefault((task.media, task.question, task.id), task)) is not task:
            raise _repeated(other, task)
    return tasks if many.shard is None else shard(tasks, *parse_shard(many.shard))


def _repeated(one: Task, other: Task) -> UsageError:
    """Of two tasks whose records nothing would tell apart."""
    differ = [name for name in ("start", "end", "budget", "choices") if getattr(one, name) != getattr(other, name)]
    return UsageError(
        f"{shown(one.media)} is asked twice"
        + (f", with another {' and '.join(differ)}" if differ else "")
        + f": {one_line(one.question)}",
        'give each an id of its own: {"id": "clip-1"}' if differ else "leave one out, or give each an id of its own",
    )


def ask_many(run: opt.Run, many: Many) -> None:
    """Ask everything; the exit code says whether all of it was answered.

    Raises:
        UsageError: a list, option or output file that does not fit.
        Interrupted: by a signal; what was done is kept.
    """
    with run.output.progress("looking for files and questions"):
        stills: list[str] = []
        tasks = tasks_of(many, stills.append)
    if stills:
        one = len(stills) == 1
        extension = os.path.splitext(stills[0])[1]
        run.output.notice(
            f"{len(stills)} still picture{'' if one else 's'} passed over; --glob '*{extension}' takes "
            + ("it" if one else "them" if all(name.endswith(extension) for name in stills) else "such")
        )
    found, tasks = tasks, _without_output(run, many, tasks)
    if many.overwrite:
        _keep_from_destroying(many)
    with ExitStack() as held:
        from echopix_cli.batch.journal import Journal

        journal = None
        if many.output is not None:
            with run.output.progress(f"reading {many.output}"):
                journal = Journal(many.output, tasks, many.overwrite)
            held.callback(journal.close)
        records = _printed(run, many)
        if not found:  # which only a share can be
            run.output.notice(f"--shard {many.shard} holds no files: there are fewer of them than shares")
            for each in (journal, records):
                if each is not None:
                    each.begin()
            return
        if not tasks:
            raise UsageError(f"there is nothing to ask about but {many.output}, the --output", "name another --output")
        if many.report is not None:  # before the model is loaded for nothing
            from echopix_cli.cli.report_folder import check_folder

            check_folder(many.report)
        from echopix_cli.serving.many_messages import AskMany

        request = AskMany(
            tuple(tasks), run.manner(list_kept=many.report is not None), many.fail_fast, journal is not None
        )
        fleet = None
        if many.fleet is not None:
            from echopix_cli.cli.fleet import open_fleet

            fleet = open_fleet(run, many.fleet)
            held.callback(fleet.close)
        server = run.server() if fleet is None else None
        if server is not None:
            held.callback(server.close)

        from echopix_cli.cli.ask_one import films_progress

        def attempt(server: Server | None) -> tuple[Summary, _Report, list[int]] | None:
            """What came of all tasks, and the signal that ended it; None where a server did not begin with them."""
            engine = run.engine(keeps=True) if server is None and fleet is None else None
            with stopping() as received, run.output.tally(len(tasks)) as tally:
                report = _Report(run, many, tasks, tally, journal, records, server is not None)

                def began(plan: DecodePlan) -> None:
                    report.begun = True
                    if server is not None and server.welcome.model.demonstration:
                        run.output.warn(DEMONSTRATION)
                    if many.report is not None:
                        from echopix_cli.cli.report_folder import ReportFolder

                        report.pages = ReportFolder(many.report, plan)
                        held.callback(report.pages.close)
                    if journal is not None:
                        journal.begin()
                    if report.records is not None:
                        report.records.begin()

                def stop() -> bool:
                    return bool(received)

                reading = partial(films_progress, tally.tell)
                if server is not None:
                    from echopix_cli.serving.client import Ending
                    from echopix_cli.serving.client_many import ask_many as ask_there

                    try:
                        summary = ask_there(server, request, journal, began, report.take, tally.skip, stop, reading)
                    except Ending:
                        if report.begun or received:
                            raise
                        return None
                elif fleet is not None:
                    from echopix_cli.cli.fleet import fleet_batch

                    fleets = fleet_batch(fleet, request, report.take, journal=journal, passed=tally.skip, stop=stop)
                    began(fleets.settings.plan)
                    summary = fleets.run(tasks)
                else:
                    assert engine is not None
                    from echopix_cli.serving.batches import batch_of

                    batch = batch_of(
                        engine, request, report.take, journal=journal, passed=tally.skip, stop=stop, reading=reading
                    )
                    began(batch.settings.plan)
                    summary = batch.run(tasks)
                return summary, report, received

        came = attempt(server) or attempt(None)
        assert came is not None
        summary, report, received = came
    if run.settings.verbose and summary.seconds:
        share = f"{summary.waited:.1f} s of {summary.seconds:.1f} s ({100 * summary.waited / summary.seconds:.0f} %)"
        run.output.notice(f"the model waited {share} for files to be decoded")
    done = f"{summary.done} of {summary.tasks} done"
    if received and summary.done < summary.tasks:
        again = "with --output FILE, the next run would go on here"
        if journal is not None:
            again = "run again without --overwrite to resume" if many.overwrite else "run again to resume"
        raise Interrupted(f"Interrupted; {done}, {again}", received[0])
    before = f", {summary.before} before" if summary.before else ""
    left = summary.tasks - summary.done
    other = 0 if journal is None else journal.other_errors
    stay = f"{other} failure{'' if other == 1 else 's'} of other tasks stay{'s' if other == 1 else ''} in it"
    say = run.output.warn if report.unkept else run.output.notice  # what nobody may miss, under --quiet too
    say(
        f"{summary.answered} answered, {summary.failed} failed{before}"
        + (f", {left} not tried" if left else "")
        + (f"; notes on {len(report.said)} of the files" if report.said else "")
        + "".join(f"; nothing of the {name} kept in {count}" for name, count in report.unkept.items())
        + (f"; {stay}" if other else "")
        + "".join(f"; {event}" for event in summary.events)
    )
    passed = () if left else (task for task in tasks if task not in report.ended)  # all of them answered before
    if report.pages is not None and (bare := report.pages.without(passed)):
        run.output.warn(
            f"{bare} answer{'' if bare == 1 else 's'} of earlier runs "
            f"{'is' if bare == 1 else 'are'} on no page; --overwrite answers anew"
        )
    if summary.failed:
        raise typer.Exit(ExitCode.FAILURE)


def _form(run: opt.Run, many: Many) -> str | None:
    """Of what is printed; None of nothing."""
    return many.form or ("text" if run.output.answers_on_terminal else "jsonl" if many.output is None else None)


def _printed(run: opt.Run, many: Many) -> Records | None:
    """What prints records; None where lines for people are printed, or nothing."""
    form = _form(run, many)
    return None if form in ("text", None) else Records(run.output, form)


def _without_output(run: opt.Run, many: Many, tasks: list[Task]) -> list[Task]:
    """All tasks but those about the output file, which lies among what was named once it is there."""
    output = many.output
    if output is None or not os.path.exists(output):
        return tasks
    own = {name for name in {task.media for task in tasks} if os.path.exists(name) and os.path.samefile(name, output)}
    if own:
        run.output.notice(f"{min(own)} is the --output, and is not asked about")
    return [task for task in tasks if task.media not in own]


def _keep_from_destroying(many: Many) -> None:
    """Refuse to overwrite what is to be read.

    Raises:
        UsageError: the output file is one of the lists.
    """
    output = many.output
    if output is None or not os.path.exists(output):
        return
    for name in (many.tasks_file, many.questions_file):
        if name is not None and os.path.exists(name) and os.path.samefile(name, output):
            raise UsageError(f"{output} is to be read and overwritten", "name another --output")


class _Report:
    """Where outcomes go: the output file or stdout, and what a person at a terminal sees of them."""

    def __init__(
        self,
        run: opt.Run,
        many: Many,
        tasks: Sequence[Task],
        tally: Tally,
        journal: Journal | None,
        records: Records | None,
        served: bool,
    ) -> None:
        self.output, self.tally, self.journal, self.served = run.output, tally, journal, served
        self.begun = False  # whether anything was asked
        self.pages: ReportFolder | None = None
        self.records, self.readable = records, _form(run, many) == "text"
        self.names_question = len({task.question for task in tasks}) > 1
        self.shown: EchopixError | None = None
        self.said: dict[str, set[str]] = {}  # notices by file
        self.unkept: Counter[str] = Counter()  # answers by the modality of which nothing was kept
        self.ended: set[Task] = set()  # what was answered, or failed

    def take(self, outcome: Outcome) -> None:
        """One outcome: kept first, then shown."""
        record = outcome_record(outcome, self.served)
        self.ended.add(outcome.task)
        if self.journal is not None:
            self.journal.append(record)
        with self.tally.aside():
            if self.records is not None:
                self.records.write(record)
            elif self.readable and outcome.answer is not None:
                task = outcome.task
                head = f"{shown(task.media)}: " + (f"{one_line(task.question)} → " if self.names_question else "")
                self.output.answer(head + one_line(outcome.answer.answer))
            if outcome.answer is not None:
                self._say_notices(outcome.task.media, outcome.answer)
                if self.pages is not None:
                    self.pages.add(outcome.task, outcome.answer)
            if outcome.error is not None and outcome.error is not self.shown:  # of a file's many questions once
                self.output.error(outcome.error)
                self.shown = outcome.error
        self.tally.advance(failed=outcome.error is not None)

    def _say_notices(self, media: str, answer: Answer) -> None:
        """What was not seen or heard of a file, whatever is shown of its answers; each once."""
        self.unkept.update(unkept(answer).keys())
        for notice in answer.notices:
            if notice != DEMONSTRATION and notice not in self.said.get(media, ()):
                self.said.setdefault(media, set()).add(notice)
                self.output.warn(f"{media}: {notice}")


def outcome_record(outcome: Outcome, served: bool = False) -> dict[str, Any]:
    """A line of a batch: an answer's record or an error, with the task's id and key and the file's identity.

    Args:
        outcome: of a task.
        served: whether a server gave it.
    """
    task = outcome.task
    head = {
        "schema_version": SCHEMA_VERSION,
        "id": task.id,
        "key": outcome.key,
        "file": None if outcome.file is None else asdict(outcome.file),
        **folder_of(task.media),
    }
    if outcome.answer is not None:
        return head | answer_record(outcome.answer, served)
    assert outcome.error is not None
    return head | named(task.media) | {"question": task.question, "error": error_record(outcome.error)}


def error_record(error: EchopixError) -> dict[str, Any]:
    """An error as JSON."""
    return {
        "type": error.kind,
        "message": error.message,
        "hint": error.hint,
        "exit_code": int(error.exit_code),
    }
