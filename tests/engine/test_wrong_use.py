"""Python's own mistakes end in an error of ours that says what is wrong, and a path may be any that Python has."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from echopix_cli.engine import AskOptions, Encoded, Engine, GenerationOptions
from echopix_cli.engine.opening import open_media
from echopix_cli.engine.options import FilmOptions
from echopix_cli.errors import ModelError, UsageError
from echopix_cli.media import DecodePlan
from echopix_cli.results import Turn

SHORT = GenerationOptions(max_new_tokens=2)
PLAN = DecodePlan(max_frames=4)


@pytest.fixture(scope="module")
def encoded(random_engine: Engine, clips: dict[str, Path]) -> Encoded:
    return random_engine.read(clips["both"], random_engine.plan(PLAN))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: GenerationOptions(max_new_tokens=0), "max_new_tokens 0 is below 1"),
        (lambda: GenerationOptions(max_new_tokens=-20), "max_new_tokens -20 is below 1"),
        (lambda: GenerationOptions(temperature=math.nan), "temperature nan is negative or not finite"),
        (lambda: GenerationOptions(temperature=math.inf), "temperature inf is negative or not finite"),
        (lambda: GenerationOptions(temperature=-0.5), "temperature -0.5 is negative or not finite"),
        (lambda: GenerationOptions(seed=2**63), f"seed {2**63} is no number of 64 bits with its sign"),
        (lambda: FilmOptions(window=-2.0), "a window of -2 s is no finite time above 0"),
        (lambda: FilmOptions(window=0.0), "a window of 0 s is no finite time above 0"),
        (lambda: FilmOptions(window=math.nan), "a window of nan s is no finite time above 0"),
        (lambda: FilmOptions(window=math.inf), "a window of inf s is no finite time above 0"),
        (lambda: FilmOptions(look=-1), "look -1 is below 0"),
    ],
)
def test_options_that_make_no_answer_are_refused(made: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        made()
    assert caught.value.message == said and caught.value.hint


@pytest.mark.parametrize("seed", [-(2**63), 2**63 - 1])
def test_the_last_seeds_are_drawn_from(random_engine: Engine, encoded: Encoded, seed: int) -> None:
    options = AskOptions(generation=GenerationOptions(1, temperature=2.0, seed=seed))
    assert random_engine.ask(encoded, "What?", options).tokens.generated == 1


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ([], "0 choices; between 2 and 26 are possible"),
        (["piano"], "1 choices; between 2 and 26 are possible"),
        ([str(number) for number in range(27)], "27 choices; between 2 and 26 are possible"),
        (["piano", " "], "a choice is empty"),
        (["piano", "piano"], "two choices are the same"),
        (["piano", "\udc80"], "a choice is not valid UTF-8"),
    ],
)
def test_choices_of_which_none_can_be_chosen_are_refused(
    random_engine: Engine, encoded: Encoded, choices: list[str], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        random_engine.decide(encoded, "What?", choices)
    assert caught.value.message == said


@pytest.mark.parametrize(
    ("question", "system", "earlier"),
    [
        ("What \udc80", SHORT.system, ()),
        ("What?", "Be \udc80", ()),
        ("What?", SHORT.system, (Turn("What \udc80", "a dog"),)),
        ("What?", SHORT.system, (Turn("What?", "a \udc80"),)),
    ],
)
def test_text_that_is_none_is_refused(
    random_engine: Engine, encoded: Encoded, question: str, system: str, earlier: tuple[Turn, ...]
) -> None:
    options = AskOptions(generation=GenerationOptions(2, system=system), earlier=earlier)
    with pytest.raises(UsageError) as caught:
        random_engine.ask(encoded, question, options)
    assert caught.value.message == "the question, or what goes with it, is not valid UTF-8"


def test_a_path_is_any_that_python_has(random_engine: Engine, random_checkpoint: Path, clips: dict[str, Path]) -> None:
    """What answers say of the file is text."""
    name, plan = str(clips["both"]), random_engine.plan(PLAN)
    (film,) = open_media(random_engine, clips["both"], plan, ["What?"], films=FilmOptions(window=1.0))
    assert film.survivors is not None
    for read in (film, random_engine.read(clips["both"], plan)):
        media = random_engine.ask(read, "What?", AskOptions(generation=SHORT)).media
        assert (type(read.path), read.path, type(media), media) == (str, name, str, name)
    assert Engine.load(random_checkpoint, "cpu").source.folder == random_checkpoint


def test_a_path_is_no_models_name(random_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the bundled model has it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"no model named '\./tiny', and no such folder"):
        Engine.load(Path("tiny"), "cpu")
    shutil.copytree(random_checkpoint, tmp_path / "tiny")
    assert not Engine.load(Path("tiny"), "cpu").facts.demonstration
    assert Engine.load("tiny", "cpu").facts.demonstration
