"""A batch on Ray: actors decode, actors with a model answer, and this process alone writes the records.

Ray's streaming executor (Ray Data) is not what moves the files. It has no time limit; a call to an engine whose machine
is gone for good waits for ever; and what an actor lost comes out as a block that is missing, not as the task that it
was. Here a call is lost at once with its actor, is tried once more elsewhere, and then is a record like any other.

The one journal makes each record whole, and there once: whatever of the fleet is lost, its tasks have no line there,
and a second answer to one of them cannot come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from echopix_cli.batch.cluster import Cluster, FleetOptions, layout
from echopix_cli.batch.crew import Crew, Lost, NoneLeft
from echopix_cli.batch.fleet_actors import DecodingActor, EngineActor, EngineFacts, Loading, Origin
from echopix_cli.batch.items import BatchOptions, Group, Prepared, groups
from echopix_cli.batch.journal import FileFacts, Journal
from echopix_cli.batch.keys import Keys
from echopix_cli.batch.outcomes import Outcome, Summary
from echopix_cli.batch.progress import Progress
from echopix_cli.batch.tasks import Task
from echopix_cli.engine import SieveOptions
from echopix_cli.engine.opening import Changed
from echopix_cli.errors import DeviceError, EchopixError
from echopix_cli.files import look_at
from echopix_cli.media import DecodePlan

_LOOK = 0.1  # seconds between looks at whether to stop
_AHEAD = 2  # groups in the hands of one engine: the next one is there when it ends one
_TRIES = 2  # of a group whose actor ended while it was at it


class _Unwritten(Exception):
    """A record could not be written, which is no failure of its item and ends the batch."""


class Fleet:
    """Engines elsewhere, of one model, and what decodes for them.

    Args:
        loading: of the model.
        options: of the fleet.
        timeout: seconds that reading one file may take.
        say: is told what a person should hear.

    Raises:
        EchopixError: there is no cluster, or no engine begins.
    """

    def __init__(
        self, loading: Loading, options: FleetOptions, timeout: float, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.timeout = timeout
        self._cluster = Cluster(options.address)
        try:
            plan = self.layout = layout(self._cluster.machines(), options)
            self._loop = asyncio.new_event_loop()
            if not plan.gpus and loading.device == "auto":
                loading = replace(loading, device="cpu")
            self._loading, self._origin = loading, Origin.here()
            self._known: EngineFacts | None = None
            self.engines = Crew("an engine", self._engine, self._load, plan.engines, _AHEAD, True, say)
            self.decoders = Crew(
                "an actor that decodes", self._decoder, self._ready, plan.engines, plan.decoders, False, say
            )
            self._wait(self._begin())
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> EngineFacts:
        """Of every engine."""
        assert self._known is not None
        return self._known

    def plan(self, plan: DecodePlan, max_pixels: int | None = None) -> DecodePlan:
        """As :meth:`Engine.plan`."""
        found: DecodePlan = self._wait(self._asked(lambda engine: engine.plan.remote(plan, max_pixels)))
        return found

    def choose(self, sieve: SieveOptions, budget: float = 0.0) -> None:
        """Check a wish for a sieve, as :meth:`Engine.choose` does.

        Raises:
            UsageError: as there.
        """
        self._wait(self._asked(lambda engine: engine.choose.remote(sieve, budget)))

    def run(self, work: Awaitable[Any]) -> Any:
        """Wait for something that its actors do."""
        return self._wait(work)

    def close(self) -> None:
        """End all actors, and leave the cluster."""
        if hasattr(self, "decoders"):
            self.engines.close()
            self.decoders.close()
        if hasattr(self, "_loop"):
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()
        self._cluster.close()

    def _wait(self, work: Awaitable[Any]) -> Any:
        try:
            return self._loop.run_until_complete(work)
        except NoneLeft as none:
            raise none.error from None

    async def _begin(self) -> None:
        self.decoders.start()
        self.engines.start()
        await self.engines.first()
        await self.decoders.first()

    async def _asked(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        for again in (True, False):
            try:
                async with self.engines.at() as engine:
                    return _told(await ask(engine))
            except Lost as lost:
                if not again:
                    raise EchopixError(f"{lost.what} while it was asked", "run again") from None
        raise AssertionError("one of the two has returned or raised")

    def _engine(self) -> Any:
        import ray

        plan = self.layout
        kind: Any = ray.remote(EngineActor)
        return kind.options(num_cpus=plan.cores, num_gpus=plan.gpus, max_restarts=0).remote(self._origin)

    async def _load(self, actor: Any) -> None:
        facts: EngineFacts = _told(await actor.load.remote(self._loading))
        if self._known is None:
            self._known = facts
        elif facts.model != self._known.model:
            raise EchopixError(
                f"the model on {facts.node} is not the one on {self._known.node}",
                "put it on a drive that all of them see, or name it as hf:OWNER/REPO@COMMIT",
            )

    def _decoder(self) -> Any:
        import ray

        # They reserve nothing: the engines' share of the cores is counted so that decoding has its part, and an actor
        # that waited for a core would make all engines wait.
        kind: Any = ray.remote(DecodingActor)
        options = {"num_cpus": 0, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        return kind.options(**options, max_concurrency=self.layout.decoders + 1).remote(self._origin, self.timeout)

    async def _ready(self, actor: Any) -> None:
        _told(await actor.ready.remote())


def _told(value: Any) -> Any:
    if isinstance(value, EchopixError):
        raise value
    return value


@dataclass(eq=False)
class _Item:
    """A group on its way through the fleet: what is left of it, and how often an actor ended that was at it."""

    group: Group
    open: tuple[tuple[Task, str | None], ...] | None = None
    file: FileFacts | None = None
    lost: int = 0


class FleetBatch:
    """As :class:`~.run.Batch`, with a fleet in place of an engine. Outcomes come as they are made."""

    def __init__(
        self,
        fleet: Fleet,
        settings: BatchOptions,
        sink: Callable[[Outcome], None],
        *,
        journal: Journal | None = None,
        stop: Callable[[], bool] = lambda: False,
        fail_fast: bool = False,
        passed: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.fleet, self.settings = fleet, settings
        self._progress = Progress(Keys(fleet.facts.model, settings), sink, journal, stop, fail_fast, passed)
        self._window = settings.films.window or fleet.facts.window
        self._files: dict[str, FileFacts] = {}  # a file may be asked about in many spans

    def run(self, tasks: Sequence[Task]) -> Summary:
        """Ask everything; a file that fails fails alone.

        Raises:
            EchopixError: no actor is left and none begins; or as of :meth:`Batch.run`.
        """
        began = time.perf_counter()
        idle = self.fleet.engines.idle
        self.fleet.run(self._run(groups(tasks)))
        self._progress.confirm()
        seconds = time.perf_counter() - began
        engines, decoders = self.fleet.engines, self.fleet.decoders
        waited = min(seconds, (engines.idle - idle) / max(1, engines.most))
        done = self._progress.answered + self._progress.failed
        pace = f"{60 * done / seconds:.0f} a minute on {engines.most} engine{'' if engines.most == 1 else 's'}"
        events = [pace] if done else []
        for crew, name in ((engines, "engine"), (decoders, "decoding actor")):
            if crew.replaced:
                events.append(f"{crew.replaced} {name}{'' if crew.replaced == 1 else 's'} replaced")
        return self._progress.summary(len(tasks), seconds, waited, events)

    async def _run(self, ahead: Iterator[Group]) -> None:
        """As many groups at once as keep every engine and every decoder busy; memory is bounded by that."""
        plan = self.fleet.layout
        count = plan.engines * (_AHEAD + plan.decoders)
        runners = [asyncio.create_task(self._runner(ahead)) for _ in range(count)]
        waiting = set(runners)
        try:
            while waiting and not self._progress.ended:
                done, waiting = await asyncio.wait(waiting, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED)
                for runner in done:
                    runner.result()
        except _Unwritten as unwritten:
            assert unwritten.__cause__ is not None
            raise unwritten.__cause__ from None
        finally:
            for runner in runners:
                runner.cancel()
            await asyncio.gather(*runners, return_exceptions=True)

    async def _runner(self, ahead: Iterator[Group]) -> None:
        for group in ahead:
            await self._finish(_Item(group))

    async def _finish(self, item: _Item) -> None:
        """See a group through, whatever is lost on the way."""
        while True:
            try:
                await self._once(item)
                return
            except Lost as lost:
                item.lost += lost.blamed
                if item.lost >= _TRIES:
                    error = EchopixError(f"{lost.what} while it was at this, twice", "run again to try it once more")
                    self._fail(item, error)
                    return

    async def _once(self, item: _Item) -> None:
        media = item.group.media
        try:
            async with self.fleet.decoders.at() as decoder:
                file, look = _told(await decoder.identify.remote(media, self._known(media)))
                if item.file is not None and item.file.sha256 != file.sha256:
                    raise Changed(media)  # since the first try, whose content the keys are of
                item.file = self._files[media] = file
                if not self._claim(item, file):
                    return
                plan = item.group.plan(self.settings)
                head, content = decoder.decode.options(num_returns=2).remote(media, plan, look, self._window)
                film = _told(await head)
        except Changed as error:
            item.file = None
            self._fail(item, error)
            return
        except EchopixError as error:
            self._fail(item, error)
            return
        assert item.open is not None
        prepared = Prepared(item.file, item.open, film=film, look=look)
        try:
            await self._ask(item, prepared, content)
        except EchopixError as error:
            self._fail(item, error)

    async def _ask(self, item: _Item, prepared: Prepared, content: Any) -> None:
        async with self.fleet.engines.at() as engine:
            ask = engine.ask.options(num_returns="streaming")
            async for reference in ask.remote(item.group, prepared, content, self.settings, self.fleet.timeout):
                outcome: Outcome = await reference
                if isinstance(outcome.error, DeviceError) and not item.lost:
                    self.fleet.engines.retire(engine)  # a fresh one has all of its memory
                    raise Lost(True, "the memory of an engine did not suffice")
                self._take(item, outcome)
                if self._progress.ended:
                    return

    def _known(self, media: str) -> FileFacts | None:
        """What is known of a file from before; whoever reads it sees whether it still looks so."""
        if media not in self._files:
            with suppress(OSError, ValueError):
                look = look_at(media)
                return self._progress.facts_of(media, look.size, look.mtime_ns)
        return self._files.get(media)

    def _claim(self, item: _Item, file: FileFacts) -> bool:
        """Whether anything is left to ask; of a group that comes again, that is settled."""
        if item.open is None:
            item.open = self._progress.left(item.group.tasks, file.sha256)
            self._progress.skip(len(item.group.tasks) - len(item.open))
        return bool(item.open)

    def _take(self, item: _Item, outcome: Outcome) -> None:
        """One task's end, which is the only one: it is left out of what may be asked again."""
        assert item.open is not None
        item.open = tuple(pair for pair in item.open if pair[0] != outcome.task)
        try:
            self._progress.take(outcome)
        except EchopixError as error:
            raise _Unwritten from error

    def _fail(self, item: _Item, error: EchopixError) -> None:
        """All that is left of a group ends so."""
        if item.open is None:
            item.open = tuple((task, None) for task in item.group.tasks)
        for task, key in item.open:
            if self._progress.ended:
                return
            self._take(item, Outcome(task, key if item.file is not None else None, item.file, error=error))
