"""Answering with every setting: on the bundled model and its scenes, and on files that may be broken."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from echopix_cli.choices import posed
from echopix_cli.engine import AskOptions, Engine, GenerationOptions
from echopix_cli.engine.sieves import SieveChoice
from echopix_cli.errors import UsageError
from echopix_cli.evaluation import run as run_module
from echopix_cli.evaluation.asking import Asking, options_of
from echopix_cli.evaluation.questions import Question, load_questions
from echopix_cli.evaluation.report import make_report
from echopix_cli.evaluation.run import evaluate, settings_of, sieves_of
from echopix_cli.evaluation.values import SIEVES, Condition, Facts, ItemResult
from echopix_cli.model.processing import PixelRules
from echopix_cli.scenes import evidence_rows, frame_side, sample_times, scene_clip

SETTINGS = settings_of(SIEVES, [1.0, 0.1], around=True)
CS2, FULL = Condition("cs2", 0.1), Condition("cs2", 1.0)
PER_MODALITY, UNIFORM, RANDOM = (
    Condition("per-modality", 0.1),
    Condition("uniform", 0.1),
    Condition("random", 0.1),
)
NONE, AROUND = Condition("none", 0.0), Condition("without-cs2", 1.0)


@pytest.fixture(scope="module")
def questions() -> tuple[Question, ...]:
    return load_questions("scenes:test", 10, 0)


def answered(*arguments: Any) -> list[ItemResult]:
    return [result for _, result in evaluate(*arguments)]


@pytest.fixture(scope="module")
def results(engine: Engine, questions: tuple[Question, ...], asking: Asking) -> list[ItemResult]:
    return answered(engine, questions, SETTINGS, asking)


def facts(engine: Engine) -> Facts:
    return Facts("0", "today", "echopix eval", engine.facts, "scenes:test", 10, (), 0, {})


def test_settings() -> None:
    assert SETTINGS == (FULL, CS2, PER_MODALITY, UNIFORM, RANDOM, NONE, AROUND)
    names = ["cs2@1", "cs2@0.1", "per-modality@0.1", "uniform@0.1", "random@0.1", "none", "without-cs2"]
    assert [setting.name for setting in SETTINGS] == names
    assert settings_of(["random", "random"], [0.05, 0.2, 0.2]) == (
        Condition("random", 0.2),
        Condition("random", 0.05),
    )
    with pytest.raises(UsageError, match="chooses nothing"):
        settings_of(["random", "uniform"], [1.0])


def test_a_setting_answers_as_the_engine_does(
    engine: Engine, questions: tuple[Question, ...], results: list[ItemResult], asking: Asking
) -> None:
    for question, result in zip(questions[:5], results, strict=False):
        assert question.script is not None
        encoded = engine.encode(scene_clip(question.script, asking.side, sample_times(question.script.duration)))
        for setting in (FULL, CS2):
            answer = engine.ask(
                encoded, question.prompt, AskOptions(setting.budget, GenerationOptions(asking.max_new_tokens))
            )
            outcome = result.outcomes[setting]
            assert outcome.answer == answer.answer
            assert outcome.rows is not None
            assert (outcome.rows.video, outcome.rows.audio) == (answer.tokens.video.kept, answer.tokens.audio.kept)


def test_rows_kept_for_another_question_are_its_own(
    engine: Engine, questions: tuple[Question, ...], asking: Asking
) -> None:
    """As many as for the question itself; which ones, the scene's next question says."""
    names = sieves_of(engine, ["auto", "other-question"], asking)
    settings = settings_of(names, [1.0, 0.1])
    assert [one.name for one in settings] == ["cs2@1", "cs2@0.1", "other-question@1", "other-question@0.1"]
    found = answered(engine, questions[:5], settings, asking)
    moved = 0
    for question, result in zip(questions[:5], found, strict=True):
        assert question.script is not None and len(question.script.items) > 1
        own, other = (result.outcomes[Condition(name, 0.1)].rows for name in ("cs2", "other-question"))
        assert own is not None and other is not None and own.kept == other.kept
        (theirs,) = answered(engine, [replace(question, question=question.script.items[1].question)], [CS2], asking)
        assert theirs.outcomes[CS2].rows == other
        moved += own != other
    assert moved > 0


def test_every_setting_keeps_what_its_budget_says(results: list[ItemResult]) -> None:
    for result in results:
        rows = {setting: outcome.rows for setting, outcome in result.outcomes.items()}
        assert all(row is not None for row in rows.values())
        whole = rows[FULL]
        assert whole.kept == result.pool == rows[AROUND].kept
        assert whole.on_evidence == result.evidence > 0 or not whole.audio
        for setting in (CS2, UNIFORM, RANDOM):
            assert rows[setting].kept == math.ceil(0.1 * result.pool)
        each = rows[PER_MODALITY]
        assert (each.video, each.audio) == (math.ceil(0.1 * whole.video), math.ceil(0.1 * whole.audio))
        assert rows[NONE].kept == rows[NONE].on_evidence == 0
        assert all(row.on_evidence <= min(row.kept, result.evidence) for row in rows.values())


def test_the_bundled_model_knows_silence(results: list[ItemResult]) -> None:
    """The plumbing reaches real answers: a family that the bundled model always gets right."""
    (silent,) = (result for result in results if result.family == "silent")
    assert silent.outcomes[FULL].right


def test_evidence_lies_on_the_rows_of_its_modality(
    engine: Engine, questions: tuple[Question, ...], results: list[ItemResult], asking: Asking
) -> None:
    heard = questions[0]
    assert {piece.modality for piece in heard.evidence} == {"audio"}
    assert heard.script is not None
    encoded = engine.encode(scene_clip(heard.script, asking.side, sample_times(heard.script.duration)))
    prompt = engine.place(encoded, heard.prompt)
    found = run_module._evidence(engine, encoded, heard, prompt)
    inputs = encoded.inputs
    picture, sound = evidence_rows(heard.evidence, inputs.cells, inputs.grid_times, inputs.audio_rows)
    is_audio = prompt.input_ids[0] == engine.model.thinker.special.audio
    assert not picture.any()
    assert torch.equal(found[is_audio], torch.from_numpy(sound))
    assert not found[~is_audio].any()
    assert int(found.sum()) == results[0].evidence


def kept_rows(engine: Engine, question: Question, asking: Asking, *settings: Condition) -> list[set[int]]:
    """Pool rows that settings keep of one scene."""
    assert question.script is not None
    encoded = engine.encode(scene_clip(question.script, asking.side, sample_times(question.script.duration)))
    posed = engine.pose(encoded, question.prompt)
    return [
        set(posed.sift(options_of(setting, asking, question.index)).sieved.kept[0].tolist()) for setting in settings
    ]


def test_random_is_reproducible_and_nested(
    engine: Engine, questions: tuple[Question, ...], results: list[ItemResult], asking: Asking
) -> None:
    few, more, again = kept_rows(engine, questions[0], asking, RANDOM, Condition("random", 0.2), RANDOM)
    assert few == again
    assert few < more
    assert kept_rows(engine, questions[0], replace(asking, seed=1), RANDOM) != [few]
    assert kept_rows(engine, replace(questions[0], index=1), asking, RANDOM) != [few]
    # Alone or among others, an item gets the same rows and answers.
    (alone,) = answered(engine, questions[3:4], SETTINGS, asking)
    for setting in SETTINGS:
        ours, theirs = alone.outcomes[setting], results[3].outcomes[setting]
        assert (ours.answer, ours.right, ours.rows) == (theirs.answer, theirs.right, theirs.rows)


def test_random_keeps_its_share_of_the_evidence(
    engine: Engine, questions: tuple[Question, ...], asking: Asking
) -> None:
    """Over many seeds the share of kept rows on the evidence is the pool's own, within four standard errors."""
    question = questions[0]
    assert question.script is not None
    encoded = engine.encode(scene_clip(question.script, 112, sample_times(question.script.duration)))
    posed = engine.pose(encoded, question.prompt)
    in_pool = posed.score(SieveChoice("random")).in_pool[0]
    rests_on = run_module._evidence(engine, encoded, question, posed.prompt)
    shares = []
    for seed in range(150):
        kept = posed.sift(options_of(RANDOM, replace(asking, seed=seed), 0)).sieved.kept[0]
        shares.append(float(rests_on[kept][in_pool[kept]].float().mean()))
    expected = float(rests_on.sum() / in_pool.sum())
    assert abs(np.mean(shares) - expected) < 4 * np.std(shares) / math.sqrt(len(shares))


def test_around_the_sieve_is_budget_one_without_cs2(
    engine: Engine, questions: tuple[Question, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    question = questions[0]
    assert question.script is not None
    encoded = engine.encode(scene_clip(question.script, 112, sample_times(question.script.duration)))
    thinker = engine.model.thinker
    monkeypatch.setitem(thinker.model._modules, "bidir_encoder", None)
    posed = engine.pose(encoded, question.prompt)
    theirs, ours = posed.sift(AskOptions(1.0)).sieved, posed.unsieved
    assert torch.equal(ours.hidden, theirs.hidden)
    assert torch.equal(ours.position_ids, theirs.position_ids)
    assert torch.equal(ours.kept[0], theirs.kept[0])
    assert torch.equal(ours.next_position, theirs.next_position)
    assert ours.attention_mask is theirs.attention_mask is None


def jsonl(path: Path, *records: dict[str, Any]) -> tuple[Question, ...]:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return load_questions(str(path), None, 0)


def test_towers_run_once_a_clip_and_cs2_once_a_question(
    engine: Engine, asking: Asking, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"encode_pixels": 0, "encode_mel": 0, "score": 0}

    def count(name: str) -> None:
        real = getattr(engine.model.thinker, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            calls[name] += 1
            return real(*arguments, **named)

        monkeypatch.setattr(engine.model.thinker, name, counted)

    for name in calls:
        count(name)
    both = {"media": str(clips["both"]), "question": "What do you see?", "answer": "dog"}
    dark = {**both, "media": str(clips["dark"])}  # sound alone
    asked = jsonl(tmp_path / "q.jsonl", both, dark, {**both, "question": "What do you hear?"}, dark, both)
    settings, few = [FULL, CS2, RANDOM], replace(asking, max_new_tokens=2)
    pairs = list(evaluate(engine, asked, settings, few))
    assert [question.index for question, _ in pairs] == [0, 2, 4, 1, 3]
    assert calls == {"encode_pixels": 1, "encode_mel": 2, "score": 5}
    results = {question.index: result for question, result in pairs}
    assert results[0].outcomes[CS2].answer == results[4].outcomes[CS2].answer
    again = dict(evaluate(engine, asked, settings, few, lambda result: None, {n: results[n] for n in (0, 1, 2, 3)}))
    assert {question.index: result.media for question, result in again.items()} == {
        n: q.media for n, q in enumerate(asked)
    }
    assert calls == {"encode_pixels": 2, "encode_mel": 3, "score": 6}, "only what is not known is encoded again"


def test_a_failed_item_counts_as_wrong_and_is_listed(
    engine: Engine, asking: Asking, clips: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    question = {"question": "What do you see?", "answer": "dog"}
    asked = jsonl(
        tmp_path / "q.jsonl",
        {**question, "media": str(clips["both"]), "id": "fine"},
        {**question, "media": "gone.mp4", "id": "gone"},
        {**question, "media": "broken.mp4", "id": "broken"},
        {**question, "media": "broken.mp4", "id": "broken-too"},
        {**question, "media": "a\0b.mp4", "id": "odd"},
    )
    items = answered(engine, asked, [CS2, NONE], replace(asking, max_new_tokens=2))
    report = make_report(facts(engine), items, [CS2, NONE], 1.0)
    assert [(failure.id, failure.setting) for failure in report.failures] == [
        (name, None) for name in ("gone", "broken", "broken-too", "odd")
    ]
    assert "gone.mp4" in report.failures[0].reason
    for result in report.results:
        assert (result.overall.total, result.overall.failed) == (5, 4)
        assert result.overall.right <= 1
    assert items[0].outcomes[CS2].answer is not None
    assert items[1].outcomes[CS2].answer is None


def test_one_setting_may_fail_alone(
    engine: Engine, questions: tuple[Question, ...], asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run_module.generate

    def short_of_memory(thinker: Any, sieved: Any, **named: Any) -> Any:
        if len(sieved.kept[0]) > 300:
            raise MemoryError
        return real(thinker, sieved, **named)

    monkeypatch.setattr(run_module, "generate", short_of_memory)
    items = answered(engine, questions[:1], [FULL, CS2], asking)
    report = make_report(facts(engine), items, [FULL, CS2], 1.0)
    (failure,) = report.failures
    assert (failure.id, failure.setting) == ("scene:test:0", "cs2@1")
    assert "memory" in failure.reason
    assert [result.overall.failed for result in report.results] == [1, 0]


def test_a_programming_error_is_no_failed_item(
    engine: Engine, questions: tuple[Question, ...], asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "generate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answered(engine, questions[:1], [CS2], asking)


def test_a_modality_left_out_has_no_rows(engine: Engine, questions: tuple[Question, ...], asking: Asking) -> None:
    deaf = replace(asking, plan=replace(asking.plan, audio=False))
    blind = replace(asking, plan=replace(asking.plan, video=False))
    (unheard,), (unseen,) = (answered(engine, questions[:1], [FULL], how) for how in (deaf, blind))
    assert unheard.outcomes[FULL].rows.audio == 0 < unheard.outcomes[FULL].rows.video
    assert unseen.outcomes[FULL].rows.video == 0 < unseen.outcomes[FULL].rows.audio
    assert unheard.evidence == 0 < unseen.evidence


def test_choices_are_shown_and_their_letters_count(
    engine: Engine, asking: Asking, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    real = engine.processor.prompt_ids

    def watched(question: str, *rest: Any) -> Any:
        shown.append(question)
        return real(question, *rest)

    monkeypatch.setattr(engine.processor, "prompt_ids", watched)
    monkeypatch.setattr(engine.processor, "text", lambda ids: " B. ")
    record = {"media": str(clips["both"]), "question": "What?", "answer": "dog", "choices": ["cat", "dog"]}
    asked = jsonl(tmp_path / "q.jsonl", record, {**record, "answer": "cat"})
    right, wrong = answered(engine, asked, [CS2], replace(asking, max_new_tokens=1))
    assert shown == ["What?\nA. cat\nB. dog"] * 2
    assert (right.outcomes[CS2].right, wrong.outcomes[CS2].right) == (True, False)


@pytest.mark.parametrize(
    ("trained", "wish", "side"),
    [(None, None, 112), (12544, None, 112), (12544, 50176, 224), (None, 20000, 140), (784, None, 28), (None, 784, 28)],
)
def test_frame_side(trained: int | None, wish: int | None, side: int) -> None:
    assert frame_side(wish or trained, PixelRules().size_factor) == side


def test_letters_decide_as_choices_of_ask_do(engine: Engine, asking: Asking, clips: dict[str, Path]) -> None:
    """The option whose letter the model finds likeliest, whatever text it would write."""
    path, choices = str(clips["both"]), ("a dog", "", "a violin")
    asked = [Question(gold, "q", path, "f", "What?", "A. a dog", choices, gold=gold) for gold in range(3)]
    results = answered(engine, asked, [FULL, CS2], replace(asking, by_letters=True))
    for setting in (FULL, CS2):
        options = AskOptions(setting.budget)
        best = engine.decide(engine.read(path, asking.plan), "What?", choices, options, posed("What?", choices)).choices
        letter = max(best, key=lambda choice: choice.probability).letter
        for question, result in zip(asked, results, strict=True):
            outcome = result.outcomes[setting]
            assert outcome.answer == f"{letter}. {choices['ABC'.index(letter)]}".strip()
            assert outcome.right == (question.gold == "ABC".index(letter))


def test_what_the_file_gets_wrong_is_a_failed_item_and_decodes_nothing(engine: Engine, asking: Asking) -> None:
    question = Question(0, "q", "", "f", "What?", "A", ("a", "b"), groups=(("audio", "Music"),), fault="no video")
    (result,) = answered(engine, [question], [FULL, NONE], replace(asking, by_letters=True))
    assert {outcome.failure for outcome in result.outcomes.values()} == {"the file gives it no video"}
    assert not any(outcome.right for outcome in result.outcomes.values())
    (full, _) = make_report(facts(engine), [result], [FULL, NONE], 1.0).results
    assert (full.groups["audio"]["Music"].total, full.groups["audio"]["Music"].failed) == (1, 1)
