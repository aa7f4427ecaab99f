"""What ``echopix ask`` writes beside the answers where it is asked to: moments as WebVTT, and a page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echopix_cli.errors import UsageError
from echopix_cli.settings import SHOW

if TYPE_CHECKING:
    from echopix_cli.media import DecodePlan
    from echopix_cli.results import Answer

_HINT = "name another file: only what echopix wrote is replaced"

Vtt = Annotated[
    Path | None,
    typer.Option(
        "--vtt",
        metavar="FILE",
        help="write the moments that the answers about one file rest on here, as WebVTT",
        rich_help_panel=SHOW,
        show_default=False,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="write a page of answers and moments here, as HTML; of several files, a folder of pages",
        rich_help_panel=SHOW,
        show_default=False,
    ),
]


@dataclass(frozen=True)
class AnswerFiles:
    """Files about the answers of one media file, from ``--vtt`` and ``--report``."""

    vtt: Path | None = None
    report: Path | None = None

    def check(self) -> None:
        """Refuse, before anything is read, places where no file can go or something else lies.

        Raises:
            UsageError: there is one.
        """
        from echopix_cli.cli.own_files import require_own

        if self.vtt is not None:
            from echopix_cli.cli.webvtt import is_webvtt

            require_own(self.vtt, "WebVTT file of echopix", is_webvtt, _HINT)
        if self.report is not None:
            from echopix_cli.cli.report import is_report

            require_own(self.report, "report of echopix", is_report, _HINT)
        if self.vtt and self.report and self.vtt.resolve() == self.report.resolve():
            raise UsageError("--vtt and --report name one file", "give each a name of its own")

    def write(self, path: str, answers: Sequence[Answer], plan: DecodePlan) -> None:
        """Write them, each whole or not at all.

        Args:
            path: of the media file, which a page reads again for its frames.
            answers: all about it; for a page they list their kept tokens.
            plan: that they were made with.

        Raises:
            EchopixError: the disk refuses.
        """
        from echopix_cli.cli.own_files import write_own

        if self.vtt is not None:
            from echopix_cli.cli.webvtt import webvtt

            write_own(self.vtt, webvtt(answers).encode())
        if self.report is not None:
            from echopix_cli.cli.report import page, player_of, url_of
            from echopix_cli.cli.report_exhibits import Exhibitor
            from echopix_cli.cli.report_sections import section_of

            exhibitor = Exhibitor(path, plan)
            sections = [section_of(answer, exhibitor.exhibits(answer)) for answer in answers]
            source = url_of(path, self.report.parent)
            write_own(self.report, page(os.path.basename(path), sections, player_of(answers), source))
