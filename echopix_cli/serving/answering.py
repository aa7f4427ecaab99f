"""Questions about one file, answered: what the command and the server both run."""

from __future__ import annotations

from collections.abc import Callable

from echopix_cli.decoding.worker import probe
from echopix_cli.engine import Encoded, Engine, TextPiece
from echopix_cli.engine.choices import posed
from echopix_cli.engine.film import Film
from echopix_cli.engine.opening import open_media
from echopix_cli.media import MediaInfo
from echopix_cli.serving import messages as m
from echopix_cli.serving.manners import asking_of, films_of, plan_of, sampling_words


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


def answer(
    engine: Engine,
    request: m.Ask,
    say: m.Sink,
    info: MediaInfo | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Read the file and answer the questions one after the other, each about what was read for it.

    Args:
        engine: that answers.
        request: what is asked.
        say: takes what comes of it, from :class:`~.messages.Opened` on; what it raises ends the answer.
        info: what the file's header says, where that is known already.
        stop: asked at each step and token.

    Raises:
        MediaError: the file cannot be read.
        DeviceError: memory does not suffice.
        Cancelled: ``stop`` said so.
    """
    path, manner = request.path, request.manner
    plan, asking = plan_of(engine, manner), asking_of(engine, manner)
    header = info or probe(path, plan.limits)

    def go_on() -> None:
        if stop():
            raise Cancelled

    def watch(done: float, total: float, stage: str) -> None:
        go_on()
        say(m.Watched(done, total, stage))

    def settled(film: Film) -> None:
        say(m.Notice(f"{path}: {sampling_words(header, film, manner.look)}"))

    def answered(encoded: Encoded, question: str) -> None:
        say(m.Asked())
        if request.choices:
            say(m.Answered(engine.decide(encoded, question, request.choices, asking)))
            return
        for event in engine.stream(encoded, question, asking):
            go_on()
            say(m.Piece(event.text) if isinstance(event, TextPiece) else m.Answered(event))

    go_on()
    asked = [posed(question, request.choices) for question in request.questions]
    opened = open_media(engine, path, plan, asked, asking, films_of(manner), watch, header, settled)
    say(m.Opened(opened[0].info, opened[0].notices, plan))
    for question, encoded in zip(request.questions, opened, strict=True):
        go_on()
        answered(encoded, question)
