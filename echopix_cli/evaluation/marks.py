"""Which questions were answered rightly: all that paired measures need of an evaluation, or of its report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from echopix_cli.evaluation.values import LOST, Condition, ItemResult

RIGHT, WRONG, FAILED = "1", "0", "-"  # in a setting's marks


@dataclass(frozen=True)
class Marks:
    """Questions in their order, and by setting's name whether each was answered rightly.

    ``asked`` tells a question and its gold answer from any other. ``right`` holds bool arrays (questions,).
    ``recordings`` are those that each question's clip plays, empty where nobody knows.
    """

    ids: tuple[str, ...]
    clips: tuple[str, ...]
    families: tuple[str, ...]
    asked: tuple[str, ...]
    right: dict[str, np.ndarray]
    recordings: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def values(self, names: Iterable[str]) -> np.ndarray:
        """Of some settings, float64 (questions, settings)."""
        return np.column_stack([self.right[name] for name in names]).astype(np.float64)

    def of(self, family: str) -> np.ndarray:
        """Which questions are a family's, bool (questions,)."""
        return np.array([own == family for own in self.families])

    def same_questions(self, ids: Sequence[str], asked: Sequence[str]) -> str:
        """Why these are not the questions of others, in their order; empty where they are.

        Args:
            ids: of the others.
            asked: of the others.
        """
        if len(self) != len(ids):
            return f"{len(self):,} questions and {len(ids):,}"
        for ours, theirs, own, other in zip(self.ids, ids, self.asked, asked, strict=True):
            if ours != theirs:
                return f"{ours!r} stands in the place of {theirs!r}"
            if own != other:
                return f"{ours!r} is asked in other words or has another answer"
        return ""


def marks_of(items: Sequence[ItemResult], settings: Sequence[Condition]) -> Marks:
    """The marks of an evaluation's items."""
    return Marks(
        ids=tuple(item.id for item in items),
        clips=tuple(item.media for item in items),
        families=tuple(item.family for item in items),
        asked=tuple(asked_of(item) for item in items),
        right={setting.name: np.array([item.outcomes[setting].right for item in items]) for setting in settings},
        recordings=tuple(item.recordings for item in items),
    )


class _Asked(Protocol):
    """A question, answered or not."""

    @property
    def id(self) -> str:
        """What it is called in its data."""

    @property
    def question(self) -> str:
        """Its text."""

    @property
    def answer(self) -> str:
        """The gold answer."""


def asked_of(item: _Asked) -> str:
    """What tells a question and its gold answer from any other, in 12 hexadecimal digits."""
    text = json.dumps([item.question, item.answer]).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:12]


def item_rows(items: Sequence[ItemResult]) -> list[dict[str, Any]]:
    """What a report says of each question; its clip by number, in the order in which clips first appear, and the
    recordings that this plays likewise, where they are known; and that sound was lost."""
    clips = {media: number for number, media in enumerate(dict.fromkeys(item.media for item in items))}
    names = dict.fromkeys(name for item in items for name in item.recordings)
    recordings = {name: number for number, name in enumerate(names)}
    return [
        {"id": item.id, "family": item.family, "clip": clips[item.media], "asked": asked_of(item)}
        | ({"recordings": [recordings[name] for name in item.recordings]} if recordings else {})
        | ({"audio": item.audio} if item.audio in LOST else {})
        for item in items
    ]


def marks_text(items: Sequence[ItemResult], setting: Condition) -> str:
    """One setting's marks, a character a question."""
    outcomes = [item.outcomes[setting] for item in items]
    return "".join(RIGHT if one.right else FAILED if one.answer is None else WRONG for one in outcomes)


def marks_in(record: Mapping[str, Any]) -> Marks:
    """The marks that a report holds.

    Args:
        record: a report as it is written.

    Raises:
        ValueError: it holds none, or not what belongs there.
    """
    try:
        rows = [(row["id"], row["family"], row["clip"], row["asked"]) for row in record["items"]]
        recordings = [row.get("recordings", []) for row in record["items"]]
        texts = {setting["setting"]: setting["marks"] for setting in record["settings"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it does not say which questions were answered rightly") from error
    whole = all(
        isinstance(name, str) and isinstance(text, str) and len(text) == len(rows) and set(text) <= {*"10-"}
        for name, text in texts.items()
    )
    known = all(isinstance(part, str) for row in rows for part in (row[0], row[1], row[3]))
    known = known and all(isinstance(own, list) and all(type(one) is int for one in own) for own in recordings)
    if not rows or not texts or not whole or not known or not all(type(row[2]) is int for row in rows):
        raise ValueError("its items and marks do not fit one another")
    ids, families, clips, asked = zip(*rows, strict=True)
    right = {name: np.array([mark == RIGHT for mark in text]) for name, text in texts.items()}
    return Marks(ids, tuple(map(str, clips)), families, asked, right, tuple(tuple(map(str, own)) for own in recordings))
