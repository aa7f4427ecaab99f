"""A fleet's actors: which errors of Ray end one, and what a person hears of those that do not come. No cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from echopix_cli.batch.crew import Crew, Lost
from echopix_cli.errors import EchopixError

pytest.importorskip("ray", reason="the extra fleet is not installed")
from ray import exceptions


async def begins(actor: object) -> None:
    pass


def crew_of(count: int, begin: Callable[[Any], Awaitable[None]] = begins, said: list[str] | None = None) -> Crew:
    return Crew("an engine", object, begin, count, 2, True, (said if said is not None else []).append)


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (exceptions.OutOfMemoryError("killed for the memory of its machine"), True),
        (exceptions.NodeDiedError("its machine is gone"), True),
        (exceptions.ActorDiedError(), True),
        (exceptions.WorkerCrashedError(), True),
        (exceptions.ObjectLostError("00" * 28, None, ""), False),
        (exceptions.OwnerDiedError("00" * 28, None, ""), False),
        (exceptions.ObjectReconstructionFailedError("00" * 28, None, ""), False),
    ],
)
def test_all_but_a_lost_object_is_an_actor_s_end(error: Exception, ends: bool) -> None:
    async def at_work() -> tuple[Lost, Crew, bool]:
        crew = crew_of(1)
        crew.start()
        first = await crew.first()
        with pytest.raises(Lost) as caught:
            async with crew.at():
                raise error
        return caught.value, crew, await crew.first() is first

    lost, crew, stayed = asyncio.run(at_work())
    assert (lost.blamed, crew.replaced, stayed) == (True, int(ends), not ends)
    assert lost.what == ("an engine ended" if ends else "what an engine had made of it was lost")


def test_a_person_hears_once_that_none_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all were there and have ended, and the cluster has no room for others."""
    monkeypatch.setattr("echopix_cli.batch.crew._PATIENCE", 0.1)
    said = list[str]()

    async def wait() -> None:
        begun = list[object]()

        async def begin(actor: object) -> None:
            begun.append(actor)
            await asyncio.sleep(0 if len(begun) == 1 else 60)

        crew = crew_of(1, begin, said)
        crew.start()
        await crew.first()
        await asyncio.sleep(0.2)
        assert not said
        with pytest.raises(Lost):
            async with crew.at():
                raise exceptions.ActorDiedError()
        await asyncio.sleep(0.3)
        crew.close()

    asyncio.run(wait())
    assert said == ["waiting for an engine: it is being started, or the cluster has no room for it (ray status)"]


@pytest.mark.parametrize("failures", [1, 2, 3, 4])
def test_one_start_that_fails_first_is_tried_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another one is on its way it is no sign that none can begin, and who goes on without it hears of it."""
    monkeypatch.setattr("echopix_cli.batch.crew._PAUSE", 0.01)
    said, tries = list[str](), list[object]()

    async def start() -> int:
        slow = asyncio.Event()

        async def begin(actor: object) -> None:
            tries.append(actor)
            if len(tries) == 1:
                await slow.wait()
            elif len(tries) <= failures + 1:
                raise EchopixError("its machine has no model")

        crew = crew_of(2, begin, said)
        crew.start()
        await asyncio.sleep(0.1)
        slow.set()
        await crew.first()
        await asyncio.sleep(0.1)
        crew.close()
        return crew.most

    assert asyncio.run(start()) == (2 if failures < 3 else 1)
    assert len(tries) == 1 + min(failures + 1, 3)
    assert said == ([] if failures < 3 else ["an engine fewer: its machine has no model"])
