"""Training data from people's own files: JSONL of messages and videos, as the authors' recipe uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from echopix_cli.decoding.worker import decode
from echopix_cli.documents import line_object, numbered_lines
from echopix_cli.errors import MediaError, UsageError
from echopix_cli.files import shown
from echopix_cli.media import DecodePlan
from echopix_cli.model.processing import DEFAULT_SYSTEM, Processor, prepare_clip
from echopix_cli.training.batch import Batch, Example, LeftOut, Noticed, Unread, collate
from echopix_cli.training.rows import Opening, make_row, pack_rows

MARKS = ("<video>", "<audio>", "<image>")  # where a message has its media; no words
_FAMILY = "data"


@dataclass(frozen=True)
class Conversation:
    """One question about one file, with its answer and the system prompt it was asked under."""

    media: Path
    question: str
    answer: str
    system: str = DEFAULT_SYSTEM


def read_conversations(path: Path) -> tuple[Conversation, ...]:
    """Read ``{"messages": [{"role", "content"}, …], "videos": [file]}``, one object per line.

    A conversation is an optional system message, one user message and one assistant message about one video;
    ``<video>`` in the text marks where it stood and is dropped. Relative paths are taken from the folder of
    the JSONL file.

    Raises:
        UsageError: names the file and the line of whatever does not fit.
    """
    try:
        lines = numbered_lines(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", "give a JSONL file of messages and videos") from None
    found = []
    for number, line in lines:
        try:
            found.append(_conversation(line_object(line), path.parent))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UsageError(
                f"{path}:{number}: {what}",
                'a line is {"messages": [{"role": "user", "content": "<video>…"}, '
                '{"role": "assistant", "content": "…"}], "videos": ["clip.mp4"]}',
            ) from None
    if not found:
        raise UsageError(f"{path} holds no conversations", "one JSON object per line")
    return tuple(found)


def _conversation(raw: dict[str, Any], folder: Path) -> Conversation:
    turns = [(message["role"], _text(message["content"])) for message in raw["messages"]]
    system = [text for role, text in turns if role == "system"]
    said = [(role, text) for role, text in turns if role != "system"]
    if [role for role, _ in said] != ["user", "assistant"] or len(system) > 1:
        raise ValueError("messages must be one user turn and one assistant turn, after at most one system turn")
    media = _file(raw)
    (_, question), (_, answer) = said
    if not question or not answer:
        raise ValueError("the question or the answer is empty")
    return Conversation(folder / media, question, answer, *system)


def _file(raw: dict[str, Any]) -> str:
    """The one file that a line names: in ``videos``, in ``audios``, or the same in both."""
    named = {key: raw.get(key) or [] for key in ("videos", "audios", "images")}
    same = named["videos"] == named["audios"] and not named["images"]
    if sum(map(bool, named.values())) > 1 and not same:
        names = ", ".join(f"{key} {value!r}" for key, value in named.items() if value)
        raise ValueError(f"a line is about one file, and this one names more: {names}")
    media = named["videos"] or named["audios"]
    if not isinstance(media, list) or len(media) != 1 or not isinstance(media[0], str):
        raise ValueError(f"videos must name one file, not {media!r}")
    return media[0]


def _text(content: object) -> str:
    """A message's text: a string, or the text parts of a list."""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise ValueError(f"content must be text, not {type(content).__name__}")
    for mark in MARKS:
        content = content.replace(mark, "")
    return content.strip()


class ConversationBatches(Dataset[Batch | Unread]):
    """Batch ``index`` of an endless, seeded shuffle of conversations; every epoch has its own order.

    A file that cannot be used is left out of its batch, which names it, as it does those that are used in part.
    """

    def __init__(
        self,
        processor: Processor,
        conversations: Sequence[Conversation],
        plan: DecodePlan,
        batch_size: int,
        length: int,
        *,
        seed: int = 0,
        pack: bool = False,
    ) -> None:
        self.processor, self.conversations, self.plan = processor, tuple(conversations), plan
        self.batch_size, self.length, self.seed, self.pack = batch_size, length, seed, pack

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch | Unread:
        examples, left_out, noticed = [], [], []
        for offset in range(self.batch_size):
            item = self.conversation(index * self.batch_size + offset)
            try:
                example = self.example(item)
            except MediaError as error:
                left_out.append(LeftOut(str(item.media), error.message))
                continue
            examples.append(example)
            if example.notices:
                noticed.append(Noticed(str(item.media), example.notices))
        if not examples:
            return Unread(tuple(left_out))
        return replace(collate(examples, self.processor), left_out=tuple(left_out), noticed=tuple(noticed))

    @property
    def cycle(self) -> int:
        """Batches in a row that hold every conversation, wherever in the shuffle they begin: those of two epochs."""
        return -(-2 * len(self.conversations) // self.batch_size)

    def conversation(self, place: int) -> Conversation:
        """The conversation at a place of the endless shuffle."""
        epoch, rank = divmod(place, len(self.conversations))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.conversations))
        return self.conversations[int(order[rank])]

    def example(self, item: Conversation) -> Example:
        """Decode and prepare one conversation.

        Raises:
            MediaError: its file cannot be used.
        """
        decoded = decode(str(item.media), self.plan)
        clip = prepare_clip(decoded, self.processor.rules)
        if not clip.audio_rows and clip.grid_thw is None:
            raise MediaError(f"{shown(item.media)}: too short for a single token")
        opening = Opening.of(self.processor, clip, item.system)
        row = make_row(item.question, item.answer, _FAMILY, (), opening)
        return Example(clip, (pack_rows([row]) if self.pack else row,), notices=decoded.notices)
