"""Movies in an evaluation: which questions, what is encoded when, and whether a moment lies on the evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from echopix_cli.engine import AskOptions, Engine, GenerationOptions
from echopix_cli.engine.options import FilmOptions
from echopix_cli.errors import UsageError
from echopix_cli.evaluation.asking import Asking
from echopix_cli.evaluation.movies import Haystack, moment_right, on_evidence
from echopix_cli.evaluation.questions import Question, load_questions
from echopix_cli.evaluation.report import make_report
from echopix_cli.evaluation.run import evaluate, settings_of, sieves_of
from echopix_cli.evaluation.values import Condition, Facts, ItemResult
from echopix_cli.media import Clip, DecodePlan
from echopix_cli.results import Moment
from echopix_cli.scenes import MOVIE_FAMILIES, SPLITS, Evidence, evidence_rows, make_script, movie_clip

CS2, RANDOM, SINGLE = Condition("cs2", 1.0), Condition("random", 1.0), Condition("single-pass", 1.0)
SEEN, HEARD = Evidence("video", 9.0, 11.0, (0.0, 0.0, 0.5, 0.5)), Evidence("audio", 9.5, 10.0)


@pytest.mark.parametrize(
    ("start", "end", "modality", "right"),
    [
        (8.5, 9.6, "audio", True),
        (8.5, 9.6, "video", True),
        (10.0, 12.0, "audio", False),  # begins where the sound ends
        (10.9, 12.0, "video", True),
        (9.6, 9.7, "audio", True),
        (4.0, 12.0, "audio", True),  # half of it in the needle's scene
        (3.9, 12.0, "audio", False),
        (0.0, 60.0, "video", False),  # the whole movie points at nothing
        (8.0, 24.0, "video", True),
        (17.0, 19.0, "video", False),
    ],
)
def test_a_moment_is_right_where_it_meets_the_evidence_of_its_modality(
    start: float, end: float, modality: str, right: bool
) -> None:
    top, better = Moment(start, end, modality, 0.6), Moment(9.5, 10.0, "audio", 0.4)
    assert moment_right((top, better), (SEEN, HEARD)) is right


def test_no_moment_is_not_right() -> None:
    assert not moment_right((), (SEEN,))
    both = (Evidence("audio", 1.0, 2.0), Evidence("audio", 41.0, 42.0))
    assert moment_right((Moment(41.5, 43.0, "audio", 1.0),), both)


@pytest.mark.parametrize("family", ["sync", "when", "object", "count"])
def test_rows_on_the_evidence_are_those_of_scenes(family: str) -> None:
    """Rows by their spans and boxes, against the same by their place in the grid of a scene."""
    (item, *_), cells, begins = make_script("test", 5, family).items, (8, 4, 4), np.arange(8) * 1.0
    picture, sound = evidence_rows(item.evidence, cells, begins, 200)
    spans = np.stack([begins, np.append(begins[1:], np.inf)], axis=1).repeat(16, axis=0)
    row, column = np.divmod(np.arange(16), 4)
    boxes = np.tile(np.stack([column / 4, row / 4, (column + 1) / 4, (row + 1) / 4], axis=1), (8, 1))
    heard = np.arange(200)[:, None] * 0.04 + np.array([0.0, 0.04])
    assert (on_evidence(item.evidence, "video", spans, boxes) == picture).all()
    assert (on_evidence(item.evidence, "audio", heard, None) == sound).all()
    assert picture.any() or sound.any()


def test_a_haystack_serves_twelve_questions_of_families_in_turn() -> None:
    questions = load_questions("scenes:movie", 14, 3, length=16)
    assert [question.family for question in questions] == [MOVIE_FAMILIES[k % 6] for k in range(14)]
    movies = [question.movie for question in questions]
    assert all(movie is not None and movie.duration == 16.0 for movie in movies)
    assert [question.media for question in questions] == ["movie:test:3:16s"] * 12 + ["movie:test:4:16s"] * 2
    assert len({question.id for question in questions}) == 14
    assert len({question.question for question in questions}) > 8
    assert questions == load_questions("scenes:movie", 14, 3, length=16)
    (one,) = load_questions("scenes:movie-val", 1, 0, ["order"], 8)
    assert one.movie is not None and (one.movie.split, one.family) == ("val", "order")
    for split in SPLITS:
        if split != "unseen-font":  # whose notes may not have been built
            (one,) = load_questions(f"scenes:movie-{split}", 1, 0, ["order"], 16)
            assert one.movie is not None and (one.movie.split, one.media) == (split, f"movie:{split}:0:16s")
    with pytest.raises(UsageError) as caught:
        load_questions("scenes:movie-dev", 1, 0)
    assert "scenes:movie-SPLIT" in caught.value.hint
    for arguments in (("scenes:movie", 1, 0, ["sync"]), ("scenes:movie", 1, 0, [], 5.0)):
        with pytest.raises(UsageError):
            load_questions(*arguments)


@pytest.fixture(scope="module")
def questions() -> tuple[Question, ...]:
    """About one haystack of three windows: one needle each."""
    return load_questions("scenes:movie", 2, 0, ["instrument", "object"], 24)


@pytest.fixture(scope="module")
def results(engine: Engine, asking: Asking, questions: tuple[Question, ...]) -> tuple[list[ItemResult], list[float]]:
    """Answers, and where every clip began that went through the towers."""
    seen, encode = list[float](), engine.encode

    def noted(what: Any) -> Any:
        if isinstance(what, Clip):
            seen.append(what.start)
        return encode(what)

    engine.encode = noted  # type: ignore[method-assign]
    try:
        found = [result for _, result in evaluate(engine, questions, (CS2, RANDOM, SINGLE), asking)]
    finally:
        engine.encode = encode  # type: ignore[method-assign]
    return found, seen


def test_a_haystack_goes_through_the_towers_once(
    questions: tuple[Question, ...], results: tuple[list[ItemResult], list[float]]
) -> None:
    _, seen = results
    needles = {movie.span(needle.window)[0] for q in questions if (movie := q.movie) for needle in movie.needles}
    for begin in (0.0, 8.0, 16.0):
        if begin not in needles:
            assert seen.count(begin) == (3 if begin == 0.0 else 1)  # single passes begin there too
    assert sum(seen.count(begin) for begin in needles) > len(needles)


def test_answers_do_not_depend_on_what_was_asked_before(
    engine: Engine,
    asking: Asking,
    questions: tuple[Question, ...],
    results: tuple[list[ItemResult], list[float]],
) -> None:
    movie = questions[1].movie
    assert movie is not None
    alone = Haystack(engine, movie, asking).answered(questions[1], (CS2, RANDOM))
    for setting, outcome in alone.outcomes.items():
        assert replace(outcome, seconds=0.0) == replace(results[0][1].outcomes[setting], seconds=0.0)
    assert alone.evidence == results[0][1].evidence > 0


def test_answers_do_not_depend_on_the_other_budgets(stock_engine: Engine, asking: Asking) -> None:
    """Below a fifth a stock model leaves redundant rows out before it scores."""
    (question,) = load_questions("scenes:movie", 1, 0, ["object"], 24)
    assert question.movie is not None
    own = replace(asking, plan=replace(stock_engine.plan(DecodePlan()), max_frames=8), films=FilmOptions(8.0))
    settings = tuple(Condition("question-attention", budget) for budget in (0.6, 0.1))
    haystack = Haystack(stock_engine, question.movie, own)
    assert haystack.film is not None
    found = haystack.answered(question, settings)
    for setting in settings:
        alone = haystack.answered(question, (setting,)).outcomes[setting]
        assert not alone.failure
        assert replace(found.outcomes[setting], seconds=0.0) == replace(alone, seconds=0.0)


def test_windows_hand_on_what_one_of_them_holds(results: tuple[list[ItemResult], list[float]]) -> None:
    for result in results[0]:
        assert result.pool == 3 * 328
        rows = {setting: outcome.rows for setting, outcome in result.outcomes.items()}
        assert rows[CS2] is not None and rows[RANDOM] is not None and rows[SINGLE] is not None
        assert (rows[CS2].kept, rows[RANDOM].kept) == (328, 328)
        # 48 frames and all of the sound; a pass over all of it keeps all of it
        assert rows[SINGLE].kept == 3 * 328
        assert [outcome.last_prompt for outcome in result.outcomes.values()] == [328, 328, 984]
        assert 0 < rows[CS2].on_evidence <= result.evidence
        assert all(outcome.moment is not None for outcome in result.outcomes.values())


def test_moments_and_rows_are_counted(engine: Engine, results: tuple[list[ItemResult], list[float]]) -> None:
    facts = Facts("0", "today", "echopix eval", engine.facts, "scenes:movie", 2, (), 0, {})
    for result in make_report(facts, results[0], (CS2, SINGLE), 1.0).results:
        right = [item.outcomes[result.setting].moment for item in results[0]]
        assert result.moments is not None
        assert (result.moments.right, result.moments.total) == (sum(map(bool, right)), 2)
        assert result.last_prompt == (328 if result.setting == CS2 else 984)


def test_a_movie_of_one_window_is_a_clip(engine: Engine, asking: Asking) -> None:
    (question,) = load_questions("scenes:movie", 1, 0, ["object"], 8)
    assert question.movie is not None
    result = Haystack(engine, question.movie, asking).answered(question, (CS2,))
    encoded = engine.encode(movie_clip(question.movie, 0, asking.side))
    answer = engine.ask(encoded, question.prompt, AskOptions(1.0, GenerationOptions(asking.max_new_tokens)))
    assert result.outcomes[CS2].answer == answer.answer
    assert result.outcomes[CS2].last_prompt == result.pool == 328
    assert result.evidence > 0


def test_windows_may_be_longer_than_scenes(engine: Engine, asking: Asking, questions: tuple[Question, ...]) -> None:
    movie = questions[0].movie
    assert movie is not None
    haystack = Haystack(engine, movie, replace(asking, films=FilmOptions(16.0)))
    assert haystack.film is not None and haystack.film.spans == ((0.0, 16.0), (16.0, 24.0))
    result = haystack.answered(questions[0], (CS2,))
    assert (result.pool, result.outcomes[CS2].last_prompt) == (3 * 328, 2 * 328)
    assert result.evidence > 0


def test_a_long_movie_is_glanced_at_and_then_looked_at(engine: Engine, asking: Asking) -> None:
    (question,) = load_questions("scenes:movie", 1, 0, ["object"], 88)
    assert question.movie is not None
    few = replace(asking, plan=replace(asking.plan, max_frames=8))
    found = {}
    for look in (0, 2):
        haystack = Haystack(engine, question.movie, replace(few, films=FilmOptions(look=look)))
        assert haystack.film is not None and haystack.film.glance == 6
        found[look] = haystack.answered(question, (CS2,))
    per_step, steps = 16, (3, 4)  # of a window that is glanced at, and of one that is looked at
    assert found[0].pool == 11 * (per_step * steps[0] + 200)
    assert found[2].pool == found[0].pool + 2 * per_step


@pytest.mark.parametrize("settings", [(CS2, SINGLE), (SINGLE, CS2)], ids=["pass-last", "pass-first"])
def test_what_a_setting_chose_from_is_its_own(engine: Engine, asking: Asking, settings: tuple[Condition, ...]) -> None:
    """A single pass over 88 s has as many frames as one window has, and keeps all of its own evidence."""
    (question,) = load_questions("scenes:movie", 1, 0, ["object"], 88)
    assert question.movie is not None
    few = replace(asking, plan=replace(asking.plan, max_frames=8), films=FilmOptions(look=2))
    result = Haystack(engine, question.movie, few).answered(question, settings)
    film, single = (result.pool_of(setting) for setting in (CS2, SINGLE))
    assert (film.rows, single.rows) == (11 * (16 * 3 + 200) + 2 * 16, 16 * 4 + 11 * 200)
    assert film.audio == single.audio == 11 * 200
    assert (result.pool, result.evidence) == (result.pool_of(settings[0]).rows, result.pool_of(settings[0]).evidence)
    facts = Facts("0", "today", "echopix eval", engine.facts, "scenes:movie", 1, (), 0, {})
    found = {one.setting: one for one in make_report(facts, [result], settings, 1.0).results}
    assert (found[SINGLE].share_video, found[SINGLE].share_audio) == (1.0, 1.0)
    for setting, own in ((CS2, film), (SINGLE, single)):
        share, rows = found[setting].evidence, result.outcomes[setting].rows
        assert share is not None and rows is not None
        assert share.at_random == pytest.approx(own.evidence / own.rows)
        assert share.recall == rows.on_evidence / own.evidence <= 1
    evidence = found[SINGLE].evidence
    assert evidence is not None and evidence.recall == 1.0


def test_a_no_has_no_moment(engine: Engine, asking: Asking) -> None:
    questions = load_questions("scenes:movie", 12, 0, ["heard", "exists"], 8)
    question = next(one for one in questions if one.answer == "no")
    assert question.movie is not None
    result = Haystack(engine, question.movie, asking).answered(question, (CS2,))
    assert result.evidence == 0 and result.outcomes[CS2].moment is None


def test_settings_of_films_have_something_to_choose_at_any_budget(engine: Engine, asking: Asking) -> None:
    names = sieves_of(engine, ["auto", "random", "single-pass", "none"], asking)
    assert settings_of(names, [1.0], films=True) == (CS2, RANDOM, SINGLE, Condition("none", 0.0))
