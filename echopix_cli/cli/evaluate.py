"""``echopix eval``: how often a model is right, by family, budget and sieve."""

import json as jsonlib
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echopix_cli import __version__
from echopix_cli.cli import options as opt
from echopix_cli.cli.eval_records import report_record
from echopix_cli.cli.signals import stopping
from echopix_cli.errors import ExitCode, Interrupted, UsageError
from echopix_cli.settings import SIEVES as NAMES
from echopix_cli.times import TIME_HELP

if TYPE_CHECKING:
    from collections.abc import Callable

    from echopix_cli.cli.eval_items import Items
    from echopix_cli.engine import Engine
    from echopix_cli.evaluation.asking import Asking
    from echopix_cli.evaluation.questions import Question
    from echopix_cli.evaluation.values import (
        Condition,
        Facts,
        Graded,
        ItemResult,
        Report,
    )

DEFAULT_BUDGETS = (1.0, 0.2, 0.1, 0.05)
LONGEST_ANSWER = 32  # tokens; questions with gold answers have short ones, and a model astray would babble on
_SHOWN_FAILURES = 5
_MOVIES, _SINGLE_PASS = "scenes:movie", "single-pass"  # written out, not imported: that would slow --help down


@opt.taking(
    *opt.CHOOSING, *opt.LOADING, "system", "max_new_tokens", *opt.SAMPLING, *opt.FILMS, *opt.PARTS, *opt.PRINTING
)  # fmt: skip
def evaluate(
    run: opt.Run,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATA",
            help="scenes:test, scenes:val or scenes:unseen-font; scenes:movie or scenes:movie-val; or a file: JSONL of "
            "media, question and answer, or that of a benchmark as it is published",
        ),
    ] = "scenes:test",
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="what the file holds, where its content does not say: jsonl, lvomnibench, omnivideobench, daily-omni, "
            "worldsense, video-mme, avut, music-avqa",
            show_default=False,
        ),
    ] = None,
    media_root: Annotated[
        Path | None,
        typer.Option(
            "--media-root", metavar="DIR", help="the folder of the file's media (default its own)", show_default=False
        ),
    ] = None,
    answers: Annotated[
        str | None,
        typer.Option(
            "--answers",
            metavar="WAY",
            help="of questions with options: letters, the likeliest one, or text, generated and read strictly (default "
            "letters of benchmarks, else text)",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", "-n", min=1, metavar="N", help="how many questions (default 200 scenes, or the whole file)"
        ),
    ] = None,
    length: Annotated[
        str | None,
        typer.Option(
            "--length", metavar="LENGTH", help=f"of each movie, as {TIME_HELP} (default 1:00)", show_default=False
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            "-b",
            metavar="FRACTION",
            help="a fraction of audio-visual tokens kept; repeat for more (default 1.0 0.2 0.1 0.05; of movies 1.0)",
            show_default=False,
        ),
    ] = None,
    sieve: Annotated[
        list[str] | None,
        typer.Option(
            "--sieve",
            metavar="NAME",
            help=f"{', '.join(NAMES)}; of movies also single-pass; repeat for more (default auto and all controls)",
            show_default=False,
        ),
    ] = None,
    around_sieve: Annotated[
        bool,
        typer.Option("--around-sieve", help="measure also every row past CS2, for a model before its sieve is trained"),
    ] = False,
    family: Annotated[
        list[str] | None,
        typer.Option("--family", metavar="NAME", help="only this family; repeat for more", show_default=False),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, metavar="N", help="of the first scene and of the random control")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="write the JSON report here", show_default=False),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(
            "--items",
            metavar="FILE",
            help="write every question with its answers here, as JSONL, and go on there after an interruption",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="draw accuracy against budget here, as PNG or SVG", show_default=False
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="replace files that something else has written", show_default=False)
    ] = False,
    json: opt.Json = False,
) -> None:
    """Measure how often answers are right, by family, budget and sieve.

    Controls run beside the model's own sieve on the same questions. Answers are greedy and end after 32 tokens unless
    --max-new-tokens says otherwise. The tables go to stderr, --json to stdout.
    """
    budgets = [opt.read_budget(value) for value in budget or []]
    movies = data.startswith(_MOVIES)
    _check(run, sieve or [], json, output, items, plot, force, movies)
    seconds_each = _length(length, movies)
    if movies and around_sieve:
        raise UsageError("movies do not go past CS2 whole", "--sieve single-pass sieves them whole")
    if not budgets:
        # A budget from the environment or the config file is measured beside keeping everything.
        budgets = [1.0, run.settings.budget] if run.settings.budget else [1.0] if movies else list(DEFAULT_BUDGETS)
    with run.output.progress("reading the questions"):
        from echopix_cli.cli.eval_data import ask_of, by_letters
        from echopix_cli.evaluation.report import make_report
        from echopix_cli.evaluation.run import settings_of, sieves_of
        from echopix_cli.evaluation.values import CONTROLS

        names = sieve or ("auto", *CONTROLS)
        settings_of(names, budgets, around_sieve, movies)  # nothing to measure is nothing to load a model for
        questions = ask_of(data, count, seed, family or (), seconds_each, format, media_root)
        letters = by_letters(answers, questions)
    with ExitStack() as held:
        kept = None
        if items is not None:
            from echopix_cli.cli.eval_items import Items

            kept = Items(items, questions, force)
            held.callback(kept.close)
        engine = run.engine(budget=max(budgets))
        asking = _asking(run, engine, seed, letters)
        settings = settings_of(sieves_of(engine, names, asking), budgets, around_sieve, movies)
        before = kept.begin(engine, settings, asking) if kept is not None else {}
        began = time.perf_counter()
        results = _measure(run, engine, questions, settings, asking, kept, before)
        seconds = time.perf_counter() - began
    if before:
        run.output.notice(f"{len(before)} of {len(questions)} questions were answered before")
    report = make_report(_facts(engine, data, questions, asking), results, settings, seconds)
    _write(report, output, plot)
    _show(run, report, json)
    if report.failures:
        raise typer.Exit(ExitCode.FAILURE)


def _check(
    run: opt.Run,
    sieves: Sequence[str],
    json: bool,
    output: Path | None,
    items: Path | None,
    plot: Path | None,
    force: bool,
    movies: bool,
) -> None:
    """Refuse what cannot end well before a model is loaded."""
    from echopix_cli.cli.eval_targets import check_targets

    known = (*NAMES, _SINGLE_PASS) if movies else NAMES
    if unknown := [name for name in sieves if name not in known]:
        raise UsageError(f"unknown sieve {unknown[0]!r}", f"choose from: {', '.join(known)}")
    run.require_output(json or output or items or plot, "--json or --output FILE")
    if run.settings.no_audio and run.settings.no_video:
        raise UsageError("without sound and without picture nothing is left to ask about", "--sieve none keeps neither")
    check_targets(output, items, plot, force)


def _length(length: str | None, movies: bool) -> tuple[float, ...]:
    """Seconds of each movie, where they are given.

    Raises:
        UsageError: no time, or for what is no movie.
    """
    if length is None:
        return ()
    if not movies:
        raise UsageError("--length is that of movies", "--data scenes:movie")
    return (opt.read_length("--length", length),)


def _asking(run: opt.Run, engine: "Engine", seed: int, letters: bool) -> "Asking":
    """What holds for every question, from settings and checkpoint."""
    from echopix_cli.evaluation.asking import Asking
    from echopix_cli.scenes import frame_side

    options, rules = run.generation(), engine.processor.rules
    settings = run.resolved.preferring(max_new_tokens=LONGEST_ANSWER, max_pixels=rules.max_pixels).settings
    return Asking(
        plan=run.plan(engine),
        side=frame_side(settings.max_pixels, rules.size_factor),
        seed=seed,
        max_new_tokens=settings.max_new_tokens,
        system=options.system,
        question_layer=run.settings.question_layer,
        prefilter=run.settings.prefilter,
        films=run.films(),
        by_letters=letters,
    )


def _measure(
    run: opt.Run,
    engine: "Engine",
    questions: "Sequence[Question]",
    settings: "Sequence[Condition]",
    asking: "Asking",
    kept: "Items | None",
    before: "dict[int, ItemResult]",
) -> "list[ItemResult]":
    """All results in the questions' order, each written as soon as it is there.

    Raises:
        Interrupted: by a signal, after the question that was being answered.
        EchopixError: they cannot be kept.
    """
    from echopix_cli.evaluation.run import evaluate as answer_all

    results: dict[int, ItemResult] = {}
    with stopping() as received, run.output.progress(f"0 of {len(questions)} questions") as say:
        watch = _watch(say, len(questions), settings[0])
        for question, result in answer_all(engine, questions, settings, asking, watch, before):
            results[question.index] = result
            if kept is not None and question.index not in before:
                kept.add(question, result)
            if received and len(results) < len(questions):
                again = "run again to resume" if kept is not None else "with --items FILE, the next run would go on"
                raise Interrupted(f"Interrupted; {len(results)} of {len(questions)} done, {again}", received[0])
    if kept is not None:
        kept.confirm()
    return [results[question.index] for question in questions]


def _watch(say: "Callable[[str], None]", count: int, setting: "Condition") -> "Callable[[ItemResult], None]":
    """Tells how far it is, how it goes with the first setting, and how long it will take."""
    began = time.monotonic()
    outcomes: list[Graded] = []

    def watch(result: "ItemResult") -> None:
        outcomes.append(result.outcomes[setting])
        done, right = len(outcomes), sum(outcome.right for outcome in outcomes)
        failed = sum(outcome.answer is None for outcome in outcomes)
        left = (time.monotonic() - began) / done * (count - done)
        trouble = f", {failed} failed" if failed else ""
        say(f"{done} of {count} questions, {setting.name}: {right} right{trouble}; {_minutes(left)} left")

    return watch


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _facts(engine: "Engine", data: str, questions: "Sequence[Question]", asking: "Asking") -> "Facts":
    from echopix_cli.cli.eval_data import data_options
    from echopix_cli.evaluation.values import Facts

    plan = asking.plan
    taken: dict[str, int | float | None] = {"scene_side": asking.side}  # scenes have their frames' number and times
    if questions[0].movie is not None:
        sampled = {"fps": plan.fps, "max_frames": plan.max_frames, **asdict(asking.films)}
        taken = {"length": questions[0].movie.duration, "scene_side": asking.side, **sampled}
    elif not any(question.script for question in questions):
        taken = {"fps": plan.fps, "max_frames": plan.max_frames, "max_pixels": plan.max_pixels}
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
        },
    )


def _write(report: "Report", output: Path | None, plot: Path | None) -> None:
    """The files that were asked for, each whole or not at all."""
    from echopix_cli.files import write_whole

    if output is not None:
        write_whole(output, (jsonlib.dumps(report_record(report), indent=2) + "\n").encode())
    if plot is not None:
        from echopix_cli.evaluation.plot import draw

        write_whole(plot, draw(report, plot.suffix.lower()))


def _show(run: opt.Run, report: "Report", json: bool) -> None:
    """JSON or tables, then what went wrong."""
    output = run.output
    if json:
        output.record(report_record(report))
    elif not run.settings.quiet:
        from echopix_cli.cli.eval_tables import report_tables

        output.show(report_tables(report, output.console.width))
    for failure in report.failures[:_SHOWN_FAILURES]:
        where = "" if failure.setting is None else f" with {failure.setting}"
        output.notice(f"{failure.id} failed{where}: {failure.reason}")
    if (rest := len(report.failures) - _SHOWN_FAILURES) > 0:
        output.notice(f"{rest} more failures are listed in the JSON report")
