"""Where an answer rests: the kept tokens, as spans of media time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import write_clip
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.engine import AskOptions, Encoded, Engine, GenerationOptions, SieveOptions
from echopix_cli.engine import engine as engine_module
from echopix_cli.engine import moments as moments_module
from echopix_cli.media import DecodePlan
from echopix_cli.model.values import Sieved
from echopix_cli.results import Moment

SHORT = GenerationOptions(max_new_tokens=2)


@pytest.fixture(scope="module")
def encoded(random_engine: Engine, clips: dict[str, Path]) -> Encoded:
    return random_engine.read(str(clips["both"]), random_engine.plan(DecodePlan(start=0.5)))


def test_rows_lie_where_their_frames_and_sound_do(encoded: Encoded) -> None:
    shown, heard = encoded.spans
    steps, height, width = encoded.inputs.cells
    assert len(shown) == steps * height * width and len(heard) == encoded.inputs.audio_rows
    begins = encoded.inputs.grid_times + 0.5
    assert np.array_equal(shown[:: height * width, 0], begins)
    assert np.array_equal(shown[:: height * width, 1][:-1], begins[1:])
    assert encoded.sampling.end == pytest.approx(3.072), "of the sound"
    assert shown[-1, 1] == pytest.approx(3.0)
    assert shown[-1, 1] < begins[-1] + np.diff(begins)[-1]
    assert heard[0].tolist() == [0.5, 0.54]
    assert heard[-1, 1] == pytest.approx(0.5 + 0.04 * len(heard))


@pytest.mark.parametrize(
    ("more", "plan", "expected"),
    [
        ({"times": [0.0, 0.5, 1.0, 7.5], "sound": False}, DecodePlan(), [(0.0, 1.0), (1.0, 7.6)]),
        ({"seconds": 2.0, "heard": (0.0, 7.0)}, DecodePlan(), [(0.0, 1.3), (1.3, 2.0)]),
        ({"times": [0.0, 1.0, 30.0], "sound": False}, DecodePlan(start=8.0, end=16.0), [(8.0, 16.0)]),
        ({"seconds": 8.0, "fps": 25, "sound": False}, DecodePlan(max_frames=2, min_frames=2), [(0.0, 8.0)]),
    ],
    ids=["variable rate", "sound goes on", "one picture stands", "two frames of many"],
)
def test_the_last_step_is_shown_until_the_picture_is_over(
    random_engine: Engine, tmp_path: Path, more: dict[str, Any], plan: DecodePlan, expected: list[tuple[float, float]]
) -> None:
    encoded = random_engine.read(str(write_clip(tmp_path / "a.mp4", **more)), random_engine.plan(plan))
    _, height, width = encoded.inputs.cells
    shown = encoded.spans[0][:: height * width]
    assert [(round(start, 3), round(end, 3)) for start, end in shown.tolist()] == expected


@pytest.mark.parametrize("sieve", ["auto", "random", "per-modality"])
def test_every_kept_token_lies_in_a_moment_of_its_modality(random_engine: Engine, encoded: Encoded, sieve: str) -> None:
    options = AskOptions(0.1, SHORT, SieveOptions(sieve))
    answer = random_engine.ask(encoded, "What?", options)
    sift = random_engine.pose(encoded, "What?").sift(options)
    ids, kept = sift.prompt.input_ids[0], sift.sieved.kept[0].tolist()
    special = random_engine.model.thinker.special
    for modality, token, spans in zip(("video", "audio"), (special.video, special.audio), encoded.spans, strict=True):
        rows = (ids == token).nonzero()[:, 0].tolist()
        own = [moment for moment in answer.moments if moment.modality == modality]
        mine = [spans[rows.index(row)] for row in kept if row in rows]
        assert all(any(m.start <= start and end <= m.end for m in own) for start, end in mine)
        assert all(any(m.start == start for start, _ in mine) and any(m.end == end for _, end in mine) for m in own)
    assert sum(moment.share for moment in answer.moments) == pytest.approx(1.0)
    assert [m.share for m in answer.moments] == sorted((m.share for m in answer.moments), reverse=True)


def test_shares_are_parts_of_attention(
    random_engine: Engine, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text rows do not count, and one token of the sound with three times the attention has three of n + 2 parts."""
    special = random_engine.model.thinker.special

    def attention(model: object, sieved: Sieved, cache: object) -> torch.Tensor:
        ids = random_engine.place(encoded, "What?").input_ids[0, sieved.kept[0]]
        made = torch.where(special.in_pool(ids), 0.001, 0.5)
        made[(ids == special.audio).nonzero()[30]] = 0.003
        return made

    monkeypatch.setattr(engine_module, "last_attention", attention)
    answer = random_engine.ask(encoded, "What?", AskOptions(1.0, SHORT))
    pool = answer.tokens.total
    sound = sum(moment.share for moment in answer.moments if moment.modality == "audio")
    assert sound == pytest.approx((answer.tokens.audio.total + 2) / (pool + 2))


def test_without_kept_tokens_there_is_no_moment(random_engine: Engine, encoded: Encoded) -> None:
    assert random_engine.ask(encoded, "What?", AskOptions(0.1, SHORT, SieveOptions("none"))).moments == ()


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 4), st.sampled_from([1.0, 2.0, 40.0])), min_size=1, max_size=30
    )
)
def test_moments_cover_what_they_are_made_of(made: list[tuple[int, int, float]]) -> None:
    taken = np.array([(start, start + length) for start, length, _ in made], np.float64)
    weights = np.array([weight for _, _, weight in made])
    moments = moments_module._merged("audio", taken, weights / weights.sum())
    for start, end in taken.tolist():
        assert any(m.start <= start and end <= m.end for m in moments)
    assert sum(m.share for m in moments) == pytest.approx(1.0)
    starts = set(taken[:, 0].tolist())
    assert all(m.start in starts for m in moments)
    assert moments_module._merged("video", taken[:0], weights[:0]) == []
    assert isinstance(moments[0], Moment)


def test_tokens_alike_in_weight_and_a_second_apart_are_one_moment() -> None:
    taken = np.array([(0, 1), (1, 2), (3, 4), (6, 7)], np.float64)
    moments = moments_module._merged("video", taken, np.full(4, 0.25))
    assert [(m.start, m.end, m.share) for m in moments] == [(0.0, 4.0, 0.75), (6.0, 7.0, 0.25)]


def test_a_second_that_stands_out_is_a_moment_of_its_own() -> None:
    """One patch kept in every step of the picture is no reason to point at the whole clip."""
    taken = np.array([(second, second + 1) for second in range(8)], np.float64)
    weights = np.full(8, 0.02)
    weights[5] = 0.86
    moments = moments_module._merged("video", taken, weights)
    assert [(m.start, m.end) for m in moments] == [(0.0, 5.0), (5.0, 6.0), (6.0, 8.0)]
    assert moments[1].share == pytest.approx(0.86)
