"""``echopix bench``: what a model of a given shape does on this machine, before it is downloaded."""

import os
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from echopix_cli import __version__
from echopix_cli.cli import options as opt
from echopix_cli.cli.measuring import warn_of_doubt
from echopix_cli.cli.output import SCHEMA_VERSION
from echopix_cli.cli.threads import WAIT_POLICY
from echopix_cli.errors import UsageError

if TYPE_CHECKING:
    from echopix_cli.measure.bench import Bench
    from echopix_cli.measure.rounds import Ratio

SHAPE_NAMES = ("tiny", "small", "qwen2.5-omni-3b", "qwen2.5-omni-7b")
DEFAULT_BUDGETS = (0.2, 0.1, 0.05)


@opt.taking(
    *("device", "dtype", "quantize", *opt.SAMPLING, *opt.PRINTING_MORE),
    quantize="hold the linear layers of decoder and CS2 in fewer bits; auto is none here (default: auto)",
)
def bench(
    run: opt.Run,
    media: Annotated[
        str | None,
        typer.Argument(metavar="MEDIA", help="a file to decode in each round; without one, noise of --seconds"),
    ] = None,
    shape: Annotated[
        str, typer.Option("--shape", "-s", metavar="|".join(SHAPE_NAMES), help="sizes of the model measured")
    ] = "small",
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            "-b",
            metavar="FRACTION",
            help="a budget to measure; repeat for more (default 0.2 0.1 0.05)",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            min=1.0,
            max=86400.0,
            metavar="S",
            help="length of the noise (default 60, for tiny 8)",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, metavar="N", help="measured rounds")] = 6,
    warmup: Annotated[
        int, typer.Option("--warmup", min=0, metavar="N", help="rounds before them that do not count")
    ] = 1,
    new_tokens: Annotated[
        int, typer.Option("--new-tokens", min=1, metavar="N", help="tokens generated in each run")
    ] = 16,
    json: opt.Json = False,
) -> None:
    """Measure what a model of a named shape does on this machine, with random weights: nothing is downloaded.

    Every budget is compared with budget 1.0 of a model without a sieve: the same prompt, run whole through the
    decoder. Rounds beside other work are repeated, and where that does not help, it is said that nothing can be
    concluded. The table goes to stderr, --json to stdout.
    """
    run.require_output(json)
    if shape not in SHAPE_NAMES:
        raise UsageError(f"there is no shape {shape!r}", f"choose from: {', '.join(SHAPE_NAMES)}")
    if media is not None and seconds is not None:
        raise UsageError("--seconds is the length of the noise, and a file was given", "leave one of them out")
    budgets = [opt.read_budget(text) for text in budget or []] or list(DEFAULT_BUDGETS)
    if media is not None:
        from echopix_cli.media import require_file

        require_file(media)
    from echopix_cli.engine.loading import choose_device, memory_errors
    from echopix_cli.engine.precision import precision_of
    from echopix_cli.measure import bench as room
    from echopix_cli.model.shapes import SHAPES

    where = choose_device(run.settings.device)
    method = "none" if run.settings.quantize == "auto" else run.settings.quantize
    advice = "try a smaller --shape, --quantize nf4, --dtype bfloat16, or less: --seconds, --max-frames"
    sizes = SHAPES[shape]
    with run.output.progress(f"making random weights in the shape of {shape}") as say, memory_errors(where, advice):
        engine = room.random_engine(sizes, where, precision_of(run.settings.dtype, where), method)
        say(f"measuring, {warmup + trials} rounds")
        result = room.bench(
            engine,
            budgets,
            shape=shape,
            seconds=sizes.seconds if seconds is None else seconds,
            media=media,
            plan=run.plan(engine),
            trials=trials,
            warmup=warmup,
            new_tokens=new_tokens,
            watch=lambda done, of: say(f"measuring, {done} of {of} rounds done"),
        )
    if json:
        run.output.record(bench_record(result))
    else:
        from echopix_cli.cli.bench_tables import bench_table

        run.output.show(bench_table(result))
    warn_of_doubt(run.output, result.doubt)


def bench_record(bench: "Bench") -> dict[str, Any]:
    """A run as one JSON object: everything the table shows, with the machine and the versions."""
    import torch

    from echopix_cli.weights.store import library_versions

    facts = bench.engine.facts
    cuda = facts.device.startswith("cuda")
    return {
        "schema_version": SCHEMA_VERSION,
        "shape": bench.shape,
        "model": {
            "parameters": facts.parameters,
            "dtype": facts.dtype,
            "quantization": facts.quantization,
            "weight_bytes": bench.weight_bytes,
        },
        "machine": {
            "device": torch.cuda.get_device_name(facts.device) if cuda else platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "openmp_wait_policy": os.environ.get(WAIT_POLICY),
            "echopix": __version__,
            "torch": torch.__version__,
            "transformers": library_versions(("transformers",)).get("transformers"),
            "python": platform.python_version(),
        },
        "clip": {
            "media": bench.media,
            "seconds": bench.seconds,
            "video_tokens": bench.video_rows,
            "audio_tokens": bench.audio_rows,
            "text_tokens": bench.text_rows,
        },
        "trials": bench.trials,
        "warmup": bench.warmup,
        "rounds": bench.rounds,
        "disturbed_rounds": bench.disturbed,
        "inconclusive": bench.doubt,
        "new_tokens": bench.new_tokens,
        "stages_s": {name: asdict(spread) for name, spread in bench.stages.items()},
        "layer_ratio": bench.layer_ratio,
        "rows": [
            {
                "budget": row.budget,
                "sieve": "cs2" if row.sieved else None,
                "kept_tokens": row.kept,
                "stages_s": {name: asdict(spread) for name, spread in row.stages.items()},
                "tokens_per_second": asdict(row.tokens_per_second),
                "memory_bytes": row.memory,
                "speedup": row.speedup,
                "speedup_interval": interval(row.ratio),
                "first_token_speedup": row.first_token_speedup,
                "first_token_speedup_interval": interval(row.first_token_ratio),
                "memory_ratio": row.memory_ratio,
                "bound": row.bound,
                "share_of_bound": row.share,
            }
            for row in bench.rows
        ],
    }


def interval(ratio: "Ratio") -> dict[str, float | None]:
    """Of a ratio's interval the ends and the confidence, null for a single round."""
    return {"low": ratio.low, "high": ratio.high, "confidence": ratio.confidence}
