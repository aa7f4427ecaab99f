"""Which sieve answers: what a model has, what is wanted of it, and what the answer says about it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from echopix_cli.engine import AskOptions, Encoded, Engine, GenerationOptions, SieveOptions
from echopix_cli.engine.sieves import SieveChoice
from echopix_cli.errors import UsageError
from echopix_cli.measure.profiling import profile
from echopix_cli.media import DecodePlan

SHORT = GenerationOptions(max_new_tokens=4)
POOL = 36 + 77  # merged cells of six frames, and rows of three seconds of sound


@pytest.fixture(scope="module")
def encoded(stock_engine: Engine, clips: dict[str, Path]) -> Encoded:
    return stock_engine.read(str(clips["both"]), stock_engine.plan(DecodePlan()))


def test_every_model_has_its_own_sieve_and_all_controls(stock_engine: Engine, random_engine: Engine) -> None:
    controls = ("per-modality", "uniform", "random", "none")
    assert stock_engine.sieves == ("question-attention", *controls)
    assert random_engine.sieves == ("cs2", *controls)


@pytest.mark.parametrize(
    ("wanted", "budget", "share"),
    [
        (SieveOptions(), 0.05, 0.5),
        (SieveOptions(), 0.19, 0.5),
        (SieveOptions(), 0.2, None),
        (SieveOptions(), 1.0, None),
        (SieveOptions(prefilter=False), 0.2, None),
        (SieveOptions(prefilter=True), 0.2, 0.5),
        (SieveOptions(prefilter=True), 0.7, 0.7),
        (SieveOptions(prefilter=True), 1.0, None),
    ],
)
def test_the_redundancy_stage_runs_where_half_is_too_much(
    stock_engine: Engine, wanted: SieveOptions, budget: float, share: float | None
) -> None:
    assert stock_engine.choose(wanted, budget) == SieveChoice("question-attention", 1, share)


def test_controls_have_no_redundancy_stage_and_the_same_layer(stock_engine: Engine) -> None:
    for name in stock_engine.sieves[1:]:
        assert stock_engine.choose(SieveOptions(name, 2), 0.1) == SieveChoice(name, 2, None)


@pytest.mark.parametrize(
    ("model", "wanted", "said", "hint"),
    [
        ("stock", SieveOptions("cs2"), "cannot sieve by cs2: it has no CS2", "auto, question-attention, per-modality"),
        ("stock", SieveOptions("foo"), "cannot sieve by foo", "auto, question-attention"),
        ("stock", SieveOptions(layer=3), "no decoder layer 3: they are numbered 0 to 2", "a third"),
        ("stock", SieveOptions("random", prefilter=True), "random chooses without it", "leave"),
        ("trained", SieveOptions("question-attention"), "its sieve is cs2", "auto, cs2, per-modality"),
        ("trained", SieveOptions(prefilter=True), "--prefilter is for models without CS2", "leave"),
        ("trained", SieveOptions("uniform", layer=1), "--question-layer is for models without CS2", "leave"),
    ],
)
def test_what_a_model_has_not(
    stock_engine: Engine,
    random_engine: Engine,
    encoded: Encoded,
    model: str,
    wanted: SieveOptions,
    said: str,
    hint: str,
) -> None:
    engine = {"stock": stock_engine, "trained": random_engine}[model]
    with pytest.raises(UsageError, match=said) as caught:
        engine.ask(encoded, "What?", AskOptions(0.2, SHORT, wanted))
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["auto", "question-attention", "per-modality", "uniform", "random", "none"])
def test_an_answer_says_what_chose_its_tokens(stock_engine: Engine, encoded: Encoded, name: str) -> None:
    answer = stock_engine.ask(encoded, "What instrument is playing?", AskOptions(None, SHORT, SieveOptions(name)))
    assert answer.sieve == ("question-attention" if name == "auto" else name)
    assert answer.question_layer == 1
    assert answer.prefilter is None  # at the default budget
    few = stock_engine.ask(encoded, "What?", AskOptions(0.1, SHORT, SieveOptions(name)))
    assert few.prefilter == (0.5 if answer.sieve == "question-attention" else None)
    assert answer.budget == (0.0 if name == "none" else 0.2)
    both = {"none": 0, "per-modality": math.ceil(0.2 * 36) + math.ceil(0.2 * 77)}
    assert answer.tokens.kept == both.get(name, math.ceil(0.2 * POOL))


def test_a_trained_model_says_so_and_names_no_layer(random_engine: Engine, encoded: Encoded) -> None:
    for name in ("auto", "random"):
        answer = random_engine.ask(encoded, "What?", AskOptions(0.2, SHORT, SieveOptions(name)))
        assert answer.sieve == ("cs2" if name == "auto" else name)
        assert (answer.question_layer, answer.prefilter) == (None, None)


def test_random_follows_its_seed(stock_engine: Engine, encoded: Encoded) -> None:
    def kept(seed: int) -> int:
        return stock_engine.ask(
            encoded, "What?", AskOptions(0.3, SHORT, SieveOptions("random", seed=seed))
        ).tokens.video.kept

    assert kept(1) == kept(1)
    assert len({kept(seed) for seed in range(6)}) > 1


def test_the_layer_is_the_users(stock_engine: Engine, encoded: Encoded) -> None:
    """At budget 1 the layer changes nothing: everything goes through all layers, wherever they are cut."""
    answers = {
        stock_engine.ask(encoded, "What?", AskOptions(1.0, SHORT, SieveOptions(layer=layer))).answer
        for layer in (None, 0, 1, 2)
    }
    assert len(answers) == 1
    assert stock_engine.ask(encoded, "What?", AskOptions(0.2, SHORT, SieveOptions(layer=2))).question_layer == 2


@pytest.mark.parametrize("clip", ["both", "silent", "dark"])
def test_every_kind_of_clip(stock_engine: Engine, clips: dict[str, Path], clip: str) -> None:
    tokens = stock_engine.ask(
        stock_engine.read(str(clips[clip]), stock_engine.plan(DecodePlan())), "What?", AskOptions(0.1, SHORT)
    ).tokens
    assert tokens.kept == math.ceil(0.1 * tokens.total)


def test_a_profile_keeps_everything_beside_what_is_measured(stock_engine: Engine, clips: dict[str, Path]) -> None:
    result = profile(
        stock_engine,
        str(clips["both"]),
        stock_engine.plan(DecodePlan()),
        "What?",
        [0.1],
        repeat=1,
        warmup=0,
        options=AskOptions(None, SHORT, SieveOptions("none")),
    )
    assert [(row.answer.sieve, row.answer.tokens.kept) for row in result.rows] == [
        ("question-attention", POOL),
        ("none", 0),
    ]


@pytest.mark.parametrize("budget", [0.2, 1.0])
def test_rows_that_were_kept_for_another_question(
    random_engine: Engine, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, budget: float
) -> None:
    """Where text rows stay raw past CS2, a question's own rows are what its sieve gives; another's are the other's."""
    monkeypatch.setattr(random_engine.model.thinker.config.text_config, "sieve_output", "media")
    encoded = random_engine.read(str(clips["both"]), random_engine.plan(DecodePlan()))
    options = AskOptions(budget)
    first, second = (random_engine.pose(encoded, question) for question in ("What?", "Which one of them is it?"))
    own, plain = second.sieved_for(second, options), second.sift(options).sieved
    assert torch.equal(own.hidden, plain.hidden) and torch.equal(own.kept[0], plain.kept[0])
    assert torch.equal(own.position_ids, plain.position_ids) and torch.equal(own.next_position, plain.next_position)
    other, theirs = second.sieved_for(first, options), first.sift(options).sieved
    pool = random_engine.model.thinker.special.in_pool(second.prompt.input_ids[0])
    media = int(pool.nonzero().max()) + 1
    count = int((theirs.kept[0] < media).sum())
    assert torch.equal(other.hidden[:, :count], theirs.hidden[:, :count])
    assert torch.equal(other.hidden[:, count:], second.prompt.embeds[:, media:])
    assert int(pool[other.kept[0]].sum()) == int(pool[plain.kept[0]].sum())


def test_without_media_all_rows_are_the_questions_own(random_engine: Engine, clips: dict[str, Path]) -> None:
    encoded = random_engine.read(str(clips["both"]), random_engine.plan(DecodePlan()))
    posed = random_engine.pose(encoded, "Which?")
    sieved = posed.sieved_for(random_engine.pose(encoded, "What?"), AskOptions(1.0, sieve=SieveOptions("none")))
    text = ~random_engine.model.thinker.special.in_pool(posed.prompt.input_ids[0])
    assert sieved.kept[0].tolist() == text.nonzero()[:, 0].tolist()
