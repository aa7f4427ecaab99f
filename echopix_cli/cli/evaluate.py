"""``echopix eval``: how often a model is right, by family, budget and sieve."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echopix_cli.cli import options as opt
from echopix_cli.cli.eval_report import facts_of, show, write
from echopix_cli.cli.parameters import typed_in
from echopix_cli.cli.signals import stopping
from echopix_cli.errors import ExitCode, Interrupted, UsageError
from echopix_cli.settings import SIEVES as NAMES
from echopix_cli.times import TIME_HELP

if TYPE_CHECKING:
    from echopix_cli.cli.eval_items import Items
    from echopix_cli.engine import Engine
    from echopix_cli.evaluation.asking import Asking
    from echopix_cli.evaluation.marks import Marks
    from echopix_cli.evaluation.questions import Question
    from echopix_cli.evaluation.values import (
        Condition,
        ItemResult,
    )

DEFAULT_BUDGETS = (1.0, 0.2, 0.1, 0.05)
LONGEST_ANSWER = 32  # tokens; questions with gold answers have short ones, and a model astray would babble on
_SCENES, _MOVIES = "scenes:", "scenes:movie"
_OTHER, _SINGLE_PASS = "other-question", "single-pass"  # written out, not imported: that would slow --help down


@opt.taking(
    *opt.CHOOSING, *opt.LOADING, "system", "max_new_tokens", *opt.SAMPLING, *opt.FILMS, *opt.PARTS, *opt.PRINTING,
    max_new_tokens=f"longest answer, in tokens (default: {LONGEST_ANSWER})",
)  # fmt: skip
def evaluate(
    run: opt.Run,
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATA",
            help="scenes:test, scenes:val or scenes:unseen-font; scenes:wide-test, scenes:wide-font, "
            "scenes:wide-style, scenes:wide-composer or scenes:wide-val; scenes:movie, or scenes:movie-SPLIT as "
            "scenes:movie-wide-test; or a file: JSONL of media, question and answer, or that of a benchmark as it is "
            "published",
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
            metavar="letters|text",
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
            help=f"{', '.join(NAMES)}; of scenes also other-question (rows kept for another question about the scene), "
            "of movies single-pass; repeat for more (default auto and all controls)",
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
            help="write every question with its answers here, as JSONL, and go on there after an interruption "
            "(without it, an interrupted evaluation lies beside --output)",
            show_default=False,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="only the I-th of N shares of the clips, with all about them",
            show_default=False,
        ),
    ] = None,
    full: Annotated[
        Path | None,
        typer.Option(
            "--full",
            metavar="FILE",
            help="report of the full-token model before CS2 on the same questions: what is recovered is measured "
            "against the better of it and of budget 1.0",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A.json B.json",
            help="ask nothing, and compare two reports about the same questions",
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
    markdown: Annotated[
        bool,
        typer.Option(
            "--markdown", help="print Markdown tables, as for a paper", rich_help_panel=opt.SHOW, show_default=False
        ),
    ] = False,
) -> None:
    """Measure how often answers are right, by family, budget and sieve.

    Controls run beside the model's own sieve on the same questions. Answers are greedy and end after 32 tokens unless
    --max-new-tokens says otherwise. The tables go to stderr, --json and --markdown to stdout. With --output or --items
    the same command goes on where it was interrupted.
    """
    if json and markdown:
        raise UsageError("--json and --markdown print the same to one place", "leave one of them out")
    if compare is not None:
        from echopix_cli.cli.eval_compare import compare_reports

        compare_reports(run, compare, typed_in(context), output, force, json, markdown)
        return
    budgets = [opt.read_budget(value) for value in budget or []]
    movies = data.startswith(_MOVIES)
    reads = [Path(data), *([] if full is None else [full])]
    _check(run, sieve or [], json or markdown, output, items, plot, force, movies, data.startswith(_SCENES), reads)
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
        own = _share(questions, shard)
        before_cs2 = None if full is None else _full(full, own)
    with ExitStack() as held:
        from echopix_cli.cli.eval_targets import unfinished_of

        unfinished = None if output is None or items is not None else unfinished_of(output)
        kept = None
        if (where := items or unfinished) is not None:
            from echopix_cli.cli.eval_items import Items

            kept = Items(where, questions, force, passing=items is None)
            held.callback(kept.close)
        engine = run.engine(budget=max(budgets))
        asking = _asking(run, engine, seed, letters)
        settings = settings_of(sieves_of(engine, names, asking), budgets, around_sieve, movies)
        known = kept.begin(engine, settings, asking) if kept is not None else {}
        before = {question.index: known[question.index] for question in own if question.index in known}
        began = time.perf_counter()
        results = _measure(run, engine, own, settings, asking, kept, before)
        seconds = None if before else time.perf_counter() - began
        if before:
            run.output.notice(f"{len(before)} of {len(own)} questions were answered before")
        facts = facts_of(engine, data, own, asking, shard)
        report = make_report(facts, results, settings, seconds, before_cs2)
        write(report, output, plot)
        # What a file itself makes impossible fails again; whatever else failed may have a better day.
        failed = sum(result.failed and not question.fault for question, result in zip(own, results, strict=True))
        # Answers of other shares are theirs to end.
        if unfinished is not None and failed in (0, len(own)) and known.keys() == before.keys():
            unfinished.unlink(missing_ok=True)
    show(run, report, json, markdown)
    if failed and kept is not None:
        rest = f"; {unfinished} holds the other answers" if unfinished is not None and unfinished.exists() else ""
        run.output.warn(f"the same command tries {failed} failed question{'' if failed == 1 else 's'} again{rest}")
    if report.failures:
        raise typer.Exit(ExitCode.FAILURE)


def _share(questions: "Sequence[Question]", shard: str | None) -> "Sequence[Question]":
    """The questions of a share.

    Raises:
        UsageError: no share, or an empty one.
    """
    if shard is None:
        return questions
    from echopix_cli.batch.tasks import parse_shard
    from echopix_cli.batch.tasks import shard as share_of

    own = share_of(questions, *parse_shard(shard))
    if not own:
        raise UsageError(f"--shard {shard} is empty: there are fewer clips than shares", "take fewer shares")
    return own


def _full(path: Path, questions: "Sequence[Question]") -> "Marks":
    """The marks of the full-token model before CS2.

    Raises:
        UsageError: its report cannot be read, is about other questions, or kept less than everything.
    """
    from echopix_cli.cli.eval_compare import read_report
    from echopix_cli.evaluation.marks import asked_of
    from echopix_cli.evaluation.recovered import fulls

    _, marks = read_report(path)
    if other := marks.same_questions([one.id for one in questions], [asked_of(one) for one in questions]):
        raise UsageError(f"--full {path} is about other questions: {other}", "evaluate that model with the same data")
    if not fulls(marks.right):
        raise UsageError(f"--full {path} has no setting that keeps everything", "evaluate that model with -b 1.0")
    return marks


def _check(
    run: opt.Run,
    sieves: Sequence[str],
    json: bool,
    output: Path | None,
    items: Path | None,
    plot: Path | None,
    force: bool,
    movies: bool,
    scenes: bool,
    reads: Sequence[Path],
) -> None:
    """Refuse what cannot end well before a model is loaded."""
    from echopix_cli.cli.eval_targets import check_targets

    known = (*NAMES, *((_SINGLE_PASS,) if movies else (_OTHER,) if scenes else ()))
    if unknown := [name for name in sieves if name not in known]:
        raise UsageError(f"unknown sieve {unknown[0]!r}", f"choose from: {', '.join(known)}")
    run.require_output(json or output or items or plot, "--json, --markdown or --output FILE")
    if run.settings.no_audio and run.settings.no_video:
        raise UsageError("without sound and without picture nothing is left to ask about", "--sieve none keeps neither")
    check_targets(output, items, plot, force, reads=reads)


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
        Interrupted: by a signal, after the question that was being answered or the window that was being read.
        EchopixError: they cannot be kept.
    """
    from echopix_cli.cli.eval_progress import reading_of, watch_of
    from echopix_cli.evaluation.run import evaluate as answer_all

    results: dict[int, ItemResult] = {}

    def interrupted() -> Interrupted:
        again = "run again to resume" if kept is not None else "with --output FILE, the next run would go on"
        return Interrupted(f"Interrupted; {len(results)} of {len(questions)} done, {again}", received[0])

    with stopping() as received, run.output.progress(f"0 of {len(questions)} questions") as say:
        watch, reading = watch_of(say, len(questions), settings[0]), reading_of(say, received, interrupted)
        for question, result in answer_all(engine, questions, settings, asking, watch, before, reading):
            results[question.index] = result
            if kept is not None and question.index not in before:
                kept.add(question, result)
            if received and len(results) < len(questions):
                raise interrupted()
    if kept is not None:
        kept.confirm()
    return [results[question.index] for question in questions]
