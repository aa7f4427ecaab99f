"""What an evaluation asks, from the command line's words, and how that is told in its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from echopix_cli.errors import UsageError

if TYPE_CHECKING:
    from echopix_cli.evaluation.questions import Question

LETTERS, TEXT = "letters", "text"
ANSWERS = (LETTERS, TEXT)
_BY = {
    LETTERS: "the likeliest of the options' letters",
    TEXT: "generated text that is a letter, an option, or both",
}


def ask_of(
    data: str,
    count: int | None,
    seed: int,
    families: Sequence[str],
    length: Sequence[float],
    form: str | None,
    media_root: Path | None,
) -> tuple[Question, ...]:
    """The questions of ``--data``.

    Args:
        data, count, seed, families: as of :func:`~echopix_cli.evaluation.questions.load_questions`.
        length: of movies, where it is given.
        form, media_root: as they were given.

    Raises:
        UsageError: as there; or an unknown format, no folder, or one of them for scenes.
    """
    from echopix_cli.evaluation.questions import FORMATS, SCENES, load_questions

    given = [name for name, value in (("--format", form), ("--media-root", media_root)) if value is not None]
    if given and data.startswith(SCENES):
        raise UsageError(f"{given[0]} is that of a file of questions, and {data} is none", "--data FILE")
    if form is not None and form not in FORMATS:
        raise UsageError(f"unknown format {form!r}", f"choose from: {', '.join(FORMATS)}")
    if media_root is not None and not media_root.is_dir():
        raise UsageError(f"{media_root} is no folder", "--media-root DIR, the folder that the media are in or below")
    return load_questions(data, count, seed, families, *length, form=form, media_root=media_root)


def by_letters(answers: str | None, questions: Sequence[Question]) -> bool:
    """Whether questions with options are answered with the likeliest letter: of benchmarks, unless told otherwise.

    Raises:
        UsageError: an unknown way, or letters of questions that have none.
    """
    if answers is None:
        return questions[0].benchmark is not None
    if answers not in ANSWERS:
        raise UsageError(f"unknown --answers {answers!r}", f"choose from: {', '.join(ANSWERS)}")
    if answers == LETTERS and not any(question.choices for question in questions):
        raise UsageError("none of the questions has options, whose letters could be chosen from", "--answers text")
    return answers == LETTERS


def data_options(questions: Sequence[Question], letters: bool) -> dict[str, str | int | float | bool | None]:
    """How questions of files were worded and answered, for a report's options."""
    found: dict[str, str | int | float | bool | None] = {}
    if any(question.choices for question in questions):
        found["answers"] = LETTERS if letters else TEXT
    if (benchmark := questions[0].benchmark) is not None:
        found |= {"format": benchmark.name, "wording": benchmark.wording, "wording_from": benchmark.source}
        if benchmark.left_out:
            found["marked_as_deleted"] = benchmark.left_out
    return found


def data_rows(options: dict[str, str | int | float | bool | None]) -> list[tuple[str, str]]:
    """The same as facts under a table."""
    rows = []
    if "format" in options:
        deleted = options.get("marked_as_deleted")
        left = f"; {deleted} that it marks as deleted are not counted" if deleted else ""
        rows.append(("format", f"{options['format']}, worded as in {options['wording_from']}{left}"))
    if "answers" in options:
        rows.append(("answers", _BY[str(options["answers"])]))
    return rows
