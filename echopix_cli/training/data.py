"""Scenes → training batches, rendered on the fly; batch i depends on (recipe, i) only, so resuming is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset

from echopix_cli import scenes
from echopix_cli.model.processing import Processor, prepare_clip
from echopix_cli.scenes import (
    AUDIO_ROWS_PER_SECOND,
    Item,
    Script,
    frame_side,
    sample_times,
    scene_clip,
)
from echopix_cli.training.batch import Batch, Example, collate
from echopix_cli.training.films import Drawn, with_films
from echopix_cli.training.letters import lettered
from echopix_cli.training.recipe import RENDERED
from echopix_cli.training.rows import Opening, make_row, pack_rows


def make_example(
    script: Script,
    items: Sequence[Item],
    processor: Processor,
    times: np.ndarray,
    side: int,
    *,
    without: str = "",
    pack: bool = False,
) -> Example:
    """Render a scene, perhaps ``without`` a modality, and pose questions about it."""
    clip = prepare_clip(scene_clip(script, side, times, without), processor.rules)
    opening = Opening.of(processor, clip)
    rows = [make_row(item.question, item.answer, item.family, item.evidence, opening) for item in items]
    seen, hopping = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool)
    if clip.grid_thw is not None:
        middle = (times[0::2] + times[1::2]) / 2
        seen = torch.from_numpy(scenes.seen(script, middle, clip.cells[1:])).long().flatten()
        away = scenes.seen(script, times, clip.cells[1:], hopping=True) >= 0  # in either frame of a step
        hopping = torch.from_numpy(away[0::2] | away[1::2]).flatten()
    row_times = (np.arange(clip.audio_rows) + 0.5) / AUDIO_ROWS_PER_SECOND
    heard = scenes.heard(script, row_times)
    around = torch.from_numpy(scenes.surroundings(script, row_times, dark=clip.grid_thw is None)).float()
    during = np.zeros((clip.cells[0], heard.shape[1]), dtype=bool)
    if len(during):  # what sounds before the first step counts as the first step's
        np.logical_or.at(during, np.searchsorted(clip.grid_times[1:], row_times, side="right"), heard)
    meanwhile = torch.from_numpy(during).float().repeat_interleave(clip.cells[1] * clip.cells[2], dim=0)
    labels = (torch.from_numpy(heard).float(), seen, hopping, around, meanwhile)
    return Example(clip, (pack_rows(rows),) if pack else tuple(rows), *labels)


_MOST = 16  # questions packed behind one clip
_FILMS = 1  # so that films are drawn apart from scenes


def _some(items: Sequence[Item], count: int, random: np.random.Generator) -> list[Item]:
    """The first, and others drawn at random."""
    others = random.permutation(np.arange(1, len(items)))[: count - 1]
    return [*items[:1], *(items[int(i)] for i in others)]


# Families that one sense answers; the other may be missing from the clip altogether.
_SENSES = {"instrument": "audio", "order": "audio", "object": "video", "corner": "video"}
TRAINED_SPLITS = tuple(trained for trained, _ in RENDERED.values())


class SceneBatches(Dataset[Batch]):
    """Batch ``index`` of a split: scenes ``first + index·B … first + index·B + B − 1``.

    ``families`` repeats a name to draw it more often. ``pack`` asks everything that a scene answers, in one
    row; otherwise ``questions`` of them are asked in rows of their own. Training moves the sampled frames a
    little in time, and leaves out the sense that questions do not need in a share ``one_sided`` of the clips,
    so that sound alone and picture alone are known too. ``sparse`` shows two moments of a scene instead of eight,
    and plays its sound in a quarter of the cases, which is what the towers alone learn most from. ``films`` is the
    share of questions, of those that can be, that are put to several scenes of the batch as one film. ``galleries`` is
    the share of clips that are full of pictures in place of scenes, ``letters`` that of questions with options behind
    letters.
    """

    one_sided = 0.15
    played = 0.25

    def __init__(
        self,
        processor: Processor,
        split: str,
        batch_size: int,
        families: Sequence[str],
        length: int,
        *,
        pack: bool = False,
        questions: int = 1,
        first: int = 0,
        sparse: bool = False,
        films: float = 0.0,
        galleries: float = 0.0,
        letters: float = 0.0,
    ) -> None:
        self.processor, self.split, self.batch_size = processor, split, batch_size
        self.families, self.length = tuple(families), length
        self.side = frame_side(processor.rules.max_pixels, processor.rules.size_factor)
        self.pack, self.questions, self.first, self.sparse = pack, questions, first, sparse
        self.films, self.galleries, self.letters = films, galleries, letters

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        first = self.first + index * self.batch_size
        drawn = [self.drawn(first + offset) for offset in range(self.batch_size)]
        rng = np.random.default_rng((first, len(self.split), _FILMS))
        return collate(with_films(drawn, self.films, self.processor, rng), self.processor)

    def drawn(self, seed: int) -> Drawn:
        """Scene ``seed`` and its questions; the first is one that it was made for."""
        random = np.random.default_rng((seed, len(self.split)))
        if gallery := self.galleries > 0 and random.random() < self.galleries:
            script = scenes.make_gallery(self.split, seed)
        else:
            script = scenes.make_script(self.split, seed, self.families[int(random.integers(len(self.families)))])
        training = self.split in TRAINED_SPLITS
        items, without = list(script.items), ""
        if training and not self.sparse:
            if self.pack:  # the clip's rows cost most, and are paid once
                items = list(scenes.ask_everything(script, random))
            # Families of their own, so that those of scenes weigh no less for them.
            items += [replace(item, family=f"movie-{item.family}") for item in scenes.ask_as_movie(random, script)]
            items = _some(items, _MOST, random)
        times = sample_times(script.duration, float(random.uniform(-0.15, 0.15)) if training else 0.0)
        if self.sparse:
            moments = np.sort(random.permutation(len(times) // 2)[:2])
            times = times.reshape(-1, 2)[moments].reshape(-1)
            without = "audio" if gallery or random.random() >= self.played else ""
        elif training and random.random() < self.one_sided:
            sense = str(random.choice(("audio", "video")))
            answered = [item for item in items if _SENSES.get(item.family) == sense]
            if answered and script.sound.track:
                items, without = answered, {"audio": "video", "video": "audio"}[sense]
        if not self.pack:
            items = _some(items, self.questions, random)
        if self.letters > 0:
            items = [lettered(item, random) if random.random() < self.letters else item for item in items]
        made = make_example(script, items, self.processor, times, self.side, without=without, pack=self.pack)
        return Drawn(script, tuple(items), made)
