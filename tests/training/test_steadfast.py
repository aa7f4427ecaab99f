"""Runs that meet what they cannot use: gradients that are no numbers, records that are torn, a disk that is full."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from echopix_cli.errors import EchopixError
from echopix_cli.model.processing import Processor
from echopix_cli.training import tiny
from echopix_cli.training.batch import Batch
from echopix_cli.training.data import SceneBatches
from echopix_cli.training.loop import Trainer
from echopix_cli.training.recipe import Recipe
from echopix_cli.training.start import Start

RECIPE = Recipe(stage="full", steps=40, batch_size=1, warmup=1, checkpoint_every=4, validate_batches=0)


def trainer(processor: Processor, folder: Path, recipe: Recipe = RECIPE) -> Trainer:
    return Trainer(Start(tiny.build_model(processor.config, seed=1), processor, {}), recipe, folder)


def metrics(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def batch(processor: Processor) -> Batch:
    return SceneBatches(processor, "val", 1, ("instrument",), 1, pack=True)[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_gradient_that_is_no_number_is_not_taken(
    processor: Processor, tmp_path: Path, batch: Batch, optimizer: str
) -> None:
    """Weights and what the optimizers keep are those of a run that never met it."""
    recipe = replace(RECIPE, optimizer=optimizer)
    spared, met = (trainer(processor, tmp_path / name, recipe) for name in ("spared", "met"))
    assert batch.mel is not None
    poisoned = replace(batch, mel=torch.full_like(batch.mel, torch.nan))
    for fit in (spared, met):
        fit.update([batch])
    assert not met.update([poisoned])["gradient"] < torch.inf
    assert met.update([batch]) == spared.update([batch])
    assert all(torch.equal(met.trained[name], value) for name, value in spared.trained.items())


def test_a_run_that_diverges_ends_and_keeps_its_last_checkpoint(processor: Processor, tmp_path: Path) -> None:
    fit = trainer(processor, tmp_path, replace(RECIPE, learning_rate=1e30))
    with pytest.raises(EchopixError, match="gradients of 20 steps in a row") as caught:
        fit.run()
    assert "learning_rate" in caught.value.hint
    records = metrics(tmp_path)
    assert len(records) < 40
    assert all("gradient" in record["not_finite"] for record in records[-20:])  # type: ignore[operator]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()  # which is no JSON
    state = load_file(tmp_path / "training_state.safetensors")
    assert int(state["step"]) == 20
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("stored", [0, 2])
def test_metrics_of_steps_that_are_taken_again_go(processor: Processor, tmp_path: Path, stored: int) -> None:
    """Killed before the first checkpoint and after it, with lines that are torn in every way."""
    recipe = replace(RECIPE, steps=3)
    path = tmp_path / "metrics.jsonl"
    trainer(processor, tmp_path, recipe).run(until=2)
    steps = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(steps) + b'\0\0\0\n[1]\n{"loss": 1}\n{"step": 3, "validation": {}}\n{"step": 1')
    if not stored:
        (tmp_path / "training_state.safetensors").unlink()
    trainer(processor, tmp_path, recipe)
    assert path.read_bytes().endswith(b'"step": 1')  # who only exports changes nothing
    trainer(processor, tmp_path, recipe).run()
    assert [record["step"] for record in metrics(tmp_path) if "loss" in record] == [1, 2, 3]
    assert len(metrics(tmp_path)) == 4  # the last step was validated
    if stored:
        assert path.read_bytes().startswith(b"".join(steps))


def saved(processor: Processor, folder: Path) -> Callable[[], None]:
    return lambda: trainer(processor, folder).export(folder)


def stored(processor: Processor, folder: Path) -> Callable[[], None]:
    return trainer(processor, folder)._store


def begun(processor: Processor, folder: Path) -> Callable[[], None]:
    return lambda: trainer(processor, folder).run(until=0)


def processed(processor: Processor, folder: Path) -> Callable[[], None]:
    return lambda: tiny.save_processor(processor, folder)


@pytest.mark.parametrize(
    ("written", "name"),
    [(stored, "training_state.safetensors"), (saved, "model.safetensors"), (begun, "tokenizer.json")],
)
def test_a_full_disk_leaves_the_last_checkpoint(
    processor: Processor,
    tmp_path: Path,
    written: Callable[[Processor, Path], Callable[[], None]],
    name: str,
) -> None:
    """The disk ends in the middle of the file; nothing of the attempt is left in its way."""
    write = written(processor, tmp_path)
    write()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[name]) // 2, limits[1]))
    try:
        with pytest.raises(EchopixError, match=f"cannot write {tmp_path / name}: .*File too large") as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.hint.startswith("make room there")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (stored, ["training_state.safetensors"]),
        (saved, ["model.safetensors", "config.json"]),
        (
            processed,
            [
                "tokenizer.json",
                "tokenizer_config.json",
                "chat_template.jinja",
                "preprocessor_config.json",
                "generation_config.json",
            ],
        ),
    ],
)
def test_a_checkpoint_is_on_the_disk_before_it_replaces_the_last_one(
    processor: Processor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: Callable[[Processor, Path], Callable[[], None]],
    names: list[str],
) -> None:
    """And the folder that names it afterwards: a power cut in between costs nothing."""
    write = written(processor, tmp_path)
    done: list[tuple[str, int | str]] = []
    fsync, replace_file = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        done.append(("on disk", os.fstat(handle).st_ino))
        fsync(handle)

    def watched_replace(source: Path, target: Path) -> None:
        done.append(("named", os.stat(source).st_ino))
        replace_file(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write()
    folder, expected = os.stat(tmp_path).st_ino, []
    for name in names:
        own = os.stat(tmp_path / name).st_ino
        expected += [("on disk", own), ("named", own), ("on disk", folder)]
    assert done == expected
    assert {os.stat(tmp_path / name).st_mode & 0o777 for name in names} == {0o666 & ~umask()}


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
