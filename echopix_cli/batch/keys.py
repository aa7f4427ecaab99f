"""Under which key an answer is found again: a hash of all that it depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from echopix_cli.batch.items import BatchOptions
from echopix_cli.batch.tasks import Task
from echopix_cli.engine import Engine
from echopix_cli.engine.options import FilmOptions
from echopix_cli.files import sha256_of
from echopix_cli.weights.registry import is_commit


class Keys:
    """Keys of answers by one model with some settings.

    Args:
        model: from :func:`model_facts`.
        settings: of every answer.
    """

    def __init__(self, model: list[str | None], settings: BatchOptions) -> None:
        self._settings = settings
        self._facts: dict[str, Any] = {
            "model": model,
            "plan": {
                name: value for name, value in asdict(settings.plan).items() if name not in ("start", "end", "limits")
            },
            "options": asdict(settings.asking.generation),
            "sieve": asdict(settings.asking.sieve),
        } | ({} if settings.films == FilmOptions() else {"films": asdict(settings.films)})

    def key(self, sha256: str, task: Task) -> str:
        """What an answer depends on, in 32 hexadecimal digits.

        Args:
            sha256: of the media file.
            task: with the question.
        """
        own = self._settings
        facts = {
            **self._facts,
            "media": sha256,
            "question": task.question,
            "choices": task.choices,
            "budget": own.asking.budget if task.budget is None else task.budget,
            "start": own.plan.start if task.start is None else task.start,
            "end": own.plan.end if task.end is None else task.end,
        }
        text = json.dumps(facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def model_facts(engine: Engine) -> list[str | None]:
    """What of a loaded model changes answers: its name, weights, precision and quantization."""
    facts = engine.facts
    return [facts.name, weights_of(engine), facts.dtype, facts.quantization]


def weights_of(engine: Engine) -> str | None:
    """What a model's answers come from: a commit, which never comes to mean other weights, or its files.

    Those of the demonstration model are known by their content, for every installation puts them there anew; of others
    that would take too long.
    """
    source = engine.source
    if is_commit(source.revision):
        return source.revision
    if not source.demonstration:
        return engine.loaded_from
    content = [(file.name, sha256_of(file)) for file in sorted(source.folder.iterdir()) if file.is_file()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
