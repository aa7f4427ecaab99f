"""What the table says of how a film was read."""

from __future__ import annotations

import pytest

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
