"""Words and grids that tables are made of. Every cell is plain text: nothing from a file is read as markup."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from echopix_cli.cli.layout import Words
from echopix_cli.cli.output import one_line
from echopix_cli.results import Answer, ModalityTokens, ModelFacts, Sampling
from echopix_cli.sizes import binary
from echopix_cli.times import clock


def seconds(value: float) -> str:
    """A duration at a readable precision."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms" if value >= 0.00995 else f"{value * 1000:.1f} ms"
    return f"{value:.2f} s"


def size(value: int | None) -> str:
    """Bytes of memory; a dash where the machine cannot tell."""
    return "–" if value is None else binary(value)


def percent(tokens: ModalityTokens) -> str:
    """Share kept; a dash when there was nothing to keep."""
    return f"{100 * tokens.kept / tokens.total:.1f} %" if tokens.total else "–"


def sieve_words(answer: Answer) -> str:
    """What chose the tokens, at which layer, and after what."""
    layer = "" if answer.question_layer is None else f" at layer {answer.question_layer}"
    before = "" if answer.prefilter is None else f" after prefilter {answer.prefilter:g}"
    return f"{answer.sieve}{layer}{before}"


def precision(model: ModelFacts) -> str:
    """How and where a model's numbers are held."""
    held = model.dtype if model.quantization == "none" else f"{model.quantization} and {model.dtype}"
    return f"{held} on {model.device}"


def facts_grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Names on the left, what they stand for on the right, each as plain text."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, Words(Text(one_line(value))))
    return grid


def sampled(sampling: Sampling, size: bool = False) -> str:
    """What was taken of picture and sound, with the size of frames where that is wanted."""
    taken = []
    if sampling.frames:
        rate = f" at {sampling.fps:.3g} fps" if sampling.fps and sampling.frames > 1 else ""
        frames = f"{sampling.frames} frame{'' if sampling.frames == 1 else 's'}{rate}"
        taken.append(f"{frames}, {sampling.width}×{sampling.height}" if size else frames)
    if sampling.audio_seconds:
        taken.append(f"{clock(sampling.audio_seconds)} of sound")
    return "; ".join(taken)
