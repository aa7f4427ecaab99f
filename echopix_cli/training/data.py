"""Scenes → training batches, rendered on the fly; batch i depends on (recipe, i) only, so resuming is exact."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from echopix_cli import scenes
from echopix_cli.model.positions import SpecialTokens, Timeline, position_ids
from echopix_cli.model.processing import DEFAULT_SYSTEM, ClipInputs, PixelRules, Processor, prepare_clip
from echopix_cli.model.values import IGNORE
from echopix_cli.scenes import (
    AUDIO_ROWS_PER_SECOND,
    Evidence,
    Item,
    Script,
    evidence_rows,
    frame_side,
    sample_times,
    scene_clip,
)
from echopix_cli.training.recipe import RENDERED


@dataclass(frozen=True)
class Row:
    """One prompt row with its answers.

    All (L,): token ``ids``, ``labels`` (``IGNORE`` but at answers), ``segments`` (0 for what all questions
    share, then 1, 2, … for each question with its answer). ``evidence`` (questions, L), bool: what each answer
    depends on. ``asking`` (questions,): the place of the word in each question that says what to look for, as a
    name or a side; of the row before the answer where there is none. ``families`` names each question's family.
    """

    ids: Tensor
    labels: Tensor
    evidence: Tensor
    segments: Tensor
    asking: Tensor
    families: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """One clip and its rows: a row per question, or one row that packs them all.

    ``heard`` (audio rows, instruments), ``seen`` (video rows,), ``around`` (audio rows, SURROUNDINGS) and
    ``meanwhile`` (video rows, instruments: what sounds during a row's grid step) are what the auxiliary heads learn,
    where that is known; -1 in ``seen`` is "nothing here".
    """

    clip: ClipInputs
    rows: tuple[Row, ...]
    heard: Tensor | None = None
    seen: Tensor | None = None
    around: Tensor | None = None
    meanwhile: Tensor | None = None


@dataclass(frozen=True)
class Targets:
    """What a pass over prompts is to predict.

    ``labels`` (B, L): ``IGNORE`` but at answer tokens. ``weights`` (answer tokens,), in the order of ``labels``; None
    for the mean over tokens. ``segments`` (B, L) as in :class:`Batch`; None where no row packs several questions.
    """

    labels: Tensor
    weights: Tensor | None = None
    segments: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """One step's inputs and labels.

    ``input_ids``, ``attention_mask``, ``labels``, ``segments`` (B, L), padded on the left (segment -1), and
    ``evidence`` (questions of all rows, L) with ``asking`` (questions of all rows,); ``clips`` (B,) says which
    clip each row asks about, ``families`` the questions in each row; ``positions`` (4, B, L) and ``rope_deltas``
    (B, 1) are :func:`~echopix_cli.model.positions.position_ids`'. ``weights`` (answer tokens,), in the order of
    ``labels``, sum to 1: every family counts the same. Of the clips, in order: ``patches`` (n, 1176) uint8 with
    ``grids`` (None without picture), to be normalised by ``rules``; ``mel`` (sounds, 128, frames) with
    ``mel_frames`` (sounds,), and how many ``video_rows`` and ``audio_rows`` each has (0 without).
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    evidence: Tensor
    segments: Tensor
    asking: Tensor
    clips: tuple[int, ...]
    families: tuple[tuple[str, ...], ...]
    positions: Tensor
    rope_deltas: Tensor
    weights: Tensor
    patches: Tensor | None
    grids: tuple[tuple[int, int, int] | None, ...]
    mel: Tensor | None
    mel_frames: Tensor | None
    video_rows: tuple[int, ...]
    audio_rows: tuple[int, ...]
    heard: Tensor | None = None
    seen: Tensor | None = None
    around: Tensor | None = None
    meanwhile: Tensor | None = None
    rules: PixelRules = PixelRules()  # noqa: RUF009 - frozen

    @property
    def targets(self) -> Targets:
        """What the answer pass is to predict."""
        return Targets(self.labels, self.weights, self.segments)

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on a device."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in memory that a GPU reads by itself; what a data loader calls."""
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)


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
    seen = torch.zeros(0, dtype=torch.long)
    if clip.grid_thw is not None:
        middle = (times[0::2] + times[1::2]) / 2
        seen = torch.from_numpy(scenes.seen(script, middle, clip.cells[1:])).long().flatten()
    row_times = (np.arange(clip.audio_rows) + 0.5) / AUDIO_ROWS_PER_SECOND
    heard = scenes.heard(script, row_times)
    around = torch.from_numpy(scenes.surroundings(script, row_times, dark=clip.grid_thw is None)).float()
    during = np.zeros((clip.cells[0], heard.shape[1]), dtype=bool)
    if len(during):  # what sounds before the first step counts as the first step's
        np.logical_or.at(during, np.searchsorted(clip.grid_times[1:], row_times, side="right"), heard)
    meanwhile = torch.from_numpy(during).float().repeat_interleave(clip.cells[1] * clip.cells[2], dim=0)
    labels = (torch.from_numpy(heard).float(), seen, around, meanwhile)
    return Example(clip, (pack_rows(rows),) if pack else tuple(rows), *labels)


@dataclass(frozen=True)
class Opening:
    """What all questions about a clip share: the prompt up to the question, and the turn after it.

    ``before`` and ``after`` are token ids; ``shared`` is where the rows begin that a question may call its own;
    ``video`` and ``audio`` (L,) are the places of the clip's rows.
    """

    processor: Processor
    clip: ClipInputs
    before: Tensor
    after: Tensor
    shared: int
    video: Tensor
    audio: Tensor

    @classmethod
    def of(cls, processor: Processor, clip: ClipInputs, system: str = DEFAULT_SYSTEM) -> Opening:
        """The opening of a clip's prompts."""
        special: Any = processor.config.thinker_config
        before, after = (torch.tensor(ids) for ids in processor.around_question(clip, system))
        video, audio = (
            (before == token).nonzero().squeeze(1) for token in (special.video_token_id, special.audio_token_id)
        )
        media = torch.cat((video, audio))
        shared = int(media.max()) + 1 if len(media) else 0
        # The marks that close the block belong to it: they share one position.
        while shared < len(before) and int(before[shared]) in (special.audio_end_token_id, special.vision_end_token_id):
            shared += 1
        return cls(processor, clip, before, after, shared, video, audio)


def make_row(question: str, answer: str, family: str, evidence: Sequence[Evidence], opening: Opening) -> Row:
    """One question about a clip, with its answer as labels."""
    processor, clip = opening.processor, opening.clip
    asked, looked_for = _question(processor, question)
    reply = _answer(processor, answer)
    prompt = torch.cat((opening.before, asked, opening.after))
    ids = torch.cat((prompt, reply))
    picture, sound = evidence_rows(evidence, clip.cells, clip.grid_times, clip.audio_rows)
    rests_on = torch.zeros(len(ids), dtype=torch.bool)
    rests_on[opening.video] = torch.from_numpy(picture)
    rests_on[opening.audio] = torch.from_numpy(sound)
    segments = (torch.arange(len(ids)) >= opening.shared).long()
    labels = torch.cat((torch.full_like(prompt, IGNORE), reply))
    asking = torch.tensor([len(prompt) - 1 if looked_for is None else len(opening.before) + looked_for])
    return Row(ids, labels, rests_on[None], segments, asking, (family,))


@lru_cache(maxsize=4096)  # scenes ask the same few hundred questions over and over
def _question(processor: Processor, question: str) -> tuple[Tensor, int | None]:
    """Token ids of a question, and which is the last of the last word that says what to look for."""
    ids = processor.question_ids(question)
    pieces = [processor.text([token]) for token in ids]
    ends = np.cumsum([len(piece) for piece in pieces])
    found = list(_LOOKED_FOR.finditer("".join(pieces)))
    return torch.tensor(ids), int(np.searchsorted(ends, found[-1].end())) if found else None


@lru_cache(maxsize=4096)
def _answer(processor: Processor, answer: str) -> Tensor:
    return torch.tensor(processor.answer_ids(answer))


def pack_rows(rows: Sequence[Row]) -> Row:
    """Several questions about one clip behind a single copy of it.

    Full-token training is causal, so the clip's rows are the same whatever is asked: one pass over them
    serves every question, as long as no question sees another (``segments`` says which is which).
    """
    first = rows[0]
    shared = first.segments == 0
    parts = [(row, row.segments != 0) for row in rows]
    evidence = torch.cat([row.evidence[:, row.segments == 0] for row in rows])
    lengths = [int(own.sum()) for _, own in parts]
    before = [sum(lengths[:place]) for place in range(len(rows))]
    return Row(
        ids=torch.cat([first.ids[shared], *(row.ids[own] for row, own in parts)]),
        labels=torch.cat([first.labels[shared], *(row.labels[own] for row, own in parts)]),
        evidence=torch.nn.functional.pad(evidence, (0, sum(lengths))),
        segments=torch.cat([first.segments[shared], *(row.segments[own] + i for i, (row, own) in enumerate(parts))]),
        asking=torch.cat([row.asking + moved for row, moved in zip(rows, before, strict=True)]),
        families=tuple(family for row in rows for family in row.families),
    )


def collate(examples: Sequence[Example], processor: Processor) -> Batch:
    """Pad on the left and join what the towers take in one piece."""
    rows = [row for example in examples for row in example.rows]
    clips = [index for index, example in enumerate(examples) for _ in example.rows]
    width = max(len(row.ids) for row in rows)

    def left(parts: list[Tensor], fill: int) -> Tensor:
        return torch.stack([torch.nn.functional.pad(part, (width - part.shape[-1], 0), value=fill) for part in parts])

    input_ids = left([row.ids for row in rows], int(processor.tokenizer.pad_token_id or 0))
    attention_mask = left([torch.ones_like(row.ids) for row in rows], 0)
    asked_of = [examples[clip].clip for clip in clips]
    shown = [clip for clip in asked_of if clip.grid_thw is not None]
    thinker: Any = processor.config.thinker_config
    positions, deltas = position_ids(
        input_ids,
        SpecialTokens.of(thinker),
        attention_mask=attention_mask,
        video_grid_thw=torch.tensor([clip.grid_thw for clip in shown]) if shown else None,
        video_grid_times=[clip.grid_times for clip in shown],
        audio_rows=[clip.audio_rows for clip in asked_of if clip.audio_rows],
        spatial_merge_size=processor.rules.merge_size,
        timeline=Timeline.of(thinker),
    )
    patches = [e.clip.patches for e in examples if e.clip.patches is not None]
    sounds = [e.clip.mel for e in examples if e.clip.mel is not None]
    longest = max((mel.shape[1] for mel in sounds), default=0)
    padded = [torch.nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in sounds]
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        labels=left([row.labels for row in rows], IGNORE),
        evidence=left([asked for row in rows for asked in row.evidence], 0),
        segments=left([row.segments for row in rows], -1),
        asking=torch.cat([row.asking + width - len(row.ids) for row in rows]),
        clips=tuple(clips),
        families=tuple(row.families for row in rows),
        positions=positions,
        rope_deltas=deltas,
        weights=_family_weights(rows),
        patches=torch.cat(patches) if patches else None,
        grids=tuple(e.clip.grid_thw for e in examples),
        mel=torch.stack(padded) if padded else None,
        mel_frames=torch.tensor([mel.shape[1] for mel in sounds]) if padded else None,
        video_rows=tuple(e.clip.video_rows for e in examples),
        audio_rows=tuple(e.clip.audio_rows for e in examples),
        heard=_joined([e.heard for e in examples if e.clip.mel is not None]),
        seen=_joined([e.seen for e in examples if e.clip.patches is not None]),
        around=_joined([e.around for e in examples if e.clip.mel is not None]),
        meanwhile=_joined([e.meanwhile for e in examples if e.clip.patches is not None]),
        rules=processor.rules,
    )


def _family_weights(rows: Sequence[Row]) -> Tensor:
    """A weight for every answer token, row by row: families count the same, and within one every token does."""
    names = [row.families[int(part) - 1] for row in rows for part in row.segments[row.labels != IGNORE]]
    sizes = Counter(names)
    return torch.tensor([1.0 / (len(sizes) * sizes[name]) for name in names])


def _joined(labels: Sequence[Tensor | None]) -> Tensor | None:
    """All labels in one tensor; None where there are none, or where one clip has none."""
    known = [label for label in labels if label is not None]
    return torch.cat(known) if known and len(known) == len(labels) else None


# What questions name: things and instruments, and where to look.
_NAMED = (*scenes.INSTRUMENTS, *scenes.PICTURES, "left", "right", "top", "bottom")
_LOOKED_FOR = re.compile(rf"\b(?:{'|'.join(_NAMED)})\b")
_MOST = 16  # questions packed behind one clip


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
    and plays its sound in a quarter of the cases, which is what the towers alone learn most from.
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
    ) -> None:
        self.processor, self.split, self.batch_size = processor, split, batch_size
        self.families, self.length = tuple(families), length
        self.side = frame_side(processor.rules.max_pixels, processor.rules.size_factor)
        self.pack, self.questions, self.first, self.sparse = pack, questions, first, sparse

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        examples = [self.example(self.first + index * self.batch_size + offset) for offset in range(self.batch_size)]
        return collate(examples, self.processor)

    def example(self, seed: int) -> Example:
        """Scene ``seed`` and its questions; the first is one that it was made for."""
        random = np.random.default_rng((seed, len(self.split)))
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
            without = "audio" if random.random() >= self.played else ""
        elif training and random.random() < self.one_sided:
            sense = str(random.choice(("audio", "video")))
            answered = [item for item in items if _SENSES.get(item.family) == sense]
            if answered and script.sound.track:
                items, without = answered, {"audio": "video", "video": "audio"}[sense]
        if not self.pack:
            items = _some(items, self.questions, random)
        return make_example(script, items, self.processor, times, self.side, without=without, pack=self.pack)
