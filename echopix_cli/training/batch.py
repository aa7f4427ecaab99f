"""Batches: clips with the prompt rows about them, padded and joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from echopix_cli.model.positions import SpecialTokens, Timeline, position_ids
from echopix_cli.model.processing import ClipInputs, PixelRules, Processor
from echopix_cli.model.values import IGNORE
from echopix_cli.training.rows import Row


@dataclass(frozen=True)
class Example:
    """One clip and its rows: a row per question, or one row that packs them all.

    ``heard`` (audio rows, instruments), ``seen`` (video rows,), ``hopping`` (video rows,), bool, ``around`` (audio
    rows, sum of SURROUNDINGS) and ``meanwhile`` (video rows, instruments: what sounds during a row's grid step) are
    what the auxiliary heads learn, where that is known; -1 in ``seen`` is "nothing here". ``notices`` say what of the
    clip's file was not used.
    """

    clip: ClipInputs
    rows: tuple[Row, ...]
    heard: Tensor | None = None
    seen: Tensor | None = None
    hopping: Tensor | None = None
    around: Tensor | None = None
    meanwhile: Tensor | None = None
    notices: tuple[str, ...] = ()


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
class LeftOut:
    """A file that cannot be used, and why, in one line that names it."""

    media: str
    reason: str


@dataclass(frozen=True)
class Noticed:
    """A file that is used, and what was said of it as it was decoded."""

    media: str
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Unread:
    """In place of a batch of whose files none can be used."""

    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Batch:
    """One step's inputs and labels.

    ``input_ids``, ``attention_mask``, ``labels``, ``segments`` (B, L), padded on the left (segment -1), and
    ``evidence`` (questions of all rows, L) with ``asking`` (questions of all rows,); ``families`` names the
    questions in each row; ``positions`` (4, B, L) and ``rope_deltas``
    (B, 1) are :func:`~echopix_cli.model.positions.position_ids`'. ``weights`` (answer tokens,), in the order of
    ``labels``, sum to 1: every family counts the same. Of the clips, in order: ``patches`` (n, 1176) uint8 with
    ``grids`` (None without picture), to be normalised by ``rules``; ``mel`` (sounds, 128, frames) with
    ``mel_frames`` (sounds,). ``video_index`` and ``audio_index`` say of each media row of the prompts, one prompt after
    another, which of the rows that the towers make of all clips it is. ``left_out`` are files that have no part in it,
    ``noticed`` those of which something was not used.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    evidence: Tensor
    segments: Tensor
    asking: Tensor
    families: tuple[tuple[str, ...], ...]
    positions: Tensor
    rope_deltas: Tensor
    weights: Tensor
    patches: Tensor | None
    grids: tuple[tuple[int, int, int] | None, ...]
    mel: Tensor | None
    mel_frames: Tensor | None
    video_index: Tensor
    audio_index: Tensor
    heard: Tensor | None = None
    seen: Tensor | None = None
    hopping: Tensor | None = None
    around: Tensor | None = None
    meanwhile: Tensor | None = None
    rules: PixelRules = PixelRules()  # noqa: RUF009 - frozen
    left_out: tuple[LeftOut, ...] = ()
    noticed: tuple[Noticed, ...] = ()

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


def collate(examples: Sequence[Example], processor: Processor) -> Batch:
    """Pad on the left and join what the towers take in one piece."""
    rows = [row for example in examples for row in example.rows]
    clips = [index for index, example in enumerate(examples) for _ in example.rows]
    width = max(len(row.ids) for row in rows)

    def left(parts: list[Tensor], fill: int) -> Tensor:
        return torch.stack([torch.nn.functional.pad(part, (width - part.shape[-1], 0), value=fill) for part in parts])

    input_ids = left([row.ids for row in rows], int(processor.tokenizer.pad_token_id or 0))
    attention_mask = left([torch.ones_like(row.ids) for row in rows], 0)
    films = [row.film for row in rows]
    whole = [place for place, film in enumerate(films) if film is None]
    asked_of = [examples[clips[place]].clip for place in whole]
    shown = [clip for clip in asked_of if clip.grid_thw is not None]
    thinker: Any = processor.config.thinker_config
    positions = torch.ones(4, len(rows), width, dtype=torch.long)
    deltas = torch.zeros(len(rows), 1, dtype=torch.long)
    positions[:, whole], deltas[whole] = position_ids(
        input_ids[whole],
        SpecialTokens.of(thinker),
        attention_mask=attention_mask[whole],
        video_grid_thw=torch.tensor([clip.grid_thw for clip in shown]) if shown else None,
        video_grid_times=[clip.grid_times for clip in shown],
        audio_rows=[clip.audio_rows for clip in asked_of if clip.audio_rows],
        spatial_merge_size=processor.rules.merge_size,
        timeline=Timeline.of(thinker),
    )
    for place, film in enumerate(films):
        if film is not None:
            length = film.positions.shape[1]
            positions[:, place, width - length :] = film.positions
            deltas[place] = film.positions.max() + 1 - length
    video_taken = [None if film is None else film.video for film in films]
    audio_taken = [None if film is None else film.audio for film in films]
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
        families=tuple(row.families for row in rows),
        positions=positions,
        rope_deltas=deltas,
        weights=_family_weights(rows),
        patches=torch.cat(patches) if patches else None,
        grids=tuple(e.clip.grid_thw for e in examples),
        mel=torch.stack(padded) if padded else None,
        mel_frames=torch.tensor([mel.shape[1] for mel in sounds]) if padded else None,
        video_index=_index([e.clip.video_rows for e in examples], clips, video_taken),
        audio_index=_index([e.clip.audio_rows for e in examples], clips, audio_taken),
        heard=_joined([e.heard for e in examples if e.clip.mel is not None]),
        seen=_joined([e.seen for e in examples if e.clip.patches is not None]),
        hopping=_joined([e.hopping for e in examples if e.clip.patches is not None]),
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


def _index(sizes: Sequence[int], clips: Sequence[int], films: Sequence[Tensor | None]) -> Tensor:
    """Where the media rows of prompts lie among the rows of all clips, which have ``sizes``.

    A prompt has all rows of its clip, or those that a film takes, (n, 2) as of :class:`~.rows.FilmMedia`.
    """
    begins = torch.tensor([0, *sizes]).cumsum(0)
    parts = [
        torch.arange(sizes[clip]) + begins[clip] if film is None else begins[film[:, 0]] + film[:, 1]
        for clip, film in zip(clips, films, strict=True)
    ]
    return torch.cat(parts)
