"""What is asked: rendered scenes with known answers, or a JSONL file of media, questions and gold answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from echopix_cli.choices import LETTERS, posed, without_letters
from echopix_cli.documents import line_object, numbered_lines
from echopix_cli.errors import UsageError
from echopix_cli.evaluation.matching import chosen, is_right, normalise
from echopix_cli.evaluation.readers import READERS, Benchmark
from echopix_cli.evaluation.readers.containers import document_of
from echopix_cli.evaluation.readers.reading import PAGE, Checked, read_benchmark, reader_of
from echopix_cli.parsers import is_whole
from echopix_cli.scenes import (
    MOVIE_FAMILIES,
    SPLITS,
    Evidence,
    Movie,
    Script,
    families_of,
    make_movie,
    make_script,
    recording_of,
)

SCENES = "scenes:"
SCENE_COUNT = 200
MOVIES = {"scenes:movie": "test"} | {f"scenes:movie-{split}": split for split in SPLITS}  # and their scenes' split
MOVIE_LENGTH = 60.0  # seconds
_A_HAYSTACK = 12  # questions: each family's twice
NO_FAMILY = "all"  # of questions in files that name none
JSONL = "jsonl"  # the format of our own
FORMATS = (JSONL, *READERS)  # of files
_EXAMPLE = '{"media": "clip.mp4", "question": "What plays?", "answer": "violin"}'
_LINES = f"one object a line: {_EXAMPLE}"
_TEXTS = ("media", "question", "answer")
_KNOWN = {*_TEXTS, "choices", "family", "id"}


@dataclass(frozen=True)
class Question:
    """One question with its gold answer.

    ``index`` is its place in the data, which seeds its random control. ``id`` is unique in a benchmark's file.
    ``media`` is a path, or the name of the scene whose ``script`` is given. ``answer`` is, where there are
    ``choices``, the text of one of them. ``evidence`` is what the answer rests on, empty where nobody says. Of a
    ``movie``, ``media`` names the haystack. ``groups`` are what the data itself says of the question besides its
    family, as (field, value), such as ("duration", "short").

    Of a ``benchmark``'s file, ``wording`` is the whole text as its harness puts it, options included, and ``gold`` the
    index of the right one of ``choices``; ``fault`` says why the question cannot be asked, and makes it a failed one.
    """

    index: int
    id: str
    media: str
    family: str
    question: str
    answer: str
    choices: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    script: Script | None = None
    movie: Movie | None = None
    groups: tuple[tuple[str, str], ...] = ()
    benchmark: Benchmark | None = None
    wording: str = ""
    gold: int | None = None
    fault: str = ""

    @property
    def of_file(self) -> bool:
        """Whether ``media`` is the path of a file, and no scene or movie that is made for the question."""
        return self.script is None and self.movie is None

    @property
    def recordings(self) -> tuple[str, ...]:
        """Recorded samples that its scene plays, or the scenes of its needles; none where nobody knows them."""
        needles = () if self.movie is None else (needle.script for needle in self.movie.needles)
        scripts = needles if self.script is None else (self.script,)
        return tuple(sorted({recording_of(note) for script in scripts for note in script.notes}))

    @property
    def prompt(self) -> str:
        """The question as the model reads it; where no harness words it, choices follow behind their letters."""
        return self.wording or posed(self.question, self.choices)

    def is_right(self, answer: str) -> bool:
        """Whether an answer is the gold answer: an option's letter or text, or, without options, the same text."""
        if self.gold is None:
            return is_right(answer, self.answer, self.choices)
        return chosen(answer, self.choices) == self.gold


def load_questions(
    data: str,
    count: int | None,
    seed: int,
    families: Sequence[str] = (),
    length: float = MOVIE_LENGTH,
    *,
    form: str | None = None,
    media_root: Path | None = None,
) -> tuple[Question, ...]:
    """The questions that ``--data`` names.

    Args:
        data: ``scenes:SPLIT``, one of MOVIES, or the path of a file.
        count: how many; None takes 200 scenes, or the whole file.
        seed: of the first scene; each scene has the next one. A file has no use for it.
        families: only these, in this order of scenes; none takes all.
        length: of each movie, in seconds.
        form: what a file holds, one of FORMATS; without it that is recognised by its content.
        media_root: the folder that a file's paths of media are below; without it the file's own.

    Raises:
        UsageError: an unknown split or family, a length that no movie has, a file that cannot be read, or a
            line that does not fit.
        EchopixError: the split's notes have to be built first.
    """
    if data in MOVIES:
        return tuple(_movies(MOVIES[data], SCENE_COUNT if count is None else count, seed, families, length))
    if data.startswith(SCENES):
        return tuple(_scenes(data.removeprefix(SCENES), SCENE_COUNT if count is None else count, seed, families))
    asked = read_file(Path(data), form, media_root)
    found = tuple(islice((q for q in asked if not families or q.family in families), count))
    if not found:
        which = f" of family {', '.join(families)}" if families else ""
        raise UsageError(f"{data} holds no question{which}", _LINES)
    return found


def read_file(path: Path, form: str | None = None, media_root: Path | None = None) -> Iterator[Question]:
    """Questions of a file: a benchmark's, or JSONL of our own; ``form`` and ``media_root`` as of load_questions.

    Raises:
        UsageError: it cannot be read, it holds none, or a line does not fit.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        hint = f"--data {SCENES}test, or a file"
        raise UsageError(f"cannot read questions from {path}: {error.strerror}", hint) from None
    if form == JSONL:
        yield from read_jsonl(data, path, media_root)
        return
    document = document_of(data, path)
    reader = reader_of(document.content) if form is None else READERS[form]
    if reader is not None:
        benchmark, found = read_benchmark(reader, document.content, path, media_root)
        yield from (_of_benchmark(checked, index, benchmark) for index, checked in enumerate(found))
    elif document.lines:
        yield from read_jsonl(data, path, media_root)
    else:
        raise UsageError(f"{path} has the layout of no benchmark that is known: {', '.join(READERS)}", PAGE)


def _of_benchmark(checked: Checked, index: int, benchmark: Benchmark) -> Question:
    return Question(
        index, checked.id, checked.media, checked.task or NO_FAMILY, checked.question, checked.answer, checked.choices,
        groups=checked.groups, benchmark=benchmark, wording=checked.wording, gold=checked.gold, fault=checked.fault,
    )  # fmt: skip


def _scenes(split: str, count: int, seed: int, families: Sequence[str]) -> Iterator[Question]:
    """A scene a question, families in turn, each scene's first item: the one it was made for."""
    if split not in SPLITS:
        choices = ", ".join(SCENES + name for name in (*SPLITS, "movie", "movie-SPLIT"))
        raise UsageError(f"unknown data {SCENES + split!r}", f"choose one of: {choices}; or give a JSONL file")
    asked = tuple(families) or families_of(split)
    for index in range(count):
        script = make_script(split, seed + index, asked[index % len(asked)])
        item, name = script.items[0], f"scene:{split}:{script.seed}"
        yield Question(
            index, name, name, item.family, item.question, item.answer, evidence=item.evidence, script=script
        )


def _movies(split: str, count: int, seed: int, families: Sequence[str], length: float) -> Iterator[Question]:
    """A take a question, each haystack for some of them, families in turn; the first item of each."""
    asked = tuple(families) or MOVIE_FAMILIES
    for index in range(count):
        haystack, place = divmod(index, _A_HAYSTACK)
        family = asked[index % len(asked)]
        movie = make_movie(split, seed + haystack, length, family, place)
        item = movie.items[0]
        name = f"{movie.name}:{family}:{place}"
        yield Question(
            index, name, movie.name, item.family, item.question, item.answer, evidence=item.evidence, movie=movie
        )


def read_jsonl(data: bytes, path: Path, media_root: Path | None = None) -> Iterator[Question]:
    """Questions of a JSONL file; blank lines are passed over. Media paths are relative to the file, or to a folder.

    Raises:
        UsageError: it is no text, or a line does not fit; it names the line.
    """
    try:
        lines = numbered_lines(data)
    except UnicodeDecodeError:
        hint = f"--data {SCENES}test, or a file"
        raise UsageError(f"cannot read questions from {path}: not UTF-8 text", hint) from None
    for index, (number, line) in enumerate(lines):
        try:
            yield _question(line, index, number, path.parent if media_root is None else media_root)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}", _LINES) from None


def _question(line: str, index: int, number: int, folder: Path) -> Question:
    """A line of JSONL; ValueError says what does not fit."""
    raw = line_object(line)
    if unknown := sorted(set(raw) - _KNOWN):
        raise ValueError(f"unknown field {', '.join(map(repr, unknown))}; known are {', '.join(sorted(_KNOWN))}")
    for name in _TEXTS:
        if not (isinstance(raw.get(name), str) and raw[name].strip()):
            raise ValueError(f"{name!r} is missing or not text")
    if isinstance(raw.get("id"), int):
        raw["id"] = str(raw["id"])
    for name in ("family", "id"):
        if not (isinstance(raw.get(name, name), str) and raw.get(name, name)):
            raise ValueError(f"{name!r} is not text")
    if not is_whole(json.dumps(raw, ensure_ascii=False)):
        raise ValueError("half a character (a lone surrogate) in a text")
    choices = _choices(raw.get("choices"))
    answer = raw["answer"]
    if choices:
        gold = chosen(answer, choices)
        if gold is None:
            raise ValueError(f"the answer {answer!r} is none of the choices, nor the letter of one")
        answer = choices[gold]
    if not normalise(answer):
        raise ValueError(f"nothing is left of the answer {answer!r} once punctuation is taken away")
    family, name = raw.get("family", NO_FAMILY), raw.get("id", str(number))
    return Question(index, name, str(folder / raw["media"]), family, raw["question"], answer, choices)


def _choices(raw: Any) -> tuple[str, ...]:
    if raw is None:
        return ()
    if not (isinstance(raw, list) and all(isinstance(choice, str) for choice in raw)):
        raise ValueError("'choices' is not a list of texts")
    if not 2 <= len(raw) <= len(LETTERS):
        raise ValueError(f"{len(raw)} choices; between 2 and {len(LETTERS)} are possible")
    choices = without_letters(raw)
    texts = [normalise(choice) for choice in choices]
    if not all(texts) or len(set(texts)) < len(texts):
        raise ValueError("two choices are the same, or one is empty, once punctuation, case and articles are gone")
    return choices
