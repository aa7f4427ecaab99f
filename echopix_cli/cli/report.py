"""A page about the answers of one file: one HTML file that loads nothing but the media file beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from echopix_cli import __version__
from echopix_cli.cli.output import inert, one_line

if TYPE_CHECKING:
    from jinja2 import Environment

    from echopix_cli.results import Answer

MARK = "A report by echopix"
_START = f"<!doctype html>\n<!-- {MARK} -->\n"
_SECTION = re.compile(rb"<!-- question ([0-9a-f]{16}) -->\n(.*?)\n<!-- end -->", re.DOTALL)
_PLAYER = re.compile(rb'<div class="player"><(video|audio) ')
_SUMMARY = re.compile(rb'<meta name="echopix" content="([^"]*)">')
_BARE = """\
<section id="q-{key}">
<h2>{question}</h2>
<p class="answer">{answer}</p>
<p class="note">Another version of echopix made this; what it showed of the answer is left out.</p>
</section>"""


@dataclass(frozen=True)
class Section:
    """One question of a page: ``key`` tells it from the page's others; ``html`` is all that is shown of it."""

    key: str
    question: str
    answer: str
    html: str

    def __html__(self) -> str:
        """As templates put it into a page: as it stands."""
        return self.html


@dataclass(frozen=True)
class Page:
    """What a page says of one file, whose name is ``media`` as it is shown, and whose folder ``where``, relative to the
    page. ``player`` is as of :func:`player_of`."""

    media: str
    sections: tuple[Section, ...]
    player: str | None = None
    where: str = ""


def key_of(question: str, *more: object) -> str:
    """What tells a question from others about the same file: its words, and the span that it is about."""
    text = json.dumps([question, *more])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def page(title: str, sections: Sequence[Section], player: str | None, source: str, where: str = "") -> bytes:
    """The whole page, however much is on it held no oftener than it has to be.

    Args:
        title: the media file's name.
        sections: a question each.
        player: ``video``, ``audio``, or None for none.
        source: URL of the media file, from :func:`url_of`.
        where: the folder that it lies in, where others of that name may lie in others.
    """
    from markupsafe import Markup

    answers = [[each.key, each.question, each.answer] for each in sections]
    summary = {"media": one_line(title), "where": one_line(where), "answers": answers}
    return _render(
        "report.html",
        script=Markup(_asset("report.js")),
        summary=json.dumps(summary),
        title=one_line(title),
        where=one_line(where),
        player=player,
        source=source,
        sections=[
            {"key": each.key, "question": each.question, "answer": each.answer, "html": each} for each in sections
        ],
    )


def index(rows: Sequence[tuple[str, Page]]) -> bytes:
    """A page that leads to others, each with its file name. Of media files called alike it says the folders."""
    alike = Counter(each.media for _, each in rows)
    shown = [
        {
            "href": f"./{quote(name)}",
            "media": each.media,
            "where": each.where if alike[each.media] > 1 else "",
            "answers": each.sections,
        }
        for name, each in rows
    ]
    return _render("report-index.html", rows=shown)


def is_report(content: bytes) -> bool:
    """Whether :func:`page` or :func:`index` made it."""
    return content.startswith(_START.encode())


def summary_of(head: bytes) -> Page | None:
    """What a page says, from its beginning and so without the HTML of its sections; None of what is no page."""
    found = _SUMMARY.search(head)
    if not is_report(head) or found is None:
        return None
    from html import unescape

    summary = json.loads(unescape(found[1].decode(errors="replace")))
    sections = tuple(Section(key, asked, said, "") for key, asked, said in summary["answers"])
    return Page(summary["media"], sections, where=summary.get("where", ""))


def read_page(content: bytes) -> Page | None:
    """What a page says; None of what is no page. Sections of another version's, which has another style, are rebuilt
    from what it says of them: question and answer stay, and what was shown of them goes."""
    found = summary_of(content)
    if found is None:
        return None
    ours, player = _policy().encode() in content, _PLAYER.search(content)
    html = {one[1].decode(): one[2].decode(errors="replace") for one in _SECTION.finditer(content)} if ours else {}
    sections = tuple(replace(s, html=html[s.key] if s.key in html else _bare(s)) for s in found.sections)
    return replace(found, sections=sections, player=player and player[1].decode())


def _bare(section: Section) -> str:
    """The HTML of a question of which nothing but the answer is known."""
    from markupsafe import Markup

    return Markup(_BARE).format(key=section.key, question=section.question, answer=section.answer or "(nothing)")


def player_of(answers: Sequence[Answer]) -> str | None:
    """The element that plays the file: ``video``, ``audio``, or None for a still picture."""
    taken = [answer.sampling for answer in answers]
    if any(each.frames > 1 for each in taken):
        return "video"
    return "audio" if any(each.audio_seconds for each in taken) else None


def folder_from(media: str | os.PathLike[str], folder: Path) -> str:
    """The folder that a media file lies in, relative to that of a page; nothing where they are one."""
    relative = os.path.relpath(os.path.dirname(os.path.abspath(media)), os.path.abspath(folder))
    return "" if relative == os.curdir else relative


def url_of(media: str | os.PathLike[str], folder: Path) -> str:
    """A URL of a media file, relative to a page in a folder."""
    relative = os.path.relpath(os.path.abspath(media), os.path.abspath(folder))
    return "./" + quote(os.fsencode(relative))


def section_html(**values: Any) -> str:
    """The HTML of one question, from plain values; texts are escaped here."""
    return _environment().get_template("report-section.html").render(**values).strip()


def text_of(text: str) -> str:
    """Text of any origin, for a page: lines stay, control characters are shown."""
    return inert(text.strip())


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        autoescape=True, loader=FunctionLoader(_asset), undefined=StrictUndefined, keep_trailing_newline=True
    )


def _render(template: str, **values: Any) -> bytes:
    from markupsafe import Markup

    style = Markup(_asset("report.css"))
    shared = {"mark": MARK, "version": __version__, "policy": Markup(_policy()), "style": style}
    pieces = _environment().get_template(template).generate(**shared, **values)
    return b"".join(piece.encode() for piece in pieces)


def _policy() -> str:
    """What the browser lets a page load: the pictures within it and a media file of the same place, nothing else."""
    allowed = {
        "default-src": "'none'",
        "img-src": "data:",
        "media-src": "'self' file:",
        "style-src": _hash("report.css"),
        "script-src": _hash("report.js"),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in allowed.items())


def _hash(name: str) -> str:
    digest = hashlib.sha256(_asset(name).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@cache
def _asset(name: str) -> str:
    return resources.files("echopix_cli.assets").joinpath(name).read_text(encoding="utf-8")
