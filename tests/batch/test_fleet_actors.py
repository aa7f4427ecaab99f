"""What an item costs a fleet whose actors end while they are at it, on Ray."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch_files import free_box

from echopix_cli.batch.crew import Crew, Lost, NoneLeft
from echopix_cli.batch.items import BatchOptions
from echopix_cli.batch.outcomes import Outcome
from echopix_cli.batch.tasks import Task
from echopix_cli.errors import DeviceError, EchopixError, ModelError
from echopix_cli.media import DecodePlan

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="the extra fleet is not installed")


@pytest.fixture
def connected() -> Iterator[None]:
    from echopix_cli.batch.cluster import Cluster

    cluster = Cluster(None)
    yield
    cluster.close()


def test_only_what_an_actor_was_at_is_blamed(connected: None) -> None:
    """What waits behind it has not been tried; both come to the one that takes its place. Where none can begin, whoever
    waits hears why."""
    import ray

    class Toy:
        def work(self, what: str) -> str:
            time.sleep(0.3)
            if what == "deadly":
                os._exit(1)
            return what

    async def begin(actor: Any) -> None:
        await actor.work.remote("hello")

    async def refuse(actor: Any) -> None:
        raise ModelError("no such model")

    async def tried(crew: Crew, what: str) -> tuple[str, bool | None]:
        try:
            async with crew.at() as actor:
                return await actor.work.remote(what), None
        except Lost as lost:
            return lost.what, lost.blamed

    async def all_of_it() -> None:
        kind: Any = ray.remote(Toy)
        crew = Crew("an engine", lambda: kind.options(num_cpus=0).remote(), begin, 1, 2, True, lambda text: None)
        crew.start()
        await crew.first()
        found = await asyncio.gather(*(tried(crew, what) for what in ("fine", "deadly", "innocent", "next")))
        assert found == [("fine", None), ("an engine ended", True), ("an engine ended", False), ("next", None)]
        assert crew.replaced == 1
        crew.close()
        none = Crew("an engine", lambda: kind.options(num_cpus=0).remote(), refuse, 2, 2, True, lambda text: None)
        none.start()
        with pytest.raises(NoneLeft, match="no such model"):
            await none.first()

    asyncio.run(all_of_it())


def test_an_item_is_tried_twice_and_then_a_record(
    clips: dict[str, Path], random_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that does not suffice, and an engine that ends: once, and whenever that file is asked about."""
    from echopix_cli.batch import fleet as module
    from echopix_cli.batch.cluster import FleetOptions
    from echopix_cli.batch.fleet_actors import EngineActor, Loading

    class Weak(EngineActor):
        def ask(self, group: Any, *arguments: Any) -> Iterator[Outcome]:
            name = os.path.basename(group.media)
            first = not os.path.exists(f"{group.media}.tried")
            open(f"{group.media}.tried", "w").close()
            if name.startswith("small") and (first or "ever" in name):
                yield from (Outcome(task, "key", None, error=DeviceError("out of memory")) for task in group.tasks)
                return
            if name.startswith("rewritten"):
                with open(group.media, "ab") as file:
                    file.write(b"\0\0\0\x08free")
            if name.startswith(("deadly", "rewritten")) and (first or "ever" in name):
                os._exit(1)
            yield from super().ask(group, *arguments)

    names = ["a", "small-once", "b", "small-ever", "deadly-ever", "rewritten", "c"]
    for number, name in enumerate(names):
        (tmp_path / f"{name}.m4a").write_bytes(clips["dark"].read_bytes() + free_box(number))
    monkeypatch.setattr(module, "EngineActor", Weak)
    loading = Loading(str(random_checkpoint), "auto", "auto", "auto", True, None)
    ended: list[Outcome] = []
    fleet = module.Fleet(loading, FleetOptions(workers=1), 60)
    try:
        settings = BatchOptions(fleet.plan(DecodePlan()))
        summary = module.FleetBatch(fleet, settings, ended.append).run(
            [Task(str(tmp_path / f"{name}.m4a"), question) for name in names for question in ("What?", "Why?")]
        )

        def full(outcome: Outcome) -> None:
            raise EchopixError("the disk is full")

        again = [Task(str(tmp_path / "a.m4a"), "What?"), Task(str(tmp_path / "b.m4a"), "What?")]
        with pytest.raises(EchopixError, match="the disk is full"):  # no failure of the item
            module.FleetBatch(fleet, settings, full).run(again)
        spans: list[Outcome] = []
        early = BatchOptions(replace(settings.plan, end=0.5))
        module.FleetBatch(fleet, early, spans.append).run([replace(again[0], start=0.6), again[1]])
    finally:
        fleet.close()
    assert len(ended) == len({outcome.task for outcome in ended}) == 2 * len(names)
    impossible, possible = sorted(spans, key=lambda outcome: outcome.task.media)
    assert "is not after its start" in str(impossible.error) and possible.error is None
    assert impossible.key is not None and impossible.file is not None
    failed = {Path(outcome.task.media).stem: outcome.error for outcome in ended if outcome.error is not None}
    assert set(failed) == {"small-ever", "deadly-ever", "rewritten"}
    assert str(failed["rewritten"]).endswith("changed while it was read")
    assert [(one.key, one.file) for one in ended if Path(one.task.media).stem == "rewritten"] == [(None, None)] * 2
    assert isinstance(failed["small-ever"], DeviceError)
    assert str(failed["deadly-ever"]) == "an engine ended while it was at this, twice"
    # Once for memory each, and each time that it ended; that may be once more, where it ended before it was heard that
    # the file before was done, which then was blamed.
    assert fleet.engines.replaced in (5, 6)
    assert f"{fleet.engines.replaced} engines replaced" in summary.events
