"""What is said of how a film is read, while it is and in the table."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from clips import write_clip
from terminals import Terminal

from echopix_cli.cli import ask_one
from echopix_cli.cli.answer_tables import film_words
from echopix_cli.results import FilmFacts


@pytest.mark.parametrize(
    ("unread", "looked", "share", "said"),
    [
        (0, (), 0.1, "120 windows of 1:00"),
        (2, (), 0.1, "120 windows of 1:00, 2 of them could not be read"),
        (0, ((0.0, 60.0), (180.0, 240.0)), 0.00833,
         "120 windows of 1:00, 2 looked at again, at most 0.83 % of the tokens fit into one prompt"),
    ],
)  # fmt: skip
def test_one_line_says_how_a_film_was_read(
    unread: int, looked: tuple[tuple[float, float], ...], share: float, said: str
) -> None:
    film = FilmFacts(120, 60.0, unread, looked, frames=1200, survivors=4000, share=share, glance=10)
    assert film_words(film, 0.1) == said


def test_a_line_says_the_stage_how_far_it_is_and_when_it_will_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """One minute of the film in ten seconds; and anew for another stage, or another reading."""
    now, said = [100.0], list[str]()
    monkeypatch.setattr(ask_one, "time", SimpleNamespace(monotonic=lambda: now[0]))
    watch = ask_one.films_progress(said.append, "a.mkv")
    for stage in ("glancing", "looking", "reading", "reading"):
        for done in (0.0, 60.0, 120.4, 180.0):
            watch(done, 180.0, stage)
            now[0] += 10.0
        now[0] += 500.0
    glancing = ["0:00 of 3:00", "1:00 of 3:00, 0:20 left", "2:00 of 3:00, 0:10 left", "3:00 of 3:00"]
    assert said[:4] == [f"glancing at a.mkv: {words}" for words in glancing]
    assert said[4:8] == [f"looking at a.mkv: {words}" for words in glancing]
    assert said[8:] == [f"reading a.mkv: {words}" for words in glancing] * 2


def test_a_batch_shows_below_its_bar_how_far_a_film_is(random_checkpoint: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out.jsonl", write_clip(tmp_path / "long.mkv", seconds=19.5)
    write_clip(tmp_path / "short.mkv", seconds=0.5)
    environment = os.environ | {"ECHOPIX_MODEL": str(random_checkpoint), "ECHOPIX_MAX_NEW_TOKENS": "2"}
    command = ["ask", str(tmp_path), "What?", "--window", "1", "--device", "cpu", "-o", str(out)]
    with Terminal(*command, columns=200, environment=environment) as terminal:
        terminal.wait_for("0/2")
        terminal.wait_for(f"reading {path}: 0:")
        terminal.wait_for("2 answered")
        assert terminal.ended() == 0
    films = [json.loads(line)["film"] for line in out.read_text().splitlines()]
    assert [film and film["windows"] for film in films] == [20, None]
