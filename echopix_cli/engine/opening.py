"""A file, whatever its length, opened for questions: a clip through the towers, or a film by its windows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from echopix_cli.decoding.worker import Worker, identity, probe
from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.engine import Engine
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.film import FAMILY_WINDOW, Film, film_of, outgrown
from echopix_cli.engine.loading import memory_errors
from echopix_cli.engine.meters import Clock
from echopix_cli.engine.options import AskOptions, FilmOptions
from echopix_cli.engine.survey import Survey, Watch
from echopix_cli.errors import FileLost, Hollow, MediaError, PastEnd, UsageError, bare
from echopix_cli.files import Look, identity_of, look_at
from echopix_cli.media import Clip, DecodePlan, MediaInfo
from echopix_cli.media.source import shown
from echopix_cli.times import clock

_EXACT = 0.01  # seconds by which media may end before a span that they fill
_HOLLOW = 8  # windows without anything, one after another, after which the next stretch is looked at as a whole
_STRETCH = 600.0  # seconds of it at most
_MOST_TOLD = 50_000  # windows that a header is believed; what is longer turns out when its end is looked for


def unwatched(done: float, total: float, stage: str) -> None:
    """For whoever does not follow the reading of a film."""


def window_of(engine: Engine, options: FilmOptions) -> float:
    """Seconds of a window.

    Raises:
        UsageError: one was asked for that the model's context does not hold.
    """
    if options.window is None:
        return engine.processor.rules.window_seconds or FAMILY_WINDOW
    most = engine.plan(DecodePlan()).max_audio_seconds
    if most and options.window > most:
        raise UsageError(
            f"a window of {clock(options.window)} is longer than this model's context, {clock(int(most))}",
            f"use --window {int(most)}, or leave it out",
        )
    return options.window


def film_in(window: float, info: MediaInfo, plan: DecodePlan) -> Film | None:
    """How a file is read as windows, as far as its header tells; None where it fits one, or nothing is told.

    Args:
        window: seconds of one, from :func:`window_of`.
        info: of the file.
        plan: from :meth:`Engine.plan`.
    """
    if info.tracks and not info.of_kind("video"):
        plan = replace(plan, video=False)  # nothing is glanced at, or worth another look
    duration = info.duration
    if duration is not None:
        duration = min(duration, plan.from_time + _MOST_TOLD * window)
    return None if info.still else film_of(plan, duration, window)


def grown(window: float, info: MediaInfo, plan: DecodePlan, content: Clip | Encoded) -> MediaInfo | None:
    """What to take for the header of a file that was read as a clip and is a film; None where it is none.

    Args:
        window, info, plan: as of :func:`film_in`.
        content: of the file.
    """
    end = _end(content)
    return replace(info, duration=end) if not info.still and outgrown(plan, end, window) else None


def read_unless_film(
    engine: Engine, path: str, plan: DecodePlan, window: float, info: MediaInfo | None = None
) -> Encoded | MediaInfo:
    """A clip after the towers; of a film only what to take for its header, for it is read by its windows.

    Args:
        engine: that reads.
        path: of the file.
        plan: from :meth:`Engine.plan`.
        window: seconds of one, from :func:`window_of`.
        info: what the file's header says, where that is known already.

    Raises:
        MediaError: it cannot be opened, holds nothing that can be decoded, or changed while it was read.
        DeviceError: out of memory.
    """
    info = info or probe(path, plan.limits)
    if film_in(window, info, plan) is not None:
        return info
    encoded = _read_whole(engine, path, plan)
    longer = grown(window, info, plan, encoded)
    return encoded if longer is None or film_in(window, longer, plan) is None else longer


def _read_whole(engine: Engine, path: str, plan: DecodePlan) -> Encoded:
    """A clip after the towers, of a file that stayed what it was meanwhile; what pipes hold cannot change.

    Raises:
        MediaError, DeviceError: as :func:`read_unless_film`.
    """
    if not os.path.isfile(path):
        return engine.read(path, plan)
    look, known = look_again(path), ""
    try:
        known = identity(path)
    except FileLost:
        raise
    except MediaError:  # a place that cannot be read need not concern what is taken
        pass
    encoded = engine.read(path, plan, (lambda: known) if known else None)
    require_same(path, look, known)
    return encoded


def _end(content: Clip | Encoded) -> float | None:
    """When the media end that something was read from, or the span of them that was read."""
    return content.end if isinstance(content, Clip) else content.sampling.end


def survey(
    engine: Engine,
    name: str,
    film: Film,
    questions: Sequence[str],
    fetch: Callable[[int, bool], Fetched],
    options: AskOptions | Sequence[AskOptions] = AskOptions(),  # noqa: B008 - frozen
    look: int = FilmOptions().look,
    watch: Watch = unwatched,
    spent: float = 0.0,
) -> tuple[Encoded, ...]:
    """Sieve the windows of a film with each of some questions.

    Args:
        engine: that sieves.
        name: of the film, for its records.
        film: from :func:`film_in`.
        questions: as the model reads them.
        fetch: the content of a window by its number, at the full rate or as a glance, asked for in another thread.
        options: of the sieve, of all questions or of each; and system prompt and earlier turns, which are those of the
            first.
        look: windows that are read again at the full rate.
        watch: is told seconds of media done, of how many, and the stage.
        spent: seconds of reading that it took to find out what the windows are.

    Returns:
        for each question what it can be put to.

    Raises:
        MediaError: no window can be read.
        DeviceError: out of memory.
    """
    each = (options,) * len(questions) if isinstance(options, AskOptions) else tuple(options)
    with memory_errors(engine.device, engine.advice):
        return Survey(
            path=name,
            film=film,
            thinker=engine.model.thinker,
            pose=lambda encoded, question: engine.pose(encoded, question, each[0].generation.system, each[0].earlier),
            questions=questions,
            options=each,
            look=look,
            fetch=fetch,
            encode=engine.encode,
            watch=watch,
            spent=spent,
        ).run()


def open_media(
    engine: Engine,
    path: str | os.PathLike[str],
    plan: DecodePlan,
    questions: Sequence[str],
    options: AskOptions | Sequence[AskOptions] = AskOptions(),  # noqa: B008 - frozen
    films: FilmOptions = FilmOptions(),  # noqa: B008 - frozen
    watch: Watch = unwatched,
    info: MediaInfo | None = None,
    settled: Callable[[Film], None] = lambda film: None,
    timeout: float = math.inf,
) -> tuple[Encoded, ...]:
    """Read a file for some questions. A clip is read once for all; a film is sieved for each while its windows pass.

    Args:
        engine: that reads and sieves.
        path: of the file.
        plan: from :meth:`Engine.plan`.
        questions: as the model reads them.
        options: as of :func:`survey`.
        films: how a film is read.
        watch: is told how far the reading of a film has come.
        info: what the file's header says, where that is known already.
        settled: is told how a film is read, before it is.
        timeout: seconds that reading one window may take.

    Returns:
        for each question what it can be put to.

    Raises:
        MediaError: the file cannot be opened, holds nothing that can be decoded, or changed while it was read.
        DeviceError: out of memory.
    """
    path, window = os.fspath(path), window_of(engine, films)
    read = read_unless_film(engine, path, plan, window, info)
    if isinstance(read, Encoded):
        return (read,) * len(questions)
    film = film_in(window, read, plan)
    assert film is not None
    with closing(_Windows(engine, path, film, window, timeout)) as windows:
        timer = Clock(engine.device)
        with timer.stage("decode"):
            windows.settle(watch)
        spent = timer.seconds["decode"]
        if windows.film is None:
            whole = _read_whole(engine, path, plan)
            seconds = {**whole.seconds, "decode": whole.seconds["decode"] + spent}
            return (replace(whole, seconds=seconds),) * len(questions)
        settled(windows.film)
        found = survey(engine, path, windows.film, questions, windows.fetch, options, films.look, watch, spent)
        windows.require_same()
        return found


class _Windows:
    """The windows of one file, each as it is asked for.

    Args:
        engine: that has the cache.
        path: of the file.
        film: as far as the header tells.
        window: seconds of one.
        timeout: seconds that reading one may take.
    """

    def __init__(self, engine: Engine, path: str, film: Film, window: float, timeout: float) -> None:
        self.film: Film | None = film
        self._engine, self._path, self._length = engine, path, window
        self._look = look_again(path)
        self._worker = Worker(timeout)
        try:
            self._identity = self._worker.identity(path)
        except MediaError:  # a place that cannot be read need not concern any window
            self._identity = ""
        self._last: Fetched | None = None
        self._entries: set[str] = set()  # names in the cache, of what was read
        self._hollow = 0  # windows without anything before the next one, one after another
        self._gap: tuple[float, float, Hollow] | None = None  # from when to when nothing is there, and what said so

    def close(self) -> None:
        """End the process that reads."""
        self._worker.kill()
        self._worker.close()

    def fetch(self, number: int, full: bool) -> Fetched:
        """A window's content.

        Raises:
            FileLost: the file is gone, or another one, or reading it comes no further.
            MediaError: the window cannot be read.
        """
        assert self.film is not None
        if self._last is not None and not full and number + 1 == len(self.film.spans):
            found, self._last = self._last, None
            return found
        start, end = self.film.spans[number]
        if self._gap is not None and self._gap[0] <= start and end <= self._gap[1]:
            self._hollow += 1
            raise bare(self._gap[2])
        try:
            found = self._read(self.film.window(number, full))
        except Hollow:
            self._hollow += 1
            if self._hollow >= _HOLLOW:
                self._look_ahead(end)
            raise
        self._hollow = 0
        return found

    def _look_ahead(self, start: float) -> None:
        """Find out how much of what follows holds nothing either: a time that is false by hours makes long gaps.

        No more than as much again is looked at, so that this never costs much more than what was read one by one.
        """
        assert self.film is not None
        stretch = min(_STRETCH, self._hollow * self._length, self.film.spans[-1][0] - start)
        while stretch >= _HOLLOW * self._length:
            plan = replace(self.film.plan, start=start, end=start + stretch, max_frames=1, min_frames=1)
            try:
                self._worker.decode(self._path, plan)
            except Hollow as hollow:
                self._gap = start, start + stretch, hollow
                return
            except MediaError:  # which the windows in there will hear
                break
            stretch /= 2
        self._hollow = 0  # what is there is come to before another look

    def settle(self, watch: Watch) -> None:
        """Let the windows end where picture and sound do, whatever the header says; no film where one holds all.

        Headers lie, lengths are estimated from bit rates, and recordings break off. What is read to find out is the
        last window, which is kept until it is asked for.
        """
        told = film = self.film
        while film is not None:
            watch(0.0, film.spans[-1][1] - film.spans[0][0], "reading")
            last = film.window(len(film.spans) - 1, False)
            assert last.end is not None
            try:
                found = self._read(last)
            except FileLost:
                raise
            except PastEnd as past:
                self.film = film_of(film.plan, past.end, self._length)
                return
            except MediaError:  # of this window, which whoever asks for it will hear
                self.film = film
                return
            end = _end(found.content)
            if end is None or end < last.end - _EXACT or last.end == film.plan.end:
                if film is told:
                    self._last = found
                else:
                    film = film_of(film.plan, end, self._length)
                self.film = film
                return
            film = film_of(film.plan, 2 * last.end - film.plan.from_time, self._length)

    def require_same(self) -> None:
        """Check that the file is the one that it was.

        Raises:
            FileLost: it is not.
        """
        require_same(self._path, self._look, self._identity)

    def _read(self, plan: DecodePlan) -> Fetched:
        try:
            known = (lambda: self._identity) if self._identity else None
            found = self._engine.fetch(self._path, plan, self._worker.decode, known)
        except MediaError:
            self.require_same()
            raise
        if found.entry is None:
            return found
        self._entries.add(found.entry.name)
        # Kept only while the file looks as it did when its identity was told, for this window as for the first.
        return replace(found, entry=replace(found.entry, look=self._look, beside=self._entries))


class Changed(FileLost):
    """A file is another one than it was when its reading began, or gone.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__(f"{shown(path)} changed while it was read", "run again when nothing writes to it any more")


def look_again(path: str) -> Look:
    """How a file that was there looks.

    Raises:
        Changed: it is gone.
    """
    try:
        return look_at(path)
    except (OSError, ValueError):
        raise Changed(path) from None


def require_same(path: str, look: Look, identity: str = "") -> None:
    """Check that a file looks as it did.

    Args:
        path: of the file.
        look: that it had.
        identity: that it had; where it is still the same, other permissions or links are no change.

    Raises:
        Changed: it does not.
    """
    if (now := look_again(path)) == look:
        return
    same = bool(identity) and replace(now, ctime_ns=look.ctime_ns) == look
    try:
        if not same or identity_of(path) != identity:
            raise Changed(path)
    except OSError:
        raise Changed(path) from None
