"""Files longer than one window: what every window hands on, and the last prompt that it forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echopix_cli.decoding.worker import Worker
from echopix_cli.engine import AskOptions, Encoded, Engine, GenerationOptions, SieveOptions
from echopix_cli.engine.features import Fetched, open_features
from echopix_cli.engine.film import Film, film_of
from echopix_cli.engine.opening import film_in, open_media, survey, window_of
from echopix_cli.engine.options import FilmOptions
from echopix_cli.engine.posing import PER_LOGIT, chosen
from echopix_cli.errors import MediaError
from echopix_cli.media import Clip, DecodePlan, load_clip
from echopix_cli.model.positions import joined_positions
from echopix_cli.model.relevance import relevance
from echopix_cli.results import Answer, AudioStatus
from echopix_cli.shelf import Shelf

SHORT = GenerationOptions(max_new_tokens=3)
PLAN = DecodePlan()


# --- windows


@settings(deadline=None)
@given(
    start=st.floats(0, 500),
    length=st.floats(0.1, 20_000),
    window=st.floats(1, 120),
    frames=st.integers(1, 200),
)
def test_windows_cover_a_film_without_a_gap(start: float, length: float, window: float, frames: int) -> None:
    plan = replace(PLAN, start=start, end=start + length, max_frames=frames)
    film = film_of(plan, start + length + 5, window)
    if film is None:
        assert length <= window * 1.1 + 1e-6
        return
    spans = film.spans
    assert (spans[0][0], spans[-1][1]) == (plan.start, plan.end)
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    lengths = [end - begin for begin, end in spans]
    assert lengths[:-1] == pytest.approx([window] * (len(spans) - 1))
    assert window * 0.1 - 1e-6 <= lengths[-1] <= window * 1.1 + 1e-6
    assert film.glance is None or film.glance * len(spans) <= max(10 * frames, len(spans))


def test_what_one_window_holds_is_a_clip() -> None:
    assert film_of(PLAN, 65.9, 60.0) is None
    assert film_of(PLAN, None, 60.0) is None
    assert film_of(replace(PLAN, start=600.0, end=660.0), 7200.0, 60.0) is None
    film = film_of(PLAN, 66.1, 60.0)
    assert film is not None and film.spans == ((0.0, 60.0), (60.0, 66.1))
    assert film.window(1, True).end == pytest.approx(72.1), "the media may go on a little beyond what the header states"
    assert film.window(0, True).end == 60.0


def test_ten_clips_worth_of_frames_are_glanced_at() -> None:
    ten = film_of(PLAN, 600.0, 60.0)
    assert ten is not None and ten.glance is None, "all of them fit"
    hours = film_of(PLAN, 7200.0, 60.0)
    assert hours is not None and hours.glance == 10
    assert (hours.window(3, False).max_frames, hours.window(3, True).max_frames) == (10, 120)
    assert (hours.window(3, False).keyframes, hours.window(3, True).keyframes) == (True, False)
    assert [film_of(PLAN, 7200.0, window).glance for window in (12.0, 11.0, 4.0)] == [2, 1, 1]  # type: ignore[union-attr]
    heard = film_of(replace(PLAN, video=False), 7200.0, 60.0)
    assert heard is not None and heard.glance is None


# --- positions of the last prompt


@st.composite
def rows(draw: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    windows = np.sort(np.array(draw(st.lists(st.integers(0, 5), min_size=1, max_size=40)), np.int64))
    times = np.array(draw(st.lists(st.integers(0, 199), min_size=len(windows), max_size=len(windows))), np.int64)
    audio = np.array(draw(st.lists(st.booleans(), min_size=len(windows), max_size=len(windows))), np.bool_)
    return windows, np.stack([times, np.where(audio, times, 3), np.where(audio, times, 4)]), audio


@settings(deadline=None)
@given(rows())
def test_windows_follow_one_another_and_keep_their_spacing(made: Any) -> None:
    windows, positions, audio = made
    joined = joined_positions(windows, positions, audio, gap=25, longest=10**6)
    for window in np.unique(windows):
        own = windows == window
        assert np.array_equal(np.diff(joined[0][own]), np.diff(positions[0][own]))
        assert joined[0][own].min() == (joined[0][windows < window].max(initial=-25) + 25)
    assert np.array_equal(joined[:, audio], np.stack([joined[0][audio]] * 4))
    assert np.array_equal(joined[1:3, ~audio], positions[1:, ~audio])
    assert np.array_equal(joined[3], joined[0])


@settings(deadline=None)
@given(rows(), st.integers(2, 300))
def test_time_is_compressed_into_what_was_trained(made: Any, longest: int) -> None:
    windows, positions, audio = made
    wide = joined_positions(windows, positions, audio, gap=25, longest=10**6)
    joined = joined_positions(windows, positions, audio, gap=25, longest=longest)
    assert joined[0].max() < max(longest, 1)
    order = np.argsort(wide[0], kind="stable")
    assert (np.diff(joined[0][order]) >= 0).all()
    if wide[0].max() < longest:
        assert np.array_equal(joined, wide)


@settings(deadline=None)
@given(rows(), st.integers(6, 100), st.integers(2, 300))
def test_the_last_axis_may_say_where_in_the_film_a_row_is(made: Any, count: int, longest: int) -> None:
    """Over one window's positions; a film of one window has its own time there, and the other axes do not change."""
    windows, positions, audio = made
    shares = (windows * 200 + positions[0]) / (count * 200)
    plain = joined_positions(windows, positions, audio, gap=25, longest=longest)
    joined = joined_positions(windows, positions, audio, gap=25, longest=longest, shares=shares)
    assert np.array_equal(joined[:3], plain[:3])
    assert np.array_equal(joined[3], (windows * 200 + positions[0]) * longest // (count * 200))
    alone = joined_positions(0 * windows, positions, audio, gap=25, longest=200, shares=positions[0] / 200)
    assert np.array_equal(alone[3], positions[0])


# --- with a model


@pytest.fixture(scope="module")
def engine(random_checkpoint: Path) -> Engine:
    return Engine.load(str(random_checkpoint), "cpu")


@pytest.fixture(scope="module")
def stock(stock_checkpoint: Path) -> Engine:
    return Engine.load(str(stock_checkpoint), "cpu")


def spread(engine: Engine, path: Path, window: float, **wishes: Any) -> Film:
    """A file as windows of a length."""
    film = film_of(replace(engine.plan(PLAN), **wishes), load_clip(path, PLAN).info.duration, window)
    assert film is not None
    return film


class Source:
    """Windows of a file, decoded here, and what was asked for."""

    def __init__(self, path: Path, film: Film, broken: Sequence[int] = ()) -> None:
        self.path, self.film, self.broken = path, film, broken
        self.asked: list[tuple[int, bool]] = []

    def __call__(self, number: int, full: bool) -> Fetched:
        self.asked.append((number, full))
        if number in self.broken:
            raise MediaError("it is damaged here")
        return Fetched(load_clip(self.path, self.film.window(number, full)))


@pytest.mark.parametrize("name", ["both", "silent", "dark"])
@pytest.mark.parametrize("model", ["engine", "stock"])
def test_a_single_window_handed_on_whole_is_the_clip(
    model: str, name: str, clips: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    """Rows, positions and answers, bit for bit: what is left of a film's way adds nothing of its own."""
    engine: Engine = request.getfixturevalue(model)
    plan = engine.plan(PLAN)
    clip = load_clip(clips[name], plan)
    film = Film(((0.0, 60.0),), plan, None)
    options = AskOptions(1.0, SHORT, SieveOptions(prefilter=False) if model == "stock" else SieveOptions())
    (handed,) = survey(engine, "film", film, ["What?"], lambda number, full: Fetched(clip), options)
    whole = engine.encode(clip)
    first, second = engine.place(whole, "What?"), engine.place(handed, "What?")
    for part in ("embeds", "input_ids", "position_ids", "rope_deltas"):
        assert torch.equal(getattr(first, part), getattr(second, part)), part
    assert all(np.allclose(ours, theirs) for ours, theirs in zip(whole.spans, handed.spans, strict=True))
    for budget in (1.0, 0.3):
        ours, theirs = (engine.ask(one, "What?", AskOptions(budget, SHORT)) for one in (handed, whole))
        assert (ours.answer, ours.tokens, ours.moments) == (theirs.answer, theirs.tokens, theirs.moments)


def test_counts_are_those_of_all_windows(engine: Engine, clips: dict[str, Path]) -> None:
    film = spread(engine, clips["both"], 1.0)
    source = Source(clips["both"], film)
    (handed,) = survey(engine, "film", film, ["What?"], source, AskOptions())
    assert source.asked == [(number, False) for number in range(len(film.spans))]
    windows = [engine.encode(load_clip(clips["both"], film.window(n, True))) for n in range(len(film.spans))]
    most = max(one.inputs.video_rows + one.inputs.audio_rows for one in windows)
    for budget, kept in ((0.1, None), (1.0, most)):
        answer = engine.ask(handed, "What?", AskOptions(budget, SHORT))
        assert answer.film is not None and handed.survivors is not None
        assert answer.tokens.video.total == sum(one.inputs.video_rows for one in windows)
        assert answer.tokens.audio.total == sum(one.inputs.audio_rows for one in windows)
        assert answer.tokens.kept == (kept or -(-answer.tokens.total // 10))
        assert answer.budget == budget
        assert answer.film.share == pytest.approx(min(budget, most / answer.tokens.total))
        assert (answer.film.windows, answer.film.survivors, answer.film.glance) == (len(windows), most, None)
        assert answer.film.frames == answer.sampling.frames == sum(one.sampling.frames for one in windows)
        assert answer.sampling.audio_seconds == pytest.approx(sum(one.sampling.audio_seconds for one in windows))
        assert answer.audio is AudioStatus.USED


def test_the_highest_rows_of_all_windows_survive(engine: Engine, clips: dict[str, Path]) -> None:
    film, options = spread(engine, clips["both"], 1.0), AskOptions()
    (handed,) = survey(engine, "film", film, ["What?"], Source(clips["both"], film), options)
    rankings = []
    for number in range(len(film.spans)):
        encoded = engine.encode(load_clip(clips["both"], film.window(number, True)))
        ranking = engine.pose(encoded, "What?").ranking(options, number)
        rankings.append(ranking[ranking.isfinite()])
    assert handed.survivors is not None
    count = len(handed.survivors.is_audio)
    least = torch.cat(rankings).sort(descending=True).values[count - 1]
    by_window = [int((ranking >= least).sum()) for ranking in rankings]
    starts = handed.survivors.spans[:, 0]
    assert [int(((starts >= a) & (starts < b)).sum()) for a, b in film.spans] == by_window


def test_a_checkpoint_may_want_the_film_s_own_time(
    engine: Engine, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the last axis of the last prompt; what is handed on is the same."""
    film = spread(engine, clips["both"], 1.0)
    (plain,) = survey(engine, "film", film, ["What?"], Source(clips["both"], film), AskOptions())
    monkeypatch.setattr(engine.model.thinker.config.text_config, "film_time", "whole")
    (handed,) = survey(engine, "film", film, ["What?"], Source(clips["both"], film), AskOptions())
    assert plain.survivors is not None and handed.survivors is not None
    assert np.array_equal(plain.survivors.spans, handed.survivors.spans)
    assert np.array_equal(plain.survivors.positions[:3], handed.survivors.positions[:3])
    begin, end = film.spans[0][0], film.spans[-1][1]
    told = handed.survivors.positions[3] / 25 * (end - begin) + begin  # a window has a second, and so 25 positions
    off = handed.survivors.spans[:, 0] - told
    assert (off > -1e-6).all() and (off < (end - begin) / 25).all()
    media = engine.model.thinker.special.in_pool(engine.place(handed, "What?").input_ids[0])
    placed = engine.place(handed, "What?").position_ids[:, 0]
    assert torch.equal(placed[3, media].diff(), torch.from_numpy(handed.survivors.positions[3]).diff())
    assert torch.equal(placed[0, ~media], placed[3, ~media])


@pytest.mark.parametrize("model", ["engine", "stock"])
def test_rows_rank_by_their_window_and_within_it_by_their_score(
    model: str, clips: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    engine: Engine = request.getfixturevalue(model)
    thinker = engine.model.thinker
    posed = engine.pose(engine.encode(load_clip(clips["both"], engine.plan(PLAN))), "What?")
    ranking = posed.ranking(AskOptions())
    own = ranking[ranking.isfinite()].double()
    scored = posed.score(chosen(thinker, AskOptions())[1])
    assert ranking.isfinite().equal(scored.candidates[0])
    assert torch.equal(own.argsort(stable=True), scored.scores[0][scored.candidates[0]].argsort(stable=True))
    sift = posed.sift(AskOptions(float(thinker.config.text_config.compression_ratio)))
    in_pool = thinker.special.in_pool(posed.prompt.input_ids[0, sift.sieved.kept[0]])
    with torch.inference_mode():
        expected = PER_LOGIT * relevance(thinker.model, sift.sieved, in_pool)
    assert float(own.logsumexp(0)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sieve", ["uniform", "random", "none"])
def test_controls_choose_among_windows_too(engine: Engine, clips: dict[str, Path], sieve: str) -> None:
    film, options = spread(engine, clips["both"], 1.0), AskOptions(0.2, SHORT, SieveOptions(sieve, seed=3))
    first, again = (survey(engine, "film", film, ["What?"], Source(clips["both"], film), options)[0] for _ in range(2))
    assert first.survivors is not None and again.survivors is not None
    assert np.array_equal(first.survivors.spans, again.survivors.spans)
    starts = first.survivors.spans[:, 0]
    counts = [int(((starts >= a) & (starts < b)).sum()) for a, b in film.spans[:-1]]
    if sieve == "none":
        assert len(starts) == 0
        assert engine.ask(first, "What?", options).tokens.kept == 0
    elif sieve == "uniform":
        assert max(counts) - min(counts) <= 1
    else:
        assert min(counts) > 0


def test_questions_share_one_pass(engine: Engine, clips: dict[str, Path]) -> None:
    film = spread(engine, clips["both"], 1.0)
    source = Source(clips["both"], film)
    both = survey(engine, "film", film, ["What?", "Who plays the piano?"], source, AskOptions())
    assert len(source.asked) == len(film.spans)
    for question, handed in zip(("What?", "Who plays the piano?"), both, strict=True):
        (alone,) = survey(engine, "film", film, [question], Source(clips["both"], film), AskOptions())
        assert timeless(engine.ask(handed, question, AskOptions(0.2, SHORT))) == timeless(
            engine.ask(alone, question, AskOptions(0.2, SHORT))
        )


def timeless(answer: Answer) -> Answer:
    first = answer
    return replace(first, latency=replace(first.latency, **dict.fromkeys(vars(first.latency), 0.0)), peak_memory=None)  # type: ignore[arg-type]


def test_windows_worth_a_look_are_read_again_at_the_full_rate(engine: Engine, clips: dict[str, Path]) -> None:
    film = replace(spread(engine, clips["both"], 1.0, fps=8.0), glance=2)
    source = Source(clips["both"], film)
    (handed,) = survey(engine, "film", film, ["What?"], source, AskOptions(), look=2)
    glanced = [(number, False) for number in range(len(film.spans))]
    assert source.asked[: len(glanced)] == glanced
    again = source.asked[len(glanced) :]
    assert len(again) == 2 and all(full for _, full in again)
    facts = engine.ask(handed, "What?", AskOptions(0.1, SHORT)).film
    assert facts is not None
    assert (facts.looked, facts.glance) == (tuple(film.spans[number] for number, _ in again), 2)
    few, many = 2, len(load_clip(clips["both"], film.window(0, True)).frame_times)  # type: ignore[arg-type]
    assert facts.frames == many * 2 + few * (len(film.spans) - 2)
    (glance,) = survey(engine, "film", film, ["What?"], Source(clips["both"], film), AskOptions(), look=0)
    only = engine.ask(glance, "What?", AskOptions(0.1, SHORT)).film
    assert only is not None and (only.looked, only.frames) == ((), few * len(film.spans))


def test_a_window_that_cannot_be_read_is_said_and_costs_no_other(engine: Engine, clips: dict[str, Path]) -> None:
    film = spread(engine, clips["both"], 1.0)
    (handed,) = survey(engine, "film", film, ["What?"], Source(clips["both"], film, broken=[1]), AskOptions())
    answer = engine.ask(handed, "What?", AskOptions(0.1, SHORT))
    assert answer.audio is AudioStatus.TRUNCATED
    assert "0:01 to 0:02 could not be read: it is damaged here" in answer.notices
    assert answer.film is not None and answer.film.unread == 1
    with pytest.raises(MediaError, match="damaged here"):
        survey(engine, "film", film, ["What?"], Source(clips["both"], film, broken=range(9)), AskOptions())


def test_whoever_watches_hears_of_every_window(engine: Engine, clips: dict[str, Path]) -> None:
    film, heard = spread(engine, clips["dark"], 1.0), []
    survey(engine, "film", film, ["What?"], Source(clips["dark"], film), watch=lambda *progress: heard.append(progress))
    total = sum(end - start for start, end in film.spans)
    assert [done for done, _, _ in heard] == pytest.approx([start for start, _ in film.spans] + [total])
    assert {(of, stage) for _, of, stage in heard} == {(total, "reading")}


def test_a_file_as_a_film_and_as_a_clip(
    engine: Engine, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the decoding process and the cache: the second time nothing is decoded."""
    path, plan, films = str(clips["both"]), engine.plan(PLAN), FilmOptions(window=1.0)
    clip = open_media(engine, path, plan, ["What?", "Who?"])
    assert clip[0] is clip[1] and clip[0].survivors is None
    assert same(clip[0], engine.read(path, plan))

    revision = engine.source
    monkeypatch.setattr(engine, "features", cache_of(engine, Shelf(tmp_path / "features", 2**30)))
    decoded: list[str] = []
    original = Worker.decode
    monkeypatch.setattr(Worker, "decode", lambda self, path, plan: decoded.append(path) or original(self, path, plan))
    first, second = (open_media(engine, path, plan, ["What?"], films=films)[0] for _ in range(2))
    film = film_in(window_of(engine, films), first.info, plan)
    assert film is not None and len(decoded) == len(film.spans)
    assert (first.cached, second.cached) == (False, True)
    assert same(first, second)
    assert first.survivors is not None and second.survivors is not None
    assert np.array_equal(first.survivors.positions, second.survivors.positions)
    assert engine.source is revision


def same(first: Encoded, second: Encoded) -> bool:
    parts = ((first.video, second.video), (first.audio, second.audio))
    return all(a is b is None or (a is not None and b is not None and torch.equal(a, b)) for a, b in parts)


def cache_of(engine: Engine, shelf: Shelf) -> Any:
    from echopix_cli.weights.checkpoint import open_checkpoint

    return open_features(shelf, engine.model, engine.processor.rules, open_checkpoint(engine.source.folder))


def test_a_file_that_changes_meanwhile_is_refused(engine: Engine, clips: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "growing.mp4"
    path.write_bytes(clips["both"].read_bytes())

    def watch(done: float, total: float, stage: str) -> None:
        with path.open("ab") as file:
            file.write(b"\0\0\0\x08free")

    with pytest.raises(MediaError, match=r"growing\.mp4 changed while it was read"):
        open_media(engine, str(path), engine.plan(PLAN), ["What?"], films=FilmOptions(window=1.0), watch=watch)


def test_a_still_picture_is_never_a_film(engine: Engine) -> None:
    clip = Clip("a.png", None, None, None, AudioStatus.ABSENT, 0.0, None, load_info("png_pipe", 999.0))
    assert film_in(window_of(engine, FilmOptions()), clip.info, engine.plan(PLAN)) is None


def load_info(form: str, duration: float) -> Any:
    from echopix_cli.media import MediaInfo

    return MediaInfo(form, duration, ())
