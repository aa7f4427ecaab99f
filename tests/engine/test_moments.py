"""Where an answer rests: the kept tokens, as spans of media time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echopix_cli.engine import AskOptions, Encoded, Engine, GenerationOptions, SieveOptions
from echopix_cli.engine import moments as moments_module
from echopix_cli.media import DecodePlan
from echopix_cli.results import Moment

SHORT = GenerationOptions(max_new_tokens=2)


@pytest.fixture(scope="module")
def engine(random_checkpoint: Path) -> Engine:
    return Engine.load(str(random_checkpoint), "cpu")


@pytest.fixture(scope="module")
def encoded(engine: Engine, clips: dict[str, Path]) -> Encoded:
    return engine.read(str(clips["both"]), engine.plan(DecodePlan(start=0.5)))


def test_rows_lie_where_their_frames_and_sound_do(encoded: Encoded) -> None:
    shown, heard = encoded.spans
    steps, height, width = encoded.inputs.cells
    assert len(shown) == steps * height * width and len(heard) == encoded.inputs.audio_rows
    begins = encoded.inputs.grid_times + 0.5
    assert np.array_equal(shown[:: height * width, 0], begins)
    assert np.array_equal(shown[:: height * width, 1][:-1], begins[1:])
    assert encoded.sampling.end == pytest.approx(shown[-1, 1])
    assert shown[-1, 1] < begins[-1] + np.diff(begins)[-1]
    assert heard[0].tolist() == [0.5, 0.54]
    assert heard[-1, 1] == pytest.approx(0.5 + 0.04 * len(heard))


@pytest.mark.parametrize("sieve", ["auto", "random", "per-modality"])
def test_every_kept_token_lies_in_a_moment_of_its_modality(engine: Engine, encoded: Encoded, sieve: str) -> None:
    options = AskOptions(0.1, SHORT, SieveOptions(sieve))
    answer = engine.ask(encoded, "What?", options)
    sift = engine.pose(encoded, "What?").sift(options)
    ids, kept = sift.prompt.input_ids[0], sift.sieved.kept[0].tolist()
    special = engine.model.thinker.special
    for modality, token, spans in zip(("video", "audio"), (special.video, special.audio), encoded.spans, strict=True):
        rows = (ids == token).nonzero()[:, 0].tolist()
        own = [moment for moment in answer.moments if moment.modality == modality]
        mine = [spans[rows.index(row)] for row in kept if row in rows]
        assert all(any(m.start <= start and end <= m.end for m in own) for start, end in mine)
        assert all(any(m.start == start for start, _ in mine) and any(m.end == end for _, end in mine) for m in own)
    assert sum(moment.share for moment in answer.moments) == pytest.approx(1.0)
    assert [m.share for m in answer.moments] == sorted((m.share for m in answer.moments), reverse=True)


def test_shares_are_the_softmax_of_scores(engine: Engine, encoded: Encoded, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token of the sound with a score of log 3 above the others of the pool has three of n + 2 parts."""
    compressor, rows = engine.model.thinker.model.compressor, []

    def scores(hidden: torch.Tensor) -> torch.Tensor:
        made = torch.zeros(hidden.shape[:2])
        ids = engine.place(encoded, "What?").input_ids[0]
        rows.append(int((ids == engine.model.thinker.special.audio).nonzero()[30]))
        made[0, rows[-1]] = torch.tensor(3.0).log()
        return made

    monkeypatch.setattr(compressor, "forward", scores)
    answer = engine.ask(encoded, "What?", AskOptions(1.0, SHORT))
    pool = answer.tokens.total
    sound = sum(moment.share for moment in answer.moments if moment.modality == "audio")
    assert sound == pytest.approx((answer.tokens.audio.total + 2) / (pool + 2))


def test_without_kept_tokens_there_is_no_moment(engine: Engine, encoded: Encoded) -> None:
    assert engine.ask(encoded, "What?", AskOptions(0.1, SHORT, SieveOptions("none"))).moments == ()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4)), min_size=1, max_size=30))
def test_moments_are_apart_and_cover_what_they_are_made_of(spans: list[tuple[int, int]]) -> None:
    taken = np.array([(start, start + length) for start, length in spans], np.float64)
    moments = moments_module._merged("audio", taken, np.full(len(taken), 1 / len(taken)))
    for before, after in pairwise(moments):
        assert after.start > before.end + 1.0
    for start, end in taken.tolist():
        assert sum(m.start <= start and end <= m.end for m in moments) == 1
    assert sum(m.share for m in moments) == pytest.approx(1.0)
    assert moments_module._merged("video", taken[:0], taken[:0, 0]) == []
    assert isinstance(moments[0], Moment)


def test_kept_tokens_are_listed_where_they_are_asked_for(engine: Engine, encoded: Encoded) -> None:
    options = AskOptions(0.1, SHORT, list_kept=True)
    answer = engine.ask(encoded, "What?", options)
    steps, height, width = encoded.inputs.cells
    sift = engine.pose(encoded, "What?").sift(options)
    ids, kept = sift.prompt.input_ids[0], set(sift.sieved.kept[0].tolist())
    rows = (ids == engine.model.thinker.special.video).nonzero()[:, 0].tolist()
    expected = {
        (encoded.spans[0][place][0].item(), place % (height * width) // width, place % width)
        for place, row in enumerate(rows)
        if row in kept
    }
    seen = [token for token in answer.kept_tokens if token.modality == "video"]
    heard = [token for token in answer.kept_tokens if token.modality == "audio"]
    assert (len(seen), len(heard)) == (answer.tokens.video.kept, answer.tokens.audio.kept)
    assert steps and {(t.start, round(t.box[1] * height), round(t.box[0] * width)) for t in seen if t.box} == expected
    assert all(t.box is not None and t.box[2] - t.box[0] == pytest.approx(1 / width) for t in seen)
    assert all(token.box is None for token in heard)
    for moment in answer.moments:
        inside = [t.share for t in answer.kept_tokens if t.modality == moment.modality
                  and moment.start <= t.start and t.end <= moment.end]  # fmt: skip
        assert sum(inside) == pytest.approx(moment.share)
    assert engine.ask(encoded, "What?", AskOptions(0.1, SHORT)).kept_tokens == ()
    assert engine.ask(encoded, "What?", AskOptions(0.1, SHORT)).moments == answer.moments
