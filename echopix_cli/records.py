"""Answers as JSON objects, for all who hand them out."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echopix_cli.results import Answer

SCHEMA_VERSION = 1  # of JSON objects


def answer_record(answer: Answer, served: bool = False) -> dict[str, Any]:
    """An answer as the JSON object of schema version 1.

    Args:
        answer: to be shown.
        served: whether a server gave it, and no model was loaded for it.
    """
    from echopix_cli.files import named

    raw = asdict(replace(answer, kept_tokens=()))
    raw["latency_s"] = {name: round(value, 6) for name, value in raw.pop("latency").items()}
    raw["peak_memory_bytes"] = raw.pop("peak_memory")
    rate = answer.tokens_per_second
    raw["tokens_per_second"] = None if rate is None else round(rate, 3)
    raw["audio"] = str(answer.audio)
    raw["notices"] = list(answer.notices)
    for choice in raw["choices"]:
        choice["probability"] = round(choice["probability"], 6)
    raw["choices"] = list(raw["choices"])
    raw["moments"] = [
        {"start": round(one.start, 3), "end": round(one.end, 3), "modality": one.modality, "share": round(one.share, 6)}
        for one in answer.moments
    ]
    order = (
        "question answer choices finish_reason audio tokens budget sieve question_layer prefilter moments film cached "
        "latency_s tokens_per_second peak_memory_bytes model sampling notices"
    )
    record = {"schema_version": SCHEMA_VERSION, **named(raw["media"]), **{name: raw[name] for name in order.split()}}
    turns = {} if answer.turns_seen is None else {"turns_seen": answer.turns_seen}
    return record | turns | ({"server": True} if served else {})
