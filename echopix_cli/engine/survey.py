"""The windows of a film, sieved for some questions, and what they hand on."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import closing
from dataclasses import replace
from itertools import groupby

import numpy as np
import torch

from echopix_cli.engine.encoded import Encoded, Survivors
from echopix_cli.engine.features import Fetched
from echopix_cli.engine.film import Film, frames_of
from echopix_cli.engine.meters import Clock, larger
from echopix_cli.engine.options import AskOptions
from echopix_cli.engine.pool import Pool
from echopix_cli.engine.posing import Posed, chosen
from echopix_cli.engine.reading import TOO_SHORT
from echopix_cli.errors import FileLost, MediaError, Nothing
from echopix_cli.media.source import shown
from echopix_cli.model.positions import WINDOW_GAP, film_shares, joined_positions
from echopix_cli.model.processing import ClipInputs
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.results import AudioStatus, FilmFacts, PeakMemory, Sampling
from echopix_cli.times import clock as clock_words

_MOST_SAID = 3  # notices of one kind about a film
_TIMES = re.compile(r"\d+(?::\d\d)+(?:\.\d\d)?")  # as they stand in notices
_NUMBERS = re.compile(r"\d[\d:.]*")
_TOLD = 0.2  # seconds after which whoever watches hears again, while a window is waited for

Pose = Callable[[Encoded, str], Posed]
Watch = Callable[[float, float, str], None]


class Survey:
    """One pass over a film's windows, and another over those worth a look, for some questions at once.

    Args:
        path: of the file, for its name alone.
        film: how it is read.
        thinker: that sieves.
        pose: puts a question to an encoded window.
        questions: as the model reads them.
        options: of the sieve, of each question.
        look: windows that are read again at the full rate, for each question.
        fetch: the content of a window, in any thread; :class:`~echopix_cli.errors.MediaError` where there is none, and
            :class:`~echopix_cli.errors.FileLost` where there will be none of any other either.
        encode: of what was fetched.
        watch: is told seconds of media done, of how many, and what is being done, also again and again while a window
            is waited for. What it raises ends the survey.
    """

    def __init__(
        self,
        path: str,
        film: Film,
        thinker: EchoingPixelsThinker,
        pose: Pose,
        questions: Sequence[str],
        options: Sequence[AskOptions],
        look: int,
        fetch: Callable[[int, bool], Fetched],
        encode: Callable[[Fetched], Encoded],
        watch: Watch,
    ) -> None:
        self.path, self.film, self.thinker, self.pose, self.questions = path, film, thinker, pose, questions
        self.options, self.look, self.fetch, self.encode, self.watch = options, look, fetch, encode, watch
        self._pools: list[Pool | None] = [None] * len(questions)
        self._best: list[dict[int, float]] = [{} for _ in questions]  # of each window, its best row's score
        self._capacity = 0  # rows of a last prompt, as far as windows have shown
        self._room = self._rows_at_most()  # and at most: windows may come before there is any picture
        self._most = 0  # rows that a window had
        self._spare = 0  # windows whose rows a pool holds beyond its capacity
        self._apart = [chosen(thinker, own)[1].selection == "per-modality" for own in options]
        self._seen: dict[int, Encoded] = {}  # windows, without their features
        self._unread: dict[int, MediaError] = {}
        self._seconds = {"decode": 0.0, "vision": 0.0, "audio": 0.0}
        self._sieving = [0.0] * len(questions)  # seconds
        self._peaks = PeakMemory()

    def run(self) -> tuple[Encoded, ...]:
        """For each question what is handed on, as something that it can be put to.

        Raises:
            MediaError: no window can be read, or the file is lost.
            EchopixError: as :meth:`~.engine.Engine.encode` and the sieve do.
        """
        everyone = range(len(self.questions))
        numbers = range(len(self.film.spans))
        if self.film.glance and self.look < len(numbers):  # all that is looked at is no glance's any more
            self._spare = self.look
        self._pass(dict.fromkeys(numbers, everyone), False, "glancing" if self.film.glance else "reading")
        if not self._seen:
            raise next(iter(self._unread.values()))
        if not (self.film.glance and self.look):
            return tuple(self._handed_on(q, self._highest(q), ()) for q in everyone)
        looked, glanced = zip(*map(self._set_aside, everyone), strict=True)
        self._spare = 0
        wanted = {number: [q for q in everyone if number in looked[q]] for number in numbers}
        done = self._pass({number: whom for number, whom in wanted.items() if whom}, True, "looking")
        for q in everyone:  # what could be glanced at and not looked at
            self._join(q, glanced[q].taken(~torch.isin(glanced[q].windows, torch.tensor(done, dtype=torch.long))))
        return tuple(self._handed_on(q, self._highest(q), looked[q]) for q in everyone)

    def _set_aside(self, question: int) -> tuple[tuple[int, ...], Pool]:
        """The windows that are worth a look, and their rows, which are in the pool no more.

        They are those that hold most of the score; then those with the best row, of what is not among the highest.
        """
        pool, best, highest = self._pools[question], self._best[question], self._highest(question)
        assert pool is not None
        mass = torch.zeros(len(self.film.spans), dtype=torch.double)
        mass.index_add_(0, highest.windows, highest.scores.softmax(0))
        worth = sorted(sorted(best, key=lambda number: (-float(mass[number]), -best[number]))[: self.look])
        among = torch.isin(pool.windows, torch.tensor(worth, dtype=torch.long))
        self._pools[question] = pool.taken(~among)
        return tuple(worth), pool.taken(among)

    def _join(self, question: int, pool: Pool) -> None:
        """Add rows to a pool, of which it keeps the highest.

        As many more as the windows have that will be set aside: the highest of all others are then still there.
        """
        before, count = self._pools[question], max(self._capacity, self._room) + self._spare * self._most
        joined = pool if before is None else before.joined(pool)
        self._pools[question] = joined.best(count, count) if self._apart[question] else joined.best(count)

    def _highest(self, question: int) -> Pool:
        """The survivors of the windows seen so far.

        Where each modality has a budget of its own, it also has its own part of the last prompt: that of all rows.
        """
        pool = self._pools[question]
        assert pool is not None
        if not self._apart[question]:
            return pool.best(self._capacity)
        rows = [(one.inputs.video_rows, one.inputs.audio_rows) for one in self._seen.values()]
        shown, heard = (sum(part) for part in zip(*rows, strict=True))
        picture = round(self._capacity * shown / max(1, shown + heard))
        return pool.best(picture, self._capacity - picture)

    def _pass(self, wanted: dict[int, Sequence[int]], full: bool, stage: str) -> list[int]:
        """Read windows, and put each to the questions that want it; those that could be read."""
        lengths = {number: end - start for number, (start, end) in enumerate(self.film.spans) if number in wanted}
        done, total, read = 0.0, sum(lengths.values()), []
        self.watch(done, total, stage)
        with closing(self._read(list(wanted), full, lambda: self.watch(done, total, stage))) as windows:
            for number, encoded in windows:
                if encoded is not None:
                    self._put(number, encoded, wanted[number])
                    read.append(number)
                done += lengths[number]
                self.watch(done, total, stage)
        return read

    def _read(self, numbers: list[int], full: bool, waits: Callable[[], None]) -> Generator[tuple[int, Encoded | None]]:
        """Windows after the towers, the next one decoded meanwhile; None for one that cannot be read."""
        threads = ThreadPoolExecutor(1, thread_name_prefix="window")
        try:
            ahead = [threads.submit(self.fetch, number, full) for number in numbers[:1]]
            for place, number in enumerate(numbers):
                clock, encoded = Clock(torch.device("cpu")), None
                try:
                    with clock.stage("decode"):
                        fetched = _awaited(ahead.pop(), waits)
                    error = None
                except FileLost:
                    raise
                except MediaError as raised:
                    error = raised
                ahead = [threads.submit(self.fetch, following, full) for following in numbers[place + 1 : place + 2]]
                if error is None:
                    try:
                        encoded = self.encode(replace(fetched, seconds=clock.seconds["decode"]))
                    except MediaError as raised:
                        error = raised
                if error is not None:
                    self._unread.setdefault(number, error)
                yield number, encoded
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _put(self, number: int, encoded: Encoded, whom: Sequence[int]) -> None:
        """One window, to some questions. Several sieves of one question share its scores, and count the same time."""
        thinker = self.thinker
        for stage in ("decode", "vision", "audio"):
            self._seconds[stage] += encoded.seconds[stage]
        self._capacity = max(self._capacity, self._rows_at_full_rate(encoded))
        for question, group in groupby(whom, key=self.questions.__getitem__):
            same, clock = list(group), Clock(thinker.device)
            with clock.stage("sieve"):
                posed = self.pose(encoded, question)
                for q in same:
                    pool = Pool.of(encoded, posed, thinker.special, posed.ranking(self.options[q], number), number)
                    if len(pool.scores):
                        self._best[q][number] = float(pool.scores.max())
                    self._most = max(self._most, len(pool.scores))
                    self._join(q, pool)
            for q in same:
                self._sieving[q] += clock.seconds["sieve"]
        self._peaks = larger(self._peaks, encoded.peaks)
        self._unread.pop(number, None)
        self._seen[number] = replace(encoded, video=None, audio=None)

    def _rows_at_most(self) -> int:
        """What a whole window may have at the most, as far as the plan tells."""
        (start, end), plan = self.film.spans[0], self.film.plan
        frames = frames_of(plan, end - start) if plan.video else 0
        sound = round((end - start) * self.thinker.timeline.per_second) if plan.audio else 0
        return -(-frames // 2) * (plan.max_pixels // plan.size_factor**2) + sound

    def _rows_at_full_rate(self, encoded: Encoded) -> int:
        """What a whole window of this picture and sound has."""
        start, end = self.film.spans[0]
        plan, (steps, height, width) = self.film.plan, encoded.inputs.cells
        frames = frames_of(plan, end - start)
        picture = max(steps, -(-frames // 2)) * height * width
        sound = round((end - start) * self.thinker.timeline.per_second) if encoded.inputs.audio_rows else 0
        return max(picture + sound, encoded.inputs.video_rows + encoded.inputs.audio_rows)

    def _handed_on(self, question: int, pool: Pool, looked: tuple[int, ...]) -> Encoded:
        """The survivors of all windows as one clip, in order of time."""
        order = np.lexsort((pool.places.numpy(), pool.windows.numpy()))
        pool = pool.taken(torch.from_numpy(order.copy()))
        per_second = self.thinker.timeline.per_second
        start, end = self.film.spans[0]
        spans = pool.spans.numpy()
        positions = joined_positions(
            pool.windows.numpy(),
            pool.positions.numpy(),
            pool.is_audio.numpy(),
            gap=round(WINDOW_GAP * per_second),
            longest=round((end - start) * per_second),
            shares=film_shares(self.thinker.config.text_config, spans[:, 0], start, self.film.spans[-1][1]),
        )
        seen = [self._seen[number] for number in sorted(self._seen)]
        first = seen[0]
        picture = next((one.inputs for one in seen if one.inputs.grid_thw is not None), ClipInputs())
        sound = max(one.inputs.audio_rows for one in seen)
        facts = FilmFacts(
            windows=len(self.film.spans),
            window_seconds=end - start,
            unread=self._unreadable,
            looked=tuple(self.film.spans[number] for number in looked),
            frames=sum(one.sampling.frames for one in seen),
            survivors=len(pool.scores),
            share=1.0,
            glance=self.film.glance,
        )
        status, notices = self._told(seen)
        return Encoded(
            path=self.path,
            info=first.info,
            audio_status=status,
            sampling=_sampling(seen, self.film),
            notices=notices,
            inputs=replace(picture, audio_rows=sound),
            video=pool.rows[~pool.is_audio] if picture.grid_thw is not None else None,
            audio=pool.rows[pool.is_audio] if sound else None,
            seconds={**self._seconds, "sieve": self._sieving[question]},
            peaks=self._peaks,
            cached=all(one.cached for one in seen),
            survivors=Survivors(
                is_audio=pool.is_audio.numpy(),
                positions=positions,
                spans=spans,
                boxes=pool.boxes.numpy(),
                video_total=sum(one.inputs.video_rows for one in seen),
                audio_total=sum(one.inputs.audio_rows for one in seen),
                facts=facts,
            ),
        )

    @property
    def _unreadable(self) -> int:
        """Windows that hold something, as far as one can know, and could not be read."""
        return sum(not isinstance(error, Nothing) for error in self._unread.values())

    def _told(self, seen: Sequence[Encoded]) -> tuple[AudioStatus, tuple[str, ...]]:
        """What became of the sound of all windows, and what is to be said; each thing once."""
        found = {one.audio_status for one in seen if TOO_SHORT not in one.notices}
        if AudioStatus.USED not in found:
            found = {one.audio_status for one in seen}
        else:  # sound may end a moment after a window's border
            seen = [replace(one, notices=tuple(n for n in one.notices if n != TOO_SHORT)) for one in seen]
        said = merged(
            [(number, notice) for number, one in zip(sorted(self._seen), seen, strict=True) for notice in one.notices]
        )
        runs: list[tuple[int, int, MediaError, MediaError]] = []  # windows in a row with one fault: first, last, theirs
        for number, error in sorted(self._unread.items()):
            kind = _TIMES.sub("", error.message)
            if runs and runs[-1][1] == number - 1 and _TIMES.sub("", runs[-1][3].message) == kind:
                runs[-1] = (runs[-1][0], number, runs[-1][2], error)
            else:
                runs.append((number, number, error, error))
        for begin, last, error, final in runs:
            span = f"{clock_words(self.film.spans[begin][0])} to {clock_words(self.film.spans[last][1])}"
            words = _from_to(error.message, final.message).removeprefix(f"{shown(self.path)}: ")
            fault = f"{span} could not be read: {words}"
            said.append(f"nothing is shown or played, {span}" if isinstance(error, Nothing) else fault)
        said = shortened(said)
        partly = {AudioStatus.UNDECODABLE, AudioStatus.TRUNCATED} & found or self._unreadable
        if AudioStatus.USED in found:
            return AudioStatus.TRUNCATED if partly else AudioStatus.USED, tuple(said)
        ranked = (AudioStatus.TRUNCATED, AudioStatus.UNDECODABLE, AudioStatus.DISABLED, AudioStatus.ABSENT)
        return next(status for status in ranked if status in found), tuple(said)


def merged(said: Sequence[tuple[int, str]]) -> list[str]:
    """What is said of windows, each thing once; what is said of neighbours, but for its times, as one thing.

    Args:
        said: window and notice, in order of windows.
    """
    runs: dict[str, list[tuple[int, str, str]]] = {}  # by kind: last window, first notice, last notice
    for window, notice in said:
        kind = notice if notice[:1].isdigit() else _TIMES.sub("", notice)  # how many were lost is of one window
        own = runs.setdefault(kind, [])
        if own and (own[-1][0] >= window - 1 or own[-1][2] == notice):
            own[-1] = (window, own[-1][1], notice)
        else:
            own.append((window, notice, notice))
    return [_from_to(first, last) for own in runs.values() for _, first, last in own]


def _from_to(first: str, last: str) -> str:
    """Of two notices that name times, one from the first one's first to the last one's last."""
    times, later = _TIMES.findall(first), _TIMES.findall(last)
    if len(times) < 2:
        return first
    head, _, tail = first.rpartition(times[-1])
    return f"{head}{later[-1]}{tail}"


def shortened(said: Sequence[str]) -> list[str]:
    """At most so many notices of a kind, which is what they are but for their numbers."""
    kinds: dict[str, list[str]] = {}
    for notice in said:
        kinds.setdefault(_NUMBERS.sub("", notice), []).append(notice)
    short = []
    for own in kinds.values():
        more = len(own) - _MOST_SAID
        short += own if more <= 1 else [*own[:_MOST_SAID], f"and {more} more of this kind"]
    return short


def _awaited(future: Future[Fetched], waits: Callable[[], None]) -> Fetched:
    """What comes of a future; ``waits`` is called again and again until it is there."""
    while True:
        try:
            return future.result(_TOLD)
        except NotYet:
            if future.done():
                return future.result()
            waits()


def _sampling(seen: Sequence[Encoded], film: Film) -> Sampling:
    """What was taken of all windows."""
    frames = sum(one.sampling.frames for one in seen)
    pictured = [one.sampling for one in seen if one.sampling.frames]
    begin, end = film.spans[0][0], film.spans[-1][1]
    return Sampling(
        fps=frames / (end - begin) if frames > 1 else None,
        frames=frames,
        height=pictured[0].height if pictured else None,
        width=pictured[0].width if pictured else None,
        second_per_grid=None,
        start=begin,
        end=end,
        audio_seconds=sum(one.sampling.audio_seconds for one in seen),
    )
