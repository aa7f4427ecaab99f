"""LVOmniBench: questions about videos of ten to ninety minutes, in ``data.json`` beside ``videos/``.

The wording is that of the makers' harness, ``OmniEval/framework/prompt_utils.py`` in github.com/KD-TAO/LVOmniBench. Its
parser falls back to any letter in an answer; here an answer is a letter, an option's text, or wrong. A remake has the
right one under ``answer``, and some of its options as one text in which commas or quotes are missing.
"""

from __future__ import annotations

from echopix_cli.evaluation.readers.fields import entries_of_list, group, media_named, options, text
from echopix_cli.evaluation.readers.values import Benchmark, Entry, Item, Reader

_WORDING = (
    "Question: {question}\n"
    "Options:\n{options}\n\n"
    "Select the best answer from the options above. Directly provide the letter representing your choice and nothing "
    "else. Do not include the full text of the option, do not provide any explanation."
)


def _fits(entry: Entry) -> bool:
    own = entry.keys() & {"difficulty", "video_category", "audio_type"}
    return {"video_id", "question", "options"} <= entry.keys() and bool(own) and not entry.keys() & {"videoID", "video"}


def _item(entry: Entry) -> Item:
    return Item(
        id=text(entry, "question_id", "id"),
        media=media_named(text(entry, "video_id"), "videos"),
        task=text(entry, "question_type"),
        question=text(entry, "question"),
        options=options(entry.get("options")),
        answer=text(entry, "correct_option", "answer"),
        groups=(
            *group("audio", text(entry, "audio_type")),
            *group("difficulty", text(entry, "difficulty")),
            *group("category", text(entry, "video_category")),
        ),
    )


READER = Reader(
    Benchmark("lvomnibench", "LVOmniBench", _WORDING, "OmniEval, github.com/KD-TAO/LVOmniBench"),
    entries_of_list,
    _fits,
    _item,
)
