"""Plain frozen values of the readers: a question as a benchmark's file has it, and what reads such a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Entry = dict[str, Any]  # one question of a file, flat: what the file says of its video stands beside it


@dataclass(frozen=True)
class Item:
    """One question as a file has it, nothing checked yet.

    ``media`` are paths at which its file may lie, below the media's folder, the likeliest first. ``options`` are in
    the file's order, with the letters that the file gives them, if it does; empty where the question is an open one.
    ``answer`` is a letter or a text. ``groups`` are (field, value) that accuracy is reported by besides ``task``.
    """

    id: str
    media: tuple[str, ...]
    task: str
    question: str
    options: tuple[str, ...]
    answer: str
    groups: tuple[tuple[str, str], ...] = ()
    open: bool = False


@dataclass(frozen=True)
class Benchmark:
    """Where questions are from, for the report: how they are worded and whose wording that is.

    ``wording`` has ``{question}`` and ``{options}`` where these stand. ``left_out`` counts the file's own questions
    that its makers have marked as deleted.
    """

    name: str
    title: str
    wording: str
    source: str
    left_out: int = 0


@dataclass(frozen=True)
class Reader:
    """What reads the files of one benchmark.

    Args:
        benchmark: its names and its wording.
        entries: the questions of a document, flat; none where the document is laid out otherwise.
        fits: whether an entry has the fields of this benchmark and of no other.
        item: of an entry. It never fails: what is missing is empty.
        shown: the options as the wording shows them; each on a line of its own unless the harness does otherwise.
        left_out: whether the file's makers have marked an entry as deleted.
    """

    benchmark: Benchmark
    entries: Callable[[Any], Iterator[Entry]]
    fits: Callable[[Entry], bool]
    item: Callable[[Entry], Item]
    shown: Callable[[Sequence[str]], str] = "\n".join
    left_out: Callable[[Entry], bool] = lambda entry: False
