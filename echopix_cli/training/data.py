"""Scenes → training batches, rendered on the fly; batch i depends on (recipe, i) only, so resuming is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from echopix_cli import scenes
from echopix_cli.media import Clip, MediaInfo
from echopix_cli.model.processing import SAMPLE_RATE, ClipInputs, Processor, prepare_clip
from echopix_cli.model.values import IGNORE
from echopix_cli.results import AudioStatus
from echopix_cli.scenes import Evidence, Item, Script

FRAMES = 16
SOURCE_FPS = 25.0  # frames of a rendered mp4; sampling takes the first and the last of them
ROWS_PER_SECOND = 25


@dataclass(frozen=True)
class Batch:
    """One step's inputs and labels.

    ``input_ids``, ``attention_mask``, ``labels``, ``evidence`` (B, L), padded on the left. ``pixel_values``
    (patches, 1176) with ``grid_thw`` (videos, 3) and ``grid_times``; ``mel`` (sounds, 128, frames) with
    ``mel_frames`` (sounds,) and ``audio_rows``. ``heard`` (audio rows, instruments) and ``seen`` (video
    rows,) are what the towers' auxiliary heads learn; -1 in ``seen`` is "nothing here".
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    evidence: Tensor
    pixel_values: Tensor | None
    grid_thw: Tensor | None
    grid_times: list[np.ndarray]
    mel: Tensor | None
    mel_frames: Tensor | None
    audio_rows: list[int]
    heard: Tensor
    seen: Tensor
    families: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """One question about one scene, prepared."""

    clip: ClipInputs
    ids: Tensor
    labels: Tensor
    evidence: Tensor
    heard: Tensor
    seen: Tensor
    family: str


def scene_clip(script: Script, side: int, frame_times: np.ndarray, without: str = "") -> Clip:
    """A scene as the media room would hand it over, without the detour through a file.

    ``without`` names a modality, ``audio`` or ``video``, that is left out.
    """
    waveform = None if without == "audio" else scenes.render_audio(script, SAMPLE_RATE)
    picture = without != "video"
    return Clip(
        path=f"scene:{script.split}:{script.seed}",
        frames=scenes.render_frames(script, frame_times, side) if picture else None,
        frame_times=frame_times if picture else None,
        waveform=waveform,
        audio_status=AudioStatus.ABSENT if waveform is None else AudioStatus.USED,
        start=0.0,
        end=script.duration,
        info=MediaInfo(format="scene", duration=script.duration, tracks=()),
        notices=(),
    )


def sample_times(duration: float, jitter: float = 0.0) -> np.ndarray:
    """Times of the frames that sampling takes from a rendered clip, (FRAMES,) seconds."""
    last = duration - 1.0 / SOURCE_FPS
    return np.clip(np.linspace(0.0, last, FRAMES) + jitter, 0.0, last)


def evidence_rows(evidence: Sequence[Evidence], clip: ClipInputs) -> tuple[np.ndarray, np.ndarray]:
    """Which (video rows,) and (audio rows,) lie on what an answer depends on."""
    sound_times = (np.arange(clip.audio_rows) + 0.5) / ROWS_PER_SECOND
    sound = np.zeros(clip.audio_rows, dtype=bool)
    picture = np.zeros((0, 0, 0), dtype=bool)
    if clip.grid_thw is not None:
        t, h, w = clip.grid_thw
        h, w = h // clip.merge_size, w // clip.merge_size
        picture = np.zeros((t, h, w), dtype=bool)
        rows, columns = (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w
        until = np.append(clip.grid_times[1:], np.inf)
    for piece in evidence:
        if piece.modality == "audio":
            sound |= (sound_times >= piece.start) & (sound_times < piece.end)
        elif clip.grid_thw is not None:
            shown = (until > piece.start) & (clip.grid_times < piece.end)
            x0, y0, x1, y1 = piece.box or (0.0, 0.0, 1.0, 1.0)
            half_h, half_w = 0.5 / h, 0.5 / w
            inside_y = (rows + half_h > y0) & (rows - half_h < y1)
            inside_x = (columns + half_w > x0) & (columns - half_w < x1)
            picture |= shown[:, None, None] & inside_y[None, :, None] & inside_x[None, None, :]
    return picture.reshape(-1), sound


def make_example(
    script: Script, item: Item, processor: Processor, times: np.ndarray, side: int, without: str = ""
) -> Example:
    """Render a scene, perhaps ``without`` a modality, and pose one question about it."""
    clip = prepare_clip(scene_clip(script, side, times, without), processor.rules)
    prompt = processor.prompt_ids(item.question, clip)[0]
    answer = torch.tensor(processor.answer_ids(item.answer))
    ids = torch.cat((prompt, answer))
    picture, sound = evidence_rows(item.evidence, clip)
    special = processor.config.thinker_config
    evidence = torch.zeros(len(ids), dtype=torch.bool)
    evidence[ids == special.video_token_id] = torch.from_numpy(picture)  # type: ignore[union-attr]
    evidence[ids == special.audio_token_id] = torch.from_numpy(sound)  # type: ignore[union-attr]
    seen = torch.zeros(0, dtype=torch.long)
    if clip.grid_thw is not None:
        _, height, width = clip.grid_thw
        cells = (height // clip.merge_size, width // clip.merge_size)
        middle = (times[0::2] + times[1::2]) / 2
        seen = torch.from_numpy(scenes.seen(script, middle, cells)).long().flatten()
    row_times = (np.arange(clip.audio_rows) + 0.5) / ROWS_PER_SECOND
    return Example(
        clip=clip,
        ids=ids,
        labels=torch.cat((torch.full_like(prompt, IGNORE), answer)),
        evidence=evidence,
        heard=torch.from_numpy(scenes.heard(script, row_times)).float(),
        seen=seen,
        family=item.family,
    )


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pad on the left and join what the towers take in one piece."""
    width = max(len(example.ids) for example in examples)

    def left(rows: list[Tensor], fill: int) -> Tensor:
        return torch.stack([torch.nn.functional.pad(row, (width - len(row), 0), value=fill) for row in rows])

    pixels = [e.clip.pixel_values for e in examples if e.clip.pixel_values is not None]
    sounds = [e.clip.mel for e in examples if e.clip.mel is not None]
    longest = max((mel.shape[1] for mel in sounds), default=0)
    padded = [torch.nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in sounds]
    return Batch(
        input_ids=left([e.ids for e in examples], pad_id),
        attention_mask=left([torch.ones_like(e.ids) for e in examples], 0),
        labels=left([e.labels for e in examples], IGNORE),
        evidence=left([e.evidence for e in examples], 0),
        pixel_values=torch.cat(pixels) if pixels else None,
        grid_thw=torch.tensor([e.clip.grid_thw for e in examples if e.clip.grid_thw]) if pixels else None,
        grid_times=[e.clip.grid_times for e in examples if e.clip.grid_thw],
        mel=torch.stack(padded) if padded else None,
        mel_frames=torch.tensor([mel.shape[1] for mel in sounds]) if padded else None,
        audio_rows=[e.clip.audio_rows for e in examples if e.clip.mel is not None],
        heard=torch.cat([e.heard for e in examples if e.clip.mel is not None]) if padded else torch.zeros(0, 1),
        seen=torch.cat([e.seen for e in examples]),
        families=tuple(e.family for e in examples),
    )


# Families that one sense answers; the other may be missing from the clip altogether.
_SENSES = {"instrument": "audio", "order": "audio", "object": "video"}


def has_sound(script: Script) -> bool:
    """Whether a scene's clip has an audio track."""
    return script.sound.track


class SceneBatches(Dataset[Batch]):
    """Batch ``index`` of a split: scenes ``index·B … index·B + B − 1``, one question each.

    ``families`` repeats a name to draw it more often. Training moves the sampled frames a little in time,
    and leaves out the sense that a question does not need in a share ``one_sided`` of the clips, so that
    sound alone and picture alone are known too.
    """

    one_sided = 0.4

    def __init__(
        self, processor: Processor, split: str, batch_size: int, families: Sequence[str], side: int, length: int
    ) -> None:
        self.processor, self.split, self.batch_size = processor, split, batch_size
        self.families, self.side, self.length = tuple(families), side, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        examples = [self.example(index * self.batch_size + offset) for offset in range(self.batch_size)]
        return collate(examples, int(self.processor.tokenizer.pad_token_id))

    def example(self, seed: int) -> Example:
        """Scene ``seed`` and one of its questions; mostly the one that it was made for."""
        random = np.random.default_rng((seed, len(self.split)))
        family = self.families[int(random.integers(len(self.families)))]
        script = scenes.make_script(self.split, seed, family)
        training = self.split == "train"
        other = training and random.random() < 0.3
        item = script.items[int(random.integers(len(script.items)))] if other else script.items[0]
        times = sample_times(script.duration, float(random.uniform(-0.15, 0.15)) if training else 0.0)
        sense = _SENSES.get(item.family, "")
        spare = {"audio": "video", "video": "audio"}.get(sense, "") if has_sound(script) else ""
        without = spare if training and random.random() < self.one_sided else ""
        return make_example(script, item, self.processor, times, self.side, without)
