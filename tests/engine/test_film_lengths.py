"""Films whose header is wrong about their length, and reading that breaks off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from clips import write_clip

from echopix_cli.decoding.worker import Worker
from echopix_cli.engine import AskOptions, Encoded, Engine, posing
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.film import Film, film_of
from echopix_cli.engine.opening import film_in, open_media, survey, window_of
from echopix_cli.engine.options import FilmOptions
from echopix_cli.errors import FileLost, MediaError, ModelError, PastEnd
from echopix_cli.media import DecodePlan, MediaInfo, TrackInfo, load_clip, probe
from echopix_cli.results import AudioStatus

PLAN = DecodePlan()
FILMS = FilmOptions(window=1.0)
LIES = {"days": 99 * 3600e3, "aeons": 1e18, "short": 300.0, "negative": -5e3, "no number": float("nan"), "untold": None}


@pytest.fixture(scope="module")
def engine(random_checkpoint: Path) -> Engine:
    return Engine.load(str(random_checkpoint), "cpu")


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Matroska of a little less than four seconds, which states its duration once, in milliseconds."""
    return write_clip(tmp_path_factory.mktemp("lengths") / "honest.mkv", seconds=3.75)


def telling(path: Path, target: Path, duration: float | None) -> Path:
    """The same file with another duration in its header, or none."""
    content = bytearray(path.read_bytes())
    place = content.index(b"\x44\x89\x88")
    if duration is None:
        content[place : place + 11] = b"\xec\x89" + bytes(9)
    else:
        content[place + 3 : place + 11] = np.array([duration], ">f8").tobytes()
    target.write_bytes(content)
    return target


def opened(engine: Engine, path: Path, films: FilmOptions = FILMS) -> Encoded:
    return open_media(engine, str(path), engine.plan(PLAN), ["What?"], films=films)[0]


@pytest.mark.parametrize("lie", LIES)
def test_a_film_is_as_long_as_it_plays(engine: Engine, honest: Path, tmp_path: Path, lie: str) -> None:
    told, true = opened(engine, telling(honest, tmp_path / "told.mkv", LIES[lie])), opened(engine, honest)
    assert told.survivors is not None and true.survivors is not None
    assert told.survivors.facts == true.survivors.facts
    assert (told.survivors.facts.windows, told.survivors.facts.unread) == (4, 0)
    assert np.array_equal(told.survivors.spans, true.survivors.spans)
    assert told.audio_status is true.audio_status
    assert told.sampling.audio_seconds == pytest.approx(3.75, abs=0.2)


@pytest.mark.parametrize("lie", LIES)
def test_what_one_window_holds_is_a_clip_whatever_the_header_says(
    engine: Engine, honest: Path, tmp_path: Path, lie: str
) -> None:
    path = telling(honest, tmp_path / "told.mkv", LIES[lie])
    encoded, clip = opened(engine, path, FilmOptions(window=4.0)), engine.read(str(path), engine.plan(PLAN))
    assert encoded.survivors is None
    assert encoded.video is not None and clip.video is not None and torch.equal(encoded.video, clip.video)
    assert encoded.audio is not None and clip.audio is not None and torch.equal(encoded.audio, clip.audio)


def test_the_last_window_that_is_read_to_find_the_end_is_read_once(
    engine: Engine, honest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float | None] = []
    original = Worker.decode
    monkeypatch.setattr(
        Worker, "decode", lambda self, path, plan: asked.append(plan.start) or original(self, path, plan)
    )
    opened(engine, honest)
    assert asked == [3.0, 0.0, 1.0, 2.0]


def test_a_span_past_the_end_tells_where_that_is(honest: Path) -> None:
    """Also after its way through the decoding process."""
    worker = Worker()
    try:
        with pytest.raises(PastEnd, match="ends at 0:03") as raised:
            worker.decode(str(honest), replace(PLAN, start=20.0, end=30.0))
        assert raised.value.end == pytest.approx(3.75, abs=0.3)
    finally:
        worker.close()


def windows(path: Path, length: float = 1.0) -> Film:
    film = film_of(PLAN, probe(path).duration, length)
    assert film is not None
    return film


@pytest.mark.parametrize("becomes", ["nothing", "another"])
def test_a_file_that_is_lost_is_said_at_once(engine: Engine, honest: Path, tmp_path: Path, becomes: str) -> None:
    path = tmp_path / "lost.mkv"
    path.write_bytes(honest.read_bytes())
    done: list[float] = []

    def watch(seconds: float, total: float, stage: str) -> None:
        done.append(seconds)
        if seconds == 1.0 and becomes == "nothing":
            path.unlink(missing_ok=True)
        elif seconds == 1.0:
            path.write_text("no media any more")

    with pytest.raises(FileLost, match=r"lost\.mkv changed while it was read"):
        open_media(engine, str(path), engine.plan(PLAN), ["What?"], films=FilmOptions(window=0.5), watch=watch)
    assert max(done) < 3.5


def test_a_window_may_fail_but_what_no_window_can_do_ends_all(engine: Engine, honest: Path) -> None:
    film, asked = windows(honest), list[int]()

    def fetch(number: int, full: bool) -> Fetched:
        asked.append(number)
        if number == 1:
            raise MediaError("it is damaged here")
        if number == 2:
            raise FileLost("reading it has come no further")
        return Fetched(load_clip(honest, film.window(number, full)))

    with pytest.raises(FileLost, match="no further"):
        survey(engine, "film", film, ["What?"], fetch, AskOptions())
    assert asked == [0, 1, 2]


def test_who_watches_can_end_it_while_a_window_is_waited_for(engine: Engine, honest: Path) -> None:
    film, asked, let, read = windows(honest), Event(), Event(), Event()

    def fetch(number: int, full: bool) -> Fetched:
        asked.set()
        let.wait(60.0)
        read.set()
        return Fetched(load_clip(honest, film.window(number, full)))

    def watch(done: float, total: float, stage: str) -> None:
        if asked.is_set():
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            survey(engine, "film", film, ["What?"], fetch, AskOptions(), watch=watch)
        assert not read.is_set(), "nor is the window waited for"
    finally:
        let.set()


def test_no_file_holds_more_than_its_windows(honest: Path) -> None:
    """A last window goes on a little beyond what the header says, and no further than was asked for."""
    film = windows(honest)
    assert film.window(len(film.spans) - 1, True).end == pytest.approx(film.spans[-1][1] + 1.0)
    part = film_of(replace(PLAN, end=2.5), 3.75, 1.0)
    assert part is not None and part.window(len(part.spans) - 1, True).end == 2.5
    assert film_of(PLAN, float("nan"), 1.0) is film_of(PLAN, -5.0, 1.0) is film_of(PLAN, float("inf"), 1.0) is None


def test_a_sound_is_not_glanced_at(engine: Engine) -> None:
    """Or its windows would be read again at a rate that no sound has."""
    for kind, glanced in (("audio", False), ("video", True)):
        film = film_in(
            window_of(engine, FilmOptions()), MediaInfo("matroska", 7200.0, (TrackInfo(kind, 0),)), engine.plan(PLAN)
        )
        assert film is not None and (film.glance is not None) is glanced


def later(source_path: Path, folder: Path, gap: int, damaged: bool) -> Path:
    """What a file plays, and its sound once more after a gap in seconds.

    If ``damaged``, it is sound alone, of which the last thing before the gap cannot be decoded.
    """
    path = folder / "later.mkv"
    with av.open(str(path), "w") as target:
        out: dict[str, Any] = {}
        for offset in (0, gap):
            with av.open(str(source_path)) as source:
                tracks = [track for track in source.streams if track.type == "audio" or not (damaged or offset)]
                out = out or {track.type: target.add_stream_from_template(track) for track in tracks}
                for packet in [packet for packet in source.demux(tracks) if packet.pts is not None]:
                    assert packet.pts is not None and packet.dts is not None
                    if damaged and not offset and packet.pts * packet.time_base > 3:
                        packet.update(b"\xff" * packet.size)
                    shift = round(offset / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = out[packet.stream.type]
                    target.mux(packet)
    return path


@pytest.mark.parametrize("damaged", [False, True])
def test_hours_of_nothing_are_passed_over(damaged: bool, engine: Engine, honest: Path, tmp_path: Path) -> None:
    """A recording that goes on five hours later: 18,000 windows of nothing are no loss, and take no hours.

    Nor do they where the last thing before them is damaged, so that all of them are the place of what was lost.
    """
    path = later(honest, tmp_path, 5 * 3600, damaged)
    asked: list[float] = []
    original = Worker.decode

    def decode(self: Worker, path: str, plan: DecodePlan) -> Any:
        asked.append(plan.from_time)
        return original(self, path, plan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "decode", decode)
        handed = opened(engine, path, FilmOptions(window=1.0, look=8))
    assert handed.survivors is not None
    facts = handed.survivors.facts
    assert len(asked) < 150
    assert facts.windows > 17_990
    assert handed.survivors.spans[:, 1].max() > 5 * 3600
    if damaged:
        assert facts.unread == facts.windows - 8  # four before and as many after
        assert handed.audio_status is AudioStatus.TRUNCATED
        assert handed.notices[-1] == "0:03 to 4:59:59 could not be read: the sound is damaged (0:03–4:59:59)"
    else:
        assert facts.unread == 0
        assert handed.audio_status is AudioStatus.USED
        assert (0.0, 1.0) in facts.looked  # and read again
        assert handed.notices[-1] == "nothing is shown or played, 0:04 to 5:00:00"


def test_a_look_ahead_that_comes_to_nothing_costs_nothing_else(
    engine: Engine, honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that one window may take is not enough for many; and some places of a file may not be readable."""
    decode, looks = Worker.decode, list[float]()

    def decoded(worker: Worker, path: str, plan: DecodePlan) -> Any:
        assert plan.start is not None and plan.end is not None
        if plan.end - plan.start > 4:
            looks.append(plan.start)
            raise FileLost("reading it took longer than 1 s")
        return decode(worker, path, plan)

    def unreadable(worker: Worker, path: str) -> str:
        raise MediaError("a place in it cannot be read")

    monkeypatch.setattr(Worker, "decode", decoded)
    monkeypatch.setattr(Worker, "identity", unreadable)
    handed = opened(engine, later(honest, tmp_path, 40, damaged=False))
    assert handed.survivors is not None and looks
    assert (handed.survivors.facts.windows, handed.survivors.facts.unread) == (44, 0)
    assert handed.survivors.spans[:, 1].max() > 42


def test_a_moment_of_sound_at_a_border_is_no_window_that_could_not_be_read(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    sound = np.zeros(16_000 * 6, np.float32)
    sound[: 16_000 * 2 + 300] = sound[16_000 * 4 :] = 0.3
    soundfile.write(path, sound, 16_000)
    film = film_of(replace(PLAN, video=False), 6.0, 2.0)
    assert film is not None
    handed = opened(engine, path, FilmOptions(window=2.0))
    assert handed.survivors is not None and handed.survivors.facts.unread == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_windows_whose_relevance_is_no_number_are_not_left_out(
    engine: Engine, honest: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """As where half precision overflows: an answer would come of no picture and no sound."""
    monkeypatch.setattr(posing, "relevance", lambda *_: value)
    with pytest.raises(ModelError, match="attention logits of this model are NaN or infinite"):
        opened(engine, honest)


def test_where_sound_is_never_kept_it_takes_no_place_in_a_film(
    engine: Engine, honest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.model.config.text, "retain_token", "v")
    handed = opened(engine, honest)
    assert handed.survivors is not None
    assert len(handed.survivors.is_audio) and not handed.survivors.is_audio.any()


def test_what_is_held_for_each_question_is_on_the_host(engine: Engine, honest: Path) -> None:
    handed = open_media(engine, str(honest), engine.plan(PLAN), ["What?", "Who?"], films=FILMS)
    for one in handed:
        for part in (one.video, one.audio):
            assert part is not None and part.device.type == "cpu"
