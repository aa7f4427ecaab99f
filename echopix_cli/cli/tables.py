"""Tables about answers. Every cell is plain text: nothing from a file is read as markup."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from echopix_cli.cli.output import one_line
from echopix_cli.results import Answer, ModalityTokens, ModelFacts, PeakMemory


def seconds(value: float) -> str:
    """A duration at a readable precision."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms" if value >= 0.00995 else f"{value * 1000:.1f} ms"
    return f"{value:.2f} s"


def size(value: int | None) -> str:
    """Bytes in binary units; a dash where the machine cannot tell."""
    if value is None:
        return "–"
    amount, unit = float(value), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


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


def answer_table(answer: Answer) -> RenderableType:
    """Tokens, latency, memory and provenance of one answer."""
    return Group(_token_table(answer), _latency_table(answer), _facts(answer))


def _token_table(answer: Answer) -> Table:
    tokens = answer.tokens
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tokens")
    for name in ("in", "kept", "kept %"):
        table.add_column(name, justify="right")
    for name, part in (("video", tokens.video), ("audio", tokens.audio)):
        table.add_row(name, str(part.total), str(part.kept), percent(part))
    pool = ModalityTokens(tokens.total, tokens.kept)
    table.add_row("pool", str(pool.total), str(pool.kept), percent(pool), style="bold", end_section=True)
    table.add_row("text", str(tokens.text), str(tokens.text), "")
    table.add_row("generated", str(tokens.generated), "", "")
    return table


def _latency_table(answer: Answer) -> Table:
    times = answer.latency
    stages = ("decode", "vision", "audio", "sieve", "prefill", "generate", "total")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("latency")
    for name in stages:
        table.add_column(name, justify="right")
    unneeded = ("vision", "audio") if answer.cached else ()
    table.add_row("", *("cached" if name in unneeded else seconds(getattr(times, name)) for name in stages))
    return table


def _facts(answer: Answer) -> Table:
    rate = answer.tokens_per_second
    model = answer.model
    kind = " (demonstration)" if model.demonstration else ""
    sampling = answer.sampling
    taken = []
    if sampling.frames:
        rate_text = f" at {sampling.fps:.2f} fps" if sampling.fps and sampling.frames > 1 else ""
        taken.append(f"{sampling.frames} frames{rate_text}, {sampling.width}×{sampling.height}")
    if sampling.audio_seconds:
        taken.append(f"{sampling.audio_seconds:.1f} s of sound")
    rows = [
        ("model", f"{model.name}{kind}, {model.parameters / 1e6:.1f} M parameters, {precision(model)}"),
        *([("chosen", model.chosen)] if model.chosen and not model.demonstration else []),
        ("sieve", f"{sieve_words(answer)}, budget {answer.budget:g}"),
        *((choice.letter, f"{100 * choice.probability:5.1f} %  {choice.text}") for choice in answer.choices),
        ("audio", str(answer.audio)),
        ("sampled", "; ".join(taken)),
        ("speed", f"first token after {seconds(answer.latency.first_token)}"
         + (f", then {rate:.1f} tokens/s" if rate else "") + f"; model load {seconds(answer.latency.load)} apart"),
        ("peak memory", _memory(answer.peak_memory)),
        *(("note", notice) for notice in answer.notices),
    ]  # fmt: skip
    return facts_grid(rows)


def facts_grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Names on the left, what they stand for on the right, each as plain text."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, Text(one_line(value)))
    return grid


def _memory(peak: PeakMemory) -> str:
    parts = []
    if peak.device_allocated is not None:
        parts.append(f"device {size(peak.device_allocated)} allocated, {size(peak.device_reserved)} reserved")
    parts.append(f"host {size(peak.host_resident)} resident")
    return "; ".join(parts)
