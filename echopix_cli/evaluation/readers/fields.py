"""Fields of benchmark files as they come: texts, lists written as texts, options behind letters, durations."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from echopix_cli.choices import LETTERED, LETTERS
from echopix_cli.evaluation.matching import normalise
from echopix_cli.evaluation.readers.values import Entry

_SUFFIXES = (".mp4", ".mkv", ".webm", ".MP4")
_LONGEST_LIST = 50_000  # characters of a list written as a text
_EDGES = " \t\r\n\"',;|[]"
_MINUTES = (1, 5, 10, 30)  # the ends of durations that are reported together


def entries_of_list(document: Any) -> Iterator[Entry]:
    """The entries of a list, empty ones for what is no object; nothing where the document is no list."""
    yield from (entry if isinstance(entry, dict) else {} for entry in document) if isinstance(document, list) else ()


def text(entry: Entry, *names: str) -> str:
    """The first of some fields that holds a text or a number, without space around it; else nothing."""
    for name in names:
        value = entry.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return ""


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts, or one written as a text, as JSON or as Python writes it; one text alone is a list of it."""
    if isinstance(value, list | tuple):
        return tuple(str(each).strip() for each in value if isinstance(each, str | int | float))
    if not isinstance(value, str) or not value.strip():
        return ()
    found = _written(value)
    return (value.strip(),) if found is None else texts(found)


def _written(value: str) -> list[Any] | None:
    """The list that a text is, if it is one."""
    if len(value) > _LONGEST_LIST or not value.lstrip().startswith(("[", "(")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | tuple):
            return list(found)
    return None


def options(value: Any) -> tuple[str, ...]:
    """Options as a list, as an object of letters, or as one text, in which case they are told apart by their letters.

    One that is null or no text keeps its place, empty, so that those behind it keep theirs; at the end it is left out.
    In a broken list, such as one without its commas, a letter begins an option where it is the next one in turn and
    stands at the beginning, after a space or after punctuation. Without letters each line is an option.
    """
    if isinstance(value, dict):
        letters = sorted(value)
        return tuple(
            f"{key}. {option}" for key, option in zip(letters, _places([value[k] for k in letters]), strict=False)
        )
    if isinstance(value, list | tuple):
        return _places(value)
    if not isinstance(value, str):
        return ()
    listed = _written(value)
    if listed is not None and len(listed) > 1:
        return _places(listed)
    starts: list[int] = []
    for letter in LETTERS:
        marker = re.compile(rf"(?:^|(?<=[\s,;|\[(\"'/.?!])){letter}\s?[.):]")
        found = marker.search(value, starts[-1] + 1 if starts else 0)
        if found is None:
            break
        starts.append(found.start())
    if len(starts) > 1:
        parts = [value[start:end] for start, end in zip(starts, [*starts[1:], len(value)], strict=True)]
        return tuple(part.strip().rstrip("(").strip(_EDGES) for part in parts)
    return tuple(line for raw in value.splitlines() if (line := raw.strip(_EDGES)))


def _places(values: Sequence[Any]) -> tuple[str, ...]:
    """Texts in their places, empty ones for what is no text or number, save at the end."""
    found = [str(each).strip() if isinstance(each, str | int | float) else None for each in values]
    while found and found[-1] is None:
        found.pop()
    return tuple(each or "" for each in found)


def _own_letters(options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The letters of options that each have their own, and their texts; an empty option has the letter of its place.

    Letters that are far from the beginning of the alphabet, and not in order, are initials of names, and letters that
    no text follows are themselves what is chosen from: then there are none.
    """
    written = [option or f"{letter}." for letter, option in zip(LETTERS, options, strict=False)]
    found = [match for each in written if (match := LETTERED.fullmatch(each)) is not None]
    letters = "".join((match[1] or match[2]).upper() for match in found)
    if (
        not any(match[3].strip() for match in found)
        or len(letters) != len(options)
        or not ("A" in letters or max(letters) <= LETTERS[len(letters)])
    ):
        return "", ()
    return letters, tuple(match[3].strip() for match in found)


def lettered(options: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Options without letters of their own, and as they are shown: behind the letters of their places."""
    letters, bare = _own_letters(options)
    if letters and letters == LETTERS[: len(letters)]:
        return bare, tuple(option or f"{letter}. " for letter, option in zip(letters, options, strict=True))
    choices = bare if letters and len(set(letters)) == len(letters) else tuple(options)
    return choices, tuple(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def gold_of(answer: str, options: Sequence[str]) -> int | None:
    """Which option an answer names: by its letter, whatever text follows, or by its text; None where by neither.

    The letter is the option's own where all have one and none has another's, else that of its place.
    """
    choices, _ = lettered(options)
    letters, _ = _own_letters(options)
    match = LETTERED.fullmatch(answer)
    if match is not None and len(set(letters)) == len(letters):
        index = (letters or LETTERS[: len(options)]).find((match[1] or match[2]).upper())
        if index >= 0:
            return index
    said = normalise(answer)
    same = [index for index, choice in enumerate(choices) if said and normalise(choice) == said]
    return same[0] if len(same) == 1 else None


def media_named(stem: str, *folders: str) -> tuple[str, ...]:
    """Paths at which the video of a name without its ending may lie, in the order in which they are tried."""
    if not stem:
        return ()
    return tuple(f"{folder}/{stem}{suffix}" if folder else f"{stem}{suffix}" for folder in (*folders, "")
                 for suffix in _SUFFIXES)  # fmt: skip


def group(name: str, values: str | Iterable[str]) -> tuple[tuple[str, str], ...]:
    """What a question is counted by, under a field's name; nothing where the file does not say."""
    found = (values,) if isinstance(values, str) else values
    return tuple((name, value) for value in dict.fromkeys(found) if value)


def minutes(duration: str) -> str:
    """A duration as ``MM:SS``, ``HH:MM:SS`` or seconds, as the minutes that it lies between; else as it is."""
    try:
        parts = [float(part) for part in duration.split(":")]
    except ValueError:
        return duration
    if len(parts) > 3:
        return duration
    seconds = sum(part * 60**place for place, part in enumerate(reversed(parts)))
    for begin, end in zip((0, *_MINUTES), _MINUTES, strict=False):
        if seconds <= 60 * end:
            return f"{begin}-{end} min"
    return f"over {_MINUTES[-1]} min"
