"""``echopix profile``: what a budget costs and saves on one file."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echopix_cli.cli import demo
from echopix_cli.cli import options as opt
from echopix_cli.cli.ask import require_question
from echopix_cli.cli.bench import interval
from echopix_cli.cli.measuring import warn_of_doubt
from echopix_cli.cli.output import SCHEMA_VERSION, answer_record
from echopix_cli.media import require_file

if TYPE_CHECKING:
    from echopix_cli.measure.profiling import Profile

DEFAULT_QUESTION = "What instrument is playing?"
DEFAULT_BUDGETS = (0.05, 0.1, 0.2)


@opt.taking(
    "sieve", *opt.CHOOSING, *opt.LOADING, "system", "max_new_tokens", *opt.SAMPLING, *opt.FILMS, "start", "end",
    *opt.PARTS, *opt.TRACKS, *opt.PRINTING_MORE,
)  # fmt: skip
def profile(
    run: opt.Run,
    media: Annotated[str, typer.Argument(metavar="MEDIA", help="the media file to measure with")],
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            "-b",
            metavar="FRACTION",
            help="a budget to measure beside 1.0; repeat for more (default 0.05 0.1 0.2)",
            show_default=False,
        ),
    ] = None,
    question: Annotated[
        str, typer.Option("--question", "-Q", metavar="TEXT", help="the question asked")
    ] = DEFAULT_QUESTION,
    repeat: Annotated[int, typer.Option("--repeat", min=1, metavar="N", help="measured rounds")] = 6,
    warmup: Annotated[
        int, typer.Option("--warmup", min=0, metavar="N", help="rounds before them that do not count")
    ] = 1,
    json: opt.Json = False,
) -> None:
    """Measure budgets against keeping every token, on one file, in one process.

    Budget 1.0 is always measured beside the others. Rounds beside other work are repeated, and where that does not
    help, it is said that nothing can be concluded. The table goes to stderr, --json to stdout.
    """
    budgets = [opt.read_budget(value) for value in budget or []]
    media = demo.media_path(media)
    require_question(question, f'echopix profile {media} --question "{DEFAULT_QUESTION}"')
    run.require_output(json)
    # A budget from the environment or the config file stands in for the flag.
    asked = budgets or ([run.settings.budget] if run.settings.budget else list(DEFAULT_BUDGETS))
    require_file(media)
    if run.settings.verbose:
        from echopix_cli.decoding.worker import probe

        run.describe(media, probe(media, run.limits()))
    engine = run.engine([media], budget=1.0)
    asking = run.asking(engine)
    greedy = replace(asking.generation, temperature=0.0)  # or answers would differ by chance
    with run.output.progress(f"measuring, {warmup + repeat} rounds") as say:
        from echopix_cli.cli.ask_one import films_progress
        from echopix_cli.measure.profiling import profile as measure

        counted = f"0 of {warmup + repeat} rounds done"

        def watch(done: int, of: int) -> None:
            nonlocal counted
            counted = f"{done} of {of} rounds done"
            say(f"measuring, {counted}")

        result = measure(
            engine,
            media,
            run.plan(engine),
            question,
            asked,
            repeat=repeat,
            warmup=warmup,
            options=replace(asking, generation=greedy),
            films=run.films(),
            watch=watch,
            reading=films_progress(lambda text: say(f"measuring, {counted}, {text}"), media),
        )
    if json:
        run.output.record(profile_record(result))
    else:
        from echopix_cli.cli.bench_tables import profile_table

        run.output.show(profile_table(result))
    warn_of_doubt(run.output, result.doubt)


def profile_record(profile: "Profile") -> dict[str, Any]:
    """A profile as one JSON object: everything the table shows, and each budget's whole last answer."""
    return {
        "schema_version": SCHEMA_VERSION,
        "media": profile.media,
        "question": profile.question,
        "repeat": profile.repeat,
        "warmup": profile.warmup,
        "rounds": profile.rounds,
        "disturbed_rounds": profile.disturbed,
        "inconclusive": profile.doubt,
        "budgets": [
            {
                "budget": row.budget,
                "stages_s": {name: asdict(spread) for name, spread in row.stages.items()},
                "speedup": row.speedup,
                "speedup_interval": interval(row.ratio),
                "memory_ratio": row.memory_ratio,
                "same_answer": row.same_answer,
                "last": answer_record(row.answer),
            }
            for row in profile.rows
        ],
    }
