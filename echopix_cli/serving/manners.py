"""How files are read and questions answered, for the model that is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from echopix_cli.engine import AskOptions, GenerationOptions, SieveOptions
from echopix_cli.engine.film import Film
from echopix_cli.engine.options import FilmOptions
from echopix_cli.media import DecodePlan, MediaInfo
from echopix_cli.serving.messages import Manner
from echopix_cli.times import clock


class Planner(Protocol):
    """What knows the model: an engine, or who asks one elsewhere."""

    def plan(self, plan: DecodePlan, max_pixels: int | None = None) -> DecodePlan:
        """As :meth:`.Engine.plan`."""

    def choose(self, sieve: SieveOptions, budget: float = 0.0) -> object:
        """As :meth:`.Engine.choose`."""


def plan_of(engine: Planner, manner: Manner) -> DecodePlan:
    """What to take from each file."""
    return engine.plan(manner.plan, max_pixels=manner.max_pixels)


def asking_of(engine: Planner, manner: Manner) -> AskOptions:
    """How questions are answered.

    Raises:
        UsageError: the model has no such sieve.
    """
    sieve = SieveOptions(manner.sieve, manner.question_layer, manner.prefilter)
    engine.choose(sieve)  # now, and not once for every file
    return AskOptions(manner.budget, generation_of(manner), sieve, manner.list_kept)


def generation_of(manner: Manner) -> GenerationOptions:
    """How answers are made."""
    options = GenerationOptions(manner.max_new_tokens, manner.temperature, manner.seed)
    return options if manner.system is None else replace(options, system=manner.system)


def films_of(manner: Manner) -> FilmOptions:
    """How files are read that are longer than one window."""
    return FilmOptions(manner.window, manner.look)


def sampling_words(info: MediaInfo, film: Film, look: int) -> str:
    """What will be taken of a film.

    Args:
        info: what its header says.
        film: how it is read.
        look: windows that are read again.
    """
    first, last = film.spans[0][0], film.spans[-1][1]
    whole = film.plan.start is None and film.plan.end is None
    length = f"{clock(last)} long" if whole else f"{clock(first)} to {clock(last)}"
    return f"{length}: {film.words(info, look)}"
