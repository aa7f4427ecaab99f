"""Clip + question → what the model eats: patches, log-mel, grids, times, token ids.

Needs neither torchvision nor the base image processor: frames arrive resized, and what is left is arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from echopix_cli.documents import read_object
from echopix_cli.errors import ModelError, UsageError
from echopix_cli.media import Clip, DecodePlan
from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.model.log_mel import log_mel
from echopix_cli.model.positions import audio_block, grid_times_to_steps, interleave, video_block
from echopix_cli.model.templates import FAMILY_TEMPLATE as FAMILY_TEMPLATE
from echopix_cli.model.templates import Turns, turns_of
from echopix_cli.model.tokenization import Tokenizer, load_tokenizer
from echopix_cli.model.values import audio_row_counts
from echopix_cli.parsers import is_whole
from echopix_cli.results import Turn

DEFAULT_SYSTEM = "You are a helpful assistant."
_TEXT_RESERVE = 1024  # positions kept for system prompt, question and answer
_EARLIER = 1024  # tokens of earlier turns that go into a prompt
_MOST_PIXELS = 2**24  # of a frame that a checkpoint may ask for


@dataclass(frozen=True)
class PixelRules:
    """How frames become patches; a checkpoint's ``preprocessor_config.json`` may say otherwise.

    ``min_pixels``, ``max_pixels``, ``window_seconds``, the length of a clip, and ``questions``, the most in one
    conversation, are what the checkpoint was trained with, None where it does not say.
    """

    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    min_pixels: int | None = None
    max_pixels: int | None = None
    window_seconds: float | None = None
    questions: int | None = None

    @property
    def size_factor(self) -> int:
        """Frame sides must be multiples of this many pixels."""
        return self.patch_size * self.merge_size


def patchify(
    frames: npt.NDArray[np.uint8] | Tensor,
    rules: PixelRules = PixelRules(),
) -> tuple[Tensor, tuple[int, int, int]]:
    """Frames (T, 3, H, W) uint8 → normalised patches (n, 1176) float32 and their grid (t, h, w)."""
    patches, grid = cut_patches(frames, rules)
    return normalise(patches, rules), grid


def cut_patches(
    frames: npt.NDArray[np.uint8] | Tensor,
    rules: PixelRules = PixelRules(),
) -> tuple[Tensor, tuple[int, int, int]]:
    """Frames (T, 3, H, W) uint8 → patches (n, 1176) uint8 and their grid (t, h, w).

    An odd last frame is repeated to fill its temporal patch. Patches are ordered so that each run of
    ``merge_size²`` belongs to one merged row (the family's layout).
    """
    pixels = torch.as_tensor(frames)
    if short := -pixels.shape[0] % rules.temporal_patch_size:
        pixels = torch.cat((pixels, pixels[-1:].expand(short, -1, -1, -1)))
    patch, merge, depth = rules.patch_size, rules.merge_size, rules.temporal_patch_size
    grid = (pixels.shape[0] // depth, pixels.shape[2] // patch, pixels.shape[3] // patch)
    t, h, w = grid
    split = pixels.reshape(t, depth, 3, h // merge, merge, patch, w // merge, merge, patch)
    ordered = split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)  # t, h, w, in-merge h, w, colour, depth, y, x
    return ordered.reshape(t * h * w, 3 * depth * patch * patch).contiguous(), grid


def normalise(patches: Tensor, rules: PixelRules = PixelRules()) -> Tensor:
    """Patches (n, 1176) uint8 → float32 with the checkpoint's mean and deviation of each colour."""
    mean = torch.tensor(rules.mean, device=patches.device).view(3, 1)
    std = torch.tensor(rules.std, device=patches.device).view(3, 1)
    return ((patches.view(len(patches), 3, -1).float() / 255.0 - mean) / std).flatten(1)


@dataclass(frozen=True)
class ClipInputs:
    """A clip ready for the towers.

    ``patches`` (n, 1176) uint8 with ``grid_thw``; ``grid_times`` (t,) seconds from the clip's start at which
    each temporal grid step is shown, and ``grid_end`` those until which the last one is; ``mel`` (128, frames);
    ``audio_rows`` rows that the sound will have.
    """

    patches: Tensor | None = None
    grid_thw: tuple[int, int, int] | None = None
    grid_times: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    mel: Tensor | None = None
    audio_rows: int = 0
    merge_size: int = 2
    grid_end: float = 0.0

    @property
    def cells(self) -> tuple[int, int, int]:
        """Grid steps, rows and columns of the picture after merging, one prompt row each; zeros without picture."""
        if self.grid_thw is None:
            return (0, 0, 0)
        t, h, w = self.grid_thw
        return (t, h // self.merge_size, w // self.merge_size)

    @property
    def video_rows(self) -> int:
        """Prompt rows of the picture."""
        return math.prod(self.cells)


def prepare_clip(clip: Clip, rules: PixelRules = PixelRules()) -> ClipInputs:
    """Patches, log-mel and times of a decoded clip; whatever it lacks stays empty."""
    patches, grid = (None, None) if clip.frames is None else cut_patches(clip.frames, rules)
    mel, rows = hear(clip.waveform)
    return ClipInputs(patches, grid, grid_times_of(clip, rules), mel, rows, rules.merge_size, grid_end_of(clip))


def grid_times_of(clip: Clip, rules: PixelRules) -> npt.NDArray[np.float64]:
    """Seconds (t,) from the clip's start at which each temporal grid step is shown; empty without a picture."""
    if clip.frame_times is None:
        return np.zeros(0)
    # A slide that was already on screen when the span begins is shown from its first moment on.
    times: npt.NDArray[np.float64] = np.maximum(clip.frame_times[:: rules.temporal_patch_size] - clip.start, 0.0)
    return times


def grid_end_of(clip: Clip) -> float:
    """Seconds from the clip's start until which its last temporal grid step is shown; 0 without a picture."""
    if clip.frame_times is None:
        return 0.0
    ends = clip.end if clip.shown_until is None else clip.shown_until
    last = float(clip.frame_times[-1])  # a step holds two frames
    return max(0.0, (last if ends is None else max(last, ends)) - clip.start)


def hear(waveform: npt.NDArray[np.float32] | None) -> tuple[Tensor | None, int]:
    """Log-mel of a sound and the rows that the tower makes of it; none of a sound under 30 ms, or of no sound."""
    if waveform is None:
        return None, 0
    mel = log_mel(waveform)
    rows = max(0, int(audio_row_counts(torch.tensor(mel.shape[1]))))
    return (mel, rows) if rows else (None, 0)


class Processor:
    """The checkpoint's tokenizer, chat template and preprocessing rules.

    Raises:
        ModelError: the chat template cannot be used.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: EchoingPixelsConfig,
        rules: PixelRules = PixelRules(),
        stop_ids: Sequence[int] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.rules = rules
        self.stop_ids = frozenset(stop_ids) | _turn_ends(tokenizer)
        self._turns: dict[str | None, Turns] = turns_of(tokenizer.chat_template, tokenizer.named)

    @classmethod
    def load(cls, folder: Path, config: EchoingPixelsConfig) -> Processor:
        """Read tokenizer, ``preprocessor_config.json`` and ``generation_config.json`` from a checkpoint.

        Raises:
            ModelError: any of them is missing, unreadable or unlike the family's.
        """
        rows = config.text.vocab_size
        return cls(load_tokenizer(folder, rows), config, _read_rules(folder, config), _read_stops(folder, rows))

    def plan(self, plan: DecodePlan, max_pixels: int | None = None) -> DecodePlan:
        """A decode plan with this checkpoint's frame sizes and the longest sound its context can hold.

        Args:
            plan: what is wanted.
            max_pixels: the user's own bound; without it the checkpoint's, or the plan's.
        """
        rules, thinker = self.rules, self.config.thinker_config
        context = self.config.text.max_position_embeddings
        per_second = thinker.position_id_per_seconds
        return replace(
            plan,
            size_factor=rules.size_factor,
            min_pixels=rules.min_pixels or plan.min_pixels,
            max_pixels=max_pixels or rules.max_pixels or plan.max_pixels,
            max_audio_seconds=plan.max_audio_seconds or max(1.0, float((context - _TEXT_RESERVE) // per_second)),
        )

    def prompt_ids(
        self,
        question: str,
        clip: ClipInputs,
        system: str = DEFAULT_SYSTEM,
        rows: npt.NDArray[np.bool_] | None = None,
        earlier: Sequence[Turn] = (),
    ) -> Tensor:
        """Token ids (1, L) of a question about a clip: system, user with the media block, assistant.

        Picture and sound together form one block of interleaved two-second chunks; either alone has the
        family's own block form. The user's words are never read as special tokens. ``rows`` is as in
        :meth:`around_question`. Of ``earlier`` turns, :meth:`read_again` go in between, the first one with the media.

        Raises:
            UsageError: the question is empty, or longer than the model's context, or a text is no valid UTF-8.
        """
        if not question.strip():
            raise UsageError("the question is empty", 'ask something: echopix ask clip.mp4 "What is happening?"')
        if not all(map(is_whole, (question, system, *(text for turn in earlier for text in astuple(turn))))):
            raise UsageError(
                "the question, or what goes with it, is not valid UTF-8", "check the encoding of where it comes from"
            )
        before, after = self.around_question(clip, system, rows)
        asked = [*(token for turn in self.read_again(earlier) for token in self._turn_ids(turn)),
                 *self.question_ids(question)]  # fmt: skip
        context = self.config.text.max_position_embeddings
        media = clip.video_rows + clip.audio_rows if rows is None else len(rows)
        words = len(before) + len(asked) + len(after) - media
        if words > context:
            raise UsageError(
                f"the question and what goes with it have {words} tokens, and this model's context holds {context}",
                "ask something shorter",
            )
        return torch.tensor([[*before, *asked, *after]])

    @property
    def reads_turns(self) -> bool:
        """Whether the checkpoint reads turns before a question: its template takes them, and it does not say that it
        was trained on single questions."""
        between = {turns.earlier for turns in self._turns.values()}  # the same, whatever the media
        return self.rules.questions != 1 and len(between) == 1 and None not in between

    def read_again(self, earlier: Sequence[Turn]) -> tuple[Turn, ...]:
        """The newest of some turns that go before the next question: as many as 1,024 tokens hold, or a quarter of
        the context, and no more than the checkpoint was trained on; none where it does not read them."""
        room = min(_EARLIER, self.config.text.max_position_embeddings // 4)
        most = len(earlier) if self.rules.questions is None else self.rules.questions - 1
        kept: list[Turn] = []
        while self.reads_turns and len(kept) < min(most, len(earlier)):
            turn = earlier[-1 - len(kept)]
            room -= len(self._turn_ids(turn))
            if room < 0:
                break
            kept.append(turn)
        return tuple(reversed(kept))

    def _turn_ids(self, turn: Turn) -> list[int]:
        """Token ids of an earlier turn, up to where the next question begins."""
        between = self._turns[None].earlier
        assert between is not None
        encode = self.tokenizer.encode
        replied, again = map(encode, between)
        return [*self.question_ids(turn.question), *replied, *encode(turn.answer.strip(), literal=True), *again]

    def around_question(
        self, clip: ClipInputs, system: str = DEFAULT_SYSTEM, rows: npt.NDArray[np.bool_] | None = None
    ) -> tuple[list[int], list[int]]:
        """Token ids of a prompt before its question, with the media block, and after it.

        ``rows`` (n,) says of each row of the block whether it is sound; None takes all of the clip's, in their order.
        """
        turns = self._turns["video" if clip.grid_thw is not None else "audio" if clip.audio_rows else None]
        opening = [*self.tokenizer.encode(turns.before), *self.tokenizer.encode(system.strip(), literal=True)]
        between = self.tokenizer.encode(turns.between)
        return [*opening, *self._expand(between, clip, rows)], self.tokenizer.encode(turns.after)

    def question_ids(self, question: str) -> list[int]:
        """Token ids of a question alone; no word of it is read as a special token."""
        return self.tokenizer.encode(question.strip(), literal=True)

    def answer_ids(self, answer: str) -> list[int]:
        """Ids of an answer and the token that ends the turn, as training labels."""
        return [*self.tokenizer.encode(answer, literal=True), *self.tokenizer.encode("<|im_end|>")]

    def text(self, ids: Sequence[int]) -> str:
        """Token ids → text without special tokens."""
        return self.tokenizer.decode(ids)

    def _expand(self, ids: list[int], clip: ClipInputs, rows: npt.NDArray[np.bool_] | None) -> list[int]:
        """Replace the template's single placeholder by one per row of the clip."""
        if clip.grid_thw is None and not clip.audio_rows:
            return ids
        thinker = self.config.thinker_config
        video, audio = thinker.video_token_id, thinker.audio_token_id
        token = audio if clip.grid_thw is None else video
        is_audio = self._rows(clip) if rows is None else rows
        block = [audio if sound else video for sound in is_audio.tolist()]
        if clip.grid_thw is not None and clip.audio_rows:
            block = [thinker.audio_start_token_id, *block, thinker.audio_end_token_id]
        if ids.count(token) != 1:
            raise ModelError(f"the chat template has {ids.count(token)} placeholders with id {token}, not one")
        at = ids.index(token)
        return [*ids[:at], *block, *ids[at + 1 :]]

    def _rows(self, clip: ClipInputs) -> npt.NDArray[np.bool_]:
        """Of each row of a clip's block whether it is sound, in their order."""
        is_audio = np.repeat([False, True], [clip.video_rows, clip.audio_rows])
        if clip.grid_thw is None or not clip.audio_rows:
            return is_audio
        thinker = self.config.thinker_config
        steps = grid_times_to_steps(clip.grid_times, thinker.position_id_per_seconds)
        picture = video_block(steps, *clip.cells[1:])
        chunk = thinker.position_id_per_seconds * thinker.seconds_per_chunk
        pieces = interleave(picture, audio_block(clip.audio_rows), chunk)
        return np.concatenate([np.full(end - begin, kind == "audio") for kind, begin, end in pieces])


def _turn_ends(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids that end an answer, whatever else a generation config names."""
    named = [tokenizer.id_of("<|im_end|>"), tokenizer.eos_token_id]
    return frozenset(number for number in named if number is not None)


def _read_json(path: Path) -> dict[str, Any]:
    """A small JSON object beside the weights; empty when the file is not there."""
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}


def _read_stops(folder: Path, rows: int) -> list[int]:
    """Ids that end an answer, as ``generation_config.json`` names them; of a vocabulary of so many rows."""
    path = folder / "generation_config.json"
    stated = _read_json(path).get("eos_token_id")
    stops = stated if isinstance(stated, list) else [] if stated is None else [stated]
    if any(isinstance(stop, bool) or not isinstance(stop, int) or not 0 <= stop < rows for stop in stops):
        raise ModelError(f"{path} names an eos_token_id that is no token: {str(stated)[:80]}")
    return stops


def _read_rules(folder: Path, config: EchoingPixelsConfig) -> PixelRules:
    """Patch sizes from the vision tower; colours and the trained frame size from the preprocessor's file.

    The family's files state pixel bounds for still images that its own tools override for video, so only
    our own ``video_min_pixels``, ``video_max_pixels``, ``video_window_seconds`` and ``conversation_questions`` are
    taken as what a checkpoint was trained with.
    """
    vision = config.thinker_config.vision_config
    path = folder / "preprocessor_config.json"
    raw = _read_json(path)
    default = PixelRules()
    colours = {
        name: raw.get(name, getattr(default, name.removeprefix("image_"))) for name in ("image_mean", "image_std")
    }
    for name, values in colours.items():
        least = -10.0 if name == "image_mean" else 1e-3
        if (
            not isinstance(values, (list, tuple))
            or len(values) != 3
            or not all(_within(v, least, 10.0) for v in values)
        ):
            raise ModelError(f"{path}: {name} is not three numbers: {str(values)[:80]}")
    window = raw.get("video_window_seconds")
    if window is not None and not _within(window, 1.0, 3600.0):
        raise ModelError(f"{path}: video_window_seconds is no number of seconds: {str(window)[:80]}")
    questions = raw.get("conversation_questions")
    if questions is not None and (type(questions) is not int or questions < 1):
        raise ModelError(f"{path}: conversation_questions is no number of questions: {str(questions)[:80]}")
    bounds = {name: raw.get(name) for name in ("video_min_pixels", "video_max_pixels")}
    for name, value in bounds.items():
        if value is not None and not (isinstance(value, int) and _within(value, 1, _MOST_PIXELS)):
            raise ModelError(f"{path}: {name} is no number of pixels: {str(value)[:80]}")
    return PixelRules(
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
        mean=tuple(colours["image_mean"]),
        std=tuple(colours["image_std"]),
        min_pixels=bounds["video_min_pixels"],
        max_pixels=bounds["video_max_pixels"],
        window_seconds=window,
        questions=questions,
    )


def _within(value: object, least: float, most: float) -> bool:
    """Whether something is a number of a range; NaN is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most
