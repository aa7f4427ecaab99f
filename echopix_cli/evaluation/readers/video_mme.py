"""Video-MME: one Parquet file, with each video as ``data/videoID.mp4``.

The wording is the one without subtitles in the makers' README, github.com/BradyFU/Video-MME.
"""

from __future__ import annotations

from echopix_cli.evaluation.readers.fields import entries_of_list, group, media_named, options, text
from echopix_cli.evaluation.readers.values import Benchmark, Entry, Item, Reader

_WORDING = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option.\n"
    "{question}\n{options}\nThe best answer is:"
)


def _fits(entry: Entry) -> bool:
    return {"videoID", "question", "options", "answer"} <= entry.keys()


def _item(entry: Entry) -> Item:
    return Item(
        id=text(entry, "question_id"),
        media=media_named(text(entry, "videoID"), "data", "videos"),
        task=text(entry, "task_type"),
        question=text(entry, "question"),
        options=options(entry.get("options")),
        answer=text(entry, "answer"),
        groups=(*group("duration", text(entry, "duration")), *group("domain", text(entry, "domain"))),
    )


READER = Reader(
    Benchmark("video-mme", "Video-MME", _WORDING, "README, github.com/BradyFU/Video-MME"),
    entries_of_list,
    _fits,
    _item,
)
