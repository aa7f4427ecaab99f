"""Choosing a sieve on the command line, with stock weights and with trained ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def stock(run, stock_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """As ``run``, with stock weights."""
    monkeypatch.setenv("ECHOPIX_MODEL", str(stock_checkpoint))
    return run


def test_the_table_and_the_record_say_which_sieve(stock, run, clips: dict[str, Path]) -> None:
    ran = stock("ask", clips["both"], "What?", "-b", 0.1)
    assert "question-attention at layer 1 after prefilter 0.5, budget 0.1" in ran.err
    assert "question-attention at layer 1, budget 0.2" in stock("ask", clips["both"], "What?").err
    (record,) = stock("ask", clips["both"], "What?", "--json", "-b", 0.1).records
    assert (record["sieve"], record["question_layer"], record["prefilter"]) == ("question-attention", 1, 0.5)
    (record,) = stock("ask", clips["both"], "What?", "--json", "--no-prefilter", "--question-layer", 2).records
    assert (record["question_layer"], record["prefilter"]) == (2, None)
    (record,) = stock("ask", clips["both"], "What?", "--json", "--sieve", "none").records
    assert (record["sieve"], record["budget"], record["tokens"]["audio"]["kept"]) == ("none", 0.0, 0)


def test_a_trained_model_goes_by_its_own(run, clips: dict[str, Path]) -> None:
    assert "cs2, budget 0.1" in run("ask", clips["both"], "What?").err
    (record,) = run("ask", clips["both"], "What?", "--json", "--sieve", "uniform").records
    assert (record["sieve"], record["question_layer"], record["prefilter"]) == ("uniform", None, None)


@pytest.mark.parametrize("verb", ["ask", "profile"])
@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (("--sieve", "cs2"), "this model cannot sieve by cs2: it has no CS2", "auto, question-attention, per-modality"),
        (("--sieve", "csv2"), "expected one of auto, cs2, question-attention", "sieve: what chooses the tokens"),
        (("--question-layer", "7"), "there is no decoder layer 7", "third"),
        (("--question-layer", "-1"), "expected a layer number", "question_layer"),
        (("--sieve", "uniform", "--prefilter"), "--prefilter goes before question-attention", "leave"),
    ],
)
def test_wrong_combinations_are_usage_errors(
    stock, clips: dict[str, Path], verb: str, arguments: tuple[str, ...], said: str, hint: str
) -> None:
    question = ("What?",) if verb == "ask" else ()
    ran = stock(verb, clips["both"], *question, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert hint in ran.err


def test_a_profile_says_which_sieve(stock, clips: dict[str, Path]) -> None:
    quick = ("--repeat", 1, "--warmup", 0, "-b", 0.1)
    ran = stock("profile", clips["both"], *quick)
    assert "question-attention at layer 1 after prefilter 0.5" in ran.err
    assert "costs the same" not in ran.err
    (record,) = stock("profile", clips["both"], *quick, "--json", "--sieve", "random").records
    assert [row["last"]["sieve"] for row in record["budgets"]] == ["question-attention", "random"]
    assert record["budgets"][0]["last"]["tokens"]["audio"]["kept"] == 77


def test_evaluation_measures_a_stock_models_own_sieve_and_the_controls(stock, tmp_path: Path) -> None:
    plot = tmp_path / "p.svg"
    quick = ("eval", "--count", 1, "--max-new-tokens", 1)
    ran = stock(*quick, "--json", "--around-sieve", "--plot", plot)
    assert ran.code == 0
    (record,) = ran.records
    controls = [f"{name}@{budget}" for name in ("per-modality", "uniform", "random") for budget in (0.2, 0.1, 0.05)]
    own = [f"question-attention@{budget}" for budget in (1, 0.2, 0.1, 0.05)]
    assert [setting["setting"] for setting in record["settings"]] == [*own, *controls, "none", "without-cs2"]
    assert [setting["median_seconds"] is None for setting in record["settings"]] == [False] * 4 + [True] * 11
    compared = [(c["setting"], c["reference"]) for c in record["comparisons"]]
    assert ("question-attention@0.1", "question-attention@1") in compared
    assert ("question-attention@0.1", "random@0.1") in compared
    assert "question-attention" in plot.read_text()
    tables = stock(*quick, "-b", 0.1, "-b", 1, "--no-prefilter", "--question-layer", 2)
    assert "question-attention@0.1" in tables.err
    assert stock(*quick, "--sieve", "cs2").code == 2
    output = tmp_path / "r.json"
    assert stock(*quick, "-b", 0.1, "--sieve", "auto", "--prefilter", "-o", output).code == 0
    assert json.loads(output.read_text())["options"]["prefilter"] is True
