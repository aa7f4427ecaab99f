"""The asking side: find a server that fits, and let it answer. Neither torch nor transformers is imported here."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from echopix_cli import __version__
from echopix_cli.errors import DeviceError, EchopixError, ExitCode, MediaError, ModelError, UsageError
from echopix_cli.files import shown
from echopix_cli.serving import messages as m
from echopix_cli.serving.place import SOCKET, connected, opened_folder, sockets
from echopix_cli.serving.wire import Garbled, packed, received

_LOOK = 0.1  # seconds between looks at whether to stop
_ENDS = ("Done", "Summed", "Failure")  # of a request
_GREETING = 5.0  # seconds for a server's first message


class Ending(EchopixError):
    """A server cannot take a request, or ended before it began to answer: whoever asks goes on without one."""


_CLASSES = {kind.__name__: kind for kind in (EchopixError, UsageError, ModelError, MediaError, DeviceError, Ending)}


@dataclass(frozen=True)
class Greeted:
    """A connection to a server of this name, what it said first, and the process that it is. Without a welcome it said
    nothing that is understood here: it is of another version, or has no place for another client."""

    name: str
    connection: socket.socket
    welcome: m.Welcome | None
    pid: int


def wish_of(model: str, device: str, dtype: str, quantize: str) -> m.Wish:
    """What is wanted of a model, by the settings of these names: its name as what it stands for.

    Raises:
        ModelError, UsageError: the name stands for nothing.
    """
    from echopix_cli.weights.names import AUTO, BUNDLED

    if model not in (AUTO, BUNDLED):  # which stand for the same everywhere
        from echopix_cli.weights.registry import find_model

        found = find_model(model)
        model = found.source if found.folder is None else str(found.folder.resolve())
    return m.Wish(model, device, dtype, quantize)


def greet_all(wish: Callable[[], m.Wish]) -> Iterator[Greeted]:
    """Every server of this user that listens, the newest first; whoever takes one closes its connection.

    Args:
        wish: is asked for what is wanted, if there is any server.

    Raises:
        EchopixError: the folder of the sockets is not this user's alone; or as ``wish`` does.
    """
    with opened_folder() as folder:
        names = [] if folder is None else sockets(folder)
        hello = packed(m.Hello(__version__, wish())) if names else b""
        for name in names:
            assert folder is not None
            if (found := connected(folder, name, _GREETING)) is None:
                continue
            connection, peer = found
            try:
                connection.sendall(hello)
                welcome = received(connection)
            except (OSError, EOFError, Garbled):
                welcome = None
            said = welcome if isinstance(welcome, m.Welcome) else None
            yield Greeted(name.removesuffix(SOCKET), connection, said, peer.pid)


def find_server(wish: Callable[[], m.Wish]) -> Server | None:
    """A server of this user and this version that holds what is wanted; None where there is none.

    Raises:
        EchopixError: as :func:`greet_all`.
    """
    for greeted in greet_all(wish):
        welcome = greeted.welcome
        if welcome is not None and welcome.version == __version__ and not welcome.refusal:
            greeted.connection.settimeout(None)
            return Server(greeted.connection, welcome)
        greeted.connection.close()
    return None


class Server:
    """A server that fits, for one request at a time.

    Args:
        connection: greeted.
        welcome: what it said.
    """

    def __init__(self, connection: socket.socket, welcome: m.Welcome) -> None:
        self._connection, self.welcome = connection, welcome
        self._begun = False  # whether anything came of the request but that the file is there

    @property
    def closed(self) -> bool:
        """Whether the connection is; another one is needed then."""
        return self._connection.fileno() == -1

    def close(self) -> None:
        """Go away; what is under way there is cancelled."""
        self._connection.close()

    def ask(self, request: m.Ask, say: m.Sink) -> None:
        """Have questions about one file answered.

        Args:
            request: as typed; the file may be named from here.
            say: takes all that comes.

        Raises:
            EchopixError: as the server says, as :func:`~.answering.answer` would here; or it is gone.
        """
        typed = request.path
        named = Naming({absolute(typed): typed})
        for event in self.events(replace(request, path=absolute(typed)), named):
            match event:
                case m.Done():
                    return
                case m.Notice():
                    say(replace(event, text=named.text(event.text)))
                case m.Answered():
                    say(m.Answered(replace(event.answer, media=typed)))
                case _:
                    say(event)

    def events(self, request: Any, named: Naming, stop: Callable[[], bool] | None = None) -> Iterator[Any]:
        """What comes of a request up to its end. Whoever stops listening cancels it.

        Args:
            request: with absolute paths.
            named: what these are called here.
            stop: asked before every event and often between, where it is given; cancels the request, whose end then
                comes soon.

        Raises:
            Ending: the request was not begun.
            EchopixError: it failed, or the server is gone.
        """
        whole = cancelled = self._begun = False
        self.send(request)
        try:
            while not whole:
                while stop is not None and not cancelled:
                    if stop():
                        cancelled = True
                        self.send(m.Cancel())
                    elif self._arrives():
                        break
                event = self._next()
                self._begun = self._begun or not isinstance(event, m.Found)
                whole = type(event).__name__ in _ENDS
                if isinstance(event, m.Failure):
                    raise error_of(event, named)
                yield event
        finally:
            if not whole:
                self.close()

    def _arrives(self) -> bool:
        """Whether something can be received; after a while, that nothing can."""
        return bool(select.select([self._connection], [], [], _LOOK)[0])

    def _next(self) -> Any:
        try:
            return received(self._connection)
        except (OSError, EOFError, Garbled) as error:
            self.close()
            raise self._gone() from error

    def send(self, message: Any) -> None:
        """Say something.

        Raises:
            Ending: it is too long for a message; or the server is gone and had not begun to answer.
            EchopixError: the server is gone.
        """
        try:
            self._connection.sendall(packed(message))
        except Garbled as error:
            raise Ending(
                f"{error} is too long for the server", "split the list; --no-server goes without one"
            ) from None
        except OSError as error:
            self.close()
            raise self._gone() from error

    def _gone(self) -> EchopixError:
        kind = EchopixError if self._begun else Ending
        return kind("the server has ended before it answered", "run again; --no-server goes without one")


@dataclass(frozen=True)
class Naming:
    """Files as the server knows them, by absolute path, and as they were typed."""

    files: dict[str, str]

    def text(self, text: str) -> str:
        """Words in which files are called as they were typed."""
        for there, typed in self.files.items():
            if there != typed:
                text = text.replace(there, typed).replace(shown(there), shown(typed))
        return text


def error_of(failure: m.Failure, named: Naming) -> EchopixError:
    """An error as it would have been raised here."""
    error = _CLASSES.get(failure.kind, EchopixError)(named.text(failure.message), named.text(failure.hint))
    error.exit_code = ExitCode(failure.exit_code)
    return error


def absolute(path: str) -> str:
    """A path that leads to the same file from anywhere; without a look at links, which may change.

    Raises:
        Ending: it starts at the working folder, which is gone.
    """
    if os.path.isabs(path):
        return path
    try:
        return os.path.join(os.getcwd(), path)
    except OSError as error:
        raise Ending(f"the working folder is gone: {error.strerror}", "go to another one") from None
