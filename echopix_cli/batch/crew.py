"""Ray actors of one kind, some at work and some starting: whoever ends is replaced, and what it had in hand is lost.

Why not Ray's own restarts: with them a call waits for an actor whose machine is gone for good, and every call that an
actor had in hand counts as tried, not only the one that it was at. Ray Data builds on them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from echopix_cli.errors import EchopixError, described

_STARTS = 3  # failed ones, one after another, after which no more are tried
_PAUSE = 1.0  # seconds before the next one: a process that was killed gives its memory back
_PATIENCE = 60.0  # seconds without any actor, after which a person hears of it


class Lost(Exception):
    """An actor ended, or what it had made is gone, while an item was in its hands.

    Args:
        blamed: whether the item was what it was at, and may be the cause.
        what: in words.
    """

    def __init__(self, blamed: bool, what: str) -> None:
        super().__init__(what)
        self.blamed, self.what = blamed, what


class NoneLeft(Exception):
    """No actor is there, and none begins.

    Args:
        error: why.
    """

    def __init__(self, error: EchopixError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(eq=False)
class Member:
    """One actor that has begun.

    Attributes:
        actor: Ray's handle.
        calls: under way, in order.
        alive: until it has ended or was retired.
        blamed: the call that it was at when it ended.
        idle_since: when its last call ended; None while it has one.
    """

    actor: Any
    calls: list[object] = field(default_factory=list)
    alive: bool = True
    blamed: object | None = None
    idle_since: float | None = None


class Crew:
    """Some actors.

    Args:
        what: one of them is called.
        make: another actor, which need not have begun.
        begin: waits until it has; raises :class:`EchopixError` where it cannot.
        count: how many there are to be.
        places: calls that one may have at once.
        in_order: whether it does them one after another.
        say: is told what a person should hear.
    """

    def __init__(
        self,
        what: str,
        make: Callable[[], Any],
        begin: Callable[[Any], Awaitable[None]],
        count: int,
        places: int,
        in_order: bool,
        say: Callable[[str], None],
    ) -> None:
        self.what, self.count, self.places = what, count, places
        self._make, self._begin, self._in_order, self._say = make, begin, in_order, say
        self._members: list[Member] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._failure: EchopixError | None = None
        self._unsaid: list[str] = []  # of actors that will not come, until another one has
        self._none_since = time.monotonic()
        self._waited = False  # and a person was told
        self._changed = asyncio.Condition()
        self.replaced = 0
        self.idle = 0.0  # seconds, of all members together, without a call
        self.most = 0  # members at once

    def start(self) -> None:
        """Begin to start all of them."""
        for _ in range(self.count):
            self._start()

    async def first(self) -> Member:
        """One that has begun.

        Raises:
            NoneLeft: none begins.
        """
        return await self._free(lambda member: True)

    @asynccontextmanager
    async def at(self) -> AsyncIterator[Any]:
        """An actor with a free place, for one call or some after another.

        Raises:
            Lost: the actor ended meanwhile, or what it was given is gone.
            NoneLeft: there is no actor any more, and none begins.
            EchopixError: the call failed in a way that nobody thought of.
        """
        from ray.exceptions import RayError

        member, call = await self._free(lambda member: len(member.calls) < self.places), object()
        if member.idle_since is not None:
            self.idle += time.perf_counter() - member.idle_since
            member.idle_since = None
        member.calls.append(call)
        try:
            yield member.actor
        except RayError as error:
            raise self._explained(member, call, error) from None
        finally:
            member.calls.remove(call)
            if not member.calls:
                member.idle_since = time.perf_counter()
            await self._notify()

    def retire(self, actor: Any) -> None:
        """Replace an actor, which is of no use any more."""
        for member in self._members:
            if member.actor is actor:
                self._end(member)

    def close(self) -> None:
        """End all of them."""
        for task in self._starting:
            task.cancel()
        for member in self._members:
            _kill(member.actor)
        self._members.clear()

    def _explained(self, member: Member, call: object, error: Exception) -> Exception:
        from ray.exceptions import ObjectLostError, RayError, RayTaskError

        if isinstance(error, RayTaskError):
            cause = error.cause
            if not isinstance(cause, RayError):
                what = described(cause if isinstance(cause, Exception) else error)
                return EchopixError(f"unexpected failure: {what}", "ask this file alone with --debug, and report it")
            error = cause
        if isinstance(error, ObjectLostError):
            return Lost(True, f"what {self.what} had made of it was lost")
        # Not only RayActorError: what ends an actor for its machine's memory, or with its machine, has other names.
        self._end(member)
        return Lost(not self._in_order or call is member.blamed, f"{self.what} ended")

    def _end(self, member: Member) -> None:
        if member.alive:
            member.alive = False
            member.blamed = member.calls[0] if member.calls else None
            self._members.remove(member)
            self._none_since = time.monotonic()
            _kill(member.actor)
            self.replaced += 1
            self._start()

    async def _free(self, fits: Callable[[Member], bool]) -> Member:
        """The member with the fewest calls, as soon as one fits."""
        async with self._changed:
            while True:
                if self._failure is not None and not self._members and not self._starting:
                    raise NoneLeft(self._failure)
                fitting = [member for member in self._members if fits(member)]
                if fitting:
                    return min(fitting, key=lambda member: len(member.calls))
                await self._changed.wait()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._starting.add(loop.create_task(self._starts()))
        loop.call_later(_PATIENCE, self._say_that_none_is_there)

    def _say_that_none_is_there(self) -> None:
        alone = not self._members and time.monotonic() - self._none_since >= 0.99 * _PATIENCE
        if alone and self._starting and not self._waited:
            self._waited = True
            self._say(f"waiting for {self.what}: it is being started, or the cluster has no room for it (ray status)")

    async def _starts(self) -> None:
        own = asyncio.current_task()
        assert own is not None
        from ray.exceptions import RayError

        try:
            for number in range(_STARTS):
                if number:
                    await asyncio.sleep(_PAUSE)
                actor = self._make()
                try:
                    await self._begin(actor)
                except EchopixError as error:
                    self._failure = error
                except RayError as error:
                    self._failure = EchopixError(f"{self.what} does not start: {_first_line(error)}")
                except BaseException:
                    _kill(actor)
                    raise
                else:
                    self._members.append(Member(actor, idle_since=time.perf_counter()))
                    self._say_who_is_missing()
                    self.most = max(self.most, len(self._members))
                    return
                _kill(actor)
                if not self._members and self.replaced == 0 and len(self._starting) == 1:
                    break  # what cannot begin at all is said at once
            assert self._failure is not None
            self._unsaid.append(f"{self.what} fewer: {self._failure.message}")
            if self._members:
                self._say_who_is_missing()
        finally:
            self._starting.discard(own)
            await self._notify()

    def _say_who_is_missing(self) -> None:
        while self._unsaid:
            self._say(self._unsaid.pop(0))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _kill(actor: Any) -> None:
    import ray

    if ray.is_initialized():  # else Ray would start a cluster for this
        with suppress(Exception):  # it may be gone
            ray.kill(actor)
