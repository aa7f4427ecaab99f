"""Questions put to several scenes of a batch as to one film."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from echopix_cli.model.positions import SpecialTokens, Timeline
from echopix_cli.model.processing import Processor
from echopix_cli.scenes import INSTRUMENTS, PICTURES
from echopix_cli.training import tiny
from echopix_cli.training.batch import collate
from echopix_cli.training.data import SceneBatches
from echopix_cli.training.films import Drawn, with_films
from echopix_cli.training.loop import Trainer
from echopix_cli.training.recipe import Recipe
from echopix_cli.training.start import Start

FAMILIES = ("when", "heard", "exists")


@pytest.fixture(scope="module")
def drawn(processor: Processor) -> list[Drawn]:
    data = SceneBatches(processor, "train", 12, FAMILIES, 9, questions=3)
    return [data.drawn(seed) for seed in range(12)]


def test_only_the_scene_asked_about_holds_the_name(processor: Processor, drawn: list[Drawn]) -> None:
    examples = with_films(drawn, 1.0, processor, np.random.default_rng(1))
    films = 0
    for one, example in zip(drawn, examples, strict=True):
        for item, plain, row in zip(one.items, one.example.rows, example.rows, strict=True):
            if row.film is None:
                assert row is plain
                continue
            films += 1
            assert row.families == (f"film-{item.family}",) and item.family in FAMILIES
            sources = torch.cat((row.film.video, row.film.audio))
            clips = set(sources[:, 0].tolist())
            (name,) = set(re.findall("|".join((*INSTRUMENTS, *PICTURES)), item.question))
            assert len(clips) > 1
            assert {clip for clip in clips if name in drawn[clip].names} <= {drawn.index(one)}
            # As many rows as a scene has, less what does not divide among the others; each of them once.
            rows = one.example.clip.video_rows + one.example.clip.audio_rows
            assert rows - len(clips) < len(sources) <= rows
            assert len(set(map(tuple, row.film.video.tolist()))) == len(row.film.video)
            # What the answer rests on is of that scene, and as much as has room.
            assert int(row.evidence.sum()) > 0
            assert int(row.evidence.sum()) <= int(plain.evidence.sum())
    assert films > 8


def test_rows_keep_their_place_in_the_frame_and_their_order_in_time(processor: Processor, drawn: list[Drawn]) -> None:
    """Height and width of a picture's row are what they are in its own clip's prompt; time never goes back."""
    examples = with_films(drawn, 1.0, processor, np.random.default_rng(2))
    batch = collate(examples, processor)
    special = SpecialTokens.of(processor.config.thinker_config)
    begins = np.cumsum([0, *(one.example.clip.video_rows for one in drawn)])
    rows = [row for example in examples for row in example.rows]
    videos = torch.split(batch.video_index, [int((row.ids == special.video).sum()) for row in rows])
    assert len(batch.audio_index) == sum(int((row.ids == special.audio).sum()) for row in rows)
    for number, (row, video) in enumerate(zip(rows, videos, strict=True)):
        if row.film is None:
            continue
        own = batch.positions[:, number, -len(row.ids) :]
        media = special.in_pool(row.ids)
        time = own[0, media]
        for token in (special.video, special.audio):
            assert bool((own[0, row.ids == token].diff() >= 0).all())
        assert int(time.max() - time.min()) < 8 * Timeline.of(processor.config.thinker_config).per_second
        for place, found in zip(own[:, row.ids == special.video].T.tolist(), video.tolist(), strict=True):
            clip = int(np.searchsorted(begins, found, side="right")) - 1
            _, height, width = drawn[clip].example.clip.cells
            y, x = divmod((found - begins[clip]) % (height * width), width)
            assert place[1] - place[2] == y - x and place[1] >= int(time.min())


def test_without_films_nothing_changes(processor: Processor) -> None:
    """Every prompt has all rows of its clip."""
    batch = SceneBatches(processor, "train", 4, FAMILIES, 9, questions=2)[0]
    thinker = processor.config.thinker_config
    special = SpecialTokens.of(thinker)
    assert len(batch.video_index) == int((batch.input_ids == special.video).sum())
    assert len(batch.audio_index) == int((batch.input_ids == special.audio).sum())


def test_a_step_learns_from_films(processor: Processor, tmp_path: Path) -> None:
    model = tiny.build_model(processor.config, seed=1)
    recipe = Recipe(steps=1, batch_size=8, questions=2, warmup=1, validate_batches=0, families=FAMILIES, films=1.0)
    fit = Trainer(Start(model, processor, {}), recipe, tmp_path)
    names = {name for row in fit._data(1, "train")[0].families for name in row}
    assert any(name.startswith("film-") for name in names)
    assert not any(name.startswith("film-") for row in fit._data(1, "val")[0].families for name in row)
    fit.run()
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert np.isfinite(record["loss"]) and record["evidence"] > 0
