"""Answers every question with every setting: towers once a clip, scores once a question and way of scoring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from echopix_cli.choices import LETTERS
from echopix_cli.engine import Encoded, Engine
from echopix_cli.engine.choices import letter_ids, letter_shares
from echopix_cli.engine.loading import memory_errors
from echopix_cli.engine.meters import Clock
from echopix_cli.engine.opening import unwatched
from echopix_cli.engine.posing import Posed
from echopix_cli.engine.sieves import AUTO, SieveChoice
from echopix_cli.engine.survey import Watch
from echopix_cli.errors import EchopixError, Interrupted, UsageError, bare
from echopix_cli.evaluation.asking import Asking, options_of, result_of, scoring_of, sieve_options
from echopix_cli.evaluation.films import Screened, answered, lettered, open_file
from echopix_cli.evaluation.movies import Haystack
from echopix_cli.evaluation.questions import Question
from echopix_cli.evaluation.values import (
    AROUND,
    OTHER,
    OWN,
    SINGLE_PASS,
    Condition,
    Graded,
    ItemResult,
    Rows,
    written,
)
from echopix_cli.model.decoding import generate
from echopix_cli.model.values import Prompt, Sieved
from echopix_cli.scenes import evidence_rows, sample_times, scene_clip

_ANYTHING = "What do you see? What do you hear?"  # where a scene answers one question only


def settings_of(
    sieves: Sequence[str], budgets: Sequence[float], around: bool = False, films: bool = False
) -> tuple[Condition, ...]:
    """Every setting that a choice of sieves and budgets stands for, in order of sieves, larger budgets first.

    ``none`` has no budget, and the other controls need one below 1, where there is something to choose. The
    model's own sieve may stand as ``auto``. Of ``films`` there is always something to choose: they are more than one
    prompt holds.

    Raises:
        UsageError: nothing is left to measure.
    """
    # As they are written: 33.3 % is not 0.333 in its last bit.
    descending = sorted({float(written(budget)) for budget in budgets}, reverse=True)
    found = []
    for sieve in dict.fromkeys(sieves):
        if sieve == "none":
            found.append(Condition(sieve, 0.0))
        else:
            found += [
                Condition(sieve, budget)
                for budget in descending
                if films or sieve in (AUTO, OTHER, *OWN) or budget < 1.0
            ]
    if around:
        found.append(Condition(AROUND, 1.0))
    if not found:
        message = f"nothing to measure: {', '.join(sieves)} at budget 1.0 chooses nothing"
        raise UsageError(message, "add --sieve auto, or a smaller --budget")
    return tuple(found)


def sieves_of(engine: Engine, sieves: Sequence[str], asking: Asking) -> tuple[str, ...]:
    """Names of sieves as this model has them: ``auto`` becomes its own.

    Raises:
        UsageError: one that it has not.
    """
    if OTHER in sieves and engine.model.thinker.model.compressor is None:
        raise UsageError(
            f"--sieve {OTHER} needs CS2", "this model's first layers sieve for the question that they read"
        )
    return tuple(
        sieve if sieve in (OTHER, SINGLE_PASS) else engine.choose(sieve_options(sieve, asking)).selection
        for sieve in sieves
    )


def evaluate(
    engine: Engine,
    questions: Sequence[Question],
    settings: Sequence[Condition],
    asking: Asking,
    watch: Callable[[ItemResult], None] = lambda result: None,
    before: Mapping[int, ItemResult] = MappingProxyType({}),
    reading: Callable[[str], Watch] = lambda path: unwatched,
) -> Iterator[tuple[Question, ItemResult]]:
    """Answer questions, those about one file or scene one after another: it is decoded and encoded once.

    An item whose media cannot be used, or for which memory does not suffice, is a failed item and no error.

    Args:
        watch: called with each result, as soon as it is there.
        before: results that are known, by their question's index; they are handed out again.
        reading: by a film's path, what follows its reading; an Interrupted that it raises ends everything.

    Yields:
        Questions with their results: media in the order in which they first appear, and of each its questions in
        their order.
    """
    by_media: dict[str, list[Question]] = {}
    for question in questions:
        by_media.setdefault(question.media, []).append(question)
    for about_one in by_media.values():
        # The last clip's or haystack's features are freed before the next one's.
        encoded: Encoded | Screened | EchopixError | None = None
        haystack: Haystack | None = None
        wanted = [question for question in about_one if question.index not in before and not question.fault]
        for question in about_one:
            result = before.get(question.index)
            if result is None and question.fault:
                result = _failed(question, settings, f"the file gives it {question.fault}")
            elif result is None and question.movie is not None:
                haystack = Haystack(engine, question.movie, asking) if haystack is None else haystack
                result = haystack.answered(question, settings)
            elif result is None:
                encoded = _encoded(engine, wanted, settings, asking, reading) if encoded is None else encoded
                result = _result_of(engine, encoded, question, settings, asking)
            watch(result)
            yield question, result


def _result_of(
    engine: Engine,
    encoded: Encoded | Screened | EchopixError,
    question: Question,
    settings: Sequence[Condition],
    asking: Asking,
) -> ItemResult:
    """One question's result; a failed one where its clip, or memory for it, is missing."""
    if isinstance(encoded, EchopixError):
        return _failed(question, settings, encoded.message)
    if isinstance(encoded, Screened):
        return answered(engine, encoded, question, settings, asking)
    try:
        return _answered(engine, encoded, question, settings, asking)
    except EchopixError as error:
        return _failed(question, settings, error.message)


def _encoded(
    engine: Engine,
    questions: Sequence[Question],
    settings: Sequence[Condition],
    asking: Asking,
    reading: Callable[[str], Watch],
) -> Encoded | Screened | EchopixError:
    """The clip that some questions are about after the towers, or a film's windows after the sieve; or why not."""
    question = questions[0]
    try:
        if question.script is None:
            return open_file(engine, question.media, questions, settings, asking, reading(question.media))
        times = sample_times(question.script.duration)
        return engine.encode(scene_clip(question.script, asking.side, times, asking.without))
    except Interrupted:
        raise
    except EchopixError as error:
        return bare(error)


def _failed(question: Question, settings: Sequence[Condition], reason: str) -> ItemResult:
    return result_of(question, 0, 0, dict.fromkeys(settings, Graded.failed(reason)))


@torch.inference_mode()
def _answered(
    engine: Engine, encoded: Encoded, question: Question, settings: Sequence[Condition], asking: Asking
) -> ItemResult:
    """One question about an encoded clip, with every setting.

    Raises:
        EchopixError: there is no room for the prompt, or it cannot be put together.
    """
    clock = Clock(engine.device)
    with memory_errors(engine.device), clock.stage("place"):
        posed = engine.pose(encoded, question.prompt, asking.system)
    rests_on = _evidence(engine, encoded, question, posed.prompt)
    outcomes: dict[Condition, Graded] = {}
    for choice, group in _by_scoring(engine, settings, asking):
        clock.seconds["score"] = 0.0
        try:
            with memory_errors(engine.device), clock.stage("score"):
                posed.score(choice)
        except EchopixError as error:
            outcomes |= dict.fromkeys(group, Graded.failed(error.message))
            continue
        for setting in group:
            try:
                with memory_errors(engine.device):
                    outcomes[setting] = _outcome(engine, encoded, question, posed, rests_on, setting, asking, clock)
            except EchopixError as error:
                outcomes[setting] = Graded.failed(error.message)
    special, ids = engine.model.thinker.special, posed.prompt.input_ids
    pool, sound = int(special.in_pool(ids).sum()), int((ids == special.audio).sum())
    in_order = {setting: outcomes[setting] for setting in settings}
    return result_of(question, pool, int(rests_on.sum()), in_order, sound, [encoded])


def _by_scoring(
    engine: Engine, settings: Sequence[Condition], asking: Asking
) -> Iterable[tuple[SieveChoice, list[Condition]]]:
    """Settings that share one pass of scoring, all of them where CS2 scores, with one of their choices."""
    groups: dict[object, tuple[SieveChoice, list[Condition]]] = {}
    for setting in settings:
        choice = scoring_of(engine, setting, asking)
        groups.setdefault(choice.first_layers, (choice, []))[1].append(setting)
    return groups.values()


def _outcome(
    engine: Engine,
    encoded: Encoded,
    question: Question,
    posed: Posed,
    rests_on: Tensor,
    setting: Condition,
    asking: Asking,
    clock: Clock,
) -> Graded:
    """Keep rows, answer, judge; ``clock`` already holds the time of scoring, which settings share."""
    stage = setting.name
    with clock.stage(stage):
        sieved = _sieved(engine, encoded, question, posed, setting, asking)
        text = _said(engine, sieved, question, asking)
    kept = sieved.kept[0]
    special, ids = engine.model.thinker.special, posed.prompt.input_ids[0][kept]
    audio = int((ids == special.audio).sum())
    pool = int(special.in_pool(ids).sum())
    return Graded(
        answer=text,
        right=question.is_right(text),
        rows=Rows(video=pool - audio, audio=audio, on_evidence=int(rests_on[kept].sum())),
        seconds=clock.seconds["place"] + clock.seconds["score"] + clock.seconds[stage],
    )


def _sieved(
    engine: Engine, encoded: Encoded, question: Question, posed: Posed, setting: Condition, asking: Asking
) -> Sieved:
    """What a setting hands to the decoder."""
    if setting.sieve == AROUND:
        return posed.unsieved
    options = options_of(setting, asking, question.index)
    if setting.sieve != OTHER:
        return posed.sift(options).sieved
    assert question.script is not None
    others = (item.question for item in question.script.items if item.question != question.question)
    first = engine.pose(encoded, next(others, _ANYTHING), asking.system)
    return posed.sieved_for(first, options)


def _said(engine: Engine, sieved: Sieved, question: Question, asking: Asking) -> str:
    """An answer to a sieved prompt: the likeliest of the options' letters with its option, or generated text.

    Raises:
        ModelError: letters are asked for, and the vocabulary has no tokens for them; or logits are no numbers.
    """
    thinker, processor = engine.model.thinker, engine.processor
    if asking.by_letters and question.choices:
        shares = letter_shares(thinker, sieved, letter_ids(processor, len(question.choices)))
        best = shares.index(max(shares))
        return lettered(LETTERS[best], question.choices[best])
    tokens = generate(thinker, sieved, max_new_tokens=asking.max_new_tokens, stop_ids=processor.stop_ids)
    return processor.text([int(token) for token in tokens]).strip()


def _evidence(engine: Engine, encoded: Encoded, question: Question, prompt: Prompt) -> Tensor:
    """Which prompt rows (L,) lie on the question's evidence; none where it has none."""
    ids, special = prompt.input_ids[0], engine.model.thinker.special
    rests_on = torch.zeros_like(ids, dtype=torch.bool)
    if question.evidence:
        inputs: Any = encoded.inputs
        picture, sound = evidence_rows(question.evidence, inputs.cells, inputs.grid_times, inputs.audio_rows)
        rests_on[ids == special.video] = torch.from_numpy(picture).to(ids.device)
        rests_on[ids == special.audio] = torch.from_numpy(sound).to(ids.device)
    return rests_on
