"""A file, whatever its length, opened for questions: a clip through the towers, or a film by its windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from echopix_cli.decoding.worker import Worker, probe
from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.engine import Engine
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.film import FAMILY_WINDOW, Film, film_of
from echopix_cli.engine.loading import memory_errors
from echopix_cli.engine.options import AskOptions, FilmOptions
from echopix_cli.engine.survey import Survey, Watch
from echopix_cli.errors import MediaError
from echopix_cli.files import identity_of, look_at
from echopix_cli.media import DecodePlan, MediaInfo
from echopix_cli.media.source import shown


def unwatched(done: float, total: float, stage: str) -> None:
    """For whoever does not follow the reading of a film."""


def film_in(engine: Engine, info: MediaInfo, plan: DecodePlan, options: FilmOptions = FilmOptions()) -> Film | None:  # noqa: B008 - frozen
    """How a file is read as windows; None where it fits one, or where its header does not say how long it is.

    Args:
        engine: with the model, which says how long a window is.
        info: of the file.
        plan: from :meth:`Engine.plan`.
        options: of films.
    """
    window = options.window or engine.processor.rules.window_seconds or FAMILY_WINDOW
    return None if info.still else film_of(plan, info.duration, window)


def survey(
    engine: Engine,
    name: str,
    film: Film,
    questions: Sequence[str],
    fetch: Callable[[int, bool], Fetched],
    options: AskOptions = AskOptions(),  # noqa: B008 - frozen
    look: int = FilmOptions().look,
    watch: Watch = unwatched,
) -> tuple[Encoded, ...]:
    """Sieve the windows of a film with each of some questions.

    Args:
        engine: that sieves.
        name: of the film, for its records.
        film: from :func:`film_in`.
        questions: as the model reads them.
        fetch: the content of a window by its number, at the full rate or as a glance, asked for in another thread.
        options: of the sieve, and the system prompt.
        look: windows that are read again at the full rate.
        watch: is told seconds of media done, of how many, and the stage.

    Returns:
        for each question what it can be put to.

    Raises:
        MediaError: no window can be read.
        DeviceError: out of memory.
    """
    with memory_errors(engine.device, engine.advice):
        return Survey(
            path=name,
            film=film,
            thinker=engine.model.thinker,
            pose=lambda encoded, question: engine.pose(encoded, question, options.generation.system),
            questions=questions,
            options=options,
            look=look,
            fetch=fetch,
            encode=engine.encode,
            watch=watch,
        ).run()


def open_media(
    engine: Engine,
    path: str,
    plan: DecodePlan,
    questions: Sequence[str],
    options: AskOptions = AskOptions(),  # noqa: B008 - frozen
    films: FilmOptions = FilmOptions(),  # noqa: B008 - frozen
    watch: Watch = unwatched,
    info: MediaInfo | None = None,
) -> tuple[Encoded, ...]:
    """Read a file for some questions. A clip is read once for all; a film is sieved for each while its windows pass.

    Args:
        engine: that reads and sieves.
        path: of the file.
        plan: from :meth:`Engine.plan`.
        questions: as the model reads them.
        options: of the sieve, and the system prompt.
        films: how a film is read.
        watch: is told how far the reading of a film has come.
        info: what the file's header says, where that is known already.

    Returns:
        for each question what it can be put to.

    Raises:
        MediaError: the file cannot be opened, holds nothing that can be decoded, or changed while it was read.
        DeviceError: out of memory.
    """
    film = film_in(engine, info or probe(path, plan.limits), plan, films)
    if film is None:
        return (engine.read(path, plan),) * len(questions)
    look, identity = look_at(path), identity_of(path) if engine.features else ""
    worker = Worker()

    def fetch(number: int, full: bool) -> Fetched:
        return engine.fetch(path, film.window(number, full), worker.decode, lambda: identity)

    try:
        found = survey(engine, path, film, questions, fetch, options, films.look, watch)
    finally:
        worker.kill()
        worker.close()
    if look_at(path) != look:
        raise changed(path)
    return found


def changed(path: str) -> MediaError:
    """Says that a file is another one than it was when its reading began."""
    return MediaError(f"{shown(path)} changed while it was read", "run again when nothing writes to it any more")
