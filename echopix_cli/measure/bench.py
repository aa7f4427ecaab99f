"""What a model of a given shape costs on this machine, measured with random weights.

Every budget is compared, within one round, with the same prompt run whole through the decoder alone, as a model
without a sieve would. Beside each speed-up stands the bound that counting layers gives.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from statistics import median

import numpy as np
import torch

from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.engine import Engine
from echopix_cli.engine.meters import Clock, reset_peaks
from echopix_cli.measure.live_bytes import LiveBytes
from echopix_cli.measure.profiling import FULL
from echopix_cli.measure.rounds import (
    Disturbance,
    Ratio,
    Spread,
    disagreement,
    interleave,
    paired_ratios,
    ratio_of,
    spread_of,
)
from echopix_cli.media import Clip, DecodePlan, MediaInfo
from echopix_cli.media.sampling import smart_nframes, smart_resize
from echopix_cli.media.values import SAMPLE_RATE
from echopix_cli.model.decoding import generate
from echopix_cli.model.processing import Processor
from echopix_cli.model.shapes import Shape
from echopix_cli.model.sieve import keep_count
from echopix_cli.results import AudioStatus
from echopix_cli.weights.checkpoint import read_config
from echopix_cli.weights.registry import BUNDLED, ModelSource, files_of, find_model
from echopix_cli.weights.synthetic import random_model

Times = dict[str, float]  # seconds by stage
QUESTION = "What do you see and hear?"
SOURCE_FPS, SOURCE_HEIGHT, SOURCE_WIDTH = 30.0, 720, 1280  # of the synthetic clip
PLAUSIBLE = (0.7, 1.3)  # share of the layer-count bound, outside which a speed-up on a CPU is not believed
_ENCODING = ("decode", "vision", "audio")


@dataclass(frozen=True)
class BenchRow:
    """One budget, or with ``sieved`` False the whole prompt through the decoder alone.

    Attributes:
        kept: audio-visual rows that enter the decoder.
        stages: seconds of ``place`` (embedding and placing the prompt), ``sieve`` (where there is one), ``prefill``,
            ``forward`` (these together), ``first_token`` (from the file, or the synthetic frames, to the first token)
            and ``generate``.
        tokens_per_second: of the tokens after the first.
        memory: peak bytes of activations and key-value cache, beyond weights and tower features.
        ratio: the whole prompt's ``forward`` over this one's, pair by pair.
        first_token_ratio: the whole prompt's ``first_token`` over this one's, pair by pair.
        memory_ratio: the whole prompt's ``memory`` over this one's.
        bound: the speed-up that counting layers and rows gives (:func:`layer_bound`).
    """

    budget: float
    sieved: bool
    kept: int
    stages: dict[str, Spread]
    tokens_per_second: Spread
    memory: int
    ratio: Ratio
    first_token_ratio: Ratio
    memory_ratio: float
    bound: float

    @property
    def speedup(self) -> float:
        """Of sieve and prefill over the whole prompt."""
        return self.ratio.median

    @property
    def first_token_speedup(self) -> float:
        """Of the whole way to the first token."""
        return self.first_token_ratio.median

    @property
    def share(self) -> float:
        """What was reached of the layer-count bound."""
        return self.speedup / self.bound


@dataclass(frozen=True)
class Bench:
    """A run: what was measured, with what, and a row for each budget; the first row is the whole prompt.

    ``stages`` are seconds of ``decode``, ``vision`` and ``audio``, spent once per clip. ``layer_ratio`` is what a
    CS2 layer costs over a decoder layer on the same rows, scoring and choosing included. ``weight_bytes`` is what
    the loaded model takes. ``trials`` were asked for, ``rounds`` count, and in ``disturbed`` others or, with a
    ``doubt``, of these, other work took the processor. ``doubt`` says why nothing can be concluded from the ratios;
    it is None where they hold.
    """

    shape: str
    engine: Engine
    media: str | None
    seconds: float
    video_rows: int
    audio_rows: int
    text_rows: int
    new_tokens: int
    trials: int
    warmup: int
    rounds: int
    disturbed: int
    doubt: str | None
    weight_bytes: int
    stages: dict[str, Spread]
    layer_ratio: float
    rows: tuple[BenchRow, ...]


def random_engine(shape: Shape, device: torch.device, dtype: torch.dtype, method: str) -> Engine:
    """An engine whose model has random weights; tokenizer and token ids are the bundled model's.

    Raises:
        EchopixError: quantization without the package it needs.
    """
    bundled = files_of(find_model(BUNDLED)).folder
    raw = shape.configured(json.loads((bundled / "config.json").read_text(encoding="utf-8")))
    clock = Clock(device)
    with clock.stage("load"):
        model = random_model(raw, dtype, device, method)
        processor = Processor.load(bundled, read_config(bundled))
        processor = Processor(
            processor.tokenizer, model.config, shape.rules(processor.rules), sorted(processor.stop_ids)
        )
    source = ModelSource(shape.name, bundled, quantization=method)
    return Engine(model, processor, source, clock.seconds["load"])


def synthetic_clip(seconds: float, plan: DecodePlan) -> Clip:
    """Noise to see and hear, sampled as a 720p file of that length at 30 frames a second would be.

    Args:
        plan: from :meth:`Engine.plan`.
    """
    source = np.random.default_rng(0)
    total = max(2, round(seconds * SOURCE_FPS))
    count = smart_nframes(total, SOURCE_FPS, fps=plan.fps, min_frames=plan.min_frames, max_frames=plan.max_frames)
    height, width = smart_resize(SOURCE_HEIGHT, SOURCE_WIDTH, plan.size_factor, plan.min_pixels, plan.max_pixels)
    heard = min(seconds, plan.max_audio_seconds or seconds)
    return Clip(
        path="noise",
        frames=source.integers(0, 256, (count, 3, height, width), np.uint8),
        frame_times=np.linspace(0.0, (total - 1) / SOURCE_FPS, count),
        waveform=source.normal(0.0, 0.1, round(heard * SAMPLE_RATE)).astype(np.float32),
        audio_status=AudioStatus.USED,
        start=0.0,
        end=seconds,
        info=MediaInfo("noise", seconds, ()),
        source_fps=SOURCE_FPS,
        source_size=(SOURCE_HEIGHT, SOURCE_WIDTH),
        asked_fps=plan.fps,
    )


def layer_bound(layers: int, sieve_layers: int, rows: int, kept: int) -> float:
    """How much less a sieve leaves to do, counting one unit of work for each row in each layer.

    ``D·L / (C·L + D·K)`` for D decoder layers, C layers of CS2, L rows of the prompt and K that are left of them.
    """
    return layers * rows / (sieve_layers * rows + layers * kept)


def bench(
    engine: Engine,
    budgets: Sequence[float],
    *,
    shape: str,
    seconds: float = 60.0,
    media: str | None = None,
    plan: DecodePlan = DecodePlan(),  # noqa: B008 - frozen
    trials: int = 6,
    warmup: int = 1,
    repeats: int | None = None,
    new_tokens: int = 16,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Bench:
    """Measure the whole prompt and ``budgets`` on one clip.

    Each round encodes the clip anew and then runs every budget, beginning with another one each time. On a CPU, rounds
    are repeated in which other work took the processor; on any device, more are run while the rounds disagree, and on
    a CPU while a speed-up is far from what counting layers gives.

    Args:
        engine: with random weights or real ones.
        budgets: fractions of audio-visual rows kept, in (0, 1].
        seconds: length of the synthetic clip, where no file is given.
        media: a file to decode, in each round.
        plan: what to take from it.
        trials: rounds wanted.
        repeats: rounds that may be added to them; as many as ``trials`` without it.
        new_tokens: generated in each run, the first one included.
        watch: called with (rounds done, rounds expected).

    Raises:
        MediaError, DeviceError: as :meth:`Engine.read`.
    """
    plan = engine.plan(plan)
    clip = None if media is not None else synthetic_clip(seconds, plan)
    wanted = sorted(set(budgets), reverse=True)

    def encode() -> Encoded:
        return engine.encode(clip) if clip is not None else engine.read(str(media), plan)

    encoded = encode()
    inputs, sizes = encoded.inputs, engine.model.config.text
    span = seconds if clip is not None else (encoded.sampling.end or 0.0) - encoded.sampling.start
    pool = inputs.video_rows + inputs.audio_rows
    length = engine.processor.prompt_ids(QUESTION, inputs).shape[1]
    kept = {budget: keep_count(pool, budget) for budget in wanted}
    bounds = {
        budget: layer_bound(sizes.num_hidden_layers, sizes.av_refiner_layers, length, length - pool + kept[budget])
        for budget in wanted
    }
    del encoded  # or two clips' features would be held at once
    on_cpu = engine.device.type == "cpu"

    def doubt(passes: Mapping[float | None, Sequence[Times]]) -> str | None:
        for budget in wanted:
            pairs = paired_ratios(passes[None], passes[budget], itemgetter("forward"))
            share = ratio_of(pairs).median / bounds[budget]
            if (apart := disagreement(pairs)) is not None:
                return f"at budget {budget:g} {apart}"
            if on_cpu and not PLAUSIBLE[0] <= share <= PLAUSIBLE[1]:
                return (
                    f"at budget {budget:g} the speed-up is {100 * share:.0f} % of what counting layers gives: either "
                    "something else slowed the machine, or layers are not what costs in this shape"
                )
        return None

    measured = interleave(
        [None, *wanted],
        encode,
        lambda encoded, budget: _run(engine, encoded, budget, new_tokens),
        trials=trials,
        warmup=warmup,
        repeats=repeats,
        doubt=doubt,
        disturbance=Disturbance if on_cpu else None,
        watch=watch,
    )
    runs = measured.passes
    # Bytes are counted in a round of their own: counting takes time.
    counted = interleave(
        [None, *wanted],
        encode,
        lambda encoded, budget: _memory(engine, encoded, budget, new_tokens),
        trials=1,
        warmup=0,
        disturbance=None,
    )
    whole = _Measured(runs[None], *counted.passes[None])
    rows = [_row(FULL, whole, whole, pool, 1.0, new_tokens, sieved=False)]
    for budget in wanted:
        own = _Measured(runs[budget], *counted.passes[budget])
        rows.append(_row(budget, own, whole, kept[budget], bounds[budget], new_tokens))
    sieving = median(times["sieve"] for budget in wanted for times in runs[budget])
    return Bench(
        shape=shape,
        engine=engine,
        media=media,
        seconds=span,
        video_rows=inputs.video_rows,
        audio_rows=inputs.audio_rows,
        text_rows=length - pool,
        new_tokens=new_tokens,
        trials=trials,
        warmup=warmup,
        rounds=measured.counted,
        disturbed=measured.disturbed,
        doubt=measured.doubt,
        weight_bytes=sum(tensor.nbytes for tensor in (*engine.model.parameters(), *engine.model.buffers())),
        stages={name: spread_of([times[name] for times in runs[None]]) for name in _ENCODING},
        layer_ratio=sieving / sizes.av_refiner_layers * sizes.num_hidden_layers / whole.median("prefill"),
        rows=tuple(rows),
    )


@dataclass(frozen=True)
class _Measured:
    """All runs of one budget: their times, and peak bytes."""

    runs: Sequence[Times]
    memory: int

    def median(self, stage: str) -> float:
        return median(times[stage] for times in self.runs)


def _row(
    budget: float,
    own: _Measured,
    whole: _Measured,
    kept: int,
    bound: float,
    new_tokens: int,
    *,
    sieved: bool = True,
) -> BenchRow:
    rates = [(new_tokens - 1) / times["generate"] for times in own.runs] if new_tokens > 1 else [0.0]
    stages = [name for name in own.runs[0] if name not in _ENCODING]
    return BenchRow(
        budget=budget,
        sieved=sieved,
        kept=kept,
        stages={name: spread_of([times[name] for times in own.runs]) for name in stages},
        tokens_per_second=spread_of(rates),
        memory=own.memory,
        ratio=ratio_of(paired_ratios(whole.runs, own.runs, itemgetter("forward"))),
        first_token_ratio=ratio_of(paired_ratios(whole.runs, own.runs, itemgetter("first_token"))),
        memory_ratio=whole.memory / own.memory,
        bound=bound,
    )


@torch.inference_mode()
def _run(engine: Engine, encoded: Encoded, budget: float | None, new_tokens: int) -> Times:
    """One pass over an encoded clip; without a budget no sieve runs."""
    clock = Clock(engine.device)
    with clock.stage("place"):
        posed = engine.pose(encoded, QUESTION)
    if budget is None:
        sieved = posed.unsieved
    else:
        with clock.stage("sieve"):
            sieved = engine.model.thinker.sieve(posed.prompt, budget)
    tokens = generate(engine.model.thinker, sieved, max_new_tokens=new_tokens)
    with clock.stage("prefill"):
        next(tokens)
    forward = sum(clock.seconds.values())
    with clock.stage("generate"):
        for _ in tokens:
            pass
    first_token = sum(encoded.seconds.values()) + forward
    return {**encoded.seconds, **clock.seconds, "forward": forward, "first_token": first_token}


def _memory(engine: Engine, encoded: Encoded, budget: float | None, new_tokens: int) -> int:
    """Peak bytes of one pass beyond what was held before it: of the allocator on CUDA, counted elsewhere."""
    gc.collect()
    if engine.device.type == "cuda":
        reset_peaks(engine.device)
        before = torch.cuda.memory_allocated(engine.device)
        _run(engine, encoded, budget, new_tokens)
        return int(torch.cuda.max_memory_allocated(engine.device)) - int(before)
    with LiveBytes() as live:
        _run(engine, encoded, budget, new_tokens)
    return int(live.peak)
