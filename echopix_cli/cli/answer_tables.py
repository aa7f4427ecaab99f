"""What stands below answers about one file. Every cell is plain text: nothing from a file is read as markup."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType

from echopix_cli.cli.sheets import Sheet, Sheets
from echopix_cli.cli.tables import facts_grid, percent, precision, sampled, seconds, sieve_words, size
from echopix_cli.cli.timeline import Where
from echopix_cli.cli.waiting import Waited
from echopix_cli.results import Answer, FilmFacts, ModalityTokens, PeakMemory
from echopix_cli.times import clock


def answers_table(answers: Sequence[Answer], waited: Waited) -> RenderableType:
    """Tokens, latency, moments, memory and provenance of all that was asked of a file.

    Args:
        answers: at least one, of one file.
        waited: from the start of the process to the last of them.
    """
    if len(answers) == 1:
        drawn = [Sheets([sheet]) for sheet in (_tokens(answers[0]), _latency(answers[0]))]
    else:
        drawn = [Sheets([_questions(answers)])]
    return Group(*drawn, Where(answers), facts_grid(_facts(answers, waited)))


def _tokens(answer: Answer) -> Sheet:
    tokens = answer.tokens
    pool = ModalityTokens(tokens.total, tokens.kept)
    parts = (("video", tokens.video), ("audio", tokens.audio), ("pool", pool))
    rows = [(name, str(part.total), str(part.kept), percent(part)) for name, part in parts]
    rows += [("text", str(tokens.text), str(tokens.text), ""), ("generated", str(tokens.generated), "", "")]
    return Sheet(("tokens", "in", "kept", "kept %"), tuple(rows))


def _latency(answer: Answer) -> Sheet:
    stages = ("decode", "vision", "audio", "sieve", "prefill", "generate", "total")
    unneeded = ("vision", "audio") if answer.cached else ()
    cells = ["cached" if name in unneeded else seconds(getattr(answer.latency, name)) for name in stages]
    return Sheet(("latency", *stages), (("", *cells),))


def _questions(answers: Sequence[Answer]) -> Sheet:
    """A row a question, numbered as they were asked."""
    columns = ("question", "video kept", "audio kept", "sieve", "prefill", "generate", "generated")
    rows = []
    for number, answer in enumerate(answers, 1):
        tokens, times = answer.tokens, answer.latency
        rows.append(
            (
                str(number),
                f"{tokens.video.kept}/{tokens.video.total}",
                f"{tokens.audio.kept}/{tokens.audio.total}",
                *(seconds(value) for value in (times.sieve, times.prefill, times.generate)),
                str(tokens.generated),
            )
        )
    return Sheet(columns, tuple(rows))


def _facts(answers: Sequence[Answer], waited: Waited) -> list[tuple[str, str]]:
    answer = answers[-1]
    model, sampling, times = answer.model, answer.sampling, answers[0].latency
    kind = " (demonstration)" if model.demonstration else ""
    read = (
        "features from the disk" if answer.cached else f"vision {seconds(times.vision)}, audio {seconds(times.audio)}"
    )
    rates = [each.tokens_per_second for each in answers if each.tokens_per_second]
    speed = f"first token {seconds(times.first_token)} after reading began"
    return [
        ("model", f"{model.name}{kind}, {model.parameters / 1e6:.1f} M parameters, {precision(model)}"),
        *([("chosen", model.chosen)] if model.chosen and not model.demonstration else []),
        ("sieve", f"{sieve_words(answer)}, budget {answer.budget:g}"),
        *(
            (choice.letter if len(answers) == 1 else f"{number} {choice.letter}",
             f"{100 * choice.probability:5.1f} %  {choice.text}")
            for number, each in enumerate(answers, 1)
            for choice in each.choices
        ),
        ("audio", str(answer.audio)),
        ("sampled", sampled(sampling, size=True)),
        *([("film", film_words(answer.film, answer.budget))] if answer.film else []),
        *([("reading", f"decode {seconds(times.decode)}, {read}")] if len(answers) > 1 else []),
        ("speed", speed + (f", then {min(rates):.1f} tokens/s" if rates else "")),
        (
            "waited",
            f"{seconds(waited.total)}: start-up {seconds(waited.start_up)}, load {seconds(waited.load)}, "
            f"read {seconds(waited.read)}, answer {seconds(waited.answer)}",
        ),
        ("peak memory", _memory(answer.peak_memory)),
    ]  # fmt: skip


def film_words(film: FilmFacts, budget: float) -> str:
    """How a film was read, and what of its tokens the last prompt could hold where the budget wanted more."""
    words = [f"{film.windows} windows of {clock(film.window_seconds)}"]
    if film.unread:
        words.append(f"{film.unread} of them could not be read")
    if film.looked:
        words.append(f"{len(film.looked)} looked at again")
    if film.share < budget:
        words.append(f"at most {100 * film.share:.2g} % of the tokens fit into one prompt")
    return ", ".join(words)


def _memory(peak: PeakMemory) -> str:
    parts = []
    if peak.device_allocated is not None:
        parts.append(f"device {size(peak.device_allocated)} allocated, {size(peak.device_reserved)} reserved")
    parts.append(f"host {size(peak.host_resident)} resident")
    return "; ".join(parts)
