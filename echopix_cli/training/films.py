"""Questions about films, made of the scenes of a batch: only one of them holds what is asked about.

What a film's windows hand on are rows of several scenes in one prompt, time closed up between them. Of the scenes of a
batch as many as do not hold the question's name take part beside the one that was asked about, each with some of its
rows, and all together with as many as one scene has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from echopix_cli.model.positions import (
    WINDOW_GAP,
    SpecialTokens,
    Timeline,
    film_positions,
    joined_positions,
    position_ids,
)
from echopix_cli.model.processing import ClipInputs, Processor
from echopix_cli.scenes import DURATION, INSTRUMENTS, PICTURES, Item, Script, evidence_rows
from echopix_cli.training.batch import Example
from echopix_cli.training.rows import FilmMedia, Opening, Row, labelled

_FAMILIES = ("when", "heard", "exists")  # that hang on the one scene with the name, in a film as well
_NAME = re.compile(rf"\b(?:{'|'.join(dict.fromkeys((*INSTRUMENTS, *PICTURES)))})\b")
_MOST = 8  # windows
_SHARES = (0.2, 0.9)  # of the rows that the scene asked about has

Rng = np.random.Generator


@dataclass(frozen=True)
class Drawn:
    """A scene of a batch as it was drawn: its script, what is asked of it, row by row, and the example made of it."""

    script: Script
    items: tuple[Item, ...]
    example: Example

    @property
    def names(self) -> set[str]:
        """What sounds or is shown."""
        return {note.instrument for note in self.script.notes} | {sprite.name for sprite in self.script.sprites}

    @property
    def whole(self) -> bool:
        """Whether it has picture and sound."""
        return self.example.clip.grid_thw is not None and self.example.clip.audio_rows > 0


def with_films(drawn: Sequence[Drawn], share: float, processor: Processor, rng: Rng) -> list[Example]:
    """Examples of which a share of the questions that can be put to a film are put to one."""
    examples = []
    for number, one in enumerate(drawn):
        rows = one.example.rows
        if share > 0:
            rows = tuple(_perhaps(drawn, number, place, share, processor, rng) for place in range(len(rows)))
        examples.append(replace(one.example, rows=rows))
    return examples


def _perhaps(drawn: Sequence[Drawn], number: int, place: int, share: float, processor: Processor, rng: Rng) -> Row:
    one = drawn[number]
    item, row = one.items[place], one.example.rows[place]
    names = set(_NAME.findall(item.question))
    if rng.random() >= share or item.family not in _FAMILIES or len(names) != 1 or not one.whole:
        return row
    others = [i for i, other in enumerate(drawn) if i != number and other.whole and names.isdisjoint(other.names)]
    taken = rng.permutation(others)[: int(rng.integers(1, _MOST))].tolist()
    return film_row(drawn, number, item, taken, processor, rng) if taken else row


def film_row(
    drawn: Sequence[Drawn], number: int, item: Item, others: Sequence[int], processor: Processor, rng: Rng
) -> Row:
    """A question to a film of one scene, by its ``number`` in the batch, and of ``others``, in random order."""
    special, per_second = _of(processor)
    own = drawn[number].example.clip
    capacity = own.video_rows + own.audio_rows
    mine = round(capacity * float(rng.uniform(*_SHARES)))
    parts = []
    for place, window in enumerate(rng.permutation([number, *others]).tolist()):
        clip = drawn[window].example.clip
        block = _Block.of(clip, processor)
        evident = np.zeros(len(block.is_audio), dtype=bool)
        if window == number:
            picture, sound = evidence_rows(item.evidence, clip.cells, clip.grid_times, clip.audio_rows)
            evident[~block.is_audio], evident[block.is_audio] = picture, sound
        count = mine if window == number else (capacity - mine) // len(others)
        chosen = np.sort(np.lexsort((rng.random(len(evident)), ~evident))[:count])  # evidence first, then any
        parts.append(block.taken(chosen, place, window, evident[chosen]))
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    film = _Block(*(np.concatenate(arrays, axis=-1) for arrays in columns))
    block_positions = joined_positions(
        film.windows,
        film.positions,
        film.is_audio,
        gap=round(WINDOW_GAP * per_second),
        longest=round(DURATION * per_second),
    )
    heard = film.is_audio
    opening = Opening.of(processor, own, rows=heard)
    picture, sound = film.evident[~heard], film.evident[heard]
    row = labelled(item.question, item.answer, f"film-{item.family}", picture, sound, opening)
    positions, _ = film_positions(special, row.ids.tolist(), block_positions)
    video, audio = (torch.from_numpy(np.stack((film.clips[of], film.ordinals[of]), axis=1)) for of in (~heard, heard))
    return replace(row, film=FilmMedia(video, audio, positions[:, 0]))


def _of(processor: Processor) -> tuple[SpecialTokens, int]:
    """Ids of the placeholders, and positions a second."""
    thinker = processor.config.thinker_config
    return SpecialTokens.of(thinker), Timeline.of(thinker).per_second


@dataclass(frozen=True)
class _Block:
    """Media rows (n,) of a prompt, in order.

    ``positions`` (3, n) are relative to the start of their window; ``ordinals`` count the rows of a clip's picture, and
    those of its sound; ``windows`` and ``clips`` say which window of the film, and which clip of the batch;
    ``evident`` those that the answer rests on.
    """

    is_audio: np.ndarray
    positions: np.ndarray
    ordinals: np.ndarray
    windows: np.ndarray
    clips: np.ndarray
    evident: np.ndarray

    @classmethod
    def of(cls, clip: ClipInputs, processor: Processor) -> _Block:
        """All rows of a clip with picture and sound."""
        special, _ = _of(processor)
        before, _ = processor.around_question(clip)
        ids = torch.tensor([before])
        positions, _ = position_ids(
            ids,
            special,
            video_grid_thw=torch.tensor([clip.grid_thw]),
            video_grid_times=[clip.grid_times],
            audio_rows=[clip.audio_rows],
            spatial_merge_size=processor.rules.merge_size,
            timeline=Timeline.of(processor.config.thinker_config),
        )
        places = special.in_pool(ids[0]).nonzero()[:, 0]
        start = positions[0, 0, places[0] - 1] + 1
        is_audio = (ids[0, places] == special.audio).numpy()
        none = np.zeros(len(places), dtype=np.int64)
        ordinals = np.where(is_audio, is_audio.cumsum(), (~is_audio).cumsum()) - 1
        return cls(is_audio, (positions[:3, 0, places] - start).numpy(), ordinals, none, none, none.astype(bool))

    def taken(self, rows: np.ndarray, window: int, clip: int, evident: np.ndarray) -> _Block:
        """Some rows, as a window of a film."""
        of = np.full(len(rows), window), np.full(len(rows), clip)
        return _Block(self.is_audio[rows], self.positions[:, rows], self.ordinals[rows], *of, evident)
