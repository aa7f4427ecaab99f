"""From a file to questions: which reader's it is, and whether each entry can be asked. No entry is lost on the way."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from echopix_cli.choices import LETTERS
from echopix_cli.errors import UsageError
from echopix_cli.evaluation.matching import normalise
from echopix_cli.evaluation.readers import READERS
from echopix_cli.evaluation.readers.fields import gold_of, lettered
from echopix_cli.evaluation.readers.values import Benchmark, Item, Reader
from echopix_cli.parsers import is_whole

PAGE = "echopix help benchmarks"  # which says what each file holds
_LOOKED_AT = 10  # entries by which a file is recognised


@dataclass(frozen=True)
class Checked:
    """One question of a file, ready to be asked or, with a ``fault``, counted as failed.

    ``wording`` is the whole text as the harness puts it. ``gold`` is the index of the right one of ``choices``, which
    have no letters of their own; None for open questions.
    """

    id: str
    media: str
    task: str
    question: str
    wording: str
    choices: tuple[str, ...]
    gold: int | None
    answer: str
    groups: tuple[tuple[str, str], ...]
    fault: str = ""


def reader_of(document: Any) -> Reader | None:
    """The reader whose fields one of a document's first entries has."""
    for reader in READERS.values():
        if any(reader.fits(entry) for entry in islice(reader.entries(document), _LOOKED_AT)):
            return reader
    return None


def read_benchmark(
    reader: Reader, document: Any, path: Path, media_root: Path | None
) -> tuple[Benchmark, tuple[Checked, ...]]:
    """All questions of a benchmark's file, in its order.

    Args:
        reader: of the benchmark.
        document: what the file holds.
        path: of the file, beside which the media lie unless ``media_root`` says where.
        media_root: the folder of the media, or the one above it.

    Raises:
        UsageError: it holds no question of this benchmark that can be asked; the first one's fault is named.
    """
    entries = list(reader.entries(document))
    kept = [entry for entry in entries if not reader.left_out(entry)]
    root = path.parent if media_root is None else media_root
    found = tuple(_named([_checked(reader, reader.item(entry), root) for entry in kept]))
    if not found or all(each.fault for each in found):
        title = reader.benchmark.title
        why = f"the first one has {found[0].fault}" if found else "it has no entries of this layout"
        raise UsageError(f"{path} holds no {title} question that can be asked: {why}", PAGE)
    return replace(reader.benchmark, left_out=len(entries) - len(kept)), found


def _named(found: Sequence[Checked]) -> Iterator[Checked]:
    """Questions with ids that are unique in the file: its own, or the video's with a number."""
    questions: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for number, each in enumerate(found, 1):
        name = each.id
        if not name:
            stem = PurePosixPath(each.media).stem
            questions[stem] += 1
            name = f"{stem}/{questions[stem]}" if stem else f"entry {number}"
        taken[name] += 1
        yield replace(each, id=name if taken[name] == 1 else f"{name}#{taken[name]}")


def _checked(reader: Reader, item: Item, root: Path) -> Checked:
    choices, shown = lettered(item.options)
    gold = None if item.open else gold_of(item.answer, item.options)
    fault = _fault(item, gold)
    wording = reader.benchmark.wording.format(question=item.question, options=reader.shown(shown))
    answer = item.answer if gold is None else shown[gold]
    media = "" if not item.media or any(map(_leaves, item.media)) else str(_media(item.media, root))
    return Checked(item.id, media, item.task, item.question, wording, choices, gold, answer, item.groups, fault)


def _fault(item: Item, gold: int | None) -> str:
    """Why a question cannot be asked, to follow "it has"; nothing where it can."""
    if not item.question:
        return "no question"
    if not item.media:
        return "no video"
    if any(map(_leaves, item.media)):
        return f"a video outside the media's folder, {item.media[0]!r}"
    texts = (item.question, item.answer, item.task, *item.options, *item.media)
    if not all(map(is_whole, texts)):
        return "half a character (a lone surrogate) in a text"
    if item.open:
        return "" if normalise(item.answer) else "no answer"
    if not 2 <= len(item.options) <= len(LETTERS):
        return f"{len(item.options)} options that can be told apart"
    if gold is None:
        return f"the answer {item.answer!r}, which is none of its {len(item.options)} options"
    return ""


def _leaves(path: str) -> bool:
    """Whether a path is absolute, climbs out of its folder, or is none."""
    pure = PurePosixPath(path)
    return pure.is_absolute() or ".." in pure.parts or "\0" in path


def _media(paths: Sequence[str], root: Path) -> Path:
    """The first place at which a video lies; where at none, the likeliest, so that a message can name it."""
    # A root may also be the folder itself that holds the videos.
    places = [root / path for path in paths] + [root / PurePosixPath(path).name for path in paths]
    return next((place for place in places if os.path.isfile(place)), places[0])
