"""What a survey of a film's windows hands on for each question: its own rows, and its own seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engine.feature_entries import timeless
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echopix_cli.engine import AskOptions, Encoded, Engine, GenerationOptions, SieveOptions, meters
from echopix_cli.engine import survey as survey_room
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.film import Film, film_of
from echopix_cli.engine.opening import survey
from echopix_cli.engine.pool import Pool
from echopix_cli.engine.survey import Survey
from echopix_cli.errors import MediaError
from echopix_cli.media import DecodePlan, MediaInfo, load_clip
from echopix_cli.model.processing import ClipInputs
from echopix_cli.model.thinker import EchoingPixelsThinker as Thinker
from echopix_cli.model.values import FirstLayers
from echopix_cli.results import Answer, AudioStatus, PeakMemory, Sampling

SHORT = GenerationOptions(max_new_tokens=3)


@pytest.fixture(scope="module")
def engine(random_checkpoint: Path) -> Engine:
    return Engine.load(str(random_checkpoint), "cpu")


@pytest.fixture(scope="module")
def stock(stock_checkpoint: Path) -> Engine:
    return Engine.load(str(stock_checkpoint), "cpu")


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


def test_whoever_watches_can_end_it_between_two_questions(
    engine: Engine, film: Film, windows: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of questions about one window take minutes."""
    asked, pose = list[str](), engine.pose

    def posed(encoded: Encoded, question: str, *more: Any) -> Any:
        asked.append(question)
        return pose(encoded, question, *more)

    def watch(done: float, total: float, stage: str) -> None:
        if len(asked) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "pose", posed)
    with pytest.raises(KeyboardInterrupt):
        survey(engine, "film", film, list("abcde"), lambda number, full: Fetched(windows[number]), watch=watch)
    assert asked == ["a", "b"]


def test_a_budget_each_chooses_among_windows_too(engine: Engine, film: Film, windows: list[Encoded]) -> None:
    """Each modality's highest rows of all windows, in the part of the last prompt that it has of all rows."""
    options = AskOptions(0.2, SHORT, SieveOptions("per-modality"))
    fetch = lambda number, full: Fetched(windows[number])  # noqa: E731
    (handed,) = survey(engine, "film", film, ["What?"], fetch, options)
    found: dict[bool, list[tuple[float, int]]] = {False: [], True: []}  # score and window of rows of picture and sound
    for number, encoded in enumerate(windows):
        posed = engine.pose(encoded, "What?")
        heard, ranking = posed.prompt.input_ids[0] == engine.model.thinker.special.audio, posed.ranking(options, number)
        for row in ranking.isfinite().nonzero()[:, 0].tolist():
            found[bool(heard[row])].append((-float(ranking[row]), number))
    pool, survivors = {sound: len(rows) for sound, rows in found.items()}, handed.survivors
    assert survivors is not None
    most = len(survivors.is_audio)
    assert (pool, most) == ({False: 72, True: 77}, 51)
    assert round(most * 72 / (72 + 77)) == 25
    for sound, count in ((False, 25), (True, 26)):
        expected = [number for _, number in sorted(found[sound])[:count]]
        starts = survivors.spans[survivors.is_audio == sound, 0]
        assert [sum(a <= start < b for start in starts) for a, b in film.spans] == [
            expected.count(number) for number in range(3)
        ]
    tokens = engine.ask(handed, "What?", options).tokens
    assert (tokens.video.kept, tokens.audio.kept) == (15, 16), "a fifth of each"


def test_what_is_heard_before_there_is_any_picture_competes_like_all_else(
    engine: Engine, film: Film, windows: list[Encoded], clips: dict[str, Path]
) -> None:
    """Two windows without picture come first; a window with picture has more rows than they have."""
    dark = engine.encode(load_clip(clips["dark"], film.window(0, True)))
    mixed, options = [dark, dark, windows[2]], AskOptions(0.2, SHORT)
    (handed,) = survey(engine, "film", film, ["What?"], lambda number, full: Fetched(mixed[number]), options)
    assert handed.survivors is not None
    most = len(handed.survivors.is_audio)
    assert most > dark.inputs.audio_rows
    found = []
    for number, encoded in enumerate(mixed):
        ranking = engine.pose(encoded, "What?").ranking(options, number)
        found += [(-float(ranking[row]), number) for row in ranking.isfinite().nonzero()[:, 0].tolist()]
    expected = [number for _, number in sorted(found)[:most]]
    starts = handed.survivors.spans[:, 0]
    kept = [int(((starts >= start) & (starts < end)).sum()) for start, end in film.spans]
    assert kept[2] == expected.count(2)


@pytest.mark.parametrize("failing", [(), (1, 4)])
def test_each_of_several_questions_has_the_record_that_it_has_alone(
    engine: Engine, clips: dict[str, Path], failing: tuple[int, ...]
) -> None:
    """Though one pass reads the windows for all, and each has other windows looked at, some of which fail."""
    path, questions = clips["both"], ["What?", "Who plays the piano?", "Is there a dog?", "left", "0 1 2 3 4 5 6 7"]
    made = film_of(engine.plan(DecodePlan(fps=16.0)), load_clip(path, DecodePlan()).info.duration, 0.4)
    assert made is not None
    film, options = replace(made, glance=2), [AskOptions(0.05 * (q + 1), SHORT) for q in range(len(questions))]
    asked: list[int] = []

    def fetch(number: int, full: bool) -> Fetched:
        if full:
            asked.append(number)
            if number in failing:
                raise MediaError("it is damaged here")
        return Fetched(load_clip(path, film.window(number, full)))

    def records(which: list[int]) -> list[Answer]:
        own, words = [options[q] for q in which], [questions[q] for q in which]
        found = survey(engine, "film", film, words, fetch, own, look=2)
        return [timeless(engine.ask(*each)) for each in zip(found, words, own, strict=True)]

    together, each = records(list(range(len(questions)))), [records([q])[0] for q in range(len(questions))]
    wanted = [asked[begin : begin + 2] for begin in range(len(asked) - 2 * len(questions), len(asked), 2)]
    assert len({tuple(own) for own in wanted}) > 1, "else they share all windows"
    assert bool(failing) == any(set(own) & set(failing) for own in wanted)
    assert together == each
    for own, answer in zip(wanted, together, strict=True):
        lost = sorted(set(own) & set(failing))
        assert answer.film is not None
        assert answer.film.looked == tuple(film.spans[number] for number in own if number not in lost)
        assert (answer.film.unread, answer.audio) == (0, AudioStatus.USED)
        said = [notice for notice in answer.notices if "could not be read" in notice]
        assert len(said) == len(lost)
        assert all(notice.endswith("could not be read again at the full rate: it is damaged here") for notice in said)


def test_seconds_that_brought_nothing_count_as_decoding(
    engine: Engine, film: Film, windows: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before the first window, and those of a window that fails."""
    now = [0.0]

    def fetch(number: int, full: bool) -> Fetched:
        now[0] += 10.0**number
        if number == 1:
            raise MediaError("it is damaged here")
        return Fetched(windows[number])

    # Each window is asked for when the one before it is there, and waited for at once.
    monkeypatch.setattr(meters, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(survey_room, "ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(survey_room, "_awaited", lambda waiting, waits: waiting())
    (handed,) = survey(engine, "film", film, ["What?"], fetch, AskOptions(), spent=1000.0)
    assert handed.seconds["decode"] == 1111.0


@pytest.mark.parametrize(("prefilter", "budget", "share"), [(None, 0.1, 0.5), (None, 0.3, None), (True, 0.7, 0.7)])
def test_what_repeats_itself_goes_in_the_windows_and_the_record_says_so(
    stock: Engine,
    film: Film,
    clips: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    prefilter: bool | None,
    budget: float,
    share: float | None,
) -> None:
    """Not once more among what they handed on, where rows that follow one another are of different places."""
    options = AskOptions(budget, SHORT, SieveOptions(prefilter=prefilter))
    shares, score = list[float](), Thinker.score

    def scored(self: Thinker, prompt: Any, *, first_layers: FirstLayers) -> Any:
        shares.append(first_layers.share)
        return score(self, prompt, first_layers=first_layers)

    monkeypatch.setattr(Thinker, "score", scored)
    fetch = lambda number, full: Fetched(load_clip(clips["both"], film.window(number, full)))  # noqa: E731
    (handed,) = survey(stock, "film", film, ["What?"], fetch, options)
    answer = stock.ask(handed, "What?", options)
    assert shares == [share or 1.0] * len(film.spans) + [1.0]
    assert (answer.prefilter, answer.budget) == (share, budget)


class AtOnce:
    """In place of threads: what is submitted is done when it is waited for."""

    def __init__(self, *_: Any, **named: Any) -> None: ...

    def submit(self, call: Any, *arguments: Any) -> Any:
        return lambda: call(*arguments)

    def shutdown(self, **named: Any) -> None: ...


@st.composite
def films_rows(draw: Any) -> tuple[Any, ...]:
    """Scores of the rows of some windows, glanced at and looked at, of two modalities, with ties; and what fails."""
    count = draw(st.integers(2, 6))
    rows = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=6)
    each = {(number, full): draw(rows) for number in range(count) for full in (False, True)}
    look = draw(st.integers(0, count + 1))
    # Where all are looked at no more of the glance is held than one prompt takes.
    failing = draw(st.sets(st.integers(0, count - 1))) if look < count else set()
    return each, count, look, draw(st.integers(1, 8)), failing


@pytest.mark.parametrize("sieve", ["cs2", "per-modality"])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(films_rows())
def test_the_last_prompt_is_the_highest_of_all_rows_that_count(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, sieve: str, made: tuple[Any, ...]
) -> None:
    """Of windows that were looked at those of the look, of others those of the glance: against one ranking of them."""
    scores, count, look, capacity, failing = made

    tried = set()

    def encoded(number: int, full: bool) -> Encoded:
        if full:
            tried.add(number)
        if full and number in failing:
            raise MediaError("it is damaged here")
        heard = [sound for _, sound in scores[number, full]]
        inputs = ClipInputs(None, (1, 2, 2 * heard.count(False)), np.zeros(1), None, heard.count(True))
        sampling = Sampling(None, 2, 2, 2, None, 0.0, 1.0, 1.0)
        seconds = dict.fromkeys(("decode", "vision", "audio"), 0.0)
        place = MediaInfo(str(full), float(number), ())  # which window it is
        return Encoded("a", place, AudioStatus.USED, sampling, (), inputs, None, None, seconds, PeakMemory())

    def pool(encoded: Encoded, posed: Any, special: Any, ranking: Any, number: int) -> Pool:
        own = scores[number, encoded.info.format == "True"]
        places = torch.arange(len(own))
        spans = torch.stack([torch.full((len(own),), float(number)), places.double()], dim=1)  # tells rows apart
        return Pool(
            torch.tensor([float(score) for score, _ in own]).double(),
            torch.zeros(len(own), 1),
            torch.tensor([sound for _, sound in own]),
            torch.full((len(own),), number),
            places,
            torch.zeros(3, len(own), dtype=torch.long),
            spans,
            torch.zeros(len(own), 4).double(),
        )

    film = Film(tuple((float(number), number + 1.0) for number in range(count)), DecodePlan(), 2)
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "of", pool)
        patch.setattr(Survey, "_rows_at_full_rate", lambda self, encoded: capacity)
        (handed,) = Survey(
            "a", film, engine.model.thinker, lambda *_: SimpleNamespace(ranking=lambda *_: None),  # type: ignore[arg-type, return-value]
            ["What?"], [AskOptions(sieve=SieveOptions(sieve))], look,
            lambda number, full: Fetched(encoded(number, full)), lambda fetched: fetched.content, lambda *_: None,  # type: ignore[arg-type, return-value]
        ).run()  # fmt: skip
    survivors = handed.survivors
    assert survivors is not None
    looked = {int(start) for start, _ in survivors.facts.looked}
    assert len(tried) == min(look, count) and looked == tried - failing
    assert (survivors.facts.unread, handed.audio_status) == (0, AudioStatus.USED)
    counting = [
        (-score, number, place, sound)
        for number in range(count)
        for place, (score, sound) in enumerate(scores[number, number in looked])
    ]
    shares = {None: capacity}
    if sieve == "per-modality":
        shown = sum(not sound for *_, sound in counting)
        shares = {False: round(capacity * shown / len(counting))}
        shares[True] = capacity - shares[False]
    highest = [
        row
        for modality, most in shares.items()
        for row in sorted(row for row in counting if modality in (None, row[3]))[:most]
    ]
    expected = sorted((number, place, sound) for _, number, place, sound in highest)
    told = zip(survivors.spans.tolist(), survivors.is_audio.tolist(), strict=True)
    assert [(int(number), int(place), sound) for (number, place), sound in told] == expected
