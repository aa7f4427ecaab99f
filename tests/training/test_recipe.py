"""Recipes of training runs: what a file says is what the run does, and what the run's folder says repeats it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echopix_cli.errors import UsageError
from echopix_cli.scenes import FAMILIES, WIDE_FAMILIES
from echopix_cli.training.recipe import RECIPE, Recipe, read_assignments, read_values
from echopix_cli.training.start import begin
from echopix_cli.weights.registry import find_model

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
# What the command line took before recipes were files.
EARLIER = {
    *("base", "data", "families", "questions", "fps", "max_frames", "max_pixels", "stage", "freeze_towers", "adapters"),
    *(
        "quantize",
        "sieve_layers",
        "sieve_view",
        "rope_axes",
        "steps",
        "batch_size",
        "accumulate",
        "optimizer",
        "warmup",
    ),
    *("learning_rate", "decay", "budget_low", "budget_high", "checkpointing", "checkpoint_every", "validate_every"),
    *("validate_batches", "seed", "hearing", "seeing", "binding", "pointing", "evidence", "hide_bands", "teacher"),
    "teaching",
}


def drawn(name: str) -> st.SearchStrategy[object]:
    """Values that fit a key."""
    own = RECIPE[name]
    default = getattr(Recipe(), name)
    if name == "base":
        return TEXT.map("/nowhere/{}".format)
    if name == "families":
        return st.lists(st.sampled_from(FAMILIES), min_size=1).map(tuple)
    if own.metavar == "N" or isinstance(default, int):
        return st.booleans() if own.switch else st.integers(3, 4) if name == "rope_axes" else st.integers(1, 10**12)
    if isinstance(default, float):
        return st.floats(1e-300, 1.0)
    words = [word for word in own.metavar.split("|") if word.islower()]
    return st.sampled_from(words) if words else st.just(default)


@settings(max_examples=50)
@given(st.fixed_dictionaries({name: drawn(name) for name in RECIPE}))
def test_what_is_written_is_read(values: dict[str, object]) -> None:
    values["budget_low"], values["budget_high"] = sorted((values["budget_low"], values["budget_high"]))  # type: ignore[type-var]
    recipe = replace(Recipe(), **values)  # type: ignore[arg-type]
    with TemporaryDirectory() as folder:
        recipe.save(Path(folder))
        assert Recipe.load(Path(folder)) == recipe


def test_every_earlier_option_is_a_key() -> None:
    assert set(RECIPE) >= EARLIER
    assert set(RECIPE) == set(asdict(Recipe()))


def test_a_file_says_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / "mine.toml"
    path.write_text(
        'base = "run"\ndata = "my.jsonl"\nlearning_rate = 1e-3\nbudget_low = "10%"\nfreeze_towers = true\n'
        'families = ["instrument", "order"]\nsteps = 7\n'
    )
    assert read_values(path) == {
        "base": str(tmp_path / "run"), "data": str(tmp_path / "my.jsonl"), "learning_rate": 1e-3, "budget_low": 0.1,
        "freeze_towers": True, "families": ("instrument", "order"), "steps": 7,
    }  # fmt: skip
    path.write_text('base = "tiny"\ndata = "scenes"\nfamilies = "dark, dark"\n')
    (tmp_path / "tiny").mkdir()  # a known name is no folder, here as on the command line
    assert read_values(path) == {"base": "tiny", "data": "scenes", "families": ("dark", "dark")}


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ("lerning_rate = 1", "sets 'lerning_rate', which is no recipe key", "learning_rate"),
        ("steps = 0", "steps: 0 does not fit: expected a whole number of at least 1", "steps: optimizer steps"),
        ("steps = true", "steps: True does not fit: true or false means nothing here", ""),
        ("steps = 2.5", "steps: 2.5 does not fit", ""),
        ("checkpointing = 1", "checkpointing: 1 does not fit: expected true or false", ""),
        ("decay = 1.5", "expected a number from 0 to 1", ""),
        ("hearing = nan", "expected a number of at least 0", ""),
        ("rope_axes = 2", "expected 3 or 4", ""),
        ('stage = "sive"', "did you mean sieve?", ""),
        ('families = ["ordr"]', "did you mean order?", ""),
        ("steps =", "cannot read", "mend"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path: Path, line: str, said: str, hint: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(line + "\n")
    with pytest.raises(UsageError) as failed:
        read_values(path)
    assert str(path) in failed.value.message
    assert said in failed.value.message
    assert hint in (failed.value.hint or "")


@pytest.mark.parametrize("values", [{"budget_low": 0.5, "budget_high": 0.1}, {"budget_high": 0.04}])
def test_budgets_are_drawn_from_the_smaller_to_the_larger(values: dict[str, float]) -> None:
    with pytest.raises(UsageError) as failed:
        Recipe(**values)  # type: ignore[arg-type]
    low, high = values.get("budget_low", 0.05), values.get("budget_high", 1.0)
    assert failed.value.message == f"budget_low {low} is above budget_high {high}"
    assert [Recipe(budget_low=0.2, budget_high=0.2).budget(draw) for draw in (0.0, 0.5)] == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data": "mine.jsonl"}, "mine.jsonl has none"),
        ({"hearing": 0.0, "seeing": 0.0}, "both weigh 0"),
        ({"data": "wide", "hearing": 0.0, "seeing": 0.0}, "both weigh 0"),
    ],
)
def test_towers_have_something_to_learn_from(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as failed:
        Recipe(stage="towers", **values)  # type: ignore[arg-type]
    assert failed.value.message == f"stage towers learns from rendered scenes, by hearing or seeing: {said}"
    for fine in ({"hearing": 0.0}, {"seeing": 0.0}, {"data": "wide"}):
        assert Recipe(stage="towers", **fine).stage == "towers"  # type: ignore[arg-type]
    assert Recipe(**values).stage == "sieve"  # type: ignore[arg-type]


def test_assignments_are_read_as_the_file_is() -> None:
    lines = ("steps=3", "families=dark,order", "checkpointing = yes", "base=a=b")
    assert read_assignments(lines) == {
        "steps": 3, "families": ("dark", "order"), "checkpointing": True, "base": "a=b",
    }  # fmt: skip


def test_runs_of_before_go_on(tmp_path: Path) -> None:
    recipe = Recipe(steps=3, families=("dark",), fps=1.0)
    (tmp_path / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2))
    assert Recipe.load(tmp_path) == recipe
    assert Recipe.load(tmp_path / "elsewhere") is None
    (tmp_path / "recipe.json").write_text("[")
    with pytest.raises(UsageError, match="cannot read"):
        Recipe.load(tmp_path)


def test_scenes_have_splits_and_families_of_their_own() -> None:
    assert (Recipe().splits, Recipe().asked) == (("train", "val"), FAMILIES)
    wide = Recipe(data="wide")
    assert (wide.splits, wide.asked) == (("wide-train", "wide-val"), WIDE_FAMILIES)
    assert Recipe(data="wide", families=("each", "each", "list")).asked == ("each", "each", "list")
    assert (Recipe(data="mine.jsonl").splits, Recipe(data="mine.jsonl").asked) == (None, ())
    with pytest.raises(UsageError) as failed:
        Recipe(families=("dark", "corner"))
    assert "'corner'" in failed.value.message and "data=wide" in str(failed.value.hint)


def test_what_a_recipe_says_of_the_model_is_what_is_trained(random_checkpoint: Path) -> None:
    """What it leaves out is as the base has it; what it gives takes the place of that, whichever way."""
    device = torch.device("cpu")
    text = begin(Recipe(base=str(random_checkpoint)), device).model.config.text
    before = text.sieve_view, text.sieve_output, len(text.sync_rope_section)
    assert before == ("whole", "all", 4)
    bundled = str(find_model("tiny").folder)
    assert begin(Recipe(base=bundled), device).model.config.text.sieve_output == "media"
    for output in ("all", "media"):
        assert begin(Recipe(base=bundled, sieve_output=output), device).model.config.text.sieve_output == output
        assert begin(Recipe(sieve_output=output), device).processor.config.text.sieve_output == output


def test_three_axes_do_not_become_four(random_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(random_checkpoint, tmp_path / "three")
    config = json.loads((tmp_path / "three" / "config.json").read_text())
    config["thinker_config"]["text_config"]["sync_rope_section"] = [8, 12, 12]
    (tmp_path / "three" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="trained with three axes"):
        begin(Recipe(base=str(tmp_path / "three"), rope_axes=4), torch.device("cpu"))
