"""What a survey of a film's windows hands on for each question: its own rows, and its own seconds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from echopix_cli.engine import AskOptions, Encoded, Engine, GenerationOptions, SieveOptions, meters
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.film import Film, film_of
from echopix_cli.engine.opening import survey
from echopix_cli.media import DecodePlan, load_clip

SHORT = GenerationOptions(max_new_tokens=3)


@pytest.fixture(scope="module")
def engine(random_checkpoint: Path) -> Engine:
    return Engine.load(str(random_checkpoint), "cpu")


@pytest.fixture(scope="module")
def film(engine: Engine, clips: dict[str, Path]) -> Film:
    """Three seconds as windows of one."""
    made = film_of(engine.plan(DecodePlan()), load_clip(clips["both"], DecodePlan()).info.duration, 1.0)
    assert made is not None and len(made.spans) == 3
    return made


@pytest.fixture(scope="module")
def windows(engine: Engine, film: Film, clips: dict[str, Path]) -> list[Encoded]:
    return [engine.encode(load_clip(clips["both"], film.window(number, True))) for number in range(len(film.spans))]


def test_each_question_has_the_seconds_that_its_own_sieving_took(
    engine: Engine, film: Film, windows: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sieves of one question share its scores, and so the time."""
    costs, now, pose = {"What?": 1.0, "Who?": 10.0}, [0.0], engine.pose

    def posed(encoded: Encoded, question: str, *more: Any) -> Any:
        now[0] += costs[question]
        return pose(encoded, question, *more)

    monkeypatch.setattr(engine, "pose", posed)
    monkeypatch.setattr(meters, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    questions = ["What?", "What?", "Who?"]
    options = [AskOptions(), AskOptions(sieve=SieveOptions("uniform")), AskOptions()]
    found = survey(engine, "film", film, questions, lambda number, full: Fetched(windows[number]), options)
    assert [one.seconds["sieve"] for one in found] == [3.0, 3.0, 30.0]
    assert [engine.ask(one, "What?", AskOptions(0.1, SHORT)).latency.sieve for one in found] == [4.0, 4.0, 31.0]
