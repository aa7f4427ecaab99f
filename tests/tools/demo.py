"""Rebuild the demo clip and the README's picture: ``python tests/tools/demo.py``.

The clip is a scene of the ``test`` split, so the bundled model was never trained on it: notes of a piano from
the FluidR3 GM soundfont, while a violin is on the screen.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

SEED = 2623
SIDE = 224
QUESTION = "What instrument is playing?"


def build_clip(path: Path) -> str:
    """Render the demo clip; returns what a right answer to :data:`QUESTION` says."""
    from echopix_cli import scenes

    script = scenes.make_script("test", SEED, "instrument")
    scenes.write_mp4(script, path, size=SIDE)
    return script.items[0].answer


def build_picture(clip: Path, path: Path) -> None:
    """Run the README's first example and keep what a terminal shows, as an SVG."""
    from rich.console import Console
    from rich.text import Text

    from echopix_cli.cli.answer_tables import answers_table
    from echopix_cli.cli.layout import Trimmed
    from echopix_cli.cli.waiting import Waited, since_start
    from echopix_cli.engine import Engine
    from echopix_cli.media import DecodePlan

    engine = Engine.load()
    load, ready = engine.load_seconds, since_start()
    encoded = engine.read(str(clip), engine.plan(DecodePlan()))
    engine.ask(encoded, QUESTION)  # warm up: the picture shall show a steady state
    answer = engine.ask(engine.read(str(clip), engine.plan(DecodePlan())), QUESTION)
    console = Console(record=True, width=92, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(Text("$ echopix ask demo", style="bold"))
    console.print(Text(answer.answer))
    times = answer.latency
    read = times.decode + times.vision + times.audio
    console.print(Trimmed(answers_table([answer], Waited(ready - load, load, read, times.total - read))))
    console.save_svg(str(path), title="echopix")


def main() -> None:
    """Write ``demo.mp4``, ``demo.answer.txt`` and ``ask.svg`` among the assets of the package."""
    argparse.ArgumentParser(description=__doc__).parse_args()  # whoever asks for help gets that, and no new files
    folder = Path(str(files("echopix_cli") / "assets"))
    answer = build_clip(folder / "demo.mp4")
    (folder / "demo.answer.txt").write_text(answer + "\n", encoding="utf-8")
    build_picture(folder / "demo.mp4", folder / "ask.svg")


if __name__ == "__main__":
    main()
