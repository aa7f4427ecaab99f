"""``echopix train``: fit a sieve to a base model, or the bundled model from nothing."""

import shlex
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echopix_cli.cli import options as opt
from echopix_cli.cli.output import SCHEMA_VERSION
from echopix_cli.cli.signals import stopping
from echopix_cli.errors import Interrupted, UsageError
from echopix_cli.times import clock
from echopix_cli.training.recipe import (
    HOW,
    PRECISIONS,
    RECIPE,
    RENDERED,
    SCENES,
    STATE,
    WHAT,
    Recipe,
    read_assignments,
    read_values,
)

if TYPE_CHECKING:
    from echopix_cli.training.loop import Progress, Trainer


def _machine(help: str, metavar: str, flag: str, **limits: Any) -> Any:
    return typer.Option(flag, help=help, metavar=metavar, rich_help_panel=HOW, show_default=False, **limits)


def _of_recipe(name: str) -> Any:
    return opt.option(RECIPE[name])


def _facts(step: int, settled: Recipe) -> dict[str, Any]:
    """What a record says of a run."""
    return {"step": step, "recipe": asdict(settled)}


@opt.taking(
    *("device", "dtype", *opt.PRINTING),
    dtype="precision of the arithmetic, where float16 is refused (auto: the recipe's); with --export, of the weights "
    "that are written (auto: as the run holds them) (default: auto)",
)
def train(
    run: opt.Run,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder of the run; an existing run goes on")],
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="a recipe.toml, such as a run's folder holds; its keys: echopix help training",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    assigned: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="a key of the recipe; repeat for more",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    base: Annotated[str | None, _of_recipe("base")] = None,
    stage: Annotated[str | None, _of_recipe("stage")] = None,
    data: Annotated[str | None, _of_recipe("data")] = None,
    steps: Annotated[str | None, _of_recipe("steps")] = None,
    seed: Annotated[str | None, _of_recipe("seed")] = None,
    seconds: Annotated[
        float | None, _machine("stop after this long; run again to go on", "S", "--seconds", min=1e-9, max=1e9)
    ] = None,
    threads: Annotated[int | None, _machine("CPU threads for the arithmetic", "N", "--threads", min=1)] = None,
    workers: Annotated[
        int | None,
        _machine(
            "processes that prepare batches (default: 1, beside a GPU all cores but one)", "N", "--workers", min=1
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="draw the run's curves to a PNG or SVG file")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", metavar="DIR", help="train nothing; write the run's model into a new folder, in --dtype"
        ),
    ] = None,
    without_sieve: Annotated[
        bool, typer.Option("--without-sieve", help="with --export: as a stock checkpoint, for runs of rope_axes = 3")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace a picture that exists", show_default=False)] = False,
    json: opt.Json = False,
) -> None:
    """Train a sieve on a base model, or the bundled model from nothing.

    The run's folder holds a checkpoint that echopix ask --model DIR takes, metrics.jsonl, recipe.toml, and what going
    on needs: the same command again, or just --out DIR, resumes exactly.
    """
    from echopix_cli.cli.own_files import write_own
    from echopix_cli.files import check_target

    flags = {"base": base, "stage": stage, "data": data, "steps": steps, "seed": seed}
    wanted = {} if recipe is None else _read(recipe)
    wanted |= read_assignments(assigned or ())
    wanted |= {name: RECIPE[name].read(text, f"--{name}") for name, text in flags.items() if text is not None}
    if export is not None:
        idle = [f"--{name}" for name, value in (("plot", plot), ("seconds", seconds)) if value is not None]
        if idle:
            raise UsageError(f"{idle[0]} means nothing with --export, which trains nothing", "leave it out")
        _require_run(out, export)
    elif without_sieve:
        raise UsageError("--without-sieve says how a model is exported", "add --export DIR, or leave it out")
    elif run.resolved.origins["dtype"] == "flag" and run.settings.dtype != "auto":
        wanted["precision"] = RECIPE["precision"].read(run.settings.dtype, "--dtype")
    from echopix_cli.training.owned import owned

    # What is exported is whole at any time; whoever trains has the folder alone, before it says what it holds.
    with nullcontext() if export is not None else owned(out):
        settled = _settled(run, out, wanted)
        if plot is not None:
            from echopix_cli.evaluation.plot import check_plot

            check_plot(plot)
            check_target(plot)
            if plot.exists() and not force:
                raise UsageError(f"{plot} exists", "add --force to replace it, or choose another name")
        import torch

        if threads:
            torch.set_num_threads(threads)
        from echopix_cli.engine.loading import choose_device, memory_errors
        from echopix_cli.training.curves import draw_curves
        from echopix_cli.training.loop import Trainer
        from echopix_cli.training.start import begin

        where = choose_device(run.settings.device)
        with memory_errors(
            where, "try --set adapters=16, --set checkpointing=true, or less: --set batch_size=1, --set max_frames=16"
        ):
            with run.output.progress("preparing the model"):
                trainer = Trainer(begin(settled, where), settled, out, workers=workers, warn=run.output.warn)
            first = trainer.step
            if export is not None:
                if not first:
                    raise UsageError(
                        f"the run in {out} has no checkpoint of a step", f"echopix train --out {out} goes on"
                    )
                with run.output.progress(f"writing {export}"):
                    _export(trainer, export, run.settings.dtype, without_sieve)
                if json:
                    run.output.record({"schema_version": SCHEMA_VERSION, "out": str(export), **_facts(first, settled)})
                run.output.notice(f"{export} holds the model after step {first} of {settled.steps}")
                return
            with run.output.progress(f"training {out}") as say:
                trainer.watch = lambda progress: say(_line(progress))
                with stopping(trainer.stop) as interrupted:
                    trainer.run(seconds=seconds)
        if plot is not None:
            write_own(plot, draw_curves(out, plot.suffix.lower()))
        if interrupted:
            done = f"Interrupted after step {trainer.step} of {settled.steps}"
            raise Interrupted(f"{done}; echopix train --out {shlex.quote(str(out))} goes on", interrupted[0])
        if json:
            run.output.record({"schema_version": SCHEMA_VERSION, "out": str(out), **_facts(trainer.step, settled)})
        run.output.notice(_ending(out, first, trainer.step, settled.steps, seconds))


def _ending(out: Path, first: int, step: int, steps: int, seconds: float | None) -> str:
    """Why a run ended, and what comes next."""
    again, folder = f"echopix train --out {shlex.quote(str(out))}", shlex.quote(str(out))
    if step < steps:
        return f"stopped after {seconds:g} s (--seconds) at step {step} of {steps}; {again} goes on"
    if first == step:
        return f"all {steps} steps were taken before; {again} --steps N with a larger N goes on"
    return f"finished after step {steps}; echopix ask --model {folder} FILE QUESTION"


def _read(recipe: Path) -> dict[str, Any]:
    if not recipe.exists():
        raise UsageError(f"there is no file {recipe}", "echopix help training says what a recipe holds")
    return read_values(recipe)


def _settled(run: opt.Run, out: Path, wanted: dict[str, Any]) -> Recipe:
    """The recipe of a new run, or the one that an existing run goes on with.

    Raises:
        UsageError: a value that does not fit, or one that cannot change in mid-run.
    """
    from echopix_cli.training.conversations import read_conversations
    from echopix_cli.training.owned import LOCK
    from echopix_cli.training.sources import require_sources
    from echopix_cli.weights.registry import resolve_model
    from echopix_cli.weights.stock import is_stock

    started = Recipe.load(out.absolute())  # so that relative paths hold from anywhere
    own_data = wanted.get("data", SCENES) not in RENDERED
    if started is None and not wanted.get("base") and (own_data or wanted.get("adapters")):
        raise UsageError("training from nothing takes scenes and the whole decoder", "give --base NAME or --base DIR")
    if wanted.get("base"):
        wanted["base"] = str(resolve_model(wanted["base"]).folder.resolve())
    if own_data:
        wanted["data"] = str(Path(wanted["data"]).resolve())
        read_conversations(Path(wanted["data"]))  # before a model is loaded for nothing
    if started is not None:
        weights = {path.name for path in out.glob("*.safetensors")}
        if weights and STATE not in weights:
            raise UsageError(
                f"{out} holds a model, as --export writes it, and no checkpoint of a run",
                f"give --out a new folder; --base {out} begins with that model",
            )
        settled = started.resumed_with(wanted)
        require_sources(settled, out)
        return settled
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, and a run is a folder", "give --out a new folder")
    if out.exists() and any(path.name != LOCK for path in out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no run", "give --out a new folder")
    fresh = {name: getattr(run.settings, name) for name in opt.SAMPLING if run.resolved.said(name)}
    if run.settings.dtype in PRECISIONS:
        fresh["precision"] = run.settings.dtype
    if wanted.get("base") and is_stock(Path(wanted["base"])):
        rate = 1e-4 if wanted.get("adapters") else 1e-5
        fresh |= {"freeze_towers": True, "learning_rate": rate, "warmup": 50}
    return Recipe(**fresh | wanted)


def _require_run(out: Path, export: Path) -> None:
    """Refuse to write a model that nobody trained, or over something else.

    Raises:
        UsageError: there is no run, or the folder to be written holds something.
    """
    from echopix_cli.training.folders import is_stage

    if Recipe.load(out) is None:
        raise UsageError(f"there is no run in {out}", "name a folder that echopix train --out has written")
    if export.exists() and (not export.is_dir() or any(not is_stage(path) for path in export.iterdir())):
        raise UsageError(f"{export} exists and is not an empty folder", "give --export a new folder")


def _export(trainer: "Trainer", folder: Path, dtype: str, without_sieve: bool) -> None:
    import torch

    from echopix_cli.training import tiny
    from echopix_cli.training.folders import filled

    kinds: dict[str, torch.dtype] = {
        "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
    }  # fmt: skip
    with filled(folder) as stage:
        tiny.save_processor(trainer.processor, stage)
        if not without_sieve:
            trainer.recipe.save(stage)  # a run that begins from here asks it for the stage
        trainer.export(stage, kinds.get(dtype), stock=without_sieve)


def _line(progress: "Progress") -> str:
    left = (progress.steps - progress.step) * progress.step_seconds
    if not progress.losses:
        return f"step {progress.step}/{progress.steps}, none of its files could be read"
    name = "answer" if "answer" in progress.losses else "loss"
    return (
        f"step {progress.step}/{progress.steps}, {'answer loss' if name == 'answer' else 'sum of losses'} "
        f"{progress.losses[name]:.3f}, {progress.step_seconds:.2f} s a step, {clock(left)} left"
    )
