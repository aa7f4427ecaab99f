"""Questions put to several scenes of a batch as to one film."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from echopix_cli.model.positions import SpecialTokens
from echopix_cli.model.processing import Processor
from echopix_cli.model.values import IGNORE
from echopix_cli.scenes import INSTRUMENTS, PICTURES
from echopix_cli.scenes.script import NUMBERS
from echopix_cli.training import tiny
from echopix_cli.training.batch import collate
from echopix_cli.training.data import SceneBatches
from echopix_cli.training.films import Drawn, with_films
from echopix_cli.training.loop import Trainer
from echopix_cli.training.recipe import Recipe
from echopix_cli.training.start import Start

FAMILIES = ("when", "heard", "exists")
OF_FILMS = ("movie-when", "movie-order")
PER_SECOND = 25


@pytest.fixture(scope="module")
def drawn(processor: Processor) -> list[Drawn]:
    data = SceneBatches(processor, "train", 12, FAMILIES, 9, questions=5)
    return [data.drawn(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def told(processor: Processor) -> Iterator[Processor]:
    """The processor of a model that is told the film's own time."""
    text = processor.config.thinker_config.text_config
    text.film_time = "whole"
    yield processor
    text.film_time = "joined"


def named(text: str) -> set[str]:
    return set(re.findall(r"\b(?:" + "|".join((*INSTRUMENTS, *PICTURES)) + r")\b", text))


def test_only_the_scenes_asked_about_hold_the_names(processor: Processor, drawn: list[Drawn]) -> None:
    examples = with_films(drawn, 1.0, processor, np.random.default_rng(1))
    films = 0
    for one, example in zip(drawn, examples, strict=True):
        for item, plain, row in zip(one.items, one.example.rows, example.rows, strict=True):
            if row.film is None:
                assert row is plain
                continue
            films += 1
            assert row.families == (f"film-{item.family}",) and item.family in (*FAMILIES, *OF_FILMS)
            sources = torch.cat((row.film.video, row.film.audio))
            clips = set(sources[:, 0].tolist())
            asked = named(processor.text(row.ids[row.labels == IGNORE].tolist()))
            assert len(clips) > 1 and len(asked) == (2 if item.family == "movie-order" else 1)
            for name in asked:
                held = {clip for clip in clips if name in drawn[clip].names}
                assert held <= {drawn.index(one)} or (item.family == "movie-order" and len(held) == 1)
            # As many rows as a scene has, less what does not divide among the others; each of them once.
            rows = one.example.clip.video_rows + one.example.clip.audio_rows
            assert rows - len(clips) < len(sources) <= rows
            assert len(set(map(tuple, row.film.video.tolist()))) == len(row.film.video)
            # What the answer rests on is of that scene, and as much as has room.
            assert int(row.evidence.sum()) > 0
            assert item.family == "movie-order" or int(row.evidence.sum()) <= int(plain.evidence.sum())
    assert films > 20


def test_answers_about_the_film_are_those_of_its_last_axis(told: Processor, drawn: list[Drawn]) -> None:
    """In which fifth the evidence lies, and which of two names comes first, by the positions that the model sees."""
    longest, seen = 8 * PER_SECOND, dict.fromkeys(OF_FILMS, 0)
    special = SpecialTokens.of(told.config.thinker_config)
    for seed in range(6):
        for example in with_films(drawn, 1.0, told, np.random.default_rng(seed)):
            for row in example.rows:
                family = row.families[0].removeprefix("film-")
                if row.film is None or family not in OF_FILMS:
                    continue
                seen[family] += 1
                answer = told.text(row.ids[row.labels != IGNORE].tolist()).removesuffix("<|im_end|>").strip()
                positions = row.film.positions
                first = int(special.in_pool(row.ids).nonzero()[0])
                whole = positions[3, row.evidence[0]] - positions[3, first - 1] - 1
                if family == "movie-when":
                    fifths = set((whole * 5 // longest).tolist())
                    assert NUMBERS.index(answer) in fifths and len(fifths) <= 2, "a row may lie on the border"
                    continue
                asked = named(told.text(row.ids[row.labels == IGNORE].tolist()))
                clips = row.ids.new_full(row.ids.shape, -1)
                clips[row.ids == special.video] = row.film.video[:, 0]
                clips[row.ids == special.audio] = row.film.audio[:, 0]
                rows = row.evidence[0].nonzero()[:, 0]
                earliest = int(clips[rows[positions[0, rows].argmin()]])
                assert asked & drawn[earliest].names == {answer}
    assert min(seen.values()) >= 10


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
        assert int(time.max() - time.min()) < 8 * PER_SECOND
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
