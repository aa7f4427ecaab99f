"""Benchmarks: what they count is exact, what they time adds up. No test looks at how long anything took."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from echopix_cli.measure.bench import bench, layer_bound, random_engine, synthetic_clip
from echopix_cli.measure.live_bytes import LiveBytes
from echopix_cli.media import DecodePlan
from echopix_cli.model.shapes import SHAPES, Shape
from echopix_cli.weights.quantize import check_modules

CPU = torch.device("cpu")


def test_counting_layers() -> None:
    """The paper's 3B at 10 %: 36 layers, 4 of CS2."""
    assert layer_bound(36, 4, 1000, 100) == pytest.approx(36 / 7.6)
    assert layer_bound(36, 4, 1000, 1000) == pytest.approx(0.9)
    assert layer_bound(24, 0, 10, 5) == 2.0


def test_live_bytes_are_those_of_tensors_alive() -> None:
    before = torch.ones(1000)
    with LiveBytes() as live:
        first = before + 1  # 4,000 bytes
        second = first * 2  # and as many
        del first
        third = second.view(10, 100)  # no memory of its own
        third += 1
        after = torch.cat([second, second])  # 8,000 more
    assert live.peak == 12_000
    assert after.shape == (2000,)


@pytest.mark.parametrize("method", ["none", "int8", "nf4"])
def test_every_budget_beside_the_whole_prompt(method: str) -> None:
    engine = random_engine(SHAPES["tiny"], CPU, torch.float32, method)
    check_modules(engine.model, method, torch.float32)
    rounds: list[tuple[int, int]] = []
    result = bench(
        engine, [0.1, 1.0, 0.1], shape="tiny", seconds=4.0, trials=2, warmup=1, new_tokens=3,
        watch=lambda done, total: rounds.append((done, total)),
    )  # fmt: skip
    assert rounds[0] == (1, 3)
    assert rounds[-1] == (len(rounds), len(rounds)), "what is left is known at the end"
    assert (result.trials, result.warmup) == (2, 1)
    assert 2 <= result.rounds <= 4, "a busy machine has as many repeated as were asked for"
    pool = result.video_rows + result.audio_rows
    assert (result.video_rows, result.audio_rows) == (4 * 15, 100)
    assert [(row.budget, row.sieved, row.kept) for row in result.rows] == [
        (1.0, False, pool), (1.0, True, pool), (0.1, True, -(-pool // 10)),
    ]  # fmt: skip
    length = pool + result.text_rows
    sizes = engine.model.config.text
    for row in result.rows:
        assert row.stages["forward"].median > 0
        assert row.tokens_per_second.median > 0
        assert row.ratio.low is not None and row.ratio.high is not None
        assert row.ratio.low <= row.speedup <= row.ratio.high
    whole, _, tenth = result.rows
    assert "sieve" not in whole.stages, "none ran"
    assert tenth.stages["sieve"].median > 0
    assert (whole.speedup, whole.bound, whole.memory_ratio) == (1.0, 1.0, 1.0)
    assert tenth.bound == layer_bound(
        sizes.num_hidden_layers, sizes.av_refiner_layers, length, tenth.kept + result.text_rows
    )
    assert tenth.memory < whole.memory
    assert tenth.memory_ratio == whole.memory / tenth.memory


def test_a_file_is_decoded_in_every_trial(clips: dict[str, Path]) -> None:
    engine = random_engine(SHAPES["tiny"], CPU, torch.float32, "none")
    result = bench(engine, [0.2], shape="tiny", media=str(clips["both"]), trials=1, repeats=0, warmup=0, new_tokens=1)
    assert result.media == str(clips["both"])
    assert result.stages["decode"].median > 0
    assert result.video_rows > 0
    assert result.audio_rows > 0
    assert result.rows[0].tokens_per_second.median == 0.0, "there is no token after the first"
    forward, first = (result.rows[0].stages[name] for name in ("forward", "first_token"))
    assert result.rounds == 1
    encoding = sum(stage.median for stage in result.stages.values())
    assert first.median == pytest.approx(forward.median + encoding)
    assert (first.low, first.high) == (None, None), "one run has no spread"


def test_noise_is_sampled_as_a_720p_file_would_be() -> None:
    """The family's frame size for 1280 × 720, two frames a second, at most 120 of them."""
    clip = synthetic_clip(60.0, DecodePlan())
    assert clip.frames is not None and clip.waveform is not None
    assert clip.frames.shape == (120, 3, 224, 420)
    assert len(clip.waveform) == 960_000
    assert synthetic_clip(10.0, DecodePlan(max_audio_seconds=4.0)).audio_seconds == pytest.approx(4.0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes_are_configurations(shape: Shape, random_checkpoint: Path) -> None:
    """Built without memory: rotary sections, heads and towers fit one another."""
    import json

    from echopix_cli.model.configuration import EchoingPixelsConfig
    from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration

    raw = shape.configured(json.loads((random_checkpoint / "config.json").read_text()))
    with torch.device("meta"):
        model = EchoingPixelsForConditionalGeneration(EchoingPixelsConfig(**raw))
    text = model.config.text
    assert sum(text.sync_rope_section) * 2 == text.head_dim
    assert len(model.thinker.model.bidir_encoder.layers) == text.av_refiner_layers
    width = text.hidden_size
    assert (model.thinker.visual.config.out_hidden_size, model.thinker.audio_tower.config.output_dim) == (width, width)


def test_the_small_shape_is_mostly_decoder() -> None:
    """24 layers, 4 of CS2, and at least 2,000 audio-visual tokens of a minute."""
    shape = SHAPES["small"]
    assert (shape.text["num_hidden_layers"], shape.text["av_refiner_layers"]) == (24, 4)
    assert shape.pixels is not None
    clip = synthetic_clip(60.0, DecodePlan(min_pixels=shape.pixels, max_pixels=shape.pixels))
    assert clip.frames is not None
    steps, _, height, width = clip.frames.shape
    assert steps // 2 * (height // 28) * (width // 28) + 60 * 25 == 2100
