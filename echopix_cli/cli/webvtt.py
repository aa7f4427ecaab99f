"""Moments as WebVTT, whose cues players jump to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape

from echopix_cli.cli.output import one_line
from echopix_cli.cli.timeline import WORDS, share_words
from echopix_cli.results import Answer

HEADER = "WEBVTT - moments that answers rest on, by echopix"


def webvtt(answers: Sequence[Answer]) -> str:
    """The moments of all answers about a file, in order of time: a cue each, called after question and rank.

    Questions and answers stand in notes before them, and in the cues.
    """
    blocks = [HEADER, f"NOTE {_text(os.path.basename(answers[0].media))}"]
    cues = []
    for number, answer in enumerate(answers, 1):
        asked, said = _text(answer.question), _text(answer.answer)
        blocks.append(f"NOTE\nquestion {number}: {asked}\nanswer {number}: {said}")
        for rank, moment in enumerate(answer.moments, 1):
            first = round(moment.start * 1000)
            last = max(first + 1, round(moment.end * 1000))  # a cue ends after it begins
            lines = (
                f"q{number}-m{rank}",
                f"{_stamp(first)} --> {_stamp(last)}",
                f"{asked} → {said}",
                f"{WORDS[moment.modality]}, {escape(share_words(moment), quote=False)}",
            )
            cues.append((first, last, number, rank, "\n".join(lines)))
    return "\n\n".join([*blocks, *(cue for *_, cue in sorted(cues))]) + "\n"


def is_webvtt(content: bytes) -> bool:
    """Whether :func:`webvtt` made it."""
    return content.startswith(HEADER.encode())


def _text(text: str) -> str:
    """One line that is no markup: without ``<``, ``&`` and ``-->``."""
    return escape(one_line(text), quote=False)


def _stamp(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:03d}"
