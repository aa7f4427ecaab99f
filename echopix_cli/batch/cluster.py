"""Ray itself: a cluster that is joined, or begun here and ended; and how a fleet is laid out over its machines."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from echopix_cli.batch.run import decoders_for
from echopix_cli.errors import EchopixError, UsageError

_CORES = 4  # of one engine on CPUs
_ANSWER = 10.0  # seconds for a cluster to take a connection
# Before Ray is imported: nothing is sent anywhere; and in a cluster that begins here actors are no nicer to others than
# the command would be, where Ray says 15.
_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


@dataclass(frozen=True)
class FleetOptions:
    """What the command line says about a fleet.

    Attributes:
        address: of the cluster to join; None begins one here, and ends it.
        workers: engines; None takes as many as there is room for.
        gpus: that each of them takes, at most one; None takes one where the cluster has any, else CPUs.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class Layout:
    """A fleet over machines.

    Attributes:
        engines: how many.
        gpus: of each; 0 takes CPUs.
        cores: of each; 0 leaves that to the machines.
        decoders: processes that decode, for each engine.
    """

    engines: int
    gpus: float
    cores: int
    decoders: int


def layout(machines: Sequence[Mapping[str, float]], options: FleetOptions) -> Layout:
    """Engines for the GPUs there are, or for the cores where there are none; and decoding beside them.

    Args:
        machines: each one's ``CPU`` and ``GPU``, as Ray counts them.
        options: of the command line.

    Raises:
        UsageError: GPUs are asked for, and there are none.
    """
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    gpus = [machine.get("GPU", 0.0) for machine in machines]
    share = options.gpus if options.gpus is not None else float(any(gpus))
    if share:
        engines = options.workers or sum(int(count / share + 1e-6) for count in gpus)
        if not any(gpus):
            raise UsageError("--gpus-per-worker: no machine of the cluster has a GPU", "leave it out, or give 0")
        return Layout(engines, share, 0, _decoders(sum(cores), engines))
    wanted = options.workers or 0
    each = max(1, min(_CORES, max(cores, default=1)))
    while each > 1 and sum(count // each for count in cores) < wanted:
        each -= 1
    fit = sum(count // each for count in cores)
    engines = wanted or max(1, fit)
    return Layout(engines, 0.0, each if fit >= engines else 0, _decoders(sum(cores), engines))


def _decoders(cores: int, engines: int) -> int:
    return decoders_for(cores // engines)


def _require_answer(address: str) -> None:
    """Find out whether anybody listens there, which Ray itself tries for minutes.

    Raises:
        EchopixError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # auto, or what Ray will say more about
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
    except (OSError, OverflowError) as error:
        raise _unanswered(address, str(error)) from None


def _unanswered(address: str, what: str) -> EchopixError:
    return EchopixError(f"no Ray cluster answers at {address}: {what}", "ray status shows yours")


class Cluster:
    """A connection to Ray.

    Args:
        address: as of :class:`FleetOptions`.

    Raises:
        EchopixError: Ray is not installed, does not start or does not answer.
    """

    def __init__(self, address: str | None) -> None:
        if address is not None:
            _require_answer(address)
        for name, value in _VARIABLES.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs Ray, which is not installed", "pip install 'echopix[fleet]'") from None
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        self._folder: str | None = None
        # What Ray has to say of lost actors and machines it prints, and we count. Answers have their stream already.
        self._nowhere = open(os.devnull, "w")  # noqa: SIM115 - until this is closed
        self._stdout, sys.stdout = sys.stdout, self._nowhere
        try:
            if address is not None:
                ray.init(address, **quiet)
                return
            self._folder = tempfile.mkdtemp(prefix="echopix-ray-")
            # Sockets lie in there, whose paths may have about a hundred characters.
            ray.init("local", include_dashboard=False, _temp_dir=self._folder, _node_ip_address="127.0.0.1", **quiet)
        except Exception as error:  # of many kinds, from connecting and from processes that do not start
            self.close()
            what = " ".join(str(error).split())[:200]
            if address is None:
                raise EchopixError(f"Ray does not start: {what}", "free some memory, and run again") from error
            raise _unanswered(address, what) from error

    def machines(self) -> list[dict[str, float]]:
        """What each machine of the cluster has."""
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def close(self) -> None:
        """Leave the cluster; one that was begun here ends."""
        import ray

        ray.shutdown()
        if sys.stdout is self._nowhere:
            sys.stdout = self._stdout
        self._nowhere.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
