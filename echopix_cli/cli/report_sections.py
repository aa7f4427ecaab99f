"""One answer and its exhibits as a section of a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from echopix_cli.cli.output import one_line, unkept
from echopix_cli.cli.report import Section, key_of, section_html, text_of
from echopix_cli.cli.report_exhibits import Box, Exhibit, Still, Wave
from echopix_cli.cli.tables import percent, precision, sampled, seconds, sieve_words
from echopix_cli.cli.timeline import WORDS, Timeline, share_words
from echopix_cli.results import Answer, ModalityTokens
from echopix_cli.times import clock

_WIDTH, _HEIGHT, _TALLEST = 1000, 40, 36  # of a line in its own units
_BARS = 250  # of a line
_THINNEST = 4  # mark, in the same units
_STATUS = {
    "used": "used",
    "absent": "absent: no sound in the file, or in the part asked about",
    "disabled": "left out, as asked",
    "undecodable": "could not be decoded",
    "truncated": "only a part was used",
}


def section_of(answer: Answer, exhibits: Sequence[Exhibit], *more: object) -> Section:
    """A section about one answer.

    Args:
        answer: to show.
        exhibits: of its highest moments.
        more: what else tells the question from others about the file: its id, the span that it is about.
    """
    key = key_of(answer.question, *more)
    timeline = Timeline.of(answer)
    tokens = answer.tokens
    pool = ModalityTokens(tokens.total, tokens.kept)
    parts = (("picture", tokens.video), ("sound", tokens.audio), ("all", pool))
    left = len(answer.moments) - len(exhibits)
    html = section_html(
        key=key,
        question=text_of(answer.question),
        answer=text_of(answer.answer) or "(nothing)",
        choices=[
            {"letter": each.letter, "percent": f"{100 * each.probability:.1f} %", "text": one_line(each.text)}
            for each in answer.choices
        ],
        lines=[] if timeline is None else _lines(timeline, answer),
        ends=("", "") if timeline is None else timeline.ends,
        exhibits=[_exhibit(answer, timeline, each, f"{key}-{number}") for number, each in enumerate(exhibits, 1)],
        more=f"{left} more moment{'' if left == 1 else 's'} with smaller shares." if left else "",
        tokens=[(name, part.total, part.kept, percent(part)) for name, part in parts],
        facts=[(name, one_line(value)) for name, value in _facts(answer)],
        notices=[one_line(notice) for notice in (*answer.notices, *unkept(answer).values())],
    )
    return Section(key, one_line(answer.question), one_line(answer.answer), html)


def _lines(timeline: Timeline, answer: Answer) -> list[dict[str, Any]]:
    """Of each modality the moments, and before them, as bars, where within them the attention lies."""
    density = timeline.density(answer.kept_tokens, _BARS)
    highest = max(max(line) for line in density.values()) or 1.0
    step = _WIDTH / _BARS
    lines = []
    for modality in timeline.modalities:
        tops = [(place * step, _HEIGHT - _TALLEST * value / highest) for place, value in enumerate(density[modality])]
        bars = "".join(f"M{x:g} {_HEIGHT}V{top:.1f}H{x + step:g}V{_HEIGHT}Z" for x, top in tops if top < _HEIGHT)
        lines.append({**_line(timeline, modality), "bars": bars})
    return lines


def _line(timeline: Timeline, modality: str) -> dict[str, Any]:
    moments = [moment for moment in timeline.moments if moment.modality == modality]
    word = WORDS[modality]
    marks = []
    for moment in moments:
        first, last = timeline.within(moment)
        width = max(_THINNEST, round((last - first) * _WIDTH, 1))
        height = max(_THINNEST, round(timeline.height(moment) * _TALLEST, 1))
        marks.append(
            {
                "x": min(round(first * _WIDTH, 1), _WIDTH - width),
                "y": round(_HEIGHT - height, 1),
                "width": width,
                "height": height,
                "said": f"{timeline.words(moment)}, {share_words(moment)}",
            }
        )
    said = f"{word}: nothing was kept"
    if marks:
        count = f"{len(marks)} moment{'' if len(marks) == 1 else 's'}"
        said = f"{word}: {count}, the highest at {marks[0]['said']}"
    return {"word": word, "said": said, "marks": marks}


def _exhibit(answer: Answer, timeline: Timeline | None, exhibit: Exhibit, name: str) -> dict[str, Any]:
    moment = exhibit.moment
    missing = []
    if answer.sampling.frames and exhibit.still is None:
        missing.append("picture")
    if answer.sampling.audio_seconds and exhibit.wave is None:
        missing.append("sound")
    return {
        "span": "" if timeline is None else timeline.words(moment),
        "word": WORDS[moment.modality],
        "share": share_words(moment),
        "start": f"{moment.start:.3f}",
        "end": f"{moment.end:.3f}",
        "still": None if exhibit.still is None else _still(exhibit.still, timeline is not None),
        "wave": None if exhibit.wave is None else _wave(exhibit.wave, f"wave-{name}"),
        "missing": f"No {' and no '.join(missing)} could be read here." if missing else "",
    }


def _still(still: Still, timed: bool) -> dict[str, Any]:
    kept = len(still.kept)
    what = f"frame at {clock(still.time)}" if timed else "the picture"
    said = f"{kept} patch{'' if kept == 1 else 'es'} of it kept" if kept else "nothing of it kept"
    where = f", {_place(still.kept)}" if still.kept else ""
    return {
        "data": base64.b64encode(still.jpeg).decode(),
        "width": still.width,
        "height": still.height,
        "alt": f"{what}; {said}{where}",
        "caption": f"{what}; {said}",
        "lit": "".join(
            f"M{left:.4g} {top:.4g}H{right:.4g}V{bottom:.4g}H{left:.4g}Z" for left, top, right, bottom in still.kept
        ),
    }


def _place(boxes: Sequence[Box]) -> str:
    """Where the middle of some boxes is."""
    across = sum(left + right for left, _, right, _ in boxes) / (2 * len(boxes))
    down = sum(top + bottom for _, top, _, bottom in boxes) / (2 * len(boxes))
    column = "left" if across < 1 / 3 else "right" if across > 2 / 3 else ""
    row = "top" if down < 1 / 3 else "bottom" if down > 2 / 3 else ""
    return f"mostly at the {row} {column}".rstrip().replace("  ", " ") if row or column else "around the middle"


def _wave(wave: Wave, clip: str) -> dict[str, Any]:
    step = _WIDTH / len(wave.envelope)
    edges = [(place * step, 50 - 46 * high, 50 - 46 * low) for place, (low, high) in enumerate(wave.envelope)]
    above = "".join(f"L{x:.1f} {top:.1f}H{x + step:.1f}" for x, top, _ in edges)
    below = "".join(f"L{x + step:.1f} {bottom + 0.4:.1f}H{x:.1f}" for x, _, bottom in reversed(edges))
    scale = _WIDTH / (wave.end - wave.start)
    marks = [((first - wave.start) * scale, (last - wave.start) * scale) for first, last in wave.kept]
    kept = sum(last - first for first, last in wave.kept)
    said = f"{kept:.2f} s kept" if kept else "nothing of it kept"
    return {
        "clip": clip,
        "shape": f"M0 50{above}{below}Z",
        "marks": "".join(f"M{first:.1f} 0H{last:.1f}V100H{first:.1f}Z" for first, last in marks),
        "first": clock(wave.start),
        "last": clock(wave.end),
        "caption": f"sound; {said}",
        "said": f"sound from {clock(wave.start)} to {clock(wave.end)}; {said}",
    }


def _facts(answer: Answer) -> list[tuple[str, str]]:
    model, sampling, film = answer.model, answer.sampling, answer.film
    rows = [
        ("sound", _STATUS[answer.audio]),
        ("model", f"{model.name}{' (demonstration)' if model.demonstration else ''}, {precision(model)}"),
        ("sieve", f"{sieve_words(answer)}, budget {answer.budget:g}"),
        ("sampled", sampled(sampling)),
    ]
    if film is not None:
        looked = ", ".join(f"{clock(start)}–{clock(end)}" for start, end in film.looked)
        unread = f", {film.unread} of them unread" if film.unread else ""
        count = f"{film.survivors} tokens in the last prompt"
        rows.append(("film", f"{film.windows} windows of {clock(film.window_seconds)}{unread}, {count}"))
        if looked:
            rows.append(("looked at", f"{looked} at the full rate"))
    return [*rows, ("took", seconds(answer.latency.total))]
