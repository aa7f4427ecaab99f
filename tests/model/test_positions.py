"""Position ids and rotary angles."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import GOLDEN

from echopix_cli.model.positions import (
    SpecialTokens,
    Timeline,
    audio_block,
    chunk_starts,
    grid_times_to_steps,
    interleave,
    position_ids,
    rotary_embedding,
    uniform_grid_times,
    video_block,
)

SPECIAL = SpecialTokens(audio=500, image=501, video=502, vision_start=503, audio_start=505)
LAYOUTS = json.loads((GOLDEN / "positions.json").read_text())


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout["kind"])
def test_reference_layouts(layout: dict) -> None:
    """Sixty prompts whose positions the authors' code computed: sparse sampling, short sound, every block form."""
    ids = torch.tensor([[token for token, count in layout["ids"] for _ in range(count)]])
    grid = layout["grid"]
    positions, delta = position_ids(
        ids,
        SPECIAL,
        video_grid_thw=torch.tensor([grid]) if grid else None,
        video_grid_times=[uniform_grid_times(grid[0], layout["second_per_grid"])] if grid else None,
        audio_rows=[layout["audio_rows"]] if layout["audio_rows"] is not None else [],
    )
    assert positions[:, 0, -1].tolist() == layout["last"]
    assert int(delta) == layout["rope_delta"]
    assert hashlib.sha256(positions.numpy().astype("<i8").tobytes()).hexdigest() == layout["sha256"]


def slow_chunks(times: list[int], chunk: int) -> list[int]:
    """The rule as it is told: one boundary is passed per row."""
    starts, current = [0], 1
    for row, time in enumerate(times):
        if time >= current * chunk:
            starts.append(row)
            current += 1
    return starts


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80), st.integers(1, 50))
def test_chunk_starts(steps: list[int], chunk: int) -> None:
    times = np.cumsum(steps)
    assert chunk_starts(times, chunk) == slow_chunks(times.tolist(), chunk)


@given(st.integers(1, 12), st.floats(0.04, 9.0), st.integers(0, 700))
def test_interleave_holds_every_row_once_in_order(steps: int, spacing: float, sound: int) -> None:
    times = grid_times_to_steps(uniform_grid_times(steps, spacing), 25)
    video, audio = video_block(times, 2, 3), audio_block(sound)
    seen: dict[str, list[int]] = {"video": [], "audio": []}
    for name, begin, end in interleave(video, audio, 50):
        seen[name] += range(begin, end)
    assert seen["video"] == list(range(video.shape[1]))
    assert seen["audio"] == list(range(sound))


def test_true_times_reach_the_time_axes() -> None:
    ids = torch.tensor([[503, 502, 502, 504, 9]])
    positions, delta = position_ids(
        ids, SPECIAL, video_grid_thw=torch.tensor([[2, 2, 2]]), video_grid_times=[[0.5, 4.0]]
    )
    assert positions[0, 0].tolist() == [0, 1 + 12, 1 + 100, 102, 103]
    assert torch.equal(positions[3], positions[0])
    assert int(delta) == 104 - 5


def test_padding_on_either_side_changes_nothing() -> None:
    row = [503, 505, 502, 500, 500, 506, 504, 9, 9]
    kwargs = {"video_grid_thw": torch.tensor([[1, 2, 2]]), "video_grid_times": [[0.0]], "audio_rows": [2]}
    alone, delta = position_ids(torch.tensor([row]), SPECIAL, **kwargs)
    for left, right in ((3, 0), (0, 3), (2, 2)):
        ids = torch.tensor([[0] * left + row + [0] * right])
        mask = torch.tensor([[0] * left + [1] * len(row) + [0] * right])
        padded, padded_delta = position_ids(ids, SPECIAL, attention_mask=mask, **kwargs)
        assert torch.equal(padded[:, :, left : left + len(row)], alone)
        assert torch.equal(padded_delta, delta)
        assert bool((padded[:, mask == 0] == 1).all())


@pytest.mark.parametrize(
    ("ids", "kwargs"),
    [
        ([503, 502, 504], {}),
        ([505, 500, 506], {}),
        ([503, 502, 504], {"video_grid_thw": torch.tensor([[2, 2, 2]]), "video_grid_times": [[0.0, 1.0]]}),
        ([503, 502, 504], {"video_grid_thw": torch.tensor([[2, 2, 2]]), "video_grid_times": [[0.0]]}),
    ],
)
def test_prompts_that_do_not_fit_their_media(ids: list[int], kwargs: dict) -> None:
    with pytest.raises(ValueError, match=r"more media blocks|fewer placeholder|one time for each"):
        position_ids(torch.tensor([ids]), SPECIAL, **kwargs)


def test_an_image_block() -> None:
    ids = torch.tensor([[9, 503, 501, 501, 504]])
    positions, _ = position_ids(ids, SPECIAL, image_grid_thw=torch.tensor([[1, 2, 4]]))
    assert positions[:, 0, 2:4].tolist() == [[2, 2], [2, 2], [2, 3], [2, 2]]


def test_sync_rope_gives_each_channel_its_axis() -> None:
    """[18, 18, 18, 10]: only the ten slowest channels and the eighteen fastest follow time."""
    positions = torch.zeros(4, 1, 1, dtype=torch.long)
    still, _ = rotary_embedding(positions, [18, 18, 18, 10], 1e6, torch.float32)
    assert bool((still == 1).all())
    moved = set()
    for axis, width in enumerate((18, 18, 18, 10)):
        positions.zero_()
        positions[axis] = 1000
        _, sine = rotary_embedding(positions, [18, 18, 18, 10], 1e6, torch.float32)
        channels = set(sine[0, 0, :64].nonzero().flatten().tolist())
        assert len(channels) == width
        assert not channels & moved
        moved |= channels
        assert torch.equal(sine[..., :64], sine[..., 64:])
    assert moved == set(range(64))


def test_timeline() -> None:
    assert Timeline().chunk == 50
