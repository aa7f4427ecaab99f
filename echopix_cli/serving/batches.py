"""Many tasks, answered: what the command and the server both run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from echopix_cli.batch.items import BatchOptions
from echopix_cli.batch.outcomes import Outcome
from echopix_cli.batch.run import Batch
from echopix_cli.engine import Engine
from echopix_cli.serving.manners import asking_of, films_of, plan_of
from echopix_cli.serving.many_messages import AskMany


def batch_of(engine: Engine, request: AskMany, sink: Callable[[Outcome], None], **more: Any) -> Batch:
    """What answers a request; ``more`` as of :class:`Batch`.

    Raises:
        UsageError: the model has no such sieve.
    """
    manner = request.manner
    settings = BatchOptions(plan_of(engine, manner), asking_of(engine, manner), films_of(manner))
    return Batch(engine, settings, sink, timeout=manner.timeout, fail_fast=request.fail_fast, **more)
