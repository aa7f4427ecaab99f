"""Movies: what is asked about occurs once or never, whatever the seed, and rendering joins scenes without a click."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import scene_oracle
import wide_oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from echopix_cli.errors import UsageError
from echopix_cli.results import AudioStatus
from echopix_cli.scenes import (
    LONGEST_MOVIE,
    MOVIE_FAMILIES,
    PICTURES,
    Item,
    Movie,
    ask_as_movie,
    make_movie,
    make_script,
    movie_clip,
    movie_sound,
    movie_span,
    render_audio,
    render_frames,
    sample_times,
    write_movie,
)
from echopix_cli.scenes.script import NUMBERS
from echopix_cli.scenes.wordings import MOVIE_WORDINGS, WIDE, Wordings, words_of
from echopix_cli.scenes.worlds import WORLDS

any_movie = st.builds(
    make_movie,
    st.sampled_from(("train", "test", "wide-train", "wide-test", "wide-composer")),
    st.integers(0, 2**40),
    st.integers(8, 60),
    st.sampled_from((None, *MOVIE_FAMILIES)),
    st.integers(0, 3),
)


def held(movie: Movie, name: str) -> list[tuple[int, str]]:
    """Windows in which a name sounds or is shown, with the modality."""
    found = []
    for window in range(movie.windows):
        script = movie.script(window)
        found += [(window, "audio")] * (name in {note.instrument for note in script.notes})
        found += [(window, "video")] * [sprite.name for sprite in script.sprites].count(name)
    return found


def asked(movie: Movie, item: Item) -> list[str]:
    return [name for name in sorted(movie.reserved.names) if re.search(rf"\b{name}\b", item.question)]


@settings(max_examples=20, derandomize=True)
@given(any_movie)
def test_what_is_asked_about_occurs_once_or_never(movie: Movie) -> None:
    assert {item.question for item in movie.items if item.answer in ("yes", "no")}
    for item in movie.items:
        names = asked(movie, item)
        assert len(names) == (2 if item.family == "order" else 1), item
        assert item.answer not in movie.reserved.names or item.family == "order"
        for name in names:
            places = held(movie, name)
            assert len(places) == (0 if item.answer == "no" else 1), item
            for window, modality in places:
                begin, end = movie.span(window)
                own = [piece for piece in item.evidence if begin <= piece.start < piece.end <= end]
                assert modality in {piece.modality for piece in own}
        if item.answer == "no":
            assert [(piece.start, piece.end) for piece in item.evidence] == [(0.0, movie.duration)]
        else:
            spans = [movie.span(window) for name in names for window, _ in held(movie, name)]
            assert all(any(a <= p.start < p.end <= b for a, b in spans) for p in item.evidence)


@settings(max_examples=20, derandomize=True)
@given(any_movie)
def test_answers_are_what_a_careful_observer_would_say(movie: Movie) -> None:
    oracle = wide_oracle if movie.split in WORLDS else scene_oracle
    for item in movie.items:
        if item.answer == "no":
            continue
        whole = {name: movie.script(held(movie, name)[0][0]) for name in asked(movie, item)}
        if item.family in ("instrument", "object", "heard", "exists"):
            (script,) = whole.values()
            assert oracle.answer(script, item.question) == item.answer
            continue
        seconds = {}
        for name, script in whole.items():
            window, modality = held(movie, name)[0]
            seen = oracle.watch(script)
            rows = seen.sounds[name] if modality == "audio" else seen.shows[name]
            seconds[name] = 8 * window + np.nonzero(rows)[0] / 100
        if item.family == "order":
            first, last = sorted(seconds, key=lambda name: seconds[name][0])
            assert item.answer == first and seconds[first][-1] < seconds[last][0]
        else:
            (times,) = seconds.values()
            assert {NUMBERS[int(5 * at / movie.duration)] for at in times} == {item.answer}


@settings(max_examples=15, derandomize=True)
@given(any_movie, st.sampled_from((None, *MOVIE_FAMILIES)), st.integers(0, 3))
def test_needles_share_the_haystack_and_all_else(movie: Movie, family: str | None, take: int) -> None:
    again = make_movie(movie.split, movie.seed, movie.duration, movie.family, movie.take)
    assert again == movie
    other = make_movie(movie.split, movie.seed, movie.duration, family, take)
    assert other.haystack == movie.haystack and other.reserved == movie.reserved and other.name == movie.name
    for one in (movie, other):
        places = {needle.window for needle in one.needles}
        same = [one.script(k) is one.haystack[k] for k in range(one.windows)]
        assert same == [k not in places for k in range(one.windows)]
        assert all(one.span(place)[1] - one.span(place)[0] == 8.0 for place in places)
    if movie.family is not None:
        assert movie.items[0].family == movie.family


def test_a_longer_movie_begins_as_a_shorter_one() -> None:
    short, long = (make_movie("test", 3, seconds, "object") for seconds in (20, 41))
    assert (short.windows, long.windows) == (3, 6)
    assert long.haystack[:3] == short.haystack
    assert make_movie("test", 4, 20, "object").haystack != short.haystack


def _worded(words: Wordings) -> re.Pattern[str]:
    texts = "|".join(re.escape(text) for texts in words.values() for text in texts)
    return re.compile(re.sub(r"\\{\w+\\}", r"\\w+", texts.replace(r"\{a\}", "an?")))


@pytest.mark.parametrize("split", [split for split in WORLDS if WORLDS[split].words == "test"])
def test_wide_test_movies_are_asked_in_words_that_were_held_out(split: str) -> None:
    own, trained = _worded(words_of(split)), _worded(words_of("wide-train"))
    asked = {item.question for seed in range(12) for item in make_movie(split, seed, 40).items}
    assert len(asked) > 60
    assert [text for text in asked if not own.fullmatch(text)] == []
    assert [text for text in asked if trained.fullmatch(text)] == []


@pytest.mark.parametrize("split", ["train", "val", "test", "wide-train", "wide-val"])
def test_other_movies_are_asked_in_trainings_words(split: str) -> None:
    trained = _worded(words_of("wide-train" if split in WORLDS else "train"))
    assert all(trained.fullmatch(item.question) for seed in range(4) for item in make_movie(split, seed, 40).items)


def test_wordings_of_movies_are_apart_and_made_of_words_that_training_has() -> None:
    words = {}
    for part, kinds in MOVIE_WORDINGS.items():
        texts = [text for kind in (*kinds.values(), *WIDE[part].values()) for text in kind]
        words[part] = set(re.findall(r"[a-z]+|[?.,]", re.sub(r"\{\w+\}", "", " ".join(texts).lower())))
    assert words["test"] <= words["train"]
    assert MOVIE_WORDINGS["train"].keys() == MOVIE_WORDINGS["test"].keys()


@pytest.mark.parametrize("shift", ["wide-font", "wide-style"])
def test_a_shift_repeats_the_movies_of_wide_test(shift: str) -> None:
    for family in MOVIE_FAMILIES:
        own, other = make_movie("wide-test", 5, 40, family), make_movie(shift, 5, 40, family)
        assert [(item.question, item.answer) for item in own.items] == [(i.question, i.answer) for i in other.items]
        assert own != other


def test_takes_differ_and_yes_is_as_frequent_as_no() -> None:
    for family in ("heard", "exists"):
        answers = [make_movie("test", 1, 8, family, take).items[0].answer for take in range(24)]
        assert 6 < answers.count("yes") < 18
    asked_about = {make_movie("test", 1, 8, "object", take).items[0].question for take in range(12)}
    assert len(asked_about) > 4


def test_a_movie_of_every_family_asks_them_all() -> None:
    movie = make_movie("test", 7, 40)
    assert {item.family for item in movie.items} == set(MOVIE_FAMILIES)
    assert [needle.modality for needle in movie.needles].count("audio") == 2
    assert len({needle.window for needle in movie.needles}) == 4


@pytest.mark.parametrize(
    "arguments", [("test", 0, 7), ("test", 0, 8.5), ("test", 0, LONGEST_MOVIE + 1), ("test", 0, 60, "sync"),
                  ("test", -1, 60), ("test", 0, 60, None, -1), ("dev", 0, 60)]
)  # fmt: skip
def test_nonsense_is_refused_with_a_hint(arguments: tuple[str, int, int]) -> None:
    with pytest.raises(UsageError) as caught:
        make_movie(*arguments)
    assert caught.value.hint


@pytest.fixture(scope="module")
def movie() -> Movie:
    """Three windows, of which the last is cut after three seconds."""
    return make_movie("test", 7, 19)


def test_a_window_is_its_scene_at_its_time(movie: Movie) -> None:
    clips = [movie_clip(movie, window, 56) for window in range(3)]
    assert [(clip.start, clip.end) for clip in clips] == [(0.0, 8.0), (8.0, 16.0), (16.0, 19.0)]
    for window, (clip, own) in enumerate(zip(clips, [sample_times(8.0)] * 2 + [np.linspace(0, 2.96, 6)], strict=True)):
        assert clip.frame_times is not None and clip.frames is not None and clip.waveform is not None
        assert (clip.frame_times == clip.start + own).all()
        assert (clip.frames == render_frames(movie.script(window), own, 56)).all()
        assert len(clip.waveform) == 16000 * (clip.end - clip.start)
        assert (clip.path, clip.audio_status) == (movie.name, AudioStatus.USED)
    across = movie_span(movie, 4.0, 18.0, 28, 56, heard=10.0)
    assert across.frames is not None and across.frame_times is not None and across.waveform is not None
    assert (across.frames[8] == render_frames(movie.script(1), across.frame_times[8:9] - 8.0, 56)[0]).all()
    assert (across.frame_times[0], across.frame_times[-1]) == (4.0, 17.96)
    whole = np.concatenate([movie_sound(movie, window) for window in range(3)])
    assert (across.waveform == whole[64_000 : 64_000 + 160_000]).all()
    assert across.audio_status == AudioStatus.TRUNCATED
    mute, dark = movie_clip(movie, 1, 56, "audio"), movie_clip(movie, 1, 56, "video")
    assert (mute.waveform, mute.audio_status) == (None, AudioStatus.DISABLED)
    assert dark.frames is None and dark.frame_times is None and dark.waveform is not None


@pytest.mark.parametrize("split", ["test", "wide-test"])
def test_scenes_meet_in_silence_and_are_untouched_elsewhere(split: str) -> None:
    movie = make_movie(split, 3, 83)
    waves = [movie_sound(movie, window) for window in range(movie.windows)]
    assert all(wave[0] == wave[-1] == 0.0 for wave in waves)
    steps = [np.abs(np.diff(wave)).max() for wave in waves]
    assert max(steps) > 0.01  # there is sound, noise too
    edge = 160  # samples of 10 ms
    for window, wave in enumerate(waves):
        # Up to the seam steps get no larger than they were: a click would be one that did.
        scene = render_audio(movie.script(window))
        if scene is not None:
            scene = scene[: len(wave)]
            assert (wave[edge:-edge] == scene[edge:-edge]).all()
            assert (np.abs(wave) <= np.abs(scene)).all()


def test_a_movie_decodes_back_to_its_windows(movie: Movie, tmp_path: Path) -> None:
    path, told = tmp_path / "movie.mp4", list[float]()
    write_movie(movie, path, size=96, fps=5, watch=told.append)
    assert [p.name for p in tmp_path.iterdir()] == ["movie.mp4"]
    assert told == [8.0, 16.0, 19.0]
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        decoded = list(container.decode(audio=0))
        assert all(b.pts == a.pts + a.samples for a, b in pairwise(decoded))
        wave = np.concatenate([frame.to_ndarray()[0] for frame in decoded])
    assert len(frames) == 95
    for at in (20, 60, 90):  # a frame of each window
        window, inside = divmod(at / 5, 8)
        truth = render_frames(movie.script(int(window)), np.array([inside]), 96)[0].transpose(1, 2, 0)
        assert np.abs(frames[at].astype(int) - truth).mean() < 16
    source = np.concatenate([movie_sound(movie, window) for window in range(3)])
    assert abs(len(wave) - len(source)) < 3000
    n = min(len(wave), len(source))
    likeness = [np.corrcoef(wave[:n], np.roll(source[:n], lag))[0, 1] for lag in (0, 1024, -1024)]
    assert max(likeness) > 0.9


def test_every_picture_and_instrument_is_asked_about_in_some_movie() -> None:
    reserved = [make_movie("test", seed, 8, "heard").reserved for seed in range(40)]
    assert {name for one in reserved for name in one.seen} == set(PICTURES)
    assert all(len(one.names) == 6 for one in reserved)


@settings(max_examples=60, derandomize=True)
@given(st.sampled_from(("train", "wide-train")), st.integers(0, 2**40))
def test_one_scene_is_asked_as_a_movie_would_be(split: str, seed: int) -> None:
    """Answers are those that notes and sprites give, and the evidence is what is asked about."""
    script = make_script(split, seed)
    begins = {("plays", note.instrument): note.start for note in reversed(script.notes)}
    begins |= {("shown", s.name): s.show[0] for s in sorted(script.sprites, key=lambda s: -s.show[0])}
    ends: dict[tuple[str, str], float] = {}
    for kind, name, end in (
        *(("plays", note.instrument, note.end) for note in script.notes),
        *(("shown", sprite.name, sprite.show[1]) for sprite in script.sprites),
    ):
        ends[kind, name] = max(end, ends.get((kind, name), 0.0))
    for item in ask_as_movie(np.random.default_rng(seed), script):
        kind = "plays" if item.evidence[0].modality == "audio" else "shown"
        names = [name for verb, name in begins if verb == kind and re.search(rf"\b{name}\b", item.question)]
        assert min(piece.start for piece in item.evidence) == min(begins[kind, name] for name in names)
        if item.family == "order":
            assert item.answer == min(names, key=lambda name: begins[kind, name])
            assert abs(begins[kind, names[0]] - begins[kind, names[1]]) >= 0.5
        else:
            (name,) = names
            fifth = script.duration / 5
            assert int(begins[kind, name] / fifth) == int(ends[kind, name] / fifth) == NUMBERS.index(item.answer)
