"""Questions about one file, answered: what the command and the server both run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from echopix_cli.choices import posed
from echopix_cli.decoding.worker import probe
from echopix_cli.engine import Encoded, Engine, TextPiece
from echopix_cli.engine.film import Film
from echopix_cli.engine.opening import open_media
from echopix_cli.files import Look, look_at
from echopix_cli.media import DecodePlan, MediaInfo
from echopix_cli.serving import messages as m
from echopix_cli.serving.manners import asking_of, films_of, plan_of, sampling_words


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


_MOST_HELD = 256 * 2**20  # bytes of features, beyond which only the clip that was asked about last is held


class Held:
    """Clips that were asked about, after the towers: the next question about one of them reads nothing. The last one is
    held whatever its size, those before it as long as all of them are small enough."""

    def __init__(self) -> None:
        self._clips: dict[str, tuple[DecodePlan, Look, Encoded]] = {}  # by path; asked about last, comes last

    def find(self, path: str, plan: DecodePlan) -> Encoded | None:
        """The clip, if it is held, the file is unchanged, and the same is taken of it; else it is given up."""
        held = self._clips.pop(path, None)
        if held is None or held[:2] != (plan, looked(path)):
            self._give_up(0)  # now, as another one is read next
            return None
        self._clips[path] = held
        return held[2]

    def keep(self, path: str, plan: DecodePlan, look: Look | None, encoded: Encoded) -> None:
        """Hold a clip; a film is sieved with its question, and nothing of that serves another one.

        Args:
            path, plan: what was read of which file.
            look: at the file before that.
            encoded: what came of it.
        """
        if encoded.survivors is None and look is not None and looked(path) == look:
            self._clips.pop(path, None)
            self._clips[path] = plan, look, encoded
            self._give_up(1)

    def _give_up(self, but: int) -> None:
        """Give up clips, those asked about longest ago first, until they are small enough, or so many are left."""
        while len(self._clips) > but and sum(_size(held) for _, _, held in self._clips.values()) > _MOST_HELD:
            del self._clips[next(iter(self._clips))]


def _size(encoded: Encoded) -> int:
    """Bytes of a clip's features."""
    return sum(part.nbytes for part in (encoded.video, encoded.audio) if part is not None)


def looked(path: str) -> Look | None:
    """A file as it is now; None where it is gone."""
    try:
        return look_at(path)
    except (OSError, ValueError):
        return None


def answer(
    engine: Engine,
    request: m.Ask,
    say: m.Sink,
    info: MediaInfo | None = None,
    stop: Callable[[], bool] = lambda: False,
    held: Held | None = None,
) -> None:
    """Read the file and answer the questions one after the other, each about what was read for it.

    Args:
        engine: that answers.
        request: what is asked.
        say: takes what comes of it, from :class:`~.messages.Opened` on; what it raises ends the answer.
        info: what the file's header says, where that is known already.
        stop: asked at each step and token.
        held: where the clip is found and kept, for who asks again.

    Raises:
        MediaError: the file cannot be read.
        DeviceError: memory does not suffice.
        Cancelled: ``stop`` said so.
    """
    path, manner = request.path, request.manner
    plan, asking = plan_of(engine, manner), replace(asking_of(engine, manner), earlier=request.earlier)

    def go_on() -> None:
        if stop():
            raise Cancelled

    def watch(done: float, total: float, stage: str) -> None:
        go_on()
        say(m.Watched(done, total, stage))

    def read() -> tuple[Encoded, ...]:
        header, asked = info or probe(path, plan.limits), [posed(one, request.choices) for one in request.questions]

        def settled(film: Film) -> None:
            say(m.Notice(f"{path}: {sampling_words(header, film, manner.look)}"))

        return open_media(engine, path, plan, asked, asking, films_of(manner), watch, header, settled)

    def answered(encoded: Encoded, question: str) -> None:
        say(m.Asked())
        if request.choices:
            say(m.Answered(engine.decide(encoded, question, request.choices, asking)))
            return
        for event in engine.stream(encoded, question, asking):
            go_on()
            say(m.Piece(event.text) if isinstance(event, TextPiece) else m.Answered(event))

    go_on()
    kept, look = None if held is None else held.find(path, plan), looked(path)
    opened = read() if kept is None else (kept,) * len(request.questions)
    if held is not None:
        held.keep(path, plan, look, opened[0])
    say(m.Opened(opened[0].info, opened[0].notices, plan))
    for question, encoded in zip(request.questions, opened, strict=True):
        go_on()
        answered(encoded, question)
