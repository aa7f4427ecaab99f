"""The windows of a film, sieved for some questions, and what they hand on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import closing
from dataclasses import dataclass, field, replace
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
from echopix_cli.engine.telling import told, unreadable
from echopix_cli.errors import FileLost, MediaError
from echopix_cli.model.positions import WINDOW_GAP, film_shares, joined_positions
from echopix_cli.model.processing import ClipInputs
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.results import FilmFacts, PeakMemory, Sampling

_TOLD = 0.2  # seconds after which whoever watches hears again, while a window is waited for

Pose = Callable[[Encoded, str], Posed]
Watch = Callable[[float, float, str], None]


@dataclass
class _Asked:
    """What one question has of the windows so far.

    Attributes:
        apart: whether each modality has a budget of its own.
        seconds: by stage.
        pool: the highest rows.
        best: of each window, its best row's score.
        seen: windows, without their features.
        capacity: rows of a last prompt, as far as the windows have shown.
    """

    apart: bool
    seconds: dict[str, float]
    pool: Pool | None = None
    best: dict[int, float] = field(default_factory=dict)
    seen: dict[int, Encoded] = field(default_factory=dict)
    capacity: int = 0


@dataclass(frozen=True)
class _Failed:
    """A window that could not be read, and the seconds that were waited for it."""

    error: MediaError
    seconds: float


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
            is waited for, and between the questions that one is put to. What it raises ends the survey.
        spent: seconds that it took before to find out what the windows are.
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
        spent: float = 0.0,
    ) -> None:
        self.path, self.film, self.thinker, self.pose, self.questions = path, film, thinker, pose, questions
        self.options, self.look, self.fetch, self.encode, self.watch = options, look, fetch, encode, watch
        seconds = {"decode": spent, "vision": 0.0, "audio": 0.0, "sieve": 0.0}
        self._asked = [_Asked(chosen(thinker, own)[1].selection == "per-modality", {**seconds}) for own in options]
        self._room = self._rows_at_most()  # of a last prompt: windows may come before there is any picture
        self._most = 0  # rows that a window had
        self._spare = 0  # windows whose rows a pool holds beyond its capacity
        self._unread: dict[int, MediaError] = {}  # windows that could not be read at all,
        self._unlooked: dict[int, MediaError] = {}  # and those that could be glanced at, and not looked at
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
        if len(self._unread) == len(numbers):
            raise next(iter(self._unread.values()))
        if not (self.film.glance and self.look):
            return tuple(self._handed_on(own, ()) for own in self._asked)
        wanted, glanced = zip(*map(self._set_aside, self._asked), strict=True)
        self._spare = 0
        looks = {number: [q for q in everyone if number in wanted[q]] for number in numbers}
        self._pass({number: whom for number, whom in looks.items() if whom}, True, "looking")
        lost = torch.tensor(sorted(self._unlooked), dtype=torch.long)
        for own, rows in zip(self._asked, glanced, strict=True):
            self._join(own, rows.taken(torch.isin(rows.windows, lost)))
        return tuple(map(self._handed_on, self._asked, wanted))

    def _set_aside(self, own: _Asked) -> tuple[tuple[int, ...], Pool]:
        """The windows that are worth a look, and their rows, which are in the pool no more.

        They are those that hold most of the score; then those with the best row, of what is not among the highest.
        """
        highest = self._highest(own)
        assert own.pool is not None
        mass = torch.zeros(len(self.film.spans), dtype=torch.double)
        mass.index_add_(0, highest.windows, highest.scores.softmax(0))
        worth = sorted(sorted(own.best, key=lambda number: (-float(mass[number]), -own.best[number]))[: self.look])
        among = torch.isin(own.pool.windows, torch.tensor(worth, dtype=torch.long))
        aside, own.pool = own.pool.taken(among), own.pool.taken(~among)
        return tuple(worth), aside

    def _join(self, own: _Asked, pool: Pool) -> None:
        """Add rows to a question's pool, of which it keeps the highest.

        As many more as the windows have that will be set aside: the highest of all others are then still there.
        """
        count = max(own.capacity, self._room) + self._spare * self._most
        joined = pool if own.pool is None else own.pool.joined(pool)
        own.pool = joined.best(count, count) if own.apart else joined.best(count)

    def _highest(self, own: _Asked) -> Pool:
        """The survivors of the windows that a question has seen so far.

        Where each modality has a budget of its own, it also has its own part of the last prompt: that of all rows.
        """
        assert own.pool is not None
        if not own.apart:
            return own.pool.best(own.capacity)
        rows = [(one.inputs.video_rows, one.inputs.audio_rows) for one in own.seen.values()]
        shown, heard = (sum(part) for part in zip(*rows, strict=True))
        picture = round(own.capacity * shown / max(1, shown + heard))
        return own.pool.best(picture, own.capacity - picture)

    def _pass(self, wanted: dict[int, Sequence[int]], full: bool, stage: str) -> None:
        """Read windows, and put each to the questions that want it."""
        lengths = {number: end - start for number, (start, end) in enumerate(self.film.spans) if number in wanted}
        done, total = 0.0, sum(lengths.values())

        def tell() -> None:
            self.watch(done, total, stage)

        tell()
        with closing(self._read(list(wanted), full, tell)) as windows:
            for number, found in windows:
                if isinstance(found, Encoded):
                    self._put(number, found, wanted[number], tell)
                else:
                    (self._unlooked if full else self._unread)[number] = found.error
                    for q in wanted[number]:
                        self._asked[q].seconds["decode"] += found.seconds
                done += lengths[number]
                tell()

    def _read(
        self, numbers: list[int], full: bool, waits: Callable[[], None]
    ) -> Generator[tuple[int, Encoded | _Failed]]:
        """Windows after the towers, the next one decoded meanwhile."""
        threads = ThreadPoolExecutor(1, thread_name_prefix="window")
        try:
            ahead = [threads.submit(self.fetch, number, full) for number in numbers[:1]]
            for place, number in enumerate(numbers):
                clock = Clock(torch.device("cpu"))
                found: Encoded | _Failed | None = None
                try:
                    with clock.stage("decode"):
                        fetched = _awaited(ahead.pop(), waits)
                except FileLost:
                    raise
                except MediaError as error:
                    found = _Failed(error, clock.seconds["decode"])
                ahead = [threads.submit(self.fetch, following, full) for following in numbers[place + 1 : place + 2]]
                if found is None:
                    try:
                        found = self.encode(replace(fetched, seconds=clock.seconds["decode"]))
                    except MediaError as error:
                        found = _Failed(error, clock.seconds["decode"])
                yield number, found
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _put(self, number: int, encoded: Encoded, whom: Sequence[int], between: Callable[[], None]) -> None:
        """One window, to some questions. Several sieves of one question share its scores, and count the same time."""
        thinker, capacity = self.thinker, self._rows_at_full_rate(encoded)
        kept = replace(encoded, video=None, audio=None)
        for place, (question, group) in enumerate(groupby(whom, key=self.questions.__getitem__)):
            if place:
                between()
            same, clock = list(group), Clock(thinker.device)
            with clock.stage("sieve"):
                posed = self.pose(encoded, question)
                for q in same:
                    own = self._asked[q]
                    own.capacity = max(own.capacity, capacity)
                    own.seen[number] = kept
                    pool = Pool.of(encoded, posed, thinker.special, posed.ranking(self.options[q], number), number)
                    if len(pool.scores):
                        own.best[number] = float(pool.scores.max())
                    self._most = max(self._most, len(pool.scores))
                    self._join(own, pool)
            for q in same:
                for stage, seconds in {**encoded.seconds, **clock.seconds}.items():
                    self._asked[q].seconds[stage] += seconds
        self._peaks = larger(self._peaks, encoded.peaks)

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

    def _handed_on(self, own: _Asked, wanted: tuple[int, ...]) -> Encoded:
        """The survivors of all windows as one clip, in order of time.

        Args:
            own: what the question has of them.
            wanted: windows that it wanted a look at.
        """
        pool = self._highest(own)
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
        seen = [own.seen[number] for number in sorted(own.seen)]
        picture = next((one.inputs for one in seen if one.inputs.grid_thw is not None), ClipInputs())
        sound = max(one.inputs.audio_rows for one in seen)
        facts = FilmFacts(
            windows=len(self.film.spans),
            window_seconds=end - start,
            unread=unreadable(self._unread),
            looked=tuple(self.film.spans[number] for number in wanted if number not in self._unlooked),
            frames=sum(one.sampling.frames for one in seen),
            survivors=len(pool.scores),
            share=1.0,
            glance=self.film.glance,
        )
        unlooked = {number: self._unlooked[number] for number in wanted if number in self._unlooked}
        status, notices = told(self.path, self.film.spans, own.seen, self._unread, unlooked)
        return Encoded(
            path=self.path,
            info=seen[0].info,
            audio_status=status,
            sampling=_sampling(seen, self.film),
            notices=notices,
            inputs=replace(picture, audio_rows=sound),
            video=pool.rows[~pool.is_audio] if picture.grid_thw is not None else None,
            audio=pool.rows[pool.is_audio] if sound else None,
            seconds=own.seconds,
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
