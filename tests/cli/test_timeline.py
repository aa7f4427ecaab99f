"""Where answers rest, as lines on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from answers import an_answer
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from echopix_cli.cli.timeline import Timeline, Where
from echopix_cli.results import KeptToken, Moment
from echopix_cli.times import stretch

MOMENTS = (
    Moment(3.76, 5.0, "audio", 0.5),
    Moment(2.16, 2.64, "video", 0.26),
    Moment(6.32, 6.48, "audio", 0.236),
    Moment(0.32, 0.96, "audio", 0.004),
)


def drawn(*answers, columns: int = 80, encoding: str = "utf-8", color: bool = False) -> list[str]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding)
    Console(file=stream, width=columns, force_terminal=color, no_color=not color).print(Where(answers))
    stream.flush()
    return raw.getvalue().decode(encoding).splitlines()


def test_one_answer() -> None:
    lines = [line.rstrip() for line in drawn(an_answer(MOMENTS), columns=53)]
    assert lines == [
        "picture      ▁▁▁▁▁▁▁▁▁▁▅▅▅▅▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁",
        "sound        ▁▂▂▂▂▁▁▁▁▁▁▁▁▁▁▁▁▁███████▁▁▁▁▁▁▅▅▁▁▁▁▁▁▁",
        "             0:00                                0:08",
        "moments      0:03.76–0:05     sound     50 %",
        "             0:02.16–0:02.64  picture   26 %",
        "             0:06.32–0:06.48  sound     24 %",
        "",
    ]


def test_a_terminal_without_unicode() -> None:
    lines = [line.rstrip() for line in drawn(an_answer(MOMENTS), columns=53, encoding="ascii")]
    assert lines[:4] == [
        "picture      ..........++++..........................",
        "sound        .::::.............@@@@@@@......++.......",
        "             0:00                                0:08",
        "moments      0:03.76-0:05     sound     50 %",
    ]


def test_several_answers_are_two_lines_each() -> None:
    first = an_answer(MOMENTS)
    second = an_answer((Moment(62.4, 3725.2, "audio", 1.0),), end=7200.0)
    none = an_answer(())
    lines = [line.rstrip() for line in drawn(first, none, second, columns=60)]
    assert lines == [
        "1 picture  ▁▁▁▁▁▁▅▅▅▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁  0:02.16–0:02.64 26 %",
        "  sound    ▁▂▂▁▁▁▁▁▁▁▁█████▁▁▁▅▅▁▁▁▁  0:03.76–0:05 50 %",
        "3 picture  ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁",
        "  sound    █████████████▁▁▁▁▁▁▁▁▁▁▁▁  0:01:02–1:02:06 100 %",
        "",
    ]


@pytest.mark.parametrize("columns", [16, 40, 60, 80, 120, 300])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_lines_fit(columns: int, encoding: str) -> None:
    film = replace(an_answer(MOMENTS, end=36_000.0), moments=(Moment(35_990.0, 35_999.0, "video", 0.2), *MOMENTS))
    for color in (False, True):
        for answers in ([film], [film] * 12):
            assert len(drawn(*answers, columns=300, encoding=encoding, color=color)) in (7, 25)
    if columns >= 40:
        assert max(cell_len(line) for line in drawn(film, columns=columns, encoding=encoding)) <= columns
        assert max(cell_len(line) for line in drawn(*[film] * 12, columns=columns, encoding=encoding)) <= columns
    plain = "\n".join(drawn(film, columns=columns, encoding=encoding))
    assert "\x1b" not in plain and (encoding == "utf-8" or plain.isascii())


@pytest.mark.parametrize(("picture", "sound"), [(True, False), (False, True)])
def test_a_file_of_one_kind_has_one_line(picture: bool, sound: bool) -> None:
    modality = "video" if picture else "audio"
    answer = an_answer((Moment(1.0, 2.0, modality, 1.0),), picture=picture, sound=sound)
    text = "\n".join(drawn(answer))
    assert text.count("█▁") == 1
    assert ("picture   " in text, "sound   " in text) == (picture, sound)


@given(
    tokens=st.lists(
        st.builds(
            lambda start, length, modality, share: KeptToken(start, start + length, modality, share),
            st.floats(0, 8),
            st.floats(0, 3),
            st.sampled_from(["video", "audio"]),
            st.floats(0, 1),
        )
    ),
    count=st.integers(1, 100),
)
def test_shares_are_spread_over_the_time_of_their_tokens(tokens: list[KeptToken], count: int) -> None:
    timeline = Timeline.of(an_answer(MOMENTS))
    assert timeline is not None
    lines = timeline.density(tokens, count)
    for modality, line in lines.items():
        assert len(line) == count
        assert sum(line) == pytest.approx(sum(token.share for token in tokens if token.modality == modality))
    whole = timeline.density([KeptToken(1.0, 3.0, "video", 0.5), KeptToken(7.9, 8.5, "audio", 0.25)], 4)
    assert whole == {"video": [0.25, 0.25, 0.0, 0.0], "audio": [0.0, 0.0, 0.0, 0.25]}


def test_ends_are_written_alike() -> None:
    lines = drawn(an_answer((Moment(3600.0, 3610.0, "video", 1.0),), start=3540.0, end=3660.0), columns=53)
    assert lines[2].split() == ["0:59:00", "1:01:00"]


def test_nothing_is_drawn_of_nothing() -> None:
    still = an_answer((Moment(0.0, 1.0, "video", 1.0),), sound=False)
    still = replace(still, sampling=replace(still.sampling, frames=1))
    for answer in (an_answer(()), still):
        assert Timeline.of(answer) is None
        assert drawn(answer) == []


@given(
    moments=st.lists(
        st.builds(
            lambda start, length, modality, share: Moment(start, start + length, modality, share),
            st.floats(0, 7200),
            st.floats(0, 300),
            st.sampled_from(["video", "audio"]),
            st.floats(0, 1),
        ),
        min_size=1,
    ),
    end=st.one_of(st.none(), st.floats(0.04, 7200)),
    count=st.integers(1, 200),
)
def test_marks_lie_within_the_line_and_the_highest_share_has_the_highest_mark(
    moments: list[Moment], end: float | None, count: int
) -> None:
    timeline = Timeline.of(an_answer(tuple(sorted(moments, key=lambda m: -m.share)), end=end))
    if timeline is None:
        assert end is None and all(moment.end == 0 for moment in moments)
        return
    lines = {modality: timeline.cells(modality, count) for modality in ("video", "audio")}
    assert all(len(line) == count for line in lines.values())
    for modality, line in lines.items():
        assert any(height is not None for height in line) == any(m.modality == modality for m in moments)
    heights = [height for line in lines.values() for height in line if height is not None]
    assert max(heights) == 1.0 and min(heights) >= 0.0
    best = max(moments, key=lambda m: m.share)
    first, last = timeline.within(best)
    assert 0.0 <= first <= last <= 1.0
    assert lines[best.modality][min(int(first * count), count - 1)] == 1.0


@pytest.mark.parametrize(
    ("start", "end", "length", "said"),
    [
        (0.0, 0.04, 8.0, "0:00–0:00.04"),
        (3.76, 5.0, 8.0, "0:03.76–0:05"),
        (59.2, 60.4, 61.0, "0:59.20–1:01"),
        (2530.9, 2533.1, 3599.0, "42:10–42:14"),
        (2530.9, 2533.1, 7200.0, "0:42:10–0:42:14"),
        (3599.5, 7265.0, 0.0, "0:59:59–2:01:05"),
    ],
)
def test_stretches(start: float, end: float, length: float, said: str) -> None:
    assert stretch(start, end, length) == said
