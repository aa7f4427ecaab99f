"""Who answers the questions of a command: a server that is there, or a model that is loaded here, once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from echopix_cli.cli import options as opt
from echopix_cli.serving import messages as m

if TYPE_CHECKING:
    from echopix_cli.engine import Engine
    from echopix_cli.serving.answering import Held
    from echopix_cli.serving.client import Server


class Shown(Protocol):
    """What shows the events of a request; ``server`` is who answers it, None for this process."""

    server: Server | None

    def take(self, event: m.Event) -> None:
        """Show what came."""


class Answering:
    """A server, as long as one is there, else a model that stays here.

    Args:
        run: of the command.
        media: files, where no others will be asked about: what the model needs is reckoned from them.
    """

    def __init__(self, run: opt.Run, media: Sequence[str] = ()) -> None:
        self._run, self._media = run, media
        self._server: Server | None = None
        self._engine: Engine | None = None
        self._held: Held | None = None

    def close(self) -> None:
        """Let the server go."""
        if self._server is not None:
            self._server.close()

    def answer(self, request: m.Ask, display: Shown) -> None:
        """Have a request answered, and what comes of it shown.

        Raises:
            UsageError: a file to write about the answers is not to be replaced.
            MediaError: the file cannot be read.
            ModelError: the model cannot be.
            DeviceError: memory does not suffice.
        """
        if not self._asked_there(request, display):
            self._ask_here(request, display)

    def _asked_there(self, request: m.Ask, display: Shown) -> bool:
        """Have a server answer; whether it did, and is not about to end."""
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

    def _ask_here(self, request: m.Ask, display: Shown) -> None:
        from echopix_cli.media import require_file

        require_file(request.path)  # before the model is loaded for nothing
        display.take(m.Found())
        seconds = 0.0
        if self._engine is None:
            self._engine = self._run.engine(self._media, keeps=True)
            seconds = self._engine.load_seconds
        display.take(m.Loaded(seconds))
        from echopix_cli.serving.answering import Held, answer

        self._held = self._held or Held()
        seen = self._run.look(request.path) if request.path in self._media else None
        answer(self._engine, request, display.take, seen, held=self._held)
