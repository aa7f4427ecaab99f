"""The part of ``echopix ask --engine ray`` that the command line has: its options, and a fleet that is ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from echopix_cli.cli.run import Run
from echopix_cli.errors import UsageError
from echopix_cli.results import DEMONSTRATION

if TYPE_CHECKING:
    from echopix_cli.batch.cluster import FleetOptions
    from echopix_cli.batch.fleet import Fleet, FleetBatch
    from echopix_cli.batch.outcomes import Outcome
    from echopix_cli.serving.many_messages import AskMany


def fleet_options(
    engine: str, address: str | None, workers: int | None, gpus_per_worker: float | None
) -> FleetOptions | None:
    """What the command line says about a fleet; None where there is to be none.

    Raises:
        UsageError: values that do not fit, or options of a fleet without one.
    """
    if engine not in ("local", "ray"):
        raise UsageError(f"--engine {engine!r} is none", "--engine local, or --engine ray")
    given = {"--address": address, "--workers": workers, "--gpus-per-worker": gpus_per_worker}
    if engine == "local":
        for flag, value in given.items():
            if value is not None:
                raise UsageError(f"{flag} is for a fleet", "add --engine ray")
        return None
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers} leaves nobody to work", "--workers 1 is the least")
    if gpus_per_worker is not None and not 0 <= gpus_per_worker <= 1:
        raise UsageError(
            f"--gpus-per-worker {gpus_per_worker:g} is no share of a GPU", "0.5 puts two engines on one, 0 takes CPUs"
        )
    from echopix_cli.batch.cluster import FleetOptions

    return FleetOptions(address, workers, gpus_per_worker)


def open_fleet(run: Run, options: FleetOptions) -> Fleet:
    """A fleet with at least one engine at work.

    Raises:
        UsageError: a device that Ray cannot give, or more of it than there is.
        EchopixError: there is no cluster, or no engine begins.
    """
    settings = run.settings
    device, gpus = settings.device, options.gpus
    if device.startswith("cuda:"):
        raise UsageError(f"--device {device}: which GPU an engine gets, Ray decides", "--device cuda")
    if device == "cpu":
        if gpus:
            raise UsageError(f"--gpus-per-worker {gpus:g} and --device cpu do not go together", "leave one out")
        gpus = 0.0
    from dataclasses import replace

    with run.output.progress("starting engines on Ray"):
        from echopix_cli.batch.fleet import Fleet
        from echopix_cli.batch.fleet_actors import Loading

        loading = Loading(
            settings.model, device, settings.dtype, settings.quantize, settings.keep_source, run.workload()
        )
        fleet = Fleet(loading, replace(options, gpus=gpus), settings.timeout, run.output.notice)
    if fleet.facts.demonstration:
        run.output.warn(DEMONSTRATION)
    return fleet


def fleet_batch(fleet: Fleet, request: AskMany, sink: Callable[[Outcome], None], **more: Any) -> FleetBatch:
    """What answers a request on a fleet; ``more`` as of :class:`FleetBatch`.

    Raises:
        UsageError: the model has no such sieve.
    """
    from echopix_cli.batch.fleet import FleetBatch
    from echopix_cli.batch.items import BatchOptions
    from echopix_cli.serving.manners import asking_of, films_of, plan_of

    manner = request.manner
    settings = BatchOptions(plan_of(fleet, manner), asking_of(fleet, manner), films_of(manner))
    return FleetBatch(fleet, settings, sink, fail_fast=request.fail_fast, **more)
