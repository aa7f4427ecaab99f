"""The part of a batch before the model: which file this is, and its content."""

from __future__ import annotations

from collections.abc import Callable

from echopix_cli.batch.journal import FileFacts
from echopix_cli.decoding.worker import Worker
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.opening import Changed, film_in, grown, require_same
from echopix_cli.files import Look, look_at
from echopix_cli.media import DecodePlan, MediaInfo


def identify(
    worker: Worker, media: str, known: Callable[[Look], FileFacts | None] = lambda look: None
) -> tuple[FileFacts, Look]:
    """A file's bytes; without reading them again where size and time say that they are known.

    Args:
        worker: that reads.
        media: path of the file.
        known: what is known of a file that looks so.

    Raises:
        MediaError: it cannot be read.
        Changed: it was written to meanwhile.
    """
    try:
        look = look_at(media)
    except (OSError, ValueError):
        worker.fingerprint(media)  # says what is wrong with it
        raise Changed(media) from None
    found = known(look)
    if found is None:
        found = FileFacts(worker.fingerprint(media), look.size, look.mtime_ns)
        require_same(media, look)
    return found, look


def read(
    worker: Worker,
    media: str,
    plan: DecodePlan,
    look: Look,
    window: float,
    fetch: Callable[[str, DecodePlan], Fetched],
    identity: str = "",
) -> Fetched | MediaInfo:
    """A clip's content; of a film only what is known of its length, for it is read window by window later.

    Args:
        worker: that reads the header.
        media: path of the file.
        plan: what to take of it.
        look: of the file, when it was identified.
        window: seconds that are read at once.
        fetch: reads the content.
        identity: of the file then, as of :func:`~echopix_cli.engine.opening.require_same`.

    Raises:
        MediaError: it cannot be read.
        Changed: it is another file by now, or an answer about one content would get another one's key.
    """
    info = worker.probe(media, plan.limits)
    if film_in(window, info, plan) is not None:
        return info
    fetched = fetch(media, plan)
    require_same(media, look, identity)
    return grown(window, info, plan, fetched.content) or fetched
