"""Questions one after the other, with a server or a model that is loaded once."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from echopix_cli.cli import options as opt
from echopix_cli.cli.answer_files import AnswerFiles
from echopix_cli.cli.ask_one import Display
from echopix_cli.results import Answer
from echopix_cli.serving import messages as m

if TYPE_CHECKING:
    from echopix_cli.engine import Engine
    from echopix_cli.serving.answering import Held
    from echopix_cli.serving.client import Server


class Answering:
    """Who answers the questions of one command: a server, as long as one is there, else a model that stays here.

    Args:
        run: of the command.
    """

    def __init__(self, run: opt.Run) -> None:
        self._run = run
        self._server: Server | None = None
        self._engine: Engine | None = None
        self._held: Held | None = None
        self._said: set[str] = set()

    def close(self) -> None:
        """Let the server go."""
        if self._server is not None:
            self._server.close()

    def ask(self, path: str, question: str, manner: m.Manner, form: str, label: str = "") -> tuple[Answer, bool]:
        """Show the answer to a question as it comes; the answer, and whether a server gave it.

        Args:
            path: of the file.
            question: in the user's words.
            manner: of answering.
            form: as of ``ask``.
            label: before the answer's text.

        Raises:
            EchopixError: it cannot be answered.
        """
        request = m.Ask(path, (question,), (), manner)
        with closing(Display(self._run, request, form, AnswerFiles(), self._said, label)) as display:
            if not self._asked_there(request, display):
                self._ask_here(request, display)
            if self._run.settings.verbose:
                display.finish()
            return display.answers[-1], display.server is not None

    def _asked_there(self, request: m.Ask, display: Display) -> bool:
        if self._engine is not None:
            return False
        if self._server is None or self._server.closed:
            self._server = self._run.server()
        if self._server is None:
            return False
        from echopix_cli.serving.client import Ending

        display.server = self._server
        try:
            self._server.ask(request, display.take)
            return True
        except Ending:
            self._server.close()
            self._server = display.server = None
            return False

    def _ask_here(self, request: m.Ask, display: Display) -> None:
        from echopix_cli.media import require_file

        require_file(request.path)
        display.take(m.Found())
        seconds = 0.0
        if self._engine is None:
            self._engine = self._run.engine(keeps=True)
            seconds = self._engine.load_seconds
        display.take(m.Loaded(seconds))
        from echopix_cli.serving.answering import Held, answer

        self._held = self._held or Held()
        answer(self._engine, request, display.take, held=self._held)
