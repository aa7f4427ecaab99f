"""Files that are longer than a window: answered as ``ask`` answers, in one pass over their windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from echopix_cli.engine import AskOptions, Encoded, Engine, GenerationOptions, SieveOptions
from echopix_cli.engine.opening import open_media
from echopix_cli.engine.options import FilmOptions
from echopix_cli.errors import DeviceError
from echopix_cli.evaluation import films
from echopix_cli.evaluation.asking import Asking
from echopix_cli.evaluation.questions import Question
from echopix_cli.evaluation.run import evaluate
from echopix_cli.evaluation.values import AROUND, Condition, Rows
from echopix_cli.media import DecodePlan

FULL, FEW = Condition("cs2", 1.0), Condition("cs2", 0.3)
UNIFORM, NONE, PAST = Condition("uniform", 0.3), Condition("none", 0.0), Condition(AROUND, 1.0)
SETTINGS = (FULL, FEW, UNIFORM, NONE, PAST)
CHOICES = ("a dog", "a cat")


@pytest.fixture(scope="module")
def windows(asking: Asking) -> Asking:
    return replace(asking, films=FilmOptions(window=1.0), max_new_tokens=4)


def questions(path: Path) -> list[Question]:
    asked = [Question(number, str(number), str(path), "f", f"What is {number}?", "dog") for number in range(2)]
    return [*asked, Question(2, "2", str(path), "f", "Which?", "B. a cat", CHOICES, wording="Which? A B", gold=1)]


def test_what_ask_says_in_one_pass_for_all(
    engine: Engine, windows: Asking, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips["both"]
    encode, encoded = engine.encode, list[Encoded]()
    monkeypatch.setattr(engine, "encode", lambda what: encoded.append(encode(what)) or encoded[-1])
    found = [result for _, result in evaluate(engine, questions(path), SETTINGS, replace(windows, by_letters=True))]
    passed = len(encoded)
    assert passed > 1
    for setting in (FULL, FEW, UNIFORM):
        for question, result in zip(questions(path), found, strict=True):
            sieve = SieveOptions("auto" if setting.sieve == "cs2" else setting.sieve)
            options = AskOptions(setting.budget, sieve=sieve, generation=GenerationOptions(4, system=windows.system))
            (film,) = open_media(engine, str(path), windows.plan, [question.prompt], options, windows.films)
            assert film.survivors is not None
            assert film.survivors.facts.windows == passed
            if question.choices:
                best = engine.decide(film, question.question, CHOICES, options, question.prompt)
                said = max(best.choices, key=lambda choice: choice.probability)
                expected, tokens = f"{said.letter}. {said.text}", best.tokens
            else:
                answer = engine.ask(film, question.prompt, options)
                expected, tokens = answer.answer, answer.tokens
            outcome = result.outcomes[setting]
            assert (outcome.answer, outcome.failure) == (expected, "")
            assert outcome.rows == Rows(tokens.video.kept, tokens.audio.kept, 0)
            assert (result.pool, result.pool_audio) == (tokens.total, tokens.audio.total)
    for result in found:
        assert result.outcomes[NONE].rows == Rows(0, 0, 0)
        assert result.outcomes[PAST].failure == "a film does not go past CS2 whole"


def test_where_memory_is_short_fewer_go_at_once(
    engine: Engine, windows: Asking, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, settings = questions(clips["both"]), (FEW, UNIFORM)
    whole = [result for _, result in evaluate(engine, asked, settings, windows)]
    at_once: list[int] = []

    def short(engine: Engine, path: str, plan: DecodePlan, prompts: list[str], *rest: Any, **named: Any) -> Any:
        at_once.append(len(prompts))
        if len(prompts) > most:
            raise DeviceError("out of memory")
        return open_media(engine, path, plan, prompts, *rest, **named)

    monkeypatch.setattr(films, "open_media", short)
    for most, passes in ((2, [6, 3, 2, 2, 2]), (0, [6, 3, 2, 1])):
        at_once.clear()
        found = [result for _, result in evaluate(engine, asked, settings, windows)]
        assert at_once == passes
        for one, other in zip(found, whole, strict=True):
            for setting in settings:
                ours, theirs = one.outcomes[setting], other.outcomes[setting]
                assert (ours.answer, ours.rows) == ((theirs.answer, theirs.rows) if most else (None, None))
                assert ours.failure == ("" if most else "out of memory")


def test_a_lone_way_past_the_sieve_fails_without_reading(
    engine: Engine, windows: Asking, clips: dict[str, Path]
) -> None:
    found = [result for _, result in evaluate(engine, questions(clips["both"]), (PAST,), windows)]
    assert {result.outcomes[PAST].failure for result in found} == {"a film does not go past CS2 whole"}


def test_budgets_share_windows_only_where_scores_are_the_same(
    stock_engine: Engine, windows: Asking, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a fifth a stock model leaves redundant rows out before it scores."""
    own = replace(windows, plan=stock_engine.plan(DecodePlan()), max_new_tokens=8)
    settings = tuple(Condition("question-attention", budget) for budget in (0.6, 0.3, 0.15, 0.1))
    asked, at_once = questions(clips["both"])[:2], list[int]()

    def counted(engine: Engine, path: str, plan: DecodePlan, prompts: list[str], *rest: Any, **named: Any) -> Any:
        at_once.append(len(prompts))
        return open_media(engine, path, plan, prompts, *rest, **named)

    monkeypatch.setattr(films, "open_media", counted)
    found = [result for _, result in evaluate(stock_engine, asked, settings, own)]
    assert at_once == [2 * len(asked)]
    for setting in settings:
        alone = [result for _, result in evaluate(stock_engine, asked, (setting,), own)]
        for one, together in zip(alone, found, strict=True):
            ours, theirs = together.outcomes[setting], one.outcomes[setting]
            assert (ours.answer, ours.rows, ours.failure) == (theirs.answer, theirs.rows, "")
