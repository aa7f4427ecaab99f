"""The manual: pages in Markdown that come with the program and are shown by ``echopix help TOPIC``."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "manual"

# Pages that say more about what a command does, first the one to begin with.
MORE: dict[str, tuple[str, ...]] = {
    "ask": ("media", "batches", "fleet", "moments", "weights", "serving"),
    "chat": ("conversations", "moments"),
    "serve": ("serving",),
    "profile": ("performance",),
    "bench": ("performance",),
    "eval": ("evaluation", "numbers", "benchmarks", "experiments"),
    "scene": ("evaluation",),
    "train": ("training", "experiments"),
    "models": ("weights", "trust"),
    "cache": ("media",),
    "records": ("batches", "fleet"),
    "doctor": ("settings",),
    "config": ("settings",),
}


def topics() -> dict[str, str]:
    """Names of pages, in alphabetical order, and what each is about: its title without its name."""
    found = {}
    for file in sorted(_FOLDER.glob("*.md")):
        with file.open(encoding="utf-8") as lines:
            found[file.stem] = next(lines).removeprefix("# ").rstrip().partition(": ")[2]
    return found


def page(topic: str) -> str:
    """A page as Markdown; ``topic`` is one of :func:`topics`."""
    return (_FOLDER / f"{topic}.md").read_text(encoding="utf-8")
