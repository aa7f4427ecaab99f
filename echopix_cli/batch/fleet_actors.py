"""What runs elsewhere in a fleet: actors that decode, and actors that hold a model. They know nothing of Ray.

What a person should be told comes back as a value, an :class:`EchopixError`; what is raised is a fault of ours.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import wraps
from queue import Empty, SimpleQueue
from typing import ParamSpec, TypeVar

from echopix_cli import __version__
from echopix_cli.batch.asking import Asker
from echopix_cli.batch.items import BatchOptions, Group, Prepared, nothing_unexpected
from echopix_cli.batch.journal import FileFacts
from echopix_cli.batch.keys import model_facts
from echopix_cli.batch.outcomes import Outcome
from echopix_cli.batch.reading import identify, read
from echopix_cli.decoding.worker import Worker
from echopix_cli.engine import Engine, SieveOptions, Workload
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.opening import Changed, look_again, window_of
from echopix_cli.engine.options import FilmOptions
from echopix_cli.errors import EchopixError, bare
from echopix_cli.files import Look
from echopix_cli.media import DecodePlan, MediaInfo

T = TypeVar("T")
P = ParamSpec("P")
_OURS = "ECHOPIX_"  # begins the names of variables that an actor takes over


@dataclass(frozen=True)
class Origin:
    """The command that an actor works for.

    Attributes:
        version: of echopix.
        folder: that relative paths start from.
        variables: its ``ECHOPIX_*``.
    """

    version: str
    folder: str
    variables: tuple[tuple[str, str], ...]

    @classmethod
    def here(cls) -> Origin:
        """This process."""
        found = [(name, value) for name, value in os.environ.items() if name.startswith(_OURS)]
        return cls(__version__, os.getcwd(), tuple(found))

    def take(self) -> None:
        """Be as there: in the same folder, where this machine has it, with the same variables."""
        os.environ.update(self.variables)
        with suppress(OSError):
            os.chdir(self.folder)
        # Arrays that came from another process may not be written to, and nobody does.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

    def require_same(self) -> None:
        """Check that this machine runs the same program.

        Raises:
            EchopixError: it does not.
        """
        if self.version != __version__:
            raise EchopixError(
                f"{os.uname().nodename} has echopix {__version__}, the command {self.version}",
                "install one version everywhere",
            )


@dataclass(frozen=True)
class Loading:
    """How an engine is loaded; as :meth:`Engine.load` takes it."""

    model: str
    device: str
    dtype: str
    quantize: str
    keep_source: bool
    workload: Workload | None


@dataclass(frozen=True)
class EngineFacts:
    """What the command has to know of an engine elsewhere.

    Attributes:
        model: from :func:`~.keys.model_facts`; the same for all engines of a fleet.
        demonstration: whether it is the bundled model.
        window: seconds of a film that it reads at once.
        node: the machine's name.
    """

    model: list[str | None]
    demonstration: bool
    window: float
    node: str


def _said(method: Callable[P, T]) -> Callable[P, T | EchopixError]:
    """Give errors back, rather than raise them."""

    @wraps(method)
    def saying(*arguments: P.args, **options: P.kwargs) -> T | EchopixError:
        try:
            with nothing_unexpected():
                return method(*arguments, **options)
        except EchopixError as error:
            return bare(error)

    return saying


class DecodingActor:
    """Reads files in processes of its own, which may crash or be killed. Its methods run in several threads at once.

    Args:
        origin: of the fleet.
        timeout: seconds that one request may take.
    """

    def __init__(self, origin: Origin, timeout: float) -> None:
        self._origin, self._timeout = origin, timeout
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        origin.take()

    @_said
    def ready(self) -> str:
        """The machine's name, once this actor can work."""
        self._origin.require_same()
        return os.uname().nodename

    @_said
    def identify(self, media: str, known: FileFacts | None) -> tuple[FileFacts, Look]:
        """Which bytes a file holds.

        Args:
            media: path of the file.
            known: of a file of this name that was read before.
        """

        def same(look: Look) -> FileFacts | None:
            return known if known is not None and (known.size, known.mtime_ns) == (look.size, look.mtime_ns) else None

        with self._borrowed() as worker:
            return identify(worker, media, same)

    def decode(
        self, media: str, plan: DecodePlan, look: Look, window: float
    ) -> tuple[MediaInfo | EchopixError | None, Fetched | None]:
        """As :func:`~.reading.read`: what is known of a film, or why there is nothing; and a clip's content."""
        found = self._decode(media, plan, look, window)
        return (None, found) if isinstance(found, Fetched) else (found, None)

    @_said
    def _decode(self, media: str, plan: DecodePlan, look: Look, window: float) -> Fetched | MediaInfo:
        def fetch(path: str, plan: DecodePlan) -> Fetched:
            decoded = worker.decode(path, plan)
            return Fetched(decoded.clip, None, decoded.seconds)

        with self._borrowed() as worker:
            return read(worker, media, plan, look, window, fetch)

    @contextmanager
    def _borrowed(self) -> Iterator[Worker]:
        try:
            worker = self._idle.get_nowait()
        except Empty:
            worker = Worker(self._timeout)
        try:
            yield worker
        finally:
            self._idle.put(worker)


class EngineActor:
    """Holds a model and asks it.

    Args:
        origin: of the fleet.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._engine: Engine | None = None
        origin.take()

    @property
    def engine(self) -> Engine:
        """The loaded one."""
        assert self._engine is not None
        return self._engine

    @_said
    def load(self, loading: Loading) -> EngineFacts:
        """Load the model."""
        self._origin.require_same()
        engine = self._engine = Engine.load(
            loading.model,
            loading.device,
            loading.dtype,
            loading.quantize,
            keep_source=loading.keep_source,
            workload=loading.workload,
        )
        return EngineFacts(
            model_facts(engine), engine.source.demonstration, window_of(engine, FilmOptions()), os.uname().nodename
        )

    @_said
    def plan(self, plan: DecodePlan, max_pixels: int | None) -> DecodePlan:
        """As :meth:`Engine.plan`."""
        return self.engine.plan(plan, max_pixels)

    @_said
    def choose(self, sieve: SieveOptions, budget: float) -> None:
        """Check a wish for a sieve, as :meth:`Engine.choose` does."""
        self.engine.choose(sieve, budget)

    def ask(
        self, group: Group, prepared: Prepared, fetched: Fetched | None, settings: BatchOptions, timeout: float
    ) -> Iterator[Outcome]:
        """The outcomes of a group's open tasks, as they come.

        Args:
            group: as it is to be asked.
            prepared: without its content.
            fetched: that content; None of a film, which is read here.
            settings: of every answer.
            timeout: seconds that reading one window of a film may take.
        """
        try:
            prepared = replace(prepared, fetched=fetched)
            if prepared.film is not None and prepared.look is not None:
                prepared = replace(prepared, look=_found_again(group.media, prepared.look))
        except EchopixError as error:
            prepared = replace(prepared, error=bare(error))
        yield from Asker(self.engine, settings, timeout).ask(group, prepared)


def _found_again(media: str, look: Look) -> Look:
    """How a file looks from this machine that another one has read: mounts have device and file numbers of their own.

    Raises:
        Changed: it is another file by now.
    """
    here = look_again(media)
    if (here.size, here.mtime_ns) != (look.size, look.mtime_ns):
        raise Changed(media)
    return here
