"""OmniVideoBench: ``data.json``, a list of videos that each hold their questions, or the same flat.

The wording is that of the makers' harness, ``eval/qwenomni_eval.py`` in github.com/NJU-LINK/OmniVideoBench.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from echopix_cli.evaluation.readers.fields import entries_of_list, group, media_named, minutes, options, text
from echopix_cli.evaluation.readers.values import Benchmark, Entry, Item, Reader

_WORDING = (
    "You are given a video. Based on the content of the video, answer the following question:\n\n"
    "Question:\n{question}\n\n"
    "Options:\n{options}\n\n"
    "Answer with the option's letter directly(e.g., A, B, C, or D).If your access to the video content is limited, "
    "at least one option that is more likely than the others must be chosen.Mustn't give any other reason for can not "
    "choose!"
)


def _entries(document: Any) -> Iterator[Entry]:
    for video in entries_of_list(document):
        asked = video.get("questions")
        if isinstance(asked, list):
            shared = {name: value for name, value in video.items() if name != "questions"}
            yield from ({**shared, **(entry if isinstance(entry, dict) else {})} for entry in asked)
        else:
            yield video


def _fits(entry: Entry) -> bool:
    return {"video", "question", "options", "correct_option"} <= entry.keys()


def _item(entry: Entry) -> Item:
    return Item(
        id=text(entry, "question_id", "id"),
        media=media_named(text(entry, "video").removesuffix(".mp4"), "videos"),
        task=text(entry, "question_type"),
        question=text(entry, "question"),
        options=options(entry.get("options")),
        answer=text(entry, "correct_option", "answer"),
        groups=(
            *group("duration", minutes(text(entry, "duration"))),
            *group("audio", text(entry, "audio_type")),
            *group("category", text(entry, "video_type")),
        ),
    )


READER = Reader(
    Benchmark("omnivideobench", "OmniVideoBench", _WORDING, "qwenomni_eval.py, github.com/NJU-LINK/OmniVideoBench"),
    _entries,
    _fits,
    _item,
)
