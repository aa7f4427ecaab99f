"""The rules of frame choice and size, without any file."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echopix_cli.errors import MediaError, UsageError
from echopix_cli.media import (
    DecodePlan,
    frame_indices,
    parse_time,
    resize_frames,
    sampling,
    smart_nframes,
    smart_resize,
)
from echopix_cli.media.sampling import capped, choose_frames

FACTOR = 28
steady = settings(max_examples=60)


def test_importing_the_room_is_cheap() -> None:
    code = (
        "import sys, echopix_cli.media as m; m.parse_time('1'); m.DecodePlan();"
        "print(sorted({'av', 'soundfile', 'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@steady
@given(
    height=st.integers(56, 4000),
    width=st.integers(56, 4000),
    lowest=st.integers(4, 400),
    span=st.integers(2, 20),
)
def test_size_is_a_multiple_within_bounds_and_keeps_the_aspect(height: int, width: int, lowest: int, span: int) -> None:
    smallest, largest = lowest * FACTOR**2, lowest * span * FACTOR**2
    new = smart_resize(height, width, FACTOR, smallest, largest)
    assert new[0] % FACTOR == new[1] % FACTOR == 0 and min(new) >= FACTOR
    grown = new[0] >= height and new[1] >= width
    if min(new) > FACTOR:  # a single row of patches may leave the bounds: no edge gets shorter
        assert new[0] * new[1] >= smallest if grown else new[0] * new[1] <= largest
        # One scale explains both edges, each rounded by less than a patch.
        pairs = zip(new, (height, width), strict=True)
        scales = [((edge - FACTOR) / old, (edge + FACTOR) / old) for edge, old in pairs]
        assert max(low for low, _ in scales) < min(high for _, high in scales)


@steady
@given(height=st.integers(400, 4000), width=st.integers(400, 4000))
def test_the_default_area_is_never_exceeded_when_shrinking(height: int, width: int) -> None:
    plan = DecodePlan()
    new = smart_resize(height, width, FACTOR, plan.min_pixels, plan.max_pixels)
    assert 0.75 * plan.min_pixels < new[0] * new[1] <= plan.max_pixels


def test_max_pixels_wins_over_min_pixels() -> None:
    assert smart_resize(1000, 1000, 28, 500_000, 28 * 28 * 4) == (56, 56)


@pytest.mark.parametrize("shape", [(10, 2001), (2001, 10), (0, 10)])
def test_impossible_shapes_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match=r"picture is \d+x\d+"):
        smart_resize(*shape, 28, 100_352, 105_369)
    assert smart_resize(10, 2000, 28, 3136, 100_352)[0] == 28


@steady
@given(
    total=st.integers(1, 20_000),
    video_fps=st.floats(1, 120),
    fps=st.floats(0.1, 10),
    lowest=st.integers(1, 8),
    highest=st.integers(1, 800),
)
def test_frame_count_is_even_and_bounded(total: int, video_fps: float, fps: float, lowest: int, highest: int) -> None:
    count = smart_nframes(total, video_fps, fps=fps, min_frames=lowest, max_frames=highest)
    assert 1 <= count <= total
    assert count % 2 == 0 or count == 1
    assert count <= max(highest, 1)
    if highest >= 2 and total >= 2:
        assert count >= 2


@pytest.mark.parametrize(("total", "expected"), [(1, 1), (2, 2), (3, 2), (5, 4), (1000, 20)])
def test_frame_counts_of_short_clips(total: int, expected: int) -> None:
    assert smart_nframes(total, 100.0, fps=2.0, min_frames=4, max_frames=120) == expected


@steady
@given(total=st.integers(2, 50_000), count=st.integers(2, 800))
def test_indices_cover_both_ends_evenly(total: int, count: int) -> None:
    count = min(count, total)
    indices = frame_indices(total, count)
    assert indices[0] == 0 and indices[-1] == total - 1 and len(indices) == count
    steps = np.diff(indices)
    assert steps.min() >= 1 and steps.max() - steps.min() <= 2


def test_constant_rate_follows_the_index_rule_despite_rounded_timestamps() -> None:
    exact = np.arange(300) / (30000 / 1001)
    for times in (exact, np.round(exact, 3)):
        chosen, rate = choose_frames(times, 30000 / 1001, fps=2.0, min_frames=4, max_frames=120)
        assert rate == 30000 / 1001
        np.testing.assert_array_equal(chosen, frame_indices(300, 20))


@pytest.mark.parametrize("total", [3, 5, 9, 10, 119])
@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_of_slides_at_regular_times_all_are_taken(total: int, rate: float) -> None:
    chosen, _ = choose_frames(np.arange(total) / rate, rate, fps=2.0, min_frames=4, max_frames=120)
    assert chosen.tolist() == list(range(total))


def test_slides_beyond_the_most_frames_and_faster_pictures_follow_the_index_rule() -> None:
    slides, _ = choose_frames(np.arange(9) * 2.0, 0.5, fps=2.0, min_frames=4, max_frames=8)
    np.testing.assert_array_equal(slides, frame_indices(9, 8))
    for rate in (2.0, 10.0):
        faster, _ = choose_frames(np.arange(5) / rate, rate, fps=2.0, min_frames=4, max_frames=120)
        np.testing.assert_array_equal(faster, frame_indices(5, 4))


def test_a_wrong_header_rate_is_not_believed() -> None:
    chosen, rate = choose_frames(np.arange(100) / 10.0, 1000.0, fps=2.0, min_frames=4, max_frames=120)
    assert rate == pytest.approx(10.0) and len(chosen) == 20


def test_variable_rate_is_sampled_by_time() -> None:
    dense, sparse = np.arange(100) / 100, 1 + np.arange(10)
    times = np.concatenate([dense, sparse])  # 1 s of 100 fps, then 9 s of 1 fps
    chosen, _ = choose_frames(times, None, fps=1.0, min_frames=4, max_frames=120)
    assert len(chosen) == 10  # one per second of 10 s: not most of them from the first second
    np.testing.assert_allclose(times[chosen], np.linspace(0, 10, 10), atol=0.5)


def test_resizing_keeps_a_flat_colour_and_the_frame_order() -> None:
    frames = np.stack([np.full((3, 60, 80), value, np.uint8) for value in (0, 7, 255)])
    resized = resize_frames(frames, 28, 56)
    assert resized.shape == (3, 3, 28, 56) and resized.dtype == np.uint8
    assert [int(frame.min()) for frame in resized] == [int(frame.max()) for frame in resized] == [0, 7, 255]


@pytest.mark.parametrize("shape", [(333, 517, 112, 140), (90, 4000, 28, 336), (51, 512, 56, 672), (301, 300, 301, 200)])
def test_large_pictures_are_resized_in_bands_without_a_difference(
    shape: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width, *size = shape
    frames = np.random.default_rng(0).integers(0, 256, (1, 3, height, width), dtype=np.uint8)
    whole = resize_frames(frames, *size)
    for rows in (1, 7, height - 1):
        monkeypatch.setattr(sampling, "_BAND", rows * width)
        np.testing.assert_array_equal(resize_frames(frames, *size), whole)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12.5", 12.5), ("0", 0), ("01:02", 62), ("1:02:03.5", 3723.5), ("90:00", 5400), (" 7 ", 7), ("1e-05", 1e-5)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "1:60", "1:60:00", "1:2:3:4", "nan", "inf", "1e3", "٣", "1:", ":5", "1x", "9" * 23]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a time"):
        parse_time(text)


@steady
@given(st.integers(0, 10**6))
def test_every_second_reads_back(total: int) -> None:
    assert parse_time(f"{total // 3600}:{total // 60 % 60:02}:{total % 60:02}") == total


@pytest.mark.parametrize("field", ["fps", "min_frames", "max_frames", "max_pixels", "max_audio_seconds"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_impossible_numbers_are_refused(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field):
        DecodePlan(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("span", [{"start": 2.0, "end": 2.0}, {"end": 0.0}, {"start": -1.0}, {"start": float("nan")}])
def test_impossible_spans_are_refused(span: dict[str, float]) -> None:
    with pytest.raises(MediaError, match="span"):
        DecodePlan(**span)  # type: ignore[arg-type]


@steady
@given(
    gaps=st.lists(st.floats(0.01, 500), min_size=3, max_size=300),
    max_frames=st.integers(2, 130),
)
def test_at_a_variable_rate_no_frame_that_fits_is_left_out(gaps: list[float], max_frames: int) -> None:
    times = np.concatenate(([0.0], np.cumsum(gaps)))
    count = smart_nframes(len(times), (len(times) - 1) / times[-1], fps=2.0, min_frames=4, max_frames=max_frames)
    chosen, _ = choose_frames(times, None, fps=2.0, min_frames=4, max_frames=max_frames)
    assert np.all(np.diff(chosen) > 0) and chosen[0] == 0 and (count < 2 or chosen[-1] == len(times) - 1)
    assert len(chosen) in (count, len(times))
    assert len(chosen) <= max(max_frames, 2)


@steady
@given(gaps=st.lists(st.floats(0.01, 500), min_size=3, max_size=300), data=st.data())
def test_a_long_gap_counts_as_one_step(gaps: list[float], data: st.DataObject) -> None:
    times = np.concatenate(([0.0], np.cumsum(gaps)))
    count = data.draw(st.integers(2, len(gaps)))
    counted = np.diff(capped(times, count))
    step = counted.sum() / (count - 1)
    assert np.all(counted <= step * (1 + 1e-9))
    np.testing.assert_allclose(counted, np.minimum(gaps, step), rtol=1e-6)


def test_two_moving_pieces_about_a_still_one_are_both_seen() -> None:
    moving = np.arange(250) / 25
    times = np.concatenate((moving, moving + 610))
    chosen, _ = choose_frames(times, None, fps=2.0, min_frames=4, max_frames=120)
    assert len(chosen) == 120
    assert 58 <= (chosen < 250).sum() <= 62
    assert np.diff(chosen).max() <= 6, "no stretch of either piece goes unseen"
