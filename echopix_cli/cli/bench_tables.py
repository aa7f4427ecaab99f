"""The tables of ``bench`` and ``profile``. Every cell is plain text: nothing from a file is read as markup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from rich.console import Group, RenderableType

from echopix_cli.cli.sheets import Sheet, Sheets
from echopix_cli.cli.tables import facts_grid, precision, sieve_words, size

if TYPE_CHECKING:
    from echopix_cli.measure.bench import Bench, BenchRow
    from echopix_cli.measure.profiling import Profile, ProfileRow
    from echopix_cli.measure.rounds import Ratio, Spread

Row = TypeVar("Row")
NONE = "–"


def spread(value: Spread | None) -> str:
    """A duration with its quartiles, all in the median's unit; a dash where nothing was timed."""
    if value is None:
        return NONE
    factor, unit, digits = (1, "s", 2) if value.median >= 0.9995 else (1000, "ms", 0 if value.median >= 0.00995 else 1)
    return f"{value.median * factor:.{digits}f} {unit}" + _ends(value.low, value.high, factor, digits)


def rate(value: Spread) -> str:
    """Tokens a second with their quartiles."""
    return f"{value.median:.1f}" + _ends(value.low, value.high, 1, 1)


def ratio(value: Ratio) -> str:
    """A ratio with its interval."""
    return f"{value.median:.2f}×" + _ends(value.low, value.high, 1, 2)


def _ends(low: float | None, high: float | None, factor: int, digits: int) -> str:
    """Of an interval; nothing where one run gives none."""
    if low is None or high is None:
        return ""
    return f" ({low * factor:.{digits}f}–{high * factor:.{digits}f})"


def _sheet(rows: Sequence[Row], columns: dict[str, Callable[[Row], str]]) -> Sheet:
    """Columns by name, each drawn from a row."""
    return Sheet(tuple(columns), tuple(tuple(draw(row) for draw in columns.values()) for row in rows))


def bench_table(bench: Bench) -> RenderableType:
    """Speed-ups against their bound; then stages and rate; then first token and memory; then what all rows share."""
    rows, generates = bench.rows, bench.new_tokens > 1

    def name(row: BenchRow) -> str:
        return f"{row.budget:g}" if row.sieved else f"{row.budget:g}, no sieve"

    sheets = (
        _sheet(
            rows,
            {
                "budget": name,
                "kept": lambda row: str(row.kept),
                "sieve+prefill": lambda row: spread(row.stages["forward"]),
                "speed-up": lambda row: ratio(row.ratio),
                "bound": lambda row: f"{row.bound:.2f}×",
                "share": lambda row: f"{100 * row.share:.0f} %",
            },
        ),
        _sheet(
            rows,
            {
                "budget": name,
                "sieve": lambda row: spread(row.stages.get("sieve")),
                "prefill": lambda row: spread(row.stages["prefill"]),
                "tokens/s": lambda row: rate(row.tokens_per_second) if generates else NONE,
            },
        ),
        _sheet(
            rows,
            {
                "budget": name,
                "first token": lambda row: spread(row.stages["first_token"]),
                "sooner": lambda row: ratio(row.first_token_ratio),
                "memory": lambda row: size(row.memory),
                "smaller": lambda row: f"{row.memory_ratio:.2f}×",
            },
        ),
    )
    return Group(Sheets(sheets), _bench_facts(bench))


def _bench_facts(bench: Bench) -> RenderableType:
    facts = bench.engine.facts
    place = spread(bench.rows[0].stages["place"])
    return facts_grid(
        [
            ("shape", f"{bench.shape}, {facts.parameters / 1e6:.0f} M random parameters, {precision(facts)}"),
            ("weights", size(bench.weight_bytes)),
            (
                "clip",
                f"{bench.media or 'noise'}, {bench.seconds:.1f} s: {bench.video_rows} video, {bench.audio_rows} audio "
                f"and {bench.text_rows} text tokens",
            ),
            *(
                (name, f"{spread(value)}, the same for every budget")
                for name, value in bench.stages.items()
                if bench.media or name != "decode"
            ),
            ("place", f"{place}, embedding and placing the prompt; part of sieve+prefill"),
            ("CS2 layer", f"{bench.layer_ratio:.2f} × a decoder layer on the same tokens, scores and choice included"),
            ("measured", _rounds(bench.rounds, bench.warmup, bench.disturbed, bench.doubt)),
            ("speed-up", f"the whole prompt through the decoder, no sieve before it, over the same here; "
             f"{_interval(bench.rows[-1].ratio)}"),
            ("bound", "what counting layers and tokens gives: D·L / (C·L + D·K); share: what is reached of it"),
            ("sooner", "first token of the whole prompt over the one here, decoding and towers included"),
            ("memory", f"most held at once beyond weights and tower features, {bench.new_tokens} tokens generated"),
        ]
    )  # fmt: skip


def _rounds(counted: int, warmup: int, disturbed: int, doubt: str | None) -> str:
    also = f"; {disturbed} more beside other work do not count" if disturbed and doubt is None else ""
    return f"medians (with quartiles) of {counted} rounds after {warmup} to warm up{also}"


def _interval(value: Ratio) -> str:
    """What a ratio's numbers are."""
    if value.confidence is None:
        return "from one round"
    return f"median of the rounds' own ratios, with its {100 * value.confidence:.0f} % interval"


def profile_table(profile: Profile) -> RenderableType:
    """What each budget keeps and costs; then its stages; then the answers and what all budgets share."""
    rows = profile.rows

    def name(row: ProfileRow) -> str:
        return f"{row.budget:g}"

    sheets = (
        _sheet(
            rows,
            {
                "budget": name,
                "video": lambda row: f"{row.answer.tokens.video.kept}/{row.answer.tokens.video.total}",
                "audio": lambda row: f"{row.answer.tokens.audio.kept}/{row.answer.tokens.audio.total}",
                "sieve+prefill": lambda row: spread(row.stages["forward"]),
                "speed-up": lambda row: ratio(row.ratio),
                "memory": lambda row: NONE if row.memory_ratio is None else f"{row.memory_ratio:.2f}×",
            },
        ),
        _sheet(
            rows,
            {
                "budget": name,
                "sieve": lambda row: spread(row.stages["sieve"]),
                "prefill": lambda row: spread(row.stages["prefill"]),
                "generate": lambda row: spread(row.stages["generate"]),
            },
        ),
        _sheet(
            rows,
            {
                "budget": name,
                "first token": lambda row: spread(row.stages["first_token"]),
                "total": lambda row: spread(row.stages["total"]),
            },
        ),
    )
    return Group(Sheets(sheets), _profile_facts(profile))


def _profile_facts(profile: Profile) -> RenderableType:
    from echopix_cli.results import DEMONSTRATION  # which is said when the model is loaded

    answers, stages = [row.answer for row in profile.rows], profile.rows[0].stages
    answer = answers[-1]
    # A sieve reads the whole prompt, whatever it keeps; another one, or a redundancy stage before it, changes the cost.
    alike = len({each.sieve for each in answers}) == 1 and all(each.prefilter is None for each in answers)
    constant = "; the sieve itself costs the same at any budget" if alike else ""
    shared, what = ["decode", "vision", "audio"], "sieve + prefill"
    if answer.film is not None:
        shared.append("windows")
        what += " of the prompt that the film's windows form, without the sieving of these,"
    return facts_grid(
        [
            ("media", profile.media),
            ("question", profile.question),
            *(
                (f"at {row.budget:g}", f"{'=' if row.same_answer else '≠'} {row.answer.answer}")
                for row in profile.rows
            ),
            *((name, f"{spread(stages[name])}, the same for every budget") for name in shared),
            ("measured", _rounds(profile.rounds, profile.warmup, profile.disturbed, profile.doubt)),
            ("speed-up", f"{what} at budget 1.0, over the same here; "
             f"{_interval(profile.rows[-1].ratio)}{constant}"),
            ("memory", "device peak at budget 1.0 over the peak here, weights and towers included; – on a CPU"),
            ("sieve", sieve_words(answer)),
            ("model", f"{answer.model.name}, {precision(answer.model)}"),
            ("audio", str(answer.audio)),
            *(("note", notice) for notice in answer.notices if notice != DEMONSTRATION),
        ]
    )  # fmt: skip
