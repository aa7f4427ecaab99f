"""What an evaluation leaves: its facts, its files, and what is shown of it."""

import json as jsonlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from echopix_cli import __version__
from echopix_cli.cli import options as opt

if TYPE_CHECKING:
    from echopix_cli.engine import Engine
    from echopix_cli.evaluation.asking import Asking
    from echopix_cli.evaluation.questions import Question
    from echopix_cli.evaluation.values import Facts, Report

_SHOWN = 5  # failures, and notices about media


def facts_of(
    engine: "Engine", data: str, questions: "Sequence[Question]", asking: "Asking", shard: str | None
) -> "Facts":
    """What was run.

    Args:
        engine: with the model.
        data: as it was named.
        questions: that were asked, at least one.
        asking: what held for all of them.
        shard: which share of the data they are, as it was given.
    """
    from echopix_cli.cli.eval_data import data_options
    from echopix_cli.evaluation.values import Facts

    plan = asking.plan
    taken: dict[str, int | float | None] = {"scene_side": asking.side}  # scenes have their frames' number and times
    if questions[0].movie is not None:
        sampled = {"fps": plan.fps, "max_frames": plan.max_frames, **asdict(asking.films)}
        taken = {"length": questions[0].movie.duration, "scene_side": asking.side, **sampled}
    elif questions[0].of_file:
        taken = {**asking.of_files, **asdict(asking.films)}
    return Facts(
        version=__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["echopix", *sys.argv[1:]]),
        model=engine.facts,
        data=data,
        count=len(questions),
        families=tuple(dict.fromkeys(question.family for question in questions)),
        seed=asking.seed,
        options={
            "audio": plan.audio,
            "video": plan.video,
            **taken,
            "max_new_tokens": asking.max_new_tokens,
            "system": asking.system,
            "question_layer": asking.question_layer,
            "prefilter": asking.prefilter,
            **data_options(questions, asking.by_letters),
            **({} if shard is None else {"shard": shard}),
        },
    )


def write(report: "Report", output: Path | None, plot: Path | None) -> None:
    """The files that were asked for, each whole or not at all."""
    from echopix_cli.cli.eval_records import report_record
    from echopix_cli.cli.own_files import write_own

    if output is not None:
        write_own(output, (jsonlib.dumps(report_record(report), indent=2) + "\n").encode())
    if plot is not None:
        from echopix_cli.evaluation.plot import draw

        write_own(plot, draw(report, plot.suffix.lower()))


def show(run: opt.Run, report: "Report", json: bool, markdown: bool) -> None:
    """JSON, Markdown or tables, then what went wrong."""
    from echopix_cli.cli.eval_records import report_record

    output = run.output
    if json:
        output.record(report_record(report))
    elif markdown:
        from echopix_cli.cli.eval_markdown import report_markdown

        output.answer(report_markdown(report_record(report)), end="")
    elif not run.settings.quiet:
        from echopix_cli.cli.eval_tables import report_tables

        output.show(report_tables(report, output.console.width))
    for failure in report.failures[:_SHOWN]:
        where = "" if failure.setting is None else f" with {failure.setting}"
        output.warn(f"question {failure.id} failed{where}: {failure.reason}")
    if (rest := len(report.failures) - _SHOWN) > 0:
        output.warn(f"{rest} more failures are listed in the JSON report")
    for media, notice in report.notices[:_SHOWN]:
        output.warn(f"{media}: {notice}")
    if (rest := len(report.notices) - _SHOWN) > 0:
        output.warn(f"{rest} more such notices are listed in the JSON report")
