"""Questions put with options behind letters."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from echopix_cli.choices import LETTERS, clean_choices
from echopix_cli.engine.choices import letter_ids
from echopix_cli.evaluation.matching import is_right
from echopix_cli.model.processing import Processor
from echopix_cli.model.values import IGNORE
from echopix_cli.scenes import Item, ask_as_movie, make_script
from echopix_cli.scenes.script import NUMBERS
from echopix_cli.training.data import SceneBatches
from echopix_cli.training.letters import is_lettered, lettered

FAMILIES = ("list", "each", "count", "corner", "silent", "dark", "exists", "when")


@pytest.fixture(scope="module")
def items() -> list[Item]:
    found = []
    for seed in range(80):
        script = make_script("wide-train", seed, FAMILIES[seed % len(FAMILIES)])
        found += [*script.items, *ask_as_movie(np.random.default_rng(seed), script)]
    return found


def options_of(item: Item) -> tuple[str, list[str]]:
    question, *lines = item.question.split("\n")
    assert [line[:3] for line in lines] == [f"{letter}. " for letter in LETTERS[: len(lines)]]
    return question, [line[3:] for line in lines]


def test_one_option_is_right_and_the_others_are_of_its_kind(items: list[Item]) -> None:
    letters, sizes = Counter[str](), Counter[int]()
    for number, item in enumerate(items):
        made = lettered(item, np.random.default_rng(number))
        question, options = options_of(made)
        assert (question, made.family, made.evidence) == (item.question, item.family, item.evidence)
        assert clean_choices(options) == tuple(options), "as a user could give them"
        assert options[LETTERS.index(made.answer)] == item.answer
        assert is_right(made.answer, item.answer, options)
        assert is_lettered(made) and not is_lettered(item)
        letters[made.answer] += 1
        sizes[len(options)] += 1
        if item.answer in ("yes", "no"):
            assert sorted(options) == ["no", "yes"]
        if ", " in item.answer:
            assert {len(option.split(", ")) for option in options} == {item.answer.count(", ") + 1}
        if "fifth" in item.question:
            assert set(options) <= set(NUMBERS)
        if " or " in item.question:
            assert all(re.search(rf"\b{name}\b", question) for name in options[:2] if len(options) == 2)
    assert set(sizes) == {2, 3, 4, 5} and set(letters) == set("ABCDE")
    assert letters["A"] < 0.5 * sum(letters.values())


def test_a_share_of_training_has_letters_and_is_answered_with_the_token_that_choices_look_at(
    processor: Processor,
) -> None:
    data = SceneBatches(processor, "train", 8, ("when", "count"), 2, questions=3, letters=0.5)
    ids, known = letter_ids(processor, 5), Counter[bool]()
    for drawn in map(data.drawn, range(40)):
        for item, row in zip(drawn.items, drawn.example.rows, strict=True):
            known[is_lettered(item)] += 1
            reply = row.labels[row.labels != IGNORE].tolist()
            assert (reply[0] == ids[LETTERS.index(item.answer)]) if is_lettered(item) else (reply[0] not in ids)
            # What the question looks for is in its own line, not among the options below.
            place = int(row.asking[0])
            read = processor.text(row.ids[: place + 1].tolist())
            assert "\nA. " not in read or place == len(row.ids) - len(reply) - 1
    assert 0.3 < known[True] / known.total() < 0.7
