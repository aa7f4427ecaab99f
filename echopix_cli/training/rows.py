"""Prompt rows with their answers: one question about a clip, or several behind one copy of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from echopix_cli import scenes
from echopix_cli.model.processing import DEFAULT_SYSTEM, ClipInputs, Processor
from echopix_cli.model.values import IGNORE
from echopix_cli.scenes import Evidence, evidence_rows

# What questions name: things and instruments, and where to look.
_NAMED = tuple(dict.fromkeys((*scenes.INSTRUMENTS, *scenes.PICTURES)))
NAMES = re.compile(rf"\b(?:{'|'.join(_NAMED)})\b")
_LOOKED_FOR = re.compile(rf"\b(?:{'|'.join((*_NAMED, 'left', 'right', 'top', 'bottom'))})\b")


@dataclass(frozen=True)
class FilmMedia:
    """The media rows of a prompt that come from several clips of a batch.

    ``video`` and ``audio`` (n, 2) say of each row, in the prompt's order, which clip it is from and which of that
    clip's rows it is; ``positions`` (4, L) are the whole prompt row's.
    """

    video: Tensor
    audio: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Row:
    """One prompt row with its answers.

    All (L,): token ``ids``, ``labels`` (``IGNORE`` but at answers), ``segments`` (0 for what all questions
    share, then 1, 2, … for each question with its answer). ``evidence`` (questions, L), bool: what each answer
    depends on. ``asking`` (questions,): the place of the word in each question that says what to look for, as a
    name or a side; of the row before the answer where there is none. ``families`` names each question's family.
    ``film`` says where the media rows come from where that is not one clip, whole.
    """

    ids: Tensor
    labels: Tensor
    evidence: Tensor
    segments: Tensor
    asking: Tensor
    families: tuple[str, ...]
    film: FilmMedia | None = None


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
    def of(
        cls,
        processor: Processor,
        clip: ClipInputs,
        system: str = DEFAULT_SYSTEM,
        rows: npt.NDArray[np.bool_] | None = None,
    ) -> Opening:
        """The opening of a clip's prompts; ``rows`` (n,) takes other media rows than the clip's, true for sound."""
        special: Any = processor.config.thinker_config
        before, after = (torch.tensor(ids) for ids in processor.around_question(clip, system, rows))
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
    clip = opening.clip
    picture, sound = evidence_rows(evidence, clip.cells, clip.grid_times, clip.audio_rows)
    return labelled(question, answer, family, picture, sound, opening)


def labelled(
    question: str,
    answer: str,
    family: str,
    picture: npt.NDArray[np.bool_],
    sound: npt.NDArray[np.bool_],
    opening: Opening,
) -> Row:
    """As :func:`make_row`, with the rows of picture and of sound that the answer rests on."""
    processor = opening.processor
    asked, looked_for = _question(processor, question)
    reply = _answer(processor, answer)
    prompt = torch.cat((opening.before, asked, opening.after))
    ids = torch.cat((prompt, reply))
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
    asked, _, _ = "".join(pieces).partition("\n")  # options below it are not what it asks for
    found = list(_LOOKED_FOR.finditer(asked))
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
