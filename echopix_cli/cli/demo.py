"""The bundled clip, which ``demo`` stands for where no file is called so."""

from __future__ import annotations

import os
from pathlib import Path

import echopix_cli

NAME = "demo"
QUESTION = "What instrument is playing?"


def demo_clip() -> Path:
    """The clip that comes with the program."""
    return Path(echopix_cli.__file__).parent / "assets" / "demo.mp4"


def right_answer() -> str:
    """What is to be heard in it, the answer to :data:`QUESTION`."""
    return demo_clip().with_name("demo.answer.txt").read_text(encoding="utf-8").strip()


def media_path(name: str) -> str:
    """What a name on the command line stands for: itself, unless it means the bundled clip."""
    return str(demo_clip()) if name == NAME and not os.path.lexists(name) else name
