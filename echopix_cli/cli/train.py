"""``echopix train``: fit a sieve to a base model, or the bundled model from nothing."""

import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echopix_cli.cli import options as opt
from echopix_cli.cli.output import SCHEMA_VERSION
from echopix_cli.cli.signals import stopping
from echopix_cli.errors import Interrupted, UsageError
from echopix_cli.times import clock

if TYPE_CHECKING:
    from echopix_cli.training.loop import Progress, Trainer
    from echopix_cli.training.recipe import Recipe

_DATA, _WHAT, _HOW, _LOSS = "What to train on", "What to train", "How to train", "What is learned from"


def _option(help: str, metavar: str, panel: str, *flags: str, **limits: Any) -> Any:
    return typer.Option(*flags, help=help, metavar=metavar, rich_help_panel=panel, show_default=False, **limits)


def train(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder of the run; an existing run goes on")],
    base: Annotated[
        str | None, _option("checkpoint to start from; without it, the bundled shape from nothing", "NAME|DIR", _WHAT)
    ] = None,
    data: Annotated[
        str | None, _option("scenes (default), or a JSONL file of messages and videos", "scenes|FILE", _DATA)
    ] = None,
    family: Annotated[
        list[str] | None, _option("family of questions that scenes are made for; repeat", "NAME", _DATA, "--family")
    ] = None,
    questions: Annotated[int | None, _option("questions per scene in the sieve stage", "N", _DATA, min=1)] = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    max_pixels: opt.MaxPixels = None,
    stage: Annotated[
        str | None,
        _option(
            "towers: these alone; full: all tokens, around the sieve; sieve (default): through it",
            "towers|full|sieve",
            _WHAT,
        ),
    ] = None,
    freeze_towers: Annotated[
        bool | None,
        _option("leave the towers as they are (default for stock bases)", "", _WHAT, "--freeze-towers/--train-towers"),
    ] = None,
    adapters: Annotated[
        int | None, _option("train LoRA adapters of this rank instead of the whole decoder", "RANK", _WHAT, min=0)
    ] = None,
    quantize: Annotated[str | None, _option("four-bit decoder under the adapters", "none|nf4", _WHAT)] = None,
    sieve_layers: Annotated[int | None, _option("CS2 layers given to a stock base", "N", _WHAT, min=1)] = None,
    sieve_view: Annotated[str | None, _option("ablation: what CS2 sees", "whole|causal|no-question", _WHAT)] = None,
    rope_axes: Annotated[
        int | None, _option("ablation: 3 is the family's M-RoPE, 4 Sync-RoPE", "3|4", _WHAT, min=3, max=4)
    ] = None,
    steps: Annotated[int | None, _option("optimizer steps; may be raised when a run goes on", "N", _HOW, min=1)] = None,
    seconds: Annotated[float | None, _option("stop after this long; run again to go on", "S", _HOW)] = None,
    batch_size: Annotated[int | None, _option("clips in a batch", "N", _HOW, min=1)] = None,
    accumulate: Annotated[int | None, _option("batches in a step", "N", _HOW, min=1)] = None,
    optimizer: Annotated[
        str | None, _option("adamw (default), or muon for the layers' matrices", "adamw|muon", _HOW)
    ] = None,
    learning_rate: Annotated[float | None, _option("at its highest", "RATE", _HOW, min=0)] = None,
    warmup: Annotated[int | None, _option("steps until the learning rate is at its highest", "N", _HOW, min=0)] = None,
    decay: Annotated[
        float | None, _option("share of the steps over which it falls to zero", "SHARE", _HOW, min=0, max=1)
    ] = None,
    budget_low: Annotated[float | None, _option("smallest budget drawn", "FRACTION", _HOW)] = None,
    budget_high: Annotated[float | None, _option("largest budget drawn", "FRACTION", _HOW)] = None,
    checkpointing: Annotated[
        bool | None, _option("recompute activations, for less memory", "", _HOW, "--checkpointing/--no-checkpointing")
    ] = None,
    checkpoint_every: Annotated[int | None, _option("steps between checkpoints", "N", _HOW, min=1)] = None,
    validate_every: Annotated[int | None, _option("steps between validations (scenes)", "N", _HOW, min=1)] = None,
    validate_batches: Annotated[int | None, _option("batches of a validation; 0 for none", "N", _HOW, min=0)] = None,
    seed: Annotated[int | None, _option("of everything random", "N", _HOW, min=0)] = None,
    threads: Annotated[int | None, _option("CPU threads for the arithmetic", "N", _HOW, min=1)] = None,
    workers: Annotated[
        int | None,
        _option("processes that prepare batches (default: 1, beside a GPU all cores but one)", "N", _HOW, min=1),
    ] = None,
    hearing: Annotated[float | None, _option("weight: which instrument sounds (scenes)", "W", _LOSS, min=0)] = None,
    seeing: Annotated[float | None, _option("weight: which picture is where (scenes)", "W", _LOSS, min=0)] = None,
    binding: Annotated[float | None, _option("weight: what goes on meanwhile (scenes)", "W", _LOSS, min=0)] = None,
    pointing: Annotated[float | None, _option("weight: attention to the evidence (scenes)", "W", _LOSS, min=0)] = None,
    evidence: Annotated[float | None, _option("weight: scores onto the evidence (scenes)", "W", _LOSS, min=0)] = None,
    hide_bands: Annotated[
        float | None, _option("share of sounds with frequencies moved and hidden", "SHARE", _DATA, min=0, max=1)
    ] = None,
    teacher: Annotated[
        str | None, _option("attention: scores onto what the base's decoder attends to", "none|attention", _LOSS)
    ] = None,
    teaching: Annotated[float | None, _option("weight of the teacher", "W", _LOSS, min=0)] = None,
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
        bool, typer.Option("--without-sieve", help="with --export: as a stock checkpoint, for --rope-axes 3 runs")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace a picture that exists", show_default=False)] = False,
    json: opt.Json = False,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    quiet: opt.Quiet = None,
    debug: opt.Debug = None,
    no_color: opt.NoColor = None,
) -> None:
    """Train a sieve on a base model, or the bundled model from nothing.

    The run's folder holds a checkpoint that echopix ask --model DIR takes, metrics.jsonl, and what going on
    needs: the same command again, or just --out DIR, resumes exactly.
    """
    flags = dict(locals())
    run = opt.Run.begin(flags)
    from echopix_cli.files import check_target, write_whole
    from echopix_cli.training.recipe import Recipe

    wanted = {name: flags[name] for name in asdict(Recipe()) if flags.get(name) is not None and name not in _SETTLED}
    wanted |= {name: run[name] for name in _SETTLED if run.settings[name].origin != "default"}
    if family:
        wanted["families"] = tuple(family)
    if export is not None:
        _require_run(out, export)
    recipe = _recipe(run, out, wanted)
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

    where = choose_device(run["device"])
    with memory_errors(where, "try --adapters 16, --checkpointing, a smaller --batch-size or --max-frames"):
        with run.output.progress("preparing the model"):
            trainer = Trainer(begin(recipe, where), recipe, out, workers=workers)
        first = trainer.step
        if export is not None:
            if not first:
                raise UsageError(f"the run in {out} has no checkpoint of a step", f"echopix train --out {out} goes on")
            with run.output.progress(f"writing {export}"):
                _export(trainer, export, run["dtype"], without_sieve)
            run.output.notice(f"{export} holds the model after step {first} of {recipe.steps}")
            return
        with run.output.progress(f"training {out}") as say:
            trainer.watch = lambda progress: say(_line(progress))
            with stopping(trainer.stop) as interrupted:
                trainer.run(seconds=seconds)
    if plot is not None:
        write_whole(plot, draw_curves(out, plot.suffix.lower()))
    if interrupted:
        done = f"Interrupted after step {trainer.step} of {recipe.steps}"
        raise Interrupted(f"{done}; echopix train --out {shlex.quote(str(out))} goes on", interrupted[0])
    if json:
        run.output.record(
            {"schema_version": SCHEMA_VERSION, "out": str(out), "step": trainer.step, "recipe": asdict(recipe)}
        )
    run.output.notice(_ending(out, first, trainer.step, recipe.steps, seconds))


def _ending(out: Path, first: int, step: int, steps: int, seconds: float | None) -> str:
    """Why a run ended, and what comes next."""
    again, folder = f"echopix train --out {shlex.quote(str(out))}", shlex.quote(str(out))
    if step < steps:
        return f"stopped after {seconds:g} s (--seconds) at step {step} of {steps}; {again} goes on"
    if first == step:
        return f"all {steps} steps were taken before; {again} --steps N with a larger N goes on"
    return f"finished after step {steps}; echopix ask --model {folder} FILE QUESTION"


_SETTLED = ("fps", "max_frames", "max_pixels")  # these come as settings: flag, environment or file


def _recipe(run: opt.Run, out: Path, wanted: dict[str, Any]) -> "Recipe":
    """The recipe of a new run, or the one that an existing run goes on with.

    Raises:
        UsageError: a value that does not fit, or one that cannot change in mid-run.
    """
    from echopix_cli.scenes import FAMILIES
    from echopix_cli.training.conversations import read_conversations
    from echopix_cli.training.recipe import OPTIMIZERS, PRECISIONS, QUANTIZATIONS, STAGES, TEACHERS, VIEWS, Recipe
    from echopix_cli.weights.registry import resolve_model
    from echopix_cli.weights.stock import is_stock

    choices: dict[str, tuple[str, ...]] = {
        "stage": STAGES, "optimizer": OPTIMIZERS, "teacher": TEACHERS, "quantize": QUANTIZATIONS, "sieve_view": VIEWS,
    }  # fmt: skip
    for name, allowed in choices.items():
        if wanted.get(name, allowed[0]) not in allowed:
            raise UsageError(f"--{name.replace('_', '-')}: {wanted[name]!r} is not one of {', '.join(allowed)}")
    for name in wanted.get("families", ()):
        if name not in FAMILIES:
            raise UsageError(f"--family: there is no family {name!r}", f"families are: {', '.join(FAMILIES)}")
    for name in ("budget_low", "budget_high"):
        if not 0.0 < wanted.get(name, 1.0) <= 1.0:
            raise UsageError(f"--{name.replace('_', '-')} {wanted[name]:g} is outside (0, 1]")
    started = Recipe.load(out)
    own_data = wanted.get("data", "scenes") != "scenes"
    if started is None and "base" not in wanted and (own_data or wanted.get("adapters")):
        raise UsageError("training from nothing takes scenes and the whole decoder", "give --base NAME or --base DIR")
    if "base" in wanted:
        wanted["base"] = str(resolve_model(wanted["base"]).folder.resolve())
    if own_data:
        wanted["data"] = str(Path(wanted["data"]).resolve())
        read_conversations(Path(wanted["data"]))  # before a model is loaded for nothing
    precision = run["dtype"]
    if precision in PRECISIONS:
        wanted["precision"] = precision
    if started is not None:
        return started.resumed_with(wanted)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no run", "give --out a new folder")
    fresh: dict[str, Any] = {}
    if "base" in wanted and is_stock(Path(wanted["base"])):
        fresh = {"freeze_towers": True, "learning_rate": 1e-4 if wanted.get("adapters") else 1e-5, "warmup": 50}
    return replace(Recipe(**fresh), **wanted)


def _require_run(out: Path, export: Path) -> None:
    """Refuse to write a model that nobody trained, or over something else.

    Raises:
        UsageError: there is no run, or the folder to be written holds something.
    """
    from echopix_cli.training.recipe import Recipe

    if Recipe.load(out) is None:
        raise UsageError(f"there is no run in {out}", "name a folder that echopix train --out has written")
    if export.exists() and (not export.is_dir() or any(export.iterdir())):
        raise UsageError(f"{export} exists and is not an empty folder", "give --export a new folder")


def _export(trainer: "Trainer", folder: Path, dtype: str, without_sieve: bool) -> None:
    import torch

    from echopix_cli.training import tiny
    from echopix_cli.weights.stock import save_as_stock

    tiny.save_processor(trainer.processor, folder)
    kinds: dict[str, torch.dtype] = {
        "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
    }  # fmt: skip
    if without_sieve:
        save_as_stock(trainer.model, folder, kinds.get(dtype))
    else:
        trainer.export(folder, kinds.get(dtype))


def _line(progress: "Progress") -> str:
    left = (progress.steps - progress.step) * progress.step_seconds
    name = "answer" if "answer" in progress.losses else "loss"
    return (
        f"step {progress.step}/{progress.steps}, {'answer loss' if name == 'answer' else 'sum of losses'} "
        f"{progress.losses[name]:.3f}, {progress.step_seconds:.2f} s a step, {clock(left)} left"
    )
