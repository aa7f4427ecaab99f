"""What is said of a film, and which of its windows are looked at and taken for the same file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from clips import write_clip
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.engine import Engine
from echopix_cli.engine.film import film_of
from echopix_cli.engine.opening import open_media, window_of
from echopix_cli.engine.options import FilmOptions
from echopix_cli.engine.telling import merged, shortened
from echopix_cli.errors import UsageError
from echopix_cli.files import write_whole
from echopix_cli.media import DecodePlan, MediaInfo, TrackInfo
from echopix_cli.times import clock, parse_time

PLAN = DecodePlan()


@pytest.fixture(scope="module")
def engine(random_checkpoint: Path) -> Engine:
    return Engine.load(str(random_checkpoint), "cpu")


@given(st.sets(st.integers(0, 30)))
def test_what_is_said_of_neighbours_is_said_once_from_the_first_to_the_last(windows: set[int]) -> None:
    """Every window that it is said of lies within a stretch, and no other does."""
    said = [
        (n, f"there is no picture between {clock(8 * n)} and {clock(8 * n + 8)}; only the sound was used")
        for n in sorted(windows)
    ]
    covered = set()
    for notice in merged(said):
        words = notice.split()
        first, last = parse_time(words[5]), parse_time(words[7].rstrip(";"))
        covered |= set(range(int(first // 8), int(last // 8)))
        assert notice.endswith("; only the sound was used")
    assert covered == windows


def test_each_kind_is_said_and_no_number_is_lost() -> None:
    said = [(n, f"there is no picture between {clock(16 * n)} and {clock(16 * n + 8)}") for n in range(0, 20, 2)]
    said += [(30, "parts of the audio track are damaged and were skipped (8:00–8:04)")]
    said += [(31, "parts of the audio track are damaged and were skipped (8:08–8:09)")]
    said += [(n, f"3 of 16 sampled frames could not be decoded ({clock(8 * n)}–{clock(8 * n + 1)})") for n in (40, 41)]
    short = shortened(merged(said))
    assert short[3] == "and 7 more of this kind"
    assert short[4] == "parts of the audio track are damaged and were skipped (8:00–8:09)"
    assert len(short[5:]) == 2, "how many were lost is of one window"


def test_all_windows_are_looked_at_where_that_was_asked_for(engine: Engine, clips: dict[str, Path]) -> None:
    """Also those of which no row is in the pool any more."""
    plan = engine.plan(DecodePlan(fps=16.0, max_frames=4))
    seen = open_media(engine, str(clips["both"]), plan, ["What?"], films=FilmOptions(window=0.1, look=1000))[0]
    facts = seen.survivors.facts  # type: ignore[union-attr]
    assert facts.windows > 10 and len(facts.looked) == facts.windows - facts.unread
    some = open_media(engine, str(clips["both"]), plan, ["What?"], films=FilmOptions(window=0.1, look=9))[0]
    assert len(some.survivors.facts.looked) == 9  # type: ignore[union-attr]


def test_a_window_longer_than_the_context_is_refused(engine: Engine) -> None:
    most = engine.plan(PLAN).max_audio_seconds
    assert most is not None
    with pytest.raises(UsageError, match="longer than this model's context"):
        window_of(engine, FilmOptions(window=most + 1.0))
    assert window_of(engine, FilmOptions(window=float(int(most)))) == int(most)


@pytest.mark.parametrize("change", ["mode", "link", "content"])
def test_other_permissions_and_links_are_no_change(
    engine: Engine, clips: dict[str, Path], tmp_path: Path, change: str
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(clips["both"].read_bytes())
    times = os.stat(path)

    def watch(done: float, total: float, stage: str) -> None:
        if change == "mode":
            path.chmod(0o600 if path.stat().st_mode & 0o77 else 0o644)
        elif change == "link":
            (tmp_path / f"{len(os.listdir(tmp_path))}.mp4").hardlink_to(path)
        else:
            content = bytearray(path.read_bytes())
            content[-1] = (content[-1] + 1) % 256  # anew each time, however often a slow machine calls
            path.write_bytes(content)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    films = FilmOptions(window=1.0)
    if change == "content":
        with pytest.raises(Exception, match="changed while it was read"):
            open_media(engine, str(path), engine.plan(PLAN), ["What?"], films=films, watch=watch)
    else:
        assert open_media(engine, str(path), engine.plan(PLAN), ["What?"], films=films, watch=watch)[0].survivors


@pytest.mark.parametrize("window", [0.5, 1.0])
def test_a_film_that_breaks_off_is_said_however_short_its_windows(
    engine: Engine, tmp_path: Path, window: float
) -> None:
    whole = write_clip(tmp_path / "a.mkv", seconds=9.0)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (seen,) = open_media(engine, str(cut), engine.plan(PLAN), ["What?"], films=FilmOptions(window=window))
    assert any("the rest is missing or damaged" in notice for notice in seen.notices), seen.notices
    (seen,) = open_media(engine, str(whole), engine.plan(PLAN), ["What?"], films=FilmOptions(window=window))
    assert not any("missing" in notice for notice in seen.notices), seen.notices


def test_the_line_says_what_will_be_taken() -> None:
    info = MediaInfo("mov", 1000.0, (TrackInfo("video", 0), TrackInfo("audio", 0)))
    slow = film_of(DecodePlan(fps=0.1, min_frames=4), 32.0, 8.0)
    assert slow is not None and "1 frame every 2 s" in slow.words(info, 4)
    few = film_of(DecodePlan(fps=2.0, max_frames=2, min_frames=1), 1000.0, 8.0)
    assert few is not None and few.words(info, 4) == (
        "125 windows of 0:08, 1 frame every 8 s (1 a window, though 125 are more than 10 times --max-frames), "
        "then 4 of them at 0.25 frames a second, all of the sound"
    )
    # Two hours and forty minutes at the defaults are the most that ten times as many frames hold.
    for hours, more in ((9600.0, False), (9608.0, True)):
        long = film_of(DecodePlan(fps=2.0, max_frames=120), hours, 8.0)
        assert long is not None and (long.glance, "more than" in long.words(info, 4)) == (1, more)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a read-only file system even what is not there cannot be removed."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.open", refuse)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(Exception, match=r"cannot write .*: Read-only file system"):
        write_whole(tmp_path / "a", b"")
