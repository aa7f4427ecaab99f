"""The redundancy stage: windows, neighbours in time, and what may never go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prompts import Media, inputs_of, prompt_of
from torch import Tensor

from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.redundancy import Pool, find_pool, novelty, prefilter, rank_normalise
from echopix_cli.model.sieve import keep_count
from echopix_cli.model.values import Prompt
from echopix_cli.weights.checkpoint import load_model


@pytest.fixture(scope="module")
def model(stock_checkpoint: Path) -> EchoingPixelsForConditionalGeneration:
    return load_model(stock_checkpoint, dtype=torch.float32)


MEDIA = st.builds(
    Media,
    cells=st.tuples(st.integers(0, 6), st.integers(1, 3), st.integers(1, 3)),
    second_per_grid=st.sampled_from((0.01, 0.4, 1.0, 2.0, 3.7)),
    mel_frames=st.sampled_from((0, 6, 90, 420, 777)),
)


def placed(model: EchoingPixelsForConditionalGeneration, media: Media, seed: int = 0) -> Prompt:
    """A prompt with random features of unequal lengths in place of the towers'."""
    with torch.inference_mode():
        prompt = prompt_of(model, **inputs_of(model, media))
    source = torch.Generator().manual_seed(seed)
    embeds = torch.randn(prompt.embeds.shape, generator=source)
    embeds *= torch.rand(prompt.embeds.shape[1], 1, generator=source) * 9
    return replace(prompt, embeds=embeds)


def pool_of(model: EchoingPixelsForConditionalGeneration, prompt: Prompt) -> Pool:
    valid = torch.ones_like(prompt.input_ids[0], dtype=torch.bool)
    thinker = model.thinker
    return find_pool(prompt.input_ids[0], prompt.position_ids[:, 0], valid, thinker.special, thinker.timeline)


def left(model: EchoingPixelsForConditionalGeneration, prompt: Prompt, share: float) -> Tensor:
    valid = torch.ones_like(prompt.input_ids, dtype=torch.bool)
    (kept,) = prefilter(prompt, valid, model.thinker.special, model.thinker.timeline, share)
    return kept


@settings(max_examples=60)
@given(MEDIA, st.floats(0.05, 1.0), st.integers(0, 5))
def test_counts_and_windows(
    model: EchoingPixelsForConditionalGeneration, media: Media, share: float, seed: int
) -> None:
    """All text, the exact count, and one row of each modality in every window, the same each time."""
    prompt = placed(model, media, seed)
    pool, kept = pool_of(model, prompt), left(model, prompt, share)
    assert kept.tolist() == sorted(set(kept.tolist()))
    text = set(range(prompt.input_ids.shape[1])) - set(pool.rows.tolist())
    assert text <= set(kept.tolist())
    groups = set(zip(pool.window.tolist(), pool.is_audio.tolist(), strict=True))
    chosen = torch.isin(pool.rows, kept)
    assert set(zip(pool.window[chosen].tolist(), pool.is_audio[chosen].tolist(), strict=True)) == groups
    expected = max(keep_count(len(pool.rows), share), len(groups)) if len(pool.rows) else 0
    assert int(chosen.sum()) == expected
    assert torch.equal(kept, left(model, prompt, share))
    # Cosines do not care how long features are, and powers of two round nothing.
    assert torch.equal(kept, left(model, replace(prompt, embeds=prompt.embeds * 4), share))


@settings(max_examples=40)
@given(MEDIA)
def test_neighbours_in_time(model: EchoingPixelsForConditionalGeneration, media: Media) -> None:
    """Each row's neighbour, found one by one from the media's shape."""
    prompt = placed(model, media)
    pool = pool_of(model, prompt)
    steps, height, width = media.cells if media.cells[0] else (0, 0, 0)
    pictures, sounds = (~pool.is_audio).nonzero().flatten(), pool.is_audio.nonzero().flatten()
    assert len(pictures) == steps * height * width
    for rank, index in enumerate(pictures.tolist()):
        assert pool.frame[index] == rank // (height * width)
        expected = -1 if rank < height * width else int(pictures[rank - height * width])
        assert pool.before[index] == expected
    for rank, index in enumerate(sounds.tolist()):
        assert pool.before[index] == (-1 if rank == 0 else int(sounds[rank - 1]))
    starts = prompt.position_ids[1, 0, pool.rows[:1]]
    seconds = (prompt.position_ids[0, 0, pool.rows] - starts) // 50
    assert pool.window.tolist() == torch.unique(seconds, return_inverse=True)[1].tolist()


def test_blocks_do_not_mix(model: EchoingPixelsForConditionalGeneration) -> None:
    """Two clips in one prompt: frames of other sizes, windows of their own, and no neighbours across."""
    first, second = placed(model, Media((2, 2, 2), 1.0, 60)), placed(model, Media((2, 1, 3), 1.0, 40))
    moved = second.position_ids + int(first.position_ids.max()) + 1
    joined = Prompt(
        torch.cat((first.embeds, second.embeds), dim=1),
        torch.cat((first.input_ids, second.input_ids), dim=1),
        torch.cat((first.position_ids, moved), dim=2),
        first.rope_deltas,
        None,
    )
    whole, alone, other = (pool_of(model, prompt) for prompt in (joined, first, second))
    count = len(alone.rows)
    assert torch.equal(whole.before[:count], alone.before)
    assert torch.equal(whole.before[count:], torch.where(other.before >= 0, other.before + count, -1))
    assert torch.equal(whole.window[count:] - whole.window[count:].min(), other.window)
    assert not set(whole.window[:count].tolist()) & set(whole.window[count:].tolist())


def test_what_repeats_itself_goes(model: EchoingPixelsForConditionalGeneration) -> None:
    """One cell of a still picture changes once, and a held note changes once: those rows outlast the others."""
    prompt = placed(model, Media((5, 2, 2), 1.0, 400))
    pool = pool_of(model, prompt)
    pictures, sounds = (~pool.is_audio).nonzero().flatten(), pool.is_audio.nonzero().flatten()
    embeds = prompt.embeds.clone()
    features = embeds[0, pool.rows]
    features[pictures] = features[pictures[:4]].repeat(5, 1)
    features[sounds] = features[sounds[:1]]
    features[pictures[3 * 4 + 1]] *= -1
    features[sounds[40]] *= -1
    embeds[0, pool.rows] = features
    value = novelty(features, pool)
    assert value[pictures].argmax() == 3 * 4 + 1
    later = value[sounds[1:]]
    assert set(later.argsort(descending=True)[:2].tolist()) == {39, 40}  # it changes, and changes back
    assert later.min() == later[0]
    kept = left(model, replace(prompt, embeds=embeds), 0.3)
    assert int(pool.rows[pictures[3 * 4 + 1]]) in kept.tolist()
    assert int(pool.rows[sounds[40]]) in kept.tolist()


def test_a_share_of_one_leaves_everything(model: EchoingPixelsForConditionalGeneration) -> None:
    prompt = placed(model, Media((3, 2, 2), 1.0, 90))
    assert left(model, prompt, 1.0).tolist() == list(range(prompt.input_ids.shape[1]))


def test_padding_is_never_left(model: EchoingPixelsForConditionalGeneration) -> None:
    prompt = placed(model, Media((3, 2, 2), 1.0, 90))
    alone = left(model, prompt, 0.5)
    padded = Prompt(
        torch.nn.functional.pad(prompt.embeds, (0, 0, 3, 2), value=1.0),
        torch.nn.functional.pad(prompt.input_ids, (3, 2), value=model.thinker.special.video),
        torch.nn.functional.pad(prompt.position_ids, (3, 2), value=1),
        prompt.rope_deltas,
        torch.nn.functional.pad(torch.ones_like(prompt.input_ids), (3, 2)),
    )
    assert padded.attention_mask is not None
    special, timeline = model.thinker.special, model.thinker.timeline
    (kept,) = prefilter(padded, padded.attention_mask.bool(), special, timeline, 0.5)
    assert torch.equal(kept - 3, alone)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_equals_stand_alike(values: list[int]) -> None:
    ranks = rank_normalise(torch.tensor(values, dtype=torch.float32))
    for value, rank in zip(values, ranks.tolist(), strict=True):
        below, same = sum(v < value for v in values), values.count(value)
        assert rank == pytest.approx((below + (same + 1) / 2) / len(values))


def test_no_sum_depends_on_the_order_of_threads(model: EchoingPixelsForConditionalGeneration) -> None:
    """Adding rows at indices is done by atomics on CUDA, in another order each time, and near-equals change places."""
    from torch.utils._python_dispatch import TorchDispatchMode

    unordered = {"index_add", "index_add_", "scatter_add", "scatter_add_", "index_put", "index_put_", "histc"}

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name, floats = func._overloadpacket.__name__, isinstance(args[0], Tensor) and args[0].is_floating_point()
            accumulates = name not in ("index_put", "index_put_") or (len(args) > 3 and args[3])
            assert not (name in unordered and floats and accumulates), f"{name} adds in no fixed order on CUDA"
            return func(*args, **(kwargs or {}))

    prompt = placed(model, Media((4, 2, 3), 0.96, 400), 1)
    with torch.no_grad(), Watched():
        assert len(left(model, prompt, 0.5))
