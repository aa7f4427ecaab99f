"""Scenes → training batches, rendered on the fly; batch i depends on (recipe, i) only, so resuming is exact."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from echopix_cli import scenes
from echopix_cli.model.processing import DEFAULT_SYSTEM, ClipInputs, Processor, prepare_clip
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

    ``heard`` (audio rows, instruments), ``seen`` (video rows,) and ``around`` (audio rows, SURROUNDINGS) are
    what the auxiliary heads learn, where that is known; -1 in ``seen`` is "nothing here".
    """

    clip: ClipInputs
    rows: tuple[Row, ...]
    heard: Tensor | None = None
    seen: Tensor | None = None
    around: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """One step's inputs and labels.

    ``input_ids``, ``attention_mask``, ``labels``, ``segments`` (B, L), padded on the left (segment -1), and
    ``evidence`` (questions of all rows, L) with ``asking`` (questions of all rows,); ``clips`` (B,) says which
    clip each row asks about, ``families``
    the questions in each row. Of the
    clips, in order: ``pixel_values`` (patches, 1176) with ``grids`` and ``grid_times`` (None without picture),
    ``mel`` (sounds, 128, frames) with ``mel_frames`` (sounds,), and ``audio_rows`` (0 without sound).
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    evidence: Tensor
    segments: Tensor
    asking: Tensor
    clips: tuple[int, ...]
    families: tuple[tuple[str, ...], ...]
    pixel_values: Tensor | None
    grids: tuple[tuple[int, int, int] | None, ...]
    grid_times: tuple[np.ndarray, ...]
    mel: Tensor | None
    mel_frames: Tensor | None
    audio_rows: tuple[int, ...]
    heard: Tensor | None = None
    seen: Tensor | None = None
    around: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on a device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


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
    rows = [make_row(item.question, item.answer, item.family, item.evidence, processor, clip) for item in items]
    seen = torch.zeros(0, dtype=torch.long)
    if clip.grid_thw is not None:
        middle = (times[0::2] + times[1::2]) / 2
        seen = torch.from_numpy(scenes.seen(script, middle, clip.cells[1:])).long().flatten()
    row_times = (np.arange(clip.audio_rows) + 0.5) / AUDIO_ROWS_PER_SECOND
    heard = torch.from_numpy(scenes.heard(script, row_times)).float()
    around = torch.from_numpy(scenes.surroundings(script, row_times, dark=clip.grid_thw is None)).float()
    return Example(clip, (pack_rows(rows),) if pack else tuple(rows), heard, seen, around)


def make_row(
    question: str,
    answer: str,
    family: str,
    evidence: Sequence[Evidence],
    processor: Processor,
    clip: ClipInputs,
    system: str = DEFAULT_SYSTEM,
) -> Row:
    """One question about a clip, with its answer as labels."""
    prompt = processor.prompt_ids(question, clip, system)[0]
    reply = torch.tensor(processor.answer_ids(answer))
    ids = torch.cat((prompt, reply))
    picture, sound = evidence_rows(evidence, clip.cells, clip.grid_times, clip.audio_rows)
    special = processor.config.thinker_config
    rests_on = torch.zeros(len(ids), dtype=torch.bool)
    rests_on[ids == special.video_token_id] = torch.from_numpy(picture)  # type: ignore[union-attr]
    rests_on[ids == special.audio_token_id] = torch.from_numpy(sound)  # type: ignore[union-attr]
    media = torch.isin(ids, torch.tensor([special.video_token_id, special.audio_token_id]))  # type: ignore[union-attr]
    shared = int(media.nonzero().max()) + 1 if bool(media.any()) else 0
    # The marks that close the block belong to it: they share one position.
    while int(ids[shared]) in (special.audio_end_token_id, special.vision_end_token_id):  # type: ignore[union-attr]
        shared += 1
    segments = (torch.arange(len(ids)) >= shared).long()
    labels = torch.cat((torch.full_like(prompt, IGNORE), reply))
    asking = torch.tensor([_asking_row(prompt, shared, processor)])
    return Row(ids, labels, rests_on[None], segments, asking, (family,))


def _asking_row(prompt: Tensor, begin: int, processor: Processor) -> int:
    """Where the last token of the last word that says what to look for is; the last row where there is none."""
    pieces = [processor.text([int(token)]) for token in prompt[begin:]]
    ends = np.cumsum([len(piece) for piece in pieces])
    found = list(_LOOKED_FOR.finditer("".join(pieces)))
    return begin + int(np.searchsorted(ends, found[-1].end())) if found else len(prompt) - 1


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


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pad on the left and join what the towers take in one piece."""
    rows = [row for example in examples for row in example.rows]
    width = max(len(row.ids) for row in rows)

    def left(parts: list[Tensor], fill: int) -> Tensor:
        return torch.stack([torch.nn.functional.pad(part, (width - part.shape[-1], 0), value=fill) for part in parts])

    pixels = [e.clip.pixel_values for e in examples if e.clip.pixel_values is not None]
    sounds = [e.clip.mel for e in examples if e.clip.mel is not None]
    longest = max((mel.shape[1] for mel in sounds), default=0)
    padded = [torch.nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in sounds]
    return Batch(
        input_ids=left([row.ids for row in rows], pad_id),
        attention_mask=left([torch.ones_like(row.ids) for row in rows], 0),
        labels=left([row.labels for row in rows], IGNORE),
        evidence=left([asked for row in rows for asked in row.evidence], 0),
        segments=left([row.segments for row in rows], -1),
        asking=torch.cat([row.asking + width - len(row.ids) for row in rows]),
        clips=tuple(index for index, example in enumerate(examples) for _ in example.rows),
        families=tuple(row.families for row in rows),
        pixel_values=torch.cat(pixels) if pixels else None,
        grids=tuple(e.clip.grid_thw for e in examples),
        grid_times=tuple(e.clip.grid_times for e in examples),
        mel=torch.stack(padded) if padded else None,
        mel_frames=torch.tensor([mel.shape[1] for mel in sounds]) if padded else None,
        audio_rows=tuple(e.clip.audio_rows for e in examples),
        heard=_joined([e.heard for e in examples if e.clip.mel is not None]),
        seen=_joined([e.seen for e in examples if e.clip.pixel_values is not None]),
        around=_joined([e.around for e in examples if e.clip.mel is not None]),
    )


def _joined(labels: Sequence[Tensor | None]) -> Tensor | None:
    """All labels in one tensor; None where there are none, or where one clip has none."""
    known = [label for label in labels if label is not None]
    return torch.cat(known) if known and len(known) == len(labels) else None


# What questions name: things and instruments, and where to look.
_NAMED = (*scenes.INSTRUMENTS, *scenes.PICTURES, "left", "right", "top", "bottom")
_LOOKED_FOR = re.compile(rf"\b(?:{'|'.join(_NAMED)})\b")
_MOST = 16  # questions packed behind one clip

# Families that one sense answers; the other may be missing from the clip altogether.
_SENSES = {"instrument": "audio", "order": "audio", "object": "video"}


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
        return collate(examples, int(self.processor.tokenizer.pad_token_id))

    def example(self, seed: int) -> Example:
        """Scene ``seed`` and its questions; the first is one that it was made for."""
        random = np.random.default_rng((seed, len(self.split)))
        script = scenes.make_script(self.split, seed, self.families[int(random.integers(len(self.families)))])
        training = self.split == "train"
        items, without = list(script.items), ""
        if self.pack and training:  # the clip's rows cost most, and are paid once
            items = list(scenes.ask_everything(script, random))[:_MOST]
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
            others = random.permutation(np.arange(1, len(items)))[: self.questions - 1]
            items = [items[0], *(items[int(i)] for i in others)]
        return make_example(script, items, self.processor, times, self.side, without=without, pack=self.pack)
