"""The table of a benchmark. Every cell is plain text."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from echopix_cli.cli.tables import facts_grid, numbers_table, precision, seconds, size, spread
from echopix_cli.engine.bench import Bench, BenchRow


def bench_table(bench: Bench) -> RenderableType:
    """Speed-ups against their bound; then stages and memory; then what all rows share."""
    return Group(_speed(bench), _stages(bench), _shared(bench))


def _name(row: BenchRow) -> str:
    return f"{row.budget:g}" if row.sieved else "1 (no sieve)"


def _speed(bench: Bench) -> Table:
    table = numbers_table("budget", "kept", "sieve+prefill", "speed-up", "bound", "share", "first token", "speed-up")
    for row in bench.rows:
        table.add_row(
            _name(row),
            str(row.kept),
            spread(row.stages["forward"]),
            f"{row.speedup:.2f}×",
            f"{row.bound:.2f}×",
            f"{100 * row.speedup / row.bound:.0f} %",
            seconds(row.stages["first_token"].median),
            f"{row.first_token_speedup:.2f}×",
        )
    return table


def _stages(bench: Bench) -> Table:
    table = numbers_table("budget", "sieve", "prefill", "generate", "tokens/s", "memory", "smaller")
    for row in bench.rows:
        table.add_row(
            _name(row),
            spread(row.stages["sieve"]),
            spread(row.stages["prefill"]),
            spread(row.stages["generate"]),
            f"{row.tokens_per_second.median:.1f}" if bench.new_tokens > 1 else "–",
            size(row.memory),
            f"{row.memory_ratio:.2f}×",
        )
    return table


def _shared(bench: Bench) -> Table:
    facts = bench.engine.facts
    rows = [
        ("shape", f"{bench.shape}, {facts.parameters / 1e6:.0f} M random parameters, {precision(facts)}"),
        ("weights", size(bench.weight_bytes)),
        (
            "clip",
            f"{bench.media or 'noise'}, {bench.seconds:.1f} s: {bench.video_rows} video, {bench.audio_rows} audio "
            f"and {bench.text_rows} text tokens",
        ),
        *((name, f"{spread(bench.stages[name])}, the same for every budget") for name in bench.stages),
        ("CS2 layer", f"{bench.layer_ratio:.2f} × a decoder layer on the same tokens, scores and choice included"),
        ("measured", f"median ± half the interquartile range; {bench.trials} runs after {bench.warmup} to warm up"),
        ("speed-up", "the whole prompt through the decoder, no sieve before it, over the same here"),
        ("bound", "what counting layers and tokens gives: D·L / (C·L + D·K)"),
        ("memory", f"most held at once beyond weights and tower features, {bench.new_tokens} tokens generated"),
    ]
    return facts_grid(rows)
