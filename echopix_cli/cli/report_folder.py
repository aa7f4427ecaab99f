"""The pages of a batch: one for each media file, and an index."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from echopix_cli.cli.output import one_line
from echopix_cli.cli.own_files import content_of, require_own, write_own
from echopix_cli.cli.report import (
    Page,
    Section,
    folder_from,
    index,
    is_report,
    key_of,
    page,
    player_of,
    read_page,
    summary_of,
    url_of,
)
from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.files import check_stream

if TYPE_CHECKING:
    from echopix_cli.batch.tasks import Task
    from echopix_cli.media import DecodePlan
    from echopix_cli.results import Answer

_INDEX = "index.html"
_PAUSE = 2.0  # seconds between two writings of one page
_HEAD = 2**20  # bytes of a page in which its summary is looked for at first
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


_HINT = "name another folder with --report"


def check_folder(folder: Path) -> None:
    """Refuse a folder of pages where none can be.

    Raises:
        UsageError: it is no folder, or stdout or stderr, cannot be written, or holds an index of something else.
    """
    check_stream(folder)
    if os.path.isdir(folder):
        require_own(folder / _INDEX, "report of echopix", is_report, _HINT)
    elif os.path.lexists(folder):
        raise UsageError(f"of several files, or with --output, a report is a folder, and {folder} is none", _HINT)
    elif not os.access(folder.absolute().parent, os.W_OK):
        raise UsageError(f"the folder {folder.absolute().parent} does not exist or cannot be written", _HINT)


class ReportFolder:
    """Takes answers in the order in which they come, and writes a page whenever those of a file have ended.

    A page keeps what earlier runs have put there about other questions. While answers about one file still come, its
    page is written every few seconds, so that a process that is killed takes no more with it; what is written is held
    there alone. It is for one thread.

    Args:
        folder: made when the first page is written.
        plan: that the answers are made with.
    """

    def __init__(self, folder: Path, plan: DecodePlan) -> None:
        self._folder, self._plan = folder, plan
        self._media: str | None = None
        self._sections: list[Section] = []  # that are on no page yet
        self._player: str | None = None
        self._due = 0.0  # when the page is to be written while more may come

    def add(self, task: Task, answer: Answer) -> None:
        """Take an answer that lists its kept tokens.

        Raises:
            EchopixError: a page cannot be written.
        """
        from echopix_cli.cli.report_exhibits import Exhibitor
        from echopix_cli.cli.report_sections import section_of

        if task.media != self._media:
            self._flush()
            self._media, self._exhibitor = task.media, Exhibitor(task.media, self._plan)
            self._due = time.monotonic() + _PAUSE
        exhibits = self._exhibitor.exhibits(answer)
        self._sections.append(section_of(answer, exhibits, task.id, task.start, task.end))
        self._player = _fuller(self._player, player_of([answer]))
        if (began := time.monotonic()) >= self._due:
            self._write(task.media)
            written = time.monotonic()
            self._due = written + max(_PAUSE, 10 * (written - began))  # a long page takes long

    def without(self, tasks: Iterable[Task]) -> int:
        """How many of some tasks are on no page."""
        shown: dict[str, set[str]] = {}
        missing = 0
        for task in tasks:
            if task.media not in shown:
                found = _summary(self._page_of(task.media)) or Page("", ())
                shown[task.media] = {each.key for each in found.sections}
            missing += key_of(task.question, task.id, task.start, task.end) not in shown[task.media]
        return missing

    def close(self) -> None:
        """Write what is left, and the index of all pages that are there.

        Raises:
            EchopixError: they cannot be written.
        """
        self._flush()
        if not self._folder.is_dir():
            return
        rows = []
        for file in sorted(self._folder.glob("*.html")):
            if found := _summary(file):
                rows.append((file.name, found))
        rows.sort(key=lambda row: (row[1].media, row[1].where, row[0]))
        write_own(self._folder / _INDEX, index(rows))

    def _flush(self) -> None:
        if self._media is not None and self._sections:
            self._write(self._media)
        self._media = self._player = None

    def _write(self, media: str) -> None:
        path = self._page_of(media)
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise EchopixError(f"cannot make {self._folder}: {error.strerror or error}", _HINT) from error
        before = _before(path)
        sections = {each.key: each for each in [*before.sections, *self._sections]}
        self._player = _fuller(before.player, self._player)
        source = url_of(media, self._folder)
        where = folder_from(media, self._folder)
        write_own(path, page(os.path.basename(media), list(sections.values()), self._player, source, where))
        self._sections = []

    def _page_of(self, media: str) -> Path:
        """Where a media file's page lies. Under a name of fewer digits lies one that an earlier version made, of this
        file or of another one with those digits; where it is this one's, it stays its page."""
        earlier = self._folder / page_name(media, digits=8)
        found, where = _summary(earlier), one_line(folder_from(media, self._folder))
        own = found is not None and found.media == one_line(os.path.basename(media)) and found.where in ("", where)
        return earlier if own else self._folder / page_name(media)


def page_name(media: str, digits: int = 16) -> str:
    """What a media file's page is called: by the file's own name and where it lies."""
    where = hashlib.sha256(os.fsencode(os.path.abspath(media))).hexdigest()[:digits]
    return f"{_UNSAFE.sub('-', os.path.basename(media))[:80].lstrip('.-')}-{where}.html"


def _fuller(one: str | None, other: str | None) -> str | None:
    """Of two players the one that shows more, as of :func:`~.report.player_of`."""
    return max(one, other, key=(None, "audio", "video").index)


def _summary(path: Path) -> Page | None:
    """What a page says, read as far as that takes; None of what is no page."""
    most = _HEAD
    while True:
        head = content_of(path, most) or b""  # nothing of what is no file
        found = summary_of(head)
        if found or len(head) < most or not is_report(head):
            return found
        most *= 2


def _before(path: Path) -> Page:
    """What a page holds already.

    Raises:
        EchopixError: something else lies there.
    """
    if not os.path.lexists(path):
        return Page("", ())
    # The whole of it, however long: what is not read here would be gone from the page that takes its place.
    content = content_of(path, -1)
    if content is None or (content and not is_report(content)):
        raise EchopixError(f"{path} exists and is no report of echopix", _HINT)
    return read_page(content) or Page("", ())
