"""Questions about films, made of the scenes of a batch: one or two of them hold what is asked about.

What a film's windows hand on are rows of several scenes in one prompt, time closed up between them. Of the scenes of a
batch as many as do not hold the question's names take part beside those that do, each with some of its rows, at places
of their own in a film that is up to an hour long, and all together with as many rows as one scene has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from echopix_cli.model.positions import (
    WINDOW_GAP,
    SpecialTokens,
    Timeline,
    film_positions,
    film_shares,
    joined_positions,
    position_ids,
)
from echopix_cli.model.processing import ClipInputs, Processor
from echopix_cli.scenes import (
    DURATION,
    Evidence,
    Item,
    Modality,
    Needle,
    Script,
    ask_order,
    ask_part,
    evidence_rows,
    moved,
    present,
)
from echopix_cli.training.batch import Example
from echopix_cli.training.letters import is_lettered
from echopix_cli.training.rows import NAMES, FilmMedia, Opening, Row, labelled

_FAMILIES = ("when", "heard", "exists")  # that hang on the one scene with the name, in a film as well
_PART, _ORDER = "movie-when", "movie-order"  # whose answer is the film's own
_LONGEST = 450  # windows of a film
_SHARES = (0.05, 0.9)  # of the rows of a prompt, which those asked about have
_BUSY = 0.5  # share of films in which other scenes come with the rows in which something sounds or lies
_TRIES = 4  # of a film in which it is clear where something lies

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
        return set().union(*present(self.script).values())

    @property
    def whole(self) -> bool:
        """Whether it has picture and sound."""
        return self.example.clip.grid_thw is not None and self.example.clip.audio_rows > 0


@dataclass(frozen=True)
class SceneFilm:
    """A film of so many ``windows``, of which some are scenes of the batch: their numbers, by window."""

    windows: int
    scenes: Mapping[int, int]

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.windows * DURATION

    def where(self, scene: int) -> int:
        """The window that a scene is."""
        return next(window for window, number in self.scenes.items() if number == scene)


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
    if rng.random() >= share or not one.whole or is_lettered(item):
        return row
    made = None
    names = set(NAMES.findall(item.question))
    if item.family == _ORDER:
        made = _of_two(drawn, number, item.evidence[0].modality, sorted(names), rng)
    elif item.family in (*_FAMILIES, _PART) and len(names) == 1:
        made = _of_one(drawn, number, item, names.pop(), rng)
    return row if made is None else film_row(drawn, *made, processor, rng)


def _of_one(drawn: Sequence[Drawn], number: int, item: Item, name: str, rng: Rng) -> tuple[SceneFilm, Item] | None:
    """A film of which one scene holds a name, with what is asked of that scene."""
    others = [i for i, other in enumerate(drawn) if i != number and other.whole and name not in other.names]
    if not others:
        return None
    for _ in range(_TRIES):
        film = _film(rng, [number], others)
        window = film.where(number)
        if item.family != _PART:
            return film, replace(item, evidence=moved(item.evidence, window))
        needle = Needle(window, name, item.evidence[0].modality, drawn[number].script)
        for asked in ask_part(rng, needle, film.duration):
            return film, replace(asked, family=_PART)
    return None


def _of_two(
    drawn: Sequence[Drawn], number: int, modality: Modality, names: Sequence[str], rng: Rng
) -> tuple[SceneFilm, Item] | None:
    """A film of which one scene holds one of some names, and another scene another name."""
    own = drawn[number]
    name = names[int(rng.integers(len(names)))]
    without = [i for i, other in enumerate(drawn) if i != number and other.whole and name not in other.names]
    pairs = [(i, found) for i in without for found in sorted(present(drawn[i].script)[modality] - own.names)]
    if not pairs:
        return None
    second, other = pairs[int(rng.integers(len(pairs)))]
    film = _film(rng, [number, second], [i for i in without if other not in drawn[i].names])
    needles = [
        Needle(film.where(scene), held, modality, drawn[scene].script)
        for scene, held in ((number, name), (second, other))
    ]
    (item,) = ask_order(rng, sorted(needles, key=lambda needle: needle.window))
    return film, replace(item, family=_ORDER)


def _film(rng: Rng, needles: Sequence[int], others: Sequence[int]) -> SceneFilm:
    """A film of some scenes and of some others, in random order and at random places."""
    taken = rng.permutation(others)[: int(rng.integers(1, len(others) + 1))].tolist() if others else []
    scenes = rng.permutation([*needles, *taken]).tolist()
    windows = round(float(np.exp(rng.uniform(np.log(len(scenes)), np.log(_LONGEST)))))
    places = np.sort(rng.permutation(windows)[: len(scenes)]).tolist()
    return SceneFilm(windows, dict(zip(places, scenes, strict=True)))


def film_row(drawn: Sequence[Drawn], film: SceneFilm, item: Item, processor: Processor, rng: Rng) -> Row:
    """A question to a film; the evidence is in seconds of it."""
    special, per_second = _of(processor)
    evidence = {window: _within(item.evidence, window) for window in film.scenes}
    held = [window for window in film.scenes if evidence[window]]
    first = drawn[film.scenes[held[0]]].example.clip
    capacity = first.video_rows + first.audio_rows
    mine = round(capacity * float(rng.uniform(*_SHARES))) if len(held) < len(film.scenes) else capacity
    busy = rng.random() < _BUSY
    parts = []
    for window, number in film.scenes.items():
        example = drawn[number].example
        clip = example.clip
        block = _Block.of(clip, processor)
        evident = np.zeros(len(block.is_audio), dtype=bool)
        picture, sound = evidence_rows(evidence[window], clip.cells, clip.grid_times, clip.audio_rows)
        evident[~block.is_audio], evident[block.is_audio] = picture, sound
        count = mine // len(held) if evidence[window] else (capacity - mine) // (len(film.scenes) - len(held))
        first_taken = evident if evidence[window] or not busy else _busy(example, block.is_audio)
        chosen = np.sort(np.lexsort((rng.random(len(evident)), ~first_taken))[:count])  # these, then any
        parts.append(block.taken(chosen, window, number, evident[chosen]))
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    rows = _Block(*(np.concatenate(arrays, axis=-1) for arrays in columns))
    starts = rows.windows * DURATION + rows.positions[0] / per_second
    block_positions = joined_positions(
        rows.windows,
        rows.positions,
        rows.is_audio,
        gap=round(WINDOW_GAP * per_second),
        longest=round(DURATION * per_second),
        shares=film_shares(processor.config.thinker_config.text_config, starts, 0.0, film.duration),
    )
    heard = rows.is_audio
    opening = Opening.of(processor, first, rows=heard)
    picture, sound = rows.evident[~heard], rows.evident[heard]
    row = labelled(item.question, item.answer, f"film-{item.family}", picture, sound, opening)
    positions, _ = film_positions(special, row.ids.tolist(), block_positions)
    video, audio = (torch.from_numpy(np.stack((rows.clips[of], rows.ordinals[of]), axis=1)) for of in (~heard, heard))
    return replace(row, film=FilmMedia(video, audio, positions[:, 0]))


def _busy(example: Example, is_audio: np.ndarray) -> np.ndarray:
    """(n,) bool: rows of a scene in which something sounds or lies, which any sieve would take before others."""
    found = np.zeros(len(is_audio), dtype=bool)
    if example.heard is not None and example.seen is not None:
        found[is_audio], found[~is_audio] = example.heard.numpy().any(axis=1), example.seen.numpy() >= 0
    return found


def _within(evidence: tuple[Evidence, ...], window: int) -> tuple[Evidence, ...]:
    """What of the evidence lies in a window, in seconds of the window."""
    return tuple(piece for piece in moved(evidence, -window) if piece.end > 0 and piece.start < DURATION)


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
