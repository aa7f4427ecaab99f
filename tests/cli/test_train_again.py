"""``echopix train`` in a folder that something is in already: another process, another base or data, an export."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from clips import garble_sound

from echopix_cli.files import identity_of
from echopix_cli.training.owned import LOCK, owned
from echopix_cli.training.recipe import Recipe
from echopix_cli.training.start import begin

SETS = ("validate_batches=0", "batch_size=1", "checkpoint_every=1")
ONE = (*(word for value in SETS for word in ("--set", value)), "--threads", "1", "--steps", "1")
FAMILY = ("--set", "families=instrument")

_HOLDS = """
import sys
from pathlib import Path
from echopix_cli.training.owned import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(out: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has a run's folder for itself until it is told to end."""
    command = [sys.executable, "-c", _HOLDS, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """One on which no file gets longer than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def talk(path: Path, *media: Path) -> Path:
    """A file of conversations, one about each of some media."""
    said = [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": "a dog"}]
    lines = [{"messages": said, "videos": [str(each)]} for each in media]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_second_process_is_refused_and_changes_nothing(command: Any, random_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert command("train", "--out", out, "--base", random_checkpoint, *ONE, *FAMILY).code == 0
    assert LOCK not in files_in(out)
    before = files_in(out)
    with holder(out) as process:
        ran = command("train", "--out", out, "--steps", 2)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.splitlines()[0] == f"error: another process trains in {out}"
        assert files_in(out) == {**before, LOCK: b""}
        exported = command("train", "--out", out, "--export", tmp_path / "model")  # which reads what is whole
        assert exported.code == 0, exported.err
        process.communicate("")
    assert files_in(out) == before
    with holder(out) as process:
        process.kill()
    assert command("train", "--out", out, "--steps", 2).code == 0  # what was killed holds nothing


def test_a_folder_in_which_nothing_came_to_be_goes(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), owned(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).exists()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with owned(tmp_path / "mine"):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_a_new_run_that_found_no_room_is_started_again(command: Any, random_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ("train", "--out", out, "--base", random_checkpoint, *ONE, *FAMILY)
    with full_disk((random_checkpoint / "tokenizer.json").stat().st_size - 1):
        ran = command(*flags)
    assert ran.code == 1
    assert ran.err.startswith(f"error: cannot write {out / 'tokenizer.json'}: File too large")
    assert set(files_in(out)) == {"recipe.toml"}
    assert command(*flags).code == 0


def test_it_goes_on_with_the_same_base_alone(command: Any, random_checkpoint: Path, tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "run"
    shutil.copytree(random_checkpoint, base)
    assert command("train", "--out", out, "--base", base, *ONE, *FAMILY).code == 0
    weights = base / "model.safetensors"
    was = weights.read_bytes()
    weights.write_bytes(was[:-1] + bytes([was[-1] ^ 1]))
    before = files_in(out)
    for more in (("--steps", 2), ("--export", tmp_path / "model")):
        ran = command("train", "--out", out, *more)
        assert ran.code == 2
        said = " ".join(ran.err.split())
        assert f"cannot go on as it began: of its base {base}, model.safetensors changed" in said and "--out" in said
    assert files_in(out) == before and not (tmp_path / "model").exists()
    (out / "sources.json").rename(tmp_path / "sources.json")  # as of a run that an earlier version began
    assert command("train", "--out", out, "--steps", 2).code == 0
    assert not (out / "sources.json").exists()
    weights.write_bytes(was)
    (tmp_path / "sources.json").rename(out / "sources.json")
    assert command("train", "--out", out, "--steps", 3).code == 0


def test_weights_are_known_by_what_they_hold_and_not_by_their_time(tmp_path: Path) -> None:
    """So that a base that is copied or downloaded anew is the base still."""
    first, copy = tmp_path / "first", tmp_path / "copy"
    content = bytearray(os.urandom(2**21))
    for path, time in ((first, 1), (copy, 2)):
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
    assert identity_of(first, timed=False) == identity_of(copy, timed=False)
    assert identity_of(first) != identity_of(copy)
    content[-1] ^= 1
    copy.write_bytes(content)
    os.utime(copy, ns=(1, 1))
    assert identity_of(first, timed=False) != identity_of(copy, timed=False)


def test_it_goes_on_with_the_same_data_alone(
    command: Any, stock_checkpoint: Path, clips: dict[str, Path], tmp_path: Path
) -> None:
    """And sound that could not be decoded is said, once of each file."""
    garbled, out = garble_sound(tmp_path / "garbled.mp4", clips["both"]), tmp_path / "run"
    data = talk(tmp_path / "my.jsonl", garbled, clips["both"], garbled)
    sizes = ("--set", "sieve_layers=1", "--set", "max_frames=2", "--set", "accumulate=3")
    ran = command("train", "--out", out, "--base", stock_checkpoint, "--data", data, *ONE, *sizes)
    assert ran.code == 0
    told = [line for line in ran.err.splitlines() if ".mp4" in line]
    assert len(told) == 1 and told[0].startswith(f"note: {garbled}: the sound could not be decoded")
    talk(data, clips["both"])
    ran = command("train", "--out", out, "--steps", 2)
    assert ran.code == 2
    assert f"cannot go on as it began: its data {data} changed" in " ".join(ran.err.split())


def test_a_sieve_stage_on_an_exported_full_model_starts_from_its_decoder(
    command: Any, random_checkpoint: Path, tmp_path: Path
) -> None:
    run, model = tmp_path / "run", tmp_path / "model"
    assert command("train", "--out", run, "--base", random_checkpoint, "--stage", "full", *ONE, *FAMILY).code == 0
    assert command("train", "--out", run, "--export", model, "--dtype", "float32").code == 0
    recipe = Recipe.load(model)
    assert recipe == Recipe.load(run) and recipe is not None and Path(recipe.base) == random_checkpoint.resolve()
    for base in (run, model):
        text = begin(Recipe(base=str(base)), torch.device("cpu")).model.thinker.model
        assert len(text.bidir_encoder.layers) > 0
        for ours, theirs in zip(text.bidir_encoder.layers, text.layers, strict=False):
            for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
                assert torch.equal(a, b), name
    before = files_in(model)
    ran = command("train", "--out", model)  # an export is no run, and is not trained over
    assert ran.code == 2
    assert f"{model} holds a model, as --export writes it, and no checkpoint of a run" in " ".join(ran.err.split())
    assert files_in(model) == before


def test_an_export_that_fails_leaves_nothing(command: Any, random_checkpoint: Path, tmp_path: Path) -> None:
    """So that it can be done again where it was to be; an empty folder that was there stays."""
    run, mine, new = tmp_path / "run", tmp_path / "mine", tmp_path / "new" / "model"
    assert command("train", "--out", run, "--base", random_checkpoint, *ONE, *FAMILY).code == 0
    mine.mkdir()
    (tmp_path / "thesis.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for target in (mine, new):
        export = ("train", "--out", run, "--export", target)
        with full_disk((run / "model.safetensors").stat().st_size // 2):
            ran = command(*export)
        assert ran.code == 1
        said, hint = ran.err.splitlines()
        assert said.startswith(f"error: cannot write {target / 'model.safetensors'}: ") and "File too large" in said
        assert hint.strip() == "try: make room there, and run again"
        ran = command(*export, "--without-sieve")
        assert ran.code == 3 and "three-axis positions" in ran.err
        assert sorted(tmp_path.rglob("*")) == before
    ran = command("train", "--out", run, "--export", tmp_path / "thesis.txt" / "model")
    assert (ran.code, sorted(tmp_path.rglob("*"))) == (1, before)
    assert ran.err.splitlines()[-1].strip() == "try: name a folder that can be written"
    whole = {"model.safetensors", "config.json", "recipe.toml", "tokenizer.json", "tokenizer_config.json"}
    whole |= {"chat_template.jinja", "preprocessor_config.json", "generation_config.json"}
    for target in (mine, new):
        left = target / ".echopix-killed"  # by a process that was killed
        left.mkdir(parents=True)
        (left / "model.safetensors").write_text("half")
        assert command("train", "--out", run, "--export", target).code == 0
        assert set(files_in(target)) == whole
