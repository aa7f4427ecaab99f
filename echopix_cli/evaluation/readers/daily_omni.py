"""Daily-Omni: ``qa.json``, with each video as ``ID/ID_video.mp4``.

The wording is that of the makers' harness, ``test_model/Qwen2.5-Omni/testmodel.py`` in
github.com/Lliar-liar/Daily-Omni, which shows the choices as Python writes a list. A remake's ``Choice`` is such a list
already written as a text.
"""

from __future__ import annotations

from echopix_cli.evaluation.readers.fields import entries_of_list, group, media_named, options, text
from echopix_cli.evaluation.readers.values import Benchmark, Entry, Item, Reader

_WORDING = (
    "\nYour task is to accurately answer multiple-choice questions based on the given video.\n"
    "Select the single most accurate answer from the given choices.\n"
    "Question: {question}\n"
    "Choices: {options}\n"
    "Your answer should be a capital letter representing your choice: A, B, C, or D. Don't generate any other text.\n"
)


def _fits(entry: Entry) -> bool:
    return {"Question", "Choice", "Answer", "video_id"} <= entry.keys()


def _item(entry: Entry) -> Item:
    video = text(entry, "video_id")
    return Item(
        id=text(entry, "question_id", "id"),
        media=media_named(f"{video}_video", f"Videos/{video}", video) + media_named(video) if video else (),
        task=text(entry, "Type"),
        question=text(entry, "Question"),
        options=options(entry.get("Choice")),
        answer=text(entry, "Answer"),
        groups=(
            *group("duration", text(entry, "video_duration")),
            *group("category", text(entry, "video_category")),
        ),
    )


READER = Reader(
    Benchmark("daily-omni", "Daily-Omni", _WORDING, "testmodel.py of Qwen2.5-Omni, github.com/Lliar-liar/Daily-Omni"),
    entries_of_list,
    _fits,
    _item,
    shown=lambda choices: str(list(choices)),
)
