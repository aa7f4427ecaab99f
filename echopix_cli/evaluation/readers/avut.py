"""AVUT: ``AV_Human_data.json`` and its like, with options in fields of their own and videos below ``data/``.

The makers publish no harness; the wording is that of ``eval/eval_avut.py`` in github.com/KD-TAO/OmniZip. An option may
be blank, and one of the published questions has a blank one as its answer: it keeps its letter.
"""

from __future__ import annotations

from echopix_cli.evaluation.readers.fields import entries_of_list, group, text
from echopix_cli.evaluation.readers.values import Benchmark, Entry, Item, Reader

_WORDING = "{question}\nOptions:\n{options}\nAnswer with the option's letter from the given choices directly."
_LETTERS = "ABCDEF"


def _fits(entry: Entry) -> bool:
    return {"option_A", "option_B", "question", "answer", "video_path"} <= entry.keys()


def _item(entry: Entry) -> Item:
    path = text(entry, "video_path")
    # Fields that are missing or null end the list; a blank one between others stays, so that letters keep their places.
    present = [letter for letter in _LETTERS if entry.get(f"option_{letter}") is not None]
    last = _LETTERS.index(present[-1]) + 1 if present else 0
    return Item(
        id=text(entry, "QA_id"),
        media=(path, path.removeprefix("data/")) if path else (),
        task=text(entry, "task_type"),
        question=text(entry, "question"),
        options=tuple(f"{letter}. {text(entry, f'option_{letter}')}" for letter in _LETTERS[:last]),
        answer=text(entry, "answer"),
        groups=group("category", text(entry, "video_type")),
    )


READER = Reader(
    Benchmark("avut", "AVUT", _WORDING, "eval_avut.py, github.com/KD-TAO/OmniZip"), entries_of_list, _fits, _item
)
