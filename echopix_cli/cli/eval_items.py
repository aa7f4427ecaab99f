"""Results of an evaluation's questions in a file: written as they come, found again by the next run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echopix_cli import __version__
from echopix_cli.batch.journal import Journal, Spelling
from echopix_cli.batch.tasks import Task
from echopix_cli.cli.output import SCHEMA_VERSION
from echopix_cli.errors import UsageError
from echopix_cli.evaluation.values import Graded, Pool, Rows
from echopix_cli.files import folder_of, identity_of, named
from echopix_cli.results import AudioStatus

if TYPE_CHECKING:
    from echopix_cli.engine import Engine
    from echopix_cli.evaluation.asking import Asking
    from echopix_cli.evaluation.questions import Question
    from echopix_cli.evaluation.values import Condition, ItemResult

_SPELLING = Spelling("an evaluation", "--items", by_setting=True)
_REPLACE = "give another --output or --items, or drop those answers with --force"


class Items:
    """The open file of one evaluation's items. A line is whole or absent, whatever ends the process.

    Opening it changes nothing; :meth:`begin` does, and says what is known already.

    Args:
        path: of the file.
        questions: of this evaluation.
        force: answers of another evaluation are dropped, if the file holds some.
        passing: the file is there until all is answered and reported, and goes where nothing was answered.

    Raises:
        UsageError: another process writes it, or it holds something else.
        EchopixError: it cannot be written.
    """

    def __init__(self, path: Path, questions: Sequence[Question], force: bool, passing: bool = False) -> None:
        self._path, self._questions, self._force, self._passing = path, questions, force, passing
        self._keys: dict[int, str] = {}
        self._journal = Journal(path, map(_task, questions), spelling=_SPELLING, keep=True)

    def begin(self, engine: Engine, settings: Sequence[Condition], asking: Asking) -> dict[int, ItemResult]:
        """Results that are there, by their question's index; what failed is to be tried again.

        Raises:
            UsageError: the file is that of another evaluation.
            EchopixError: the disk refuses.
        """
        self._keys = dict(_keys(engine, self._questions, settings, asking))
        kept = self._journal.kept
        if kept.keys() - set(self._keys.values()) and not self._force:
            raise UsageError(
                f"{self._path} holds answers of another evaluation: another model, other questions, options or media",
                f"{_REPLACE}; {self._path} is safe to delete: one that was interrupted, or failed in part, left it"
                if self._passing
                else _REPLACE,
            )
        before = {}
        for question in self._questions:
            key = self._keys[question.index]
            if self._journal.claim(key, _task(question)):
                try:
                    before[question.index] = _result(kept[key], question, settings)
                except (KeyError, TypeError, ValueError):
                    if not self._force:
                        message = f"{self._path}: the answers to {question.id!r} are incomplete"
                        raise UsageError(message, _REPLACE) from None
        if self._force:
            own = (kept[self._keys[index]] for index in before)
            self._journal.rewrite([json.dumps(record).encode() + b"\n" for record in own])
        else:
            self._journal.begin()
        return before

    def add(self, question: Question, result: ItemResult) -> None:
        """Write a result, and wait until it is on the disk.

        Raises:
            EchopixError: the disk refuses, or somebody else changed the file.
        """
        started = folder_of(question.media) if question.of_file else {}
        self._journal.append(item_record(result, self._keys[question.index], started))

    def confirm(self) -> None:
        """Check that the file holds everything that was written.

        Raises:
            EchopixError: somebody else changed the file.
        """
        self._journal.confirm()

    def close(self) -> None:
        """Close the file and release its lock."""
        if self._passing:
            with suppress(OSError):
                if self._path.stat().st_size == 0:
                    self._path.unlink()  # while it is locked, so that nobody else writes it
        self._journal.close()


def item_record(item: ItemResult, key: str, folder: Mapping[str, str]) -> dict[str, Any]:
    """One question with its answers by setting, for ``--items``; with ``error`` where one of them failed.

    Args:
        item: the question, answered.
        key: what its answers depend on.
        folder: where a relative path of its file starts, as :func:`~echopix_cli.files.folder_of` has it.
    """
    failures = [outcome.failure for outcome in item.outcomes.values() if outcome.failure]
    return {
        "schema_version": SCHEMA_VERSION,
        "id": item.id,
        "key": key,
        "file": None,
        **named(item.media),
        **folder,
        "family": item.family,
        "question": item.question,
        "answer": item.answer,
        **({"groups": [list(group) for group in item.groups]} if item.groups else {}),
        "rows": {"pool": item.pool, "audio": item.pool_audio, "evidence": item.evidence},
        "audio": item.audio,
        **({"notices": list(item.notices)} if item.notices else {}),
        "settings": {
            setting.name: {
                "answer": outcome.answer,
                "right": outcome.right,
                "kept": None if outcome.rows is None else asdict(outcome.rows),
                "seconds": outcome.seconds,
                "failure": outcome.failure or None,
                **(
                    {}
                    if outcome.last_prompt is None
                    else {"moment_right": outcome.moment, "last_prompt": outcome.last_prompt}
                ),
                **({} if outcome.pool is None else {"pool": asdict(outcome.pool)}),
            }
            for setting, outcome in item.outcomes.items()
        },
        **({"error": {"message": failures[0]}} if failures else {}),
    }


def _result(record: dict[str, Any], question: Question, settings: Sequence[Condition]) -> ItemResult:
    """What :func:`item_record` was made of, where nothing failed; earlier versions wrote neither ``audio`` nor
    ``notices``, and one pool for all settings."""
    from echopix_cli.evaluation.asking import result_of

    outcomes = {}
    for setting in settings:
        one = record["settings"][setting.name]
        outcomes[setting] = Graded(
            one["answer"],
            one["right"],
            Rows(**one["kept"]),
            one["seconds"],
            moment=one.get("moment_right"),
            last_prompt=one.get("last_prompt"),
            pool=Pool(**one["pool"]) if "pool" in one else None,
        )
    rows = record["rows"]
    audio, notices = record.get("audio"), record.get("notices", ())
    return replace(
        result_of(question, rows["pool"], rows["evidence"], outcomes, rows["audio"]),
        audio=None if audio is None else AudioStatus(audio),
        notices=tuple(map(str, notices)),
    )


def _task(question: Question) -> Task:
    return Task(question.media, question.question, question.id)


def _keys(
    engine: Engine, questions: Sequence[Question], settings: Sequence[Condition], asking: Asking
) -> Iterable[tuple[int, str]]:
    """What each question's answers depend on, in 32 hexadecimal digits; by the question's index."""
    from echopix_cli.batch.keys import weights_of

    shared = {
        "version": __version__,
        "model": [engine.facts.name, weights_of(engine), engine.facts.dtype, engine.facts.quantization],
        "asking": {**asdict(asking), "plan": asking.of_files},
        "settings": [setting.name for setting in settings],
    }
    identities: dict[str, str | None] = {}
    for question in questions:
        if question.of_file and question.media not in identities:
            identities[question.media] = None
            with suppress(OSError, ValueError):
                if os.path.isfile(question.media):
                    identities[question.media] = identity_of(question.media)
        # The whole content of a script, and of a movie, is in how it reads.
        made = question.movie if question.script is None else question.script
        media = identities.get(question.media) if made is None else repr(made)
        own = [question.index, question.id, question.family, question.prompt, question.answer, question.choices]
        text = json.dumps([shared, own, media], sort_keys=True, default=str)
        yield question.index, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
