"""MUSIC-AVQA: ``avqa-test.json``: open questions with one-word answers, built from templates with slots.

The answer stands under ``anser``; ``type`` and ``templ_values`` are JSON written as texts. The makers' own harness is a
classifier over 42 answers and asks nothing; the wording is that of ``OneLLM/audiovideo_qa_music_avqa.py`` in
github.com/aimagelab/MissRAG. Questions that the makers have marked as deleted are left out.
"""

from __future__ import annotations

import re

from echopix_cli.evaluation.readers.fields import entries_of_list, group, media_named, text, texts
from echopix_cli.evaluation.readers.values import Benchmark, Entry, Item, Reader

_WORDING = "{question}\nAnswer the question using a single word or phrase."
_SLOT = re.compile(r"<[^<>]+>")  # <Object>, <LRer>, <FL> …


def _fits(entry: Entry) -> bool:
    return {"question_content", "templ_values", "video_id"} <= entry.keys()


def _question(entry: Entry) -> str:
    """The template with its slots filled in order; nothing where there are more or fewer values than slots."""
    question, values = text(entry, "question_content"), texts(entry.get("templ_values"))
    if len(_SLOT.findall(question)) != len(values):
        return ""
    filling = iter(values)
    return _SLOT.sub(lambda slot: next(filling), question)


def _item(entry: Entry) -> Item:
    kinds = texts(entry.get("type"))
    return Item(
        id=text(entry, "question_id"),
        media=media_named(text(entry, "video_id"), "videos", "video"),
        task=", ".join(kinds),
        question=_question(entry),
        options=(),
        answer=text(entry, "anser", "answer"),
        groups=(*group("modality", kinds[:1]), *group("asks", kinds[1:2])),
        open=True,
    )


READER = Reader(
    Benchmark("music-avqa", "MUSIC-AVQA", _WORDING, "audiovideo_qa_music_avqa.py, github.com/aimagelab/MissRAG"),
    entries_of_list,
    _fits,
    _item,
    left_out=lambda entry: entry.get("question_deleted") in (1, "1", True),
)
