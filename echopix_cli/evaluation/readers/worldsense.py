"""WorldSense: ``worldsense_qa.json``, an object of videos with ``task0``, ``task1`` …, or the same as a flat table.

The wording is that of the harness which the makers name, ``vlmeval/dataset/worldsense.py`` in
github.com/open-compass/VLMEvalKit, for pictures with sound. There the first two sentences stand before the video; here
all of it follows the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from echopix_cli.evaluation.readers.fields import entries_of_list, group, media_named, options, text, texts
from echopix_cli.evaluation.readers.values import Benchmark, Entry, Item, Reader

_WORDING = (
    "Carefully watch this video and pay attention to every detail. "
    "Based on your observations, select the best option that accurately addresses the question.\n"
    "These are the frames of a video and the corresponding audio. "
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option.\n"
    "Question: {question}\n{options}\nAnswer: "
)


def _entries(document: Any) -> Iterator[Entry]:
    if not isinstance(document, dict):
        yield from entries_of_list(document)
        return
    for video, about in document.items():
        if not isinstance(about, dict):
            continue
        shared = {name: value for name, value in about.items() if not name.startswith("task")}
        for name, entry in about.items():
            if name.startswith("task"):
                own = {"video": video, "task": name, **shared}
                yield own | (entry if isinstance(entry, dict) else {})


def _fits(entry: Entry) -> bool:
    return {"question", "candidates", "answer", "audio_class"} <= entry.keys()


def _item(entry: Entry) -> Item:
    path, video, task = text(entry, "video_path"), text(entry, "video", "video_id"), text(entry, "task")
    return Item(
        id=text(entry, "index") or (f"{video}/{task}" if video and task else ""),
        media=((path,) if path else ()) + media_named(video, "videos"),
        task=text(entry, "task_type"),
        question=text(entry, "question"),
        options=options(entry.get("candidates")),
        answer=text(entry, "answer"),
        groups=(
            *group("duration", text(entry, "duration")),
            *group("audio", texts(entry.get("audio_class"))),
            *group("domain", text(entry, "domain")),
        ),
    )


READER = Reader(
    Benchmark("worldsense", "WorldSense", _WORDING, "worldsense.py, github.com/open-compass/VLMEvalKit"),
    _entries,
    _fits,
    _item,
)
