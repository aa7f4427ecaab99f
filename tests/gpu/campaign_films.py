"""The campaign's part about films: windows on the device, first and second question, memory against length."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import av
from campaign import Findings, Given
from campaign_parts import checkpoint
from campaign_timing import on_gpu

from echopix_cli.engine import AskOptions, Engine, GenerationOptions
from echopix_cli.engine.opening import open_media
from echopix_cli.engine.options import FilmOptions
from echopix_cli.media import DecodePlan
from echopix_cli.shelf import Shelf

QUESTIONS = ("What do you hear?", "What is on the left?")


def repeated(source: Path, copies: int, target: Path) -> None:
    """A film of so many copies of another one, one after the other, without encoding anything anew."""
    with av.open(str(source)) as opened, av.open(str(target), "w") as written:
        lengths = opened.duration / av.time_base
        streams = {stream.index: written.add_stream_from_template(stream) for stream in opened.streams}
        for copy in range(copies):
            opened.seek(0)
            for packet in opened.demux():
                if packet.dts is None:
                    continue
                moved = round(copy * lengths / packet.time_base)
                packet.dts, packet.pts = packet.dts + moved, packet.pts + moved
                packet.stream = streams[packet.stream.index]
                written.mux(packet)


def films(name: str, given: Given, findings: Findings) -> None:
    """A film of a few windows and one of many: seconds of each stage, peaks, and a second question from the cache."""
    folder = checkpoint(name, given)
    source = given.work / "film.mp4"
    while not source.exists():
        time.sleep(0.2)
    window = 60.0 if on_gpu(given) else 1.0
    shelf = Shelf(given.work / "films-cache", 8 << 30)
    engine = Engine.load(str(folder), given.device, quantize="none", shelf=shelf)
    for copies in (3, 12):
        path = given.work / f"film-{copies}.mp4"
        repeated(source, copies, path)
        asked = []
        for question in QUESTIONS:
            began = time.perf_counter()
            options = AskOptions(0.1, GenerationOptions(16))
            plan = engine.plan(DecodePlan())
            (encoded,) = open_media(engine, str(path), plan, [question], options, FilmOptions(window=window))
            answer = engine.ask(encoded, question, options)
            found: dict[str, Any] = {"waited": time.perf_counter() - began, "latency": vars(answer.latency)}
            found |= {"peaks": vars(answer.peak_memory), "tokens": str(answer.tokens), "cached": answer.cached}
            found |= {"moments": len(answer.moments), "film": vars(answer.film) if answer.film else None}
            asked.append(found)
        path.unlink()
        findings.add(**{f"{copies} windows": asked})
        print(copies, *(round(one["waited"], 2) for one in asked))
