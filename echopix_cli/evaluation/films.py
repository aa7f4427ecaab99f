"""Files longer than a window, read as ``ask`` reads them: windows pass once for all questions and sieves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from echopix_cli.engine import Encoded, Engine
from echopix_cli.engine.opening import open_media, read_unless_film, unwatched, window_of
from echopix_cli.engine.survey import Watch
from echopix_cli.errors import DeviceError, EchopixError
from echopix_cli.evaluation.asking import Asking, options_of, result_of, scoring_of
from echopix_cli.evaluation.questions import Question
from echopix_cli.evaluation.values import AROUND, Condition, Graded, ItemResult, Rows
from echopix_cli.model.values import FirstLayers


@dataclass(frozen=True)
class Screened:
    """What the windows of a film hand on, by the question's index, the sieve that chose it, and how that scored."""

    handed_on: dict[tuple[int, str, FirstLayers], Encoded]


def open_file(
    engine: Engine,
    path: str,
    questions: Sequence[Question],
    settings: Sequence[Condition],
    asking: Asking,
    watch: Watch = unwatched,
) -> Encoded | Screened:
    """A file as something that questions can be put to: a clip, or a film's windows after the sieve.

    Args:
        engine: with the model.
        path: of the file.
        questions: all that will be put to it.
        settings: all with which they will be.
        asking: what holds for every question.
        watch: follows the reading of a film; what it raises ends that.

    Raises:
        MediaError: it cannot be opened or holds nothing that can be decoded.
        DeviceError: out of memory.
    """
    plan, films = asking.plan, asking.films
    info = read_unless_film(engine, path, plan, window_of(engine, films))
    if isinstance(info, Encoded):
        return info
    # Budgets share what windows hand on where they share the scores.
    by_scoring = {_scoring(engine, setting, asking): setting for setting in settings if setting.sieve != AROUND}
    asked = [(question, setting) for question in questions for setting in by_scoring.values()]
    if not asked:
        return Screened({})
    handed_on: dict[tuple[int, str, FirstLayers], Encoded] = {}
    together = len(asked)
    while len(handed_on) < len(asked):
        some = asked[len(handed_on) : len(handed_on) + together]
        options = [options_of(setting, asking, question.index) for question, setting in some]
        prompts = [question.prompt for question, _ in some]
        try:
            found = open_media(engine, path, plan, prompts, options, films, watch, info=info)
        except DeviceError:
            # Each takes the rows of a window with it: where all of them are too many, fewer go at once.
            if together == 1:
                raise
            together = -(-together // 2)
            continue
        if found[0].survivors is None:  # the header was wrong, and one window holds all
            return found[0]
        keys = [(question.index, *_scoring(engine, setting, asking)) for question, setting in some]
        handed_on |= dict(zip(keys, found, strict=True))
    return Screened(handed_on)


def answered(
    engine: Engine, film: Screened, question: Question, settings: Sequence[Condition], asking: Asking
) -> ItemResult:
    """One question about a film, with every setting; what fails with one of them is a failed outcome."""
    outcomes: dict[Condition, Graded] = {}
    read: list[Encoded] = []
    pool = sound = 0
    for setting in settings:
        if setting.sieve == AROUND:
            outcomes[setting] = Graded.failed("a film does not go past CS2 whole")
            continue
        encoded = film.handed_on[question.index, *_scoring(engine, setting, asking)]
        read.append(encoded)
        options = options_of(setting, asking, question.index)
        try:
            if asking.by_letters and question.choices:
                answer = engine.decide(encoded, question.question, question.choices, options, question.prompt)
                best = max(answer.choices, key=lambda choice: choice.probability)
                said = lettered(best.letter, best.text)
            else:
                answer = engine.ask(encoded, question.prompt, options)
                said = answer.answer
        except EchopixError as error:
            outcomes[setting] = Graded.failed(error.message)
            continue
        tokens, latency = answer.tokens, answer.latency
        outcomes[setting] = Graded(
            answer=said,
            right=question.is_right(said),
            rows=Rows(tokens.video.kept, tokens.audio.kept, 0),
            seconds=latency.sieve + latency.prefill + latency.generate,
        )
        pool, sound = tokens.total, tokens.audio.total
    return result_of(question, pool, 0, outcomes, sound, read)


def lettered(letter: str, text: str) -> str:
    """An option that was decided for: behind its letter, which tells it from others with the same text."""
    return f"{letter}. {text}".strip()


def _scoring(engine: Engine, setting: Condition, asking: Asking) -> tuple[str, FirstLayers]:
    return setting.sieve, scoring_of(engine, setting, asking).first_layers
