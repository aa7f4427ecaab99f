"""``echopix train`` as it is typed: whole runs of a few steps, killed and resumed, on scenes and on files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from waiting import lines_in, wait_until

from echopix_cli.engine import AskOptions, Engine
from echopix_cli.media import DecodePlan
from echopix_cli.weights.checkpoint import load_model
from echopix_cli.weights.stock import load_base, sync_sections


def keys(**values: object) -> tuple[str, ...]:
    """Keys of the recipe, as they are typed."""
    return tuple(word for name, value in values.items() for word in ("--set", f"{name}={value}"))


ONE = (*keys(validate_batches=0, batch_size=1, families="instrument"), "--threads", "1")
QUICK = (*ONE, *keys(checkpoint_every=1))


def metrics(out: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if "validation" not in record]


def steps(out: Path) -> list[dict[str, Any]]:
    return [record for record in metrics(out) if "loss" in record]


def curve(out: Path) -> list[float]:
    return [record["loss"] for record in steps(out)]


@pytest.fixture
def conversations(tmp_path: Path, clips: dict[str, Path]) -> Path:
    (tmp_path / "clip.mp4").symlink_to(clips["both"])
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    lines = [
        {
            "messages": [
                {"role": "user", "content": "<video>What do you see?"},
                {"role": "assistant", "content": answer},
            ],
            "videos": [media],
        }
        for media, answer in (("clip.mp4", "a square"), ("broken.mp4", "nothing"), ("clip.mp4", "a square"))
    ]
    path = tmp_path / "my.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.slow
def test_killed_and_resumed(command: Any, random_checkpoint: Path, tmp_path: Path) -> None:
    """A process killed in mid-run and started again takes the same steps as one that was left alone."""
    flags = ["--base", random_checkpoint, "--steps", 5, *QUICK]
    assert command("train", "--out", tmp_path / "whole", *flags).code == 0
    torn = tmp_path / "torn"
    arguments = [sys.executable, "-m", "echopix_cli", "train", "--out", torn, *flags]
    process = subprocess.Popen([str(a) for a in arguments], env={**os.environ, "OMP_NUM_THREADS": "1"})
    metrics = torn / "metrics.jsonl"
    wait_until(lambda: lines_in(metrics) >= 3, process=process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(steps(torn)) < 5
    assert command("train", "--out", torn).code == 0
    assert curve(torn) == curve(tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("torn", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [False, True])
def test_interrupted_runs_keep_their_last_step(
    random_checkpoint: Path, tmp_path: Path, number: signal.Signals, whole_group: bool
) -> None:
    """Also where all of its processes are sent the signal, as by a terminal, ``timeout`` or systemd."""
    arguments = ["train", "--out", tmp_path / "run", "--base", random_checkpoint, "--steps", 500, *ONE]
    process = subprocess.Popen(
        [sys.executable, "-m", "echopix_cli", *map(str, arguments), "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_until(lambda: lines_in(metrics) >= 2, process=process)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert time.monotonic() - began < 20  # and nobody waits for workers that do not end
    done = len(steps(tmp_path / "run"))
    assert f"Interrupted after step {done} of 500" in " ".join(said.split())
    assert "Traceback" not in said
    assert int(load_file(tmp_path / "run" / "training_state.safetensors")["step"]) == done
    load_model(tmp_path / "run")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.slow
def test_learning_from_nothing(command: Any, tmp_path: Path) -> None:
    """A few dozen steps of the bundled model's own recipe, exact seed: the loss falls by half."""
    flags = ("--stage", "full", "--steps", 40, "--threads", 1, "--seed", 5)
    flags += keys(batch_size=2, warmup=5, validate_batches=1)
    ran = command("train", "--out", tmp_path / "run", *flags, "--plot", tmp_path / "curves.png", "--json")
    assert ran.code == 0, ran.err
    losses = [record["answer"] for record in steps(tmp_path / "run")]
    first, last = sum(losses[:3]) / 3, sum(losses[-8:]) / 8
    assert last < 0.5 * first
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads(ran.out)
    assert record["step"] == 40
    assert record["recipe"]["stage"] == "full"


@pytest.mark.parametrize(
    "how",
    [
        (),
        ("--dtype", "bfloat16"),
        (*keys(adapters=4), "--dtype", "bfloat16"),
        pytest.param(
            (*keys(adapters=4, quantize="nf4", checkpointing="true", teacher="attention"), "--dtype", "bfloat16"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["whole", "halves", "adapters", "four-bit"],
)
def test_a_sieve_on_a_stock_base(
    command: Any, stock_checkpoint: Path, conversations: Path, tmp_path: Path, how: tuple[object, ...]
) -> None:
    """Real layout in, people's own files as data, and out comes a checkpoint that answers."""
    out = tmp_path / "run"
    flags = ("--base", stock_checkpoint, "--data", conversations, "--steps", 3, "--threads", 1)
    sizes = keys(batch_size=2, sieve_layers=2, max_frames=4, accumulate=2, learning_rate=3e-3, warmup=1)
    ran = command("train", "--out", out, *flags, *sizes, *how)
    assert ran.code == 0, ran.err
    before, after = load_file_all(stock_checkpoint), load_file(out / "model.safetensors")
    assert {name for name in after if ".bidir_encoder." not in name and ".compressor." not in name} == set(before)
    towers = [name for name in before if ".visual." in name or ".audio_tower." in name]
    assert towers
    # What is frozen is written as it came, whatever precision the run holds it in.
    assert all(torch.equal(before[name], after[name]) for name in towers)
    adapted = [name for name in before if ".model.layers." in name and name.endswith("proj.weight")]
    assert all(0 < (before[name] - after[name].float()).abs().max() < 0.1 for name in adapted)
    if "adapters=4" in how:
        assert all(torch.equal(before[name], after[name]) for name in set(before) - set(adapted))
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "qwen2_5_omni_compress"
    assert config["thinker_config"]["text_config"]["av_refiner_layers"] == 2
    engine = Engine.load(str(out))
    answer = engine.ask(
        engine.read(str(conversations.parent / "clip.mp4"), engine.plan(DecodePlan())), "What?", AskOptions(0.2)
    )
    assert answer.tokens.kept == -(-answer.tokens.total // 5)
    losses = curve(out)
    assert len(losses) == 3
    assert all(0 < loss < 20 for loss in losses)
    assert ("teaching" in steps(out)[0]) == ("teacher=attention" in how)


def load_file_all(folder: Path) -> dict[str, torch.Tensor]:
    parts = [load_file(file) for file in sorted(folder.glob("*.safetensors"))]
    return {name: t.float() for part in parts for name, t in part.items() if name.startswith("thinker.")}


def test_a_stock_base_is_given_a_copy_of_its_first_layers(stock_checkpoint: Path) -> None:
    model = load_base(stock_checkpoint, sieve_layers=2, seed=1)
    text = model.thinker.model
    for ours, theirs in zip(text.bidir_encoder.layers, text.layers, strict=False):
        for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            assert torch.equal(a, b), name
    again, other = (load_base(stock_checkpoint, sieve_layers=2, seed=seed) for seed in (1, 2))
    head = "thinker.model.compressor.score_head.0.weight"
    assert torch.equal(model.state_dict()[head], again.state_dict()[head])
    assert not torch.equal(model.state_dict()[head], other.state_dict()[head])
    assert sync_sections(128) == [18, 18, 18, 10]
    assert sync_sections(64) == [9, 9, 9, 5]


def test_ablations_are_written_into_the_checkpoint(command: Any, random_checkpoint: Path, tmp_path: Path) -> None:
    flags = ("--base", random_checkpoint, "--steps", 1, *QUICK, *keys(sieve_view="no-question", rope_axes=3))
    assert command("train", "--out", tmp_path / "run", *flags).code == 0
    text = json.loads((tmp_path / "run" / "config.json").read_text())["thinker_config"]["text_config"]
    assert text["sieve_view"] == "no-question"
    assert text["sync_rope_section"] == [8, 12, 12]


def test_export(command: Any, random_checkpoint: Path, tmp_path: Path) -> None:
    flags = ("--base", random_checkpoint, "--steps", 1, *QUICK)
    assert command("train", "--out", tmp_path / "run", *flags).code == 0
    assert command("train", "--out", tmp_path / "run", "--export", tmp_path / "small", "--dtype", "float16").code == 0
    tensors = load_file(tmp_path / "small" / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    assert not (tmp_path / "small" / "training_state.safetensors").exists()
    Engine.load(str(tmp_path / "small"))


@pytest.mark.parametrize("more", [{}, {"adapters": 4}], ids=["whole", "adapters"])
def test_a_full_token_model_becomes_a_stock_checkpoint(
    command: Any, random_checkpoint: Path, clips: dict[str, Path], tmp_path: Path, more: dict[str, int]
) -> None:
    """Without its sieve, at budget 1.0, it answers what the trained model says around its sieve."""
    flags = ("--base", random_checkpoint, "--steps", 1, "--stage", "full", *keys(rope_axes=3, **more), *QUICK)
    assert command("train", "--out", tmp_path / "run", *flags).code == 0
    assert command("train", "--out", tmp_path / "run", "--export", tmp_path / "stock", "--without-sieve").code == 0
    assert json.loads((tmp_path / "stock" / "config.json").read_text())["model_type"] == "qwen2_5_omni"
    stock = Engine.load(str(tmp_path / "stock"))
    assert stock.sieves[0] == "question-attention"
    trained = load_model(tmp_path / "run").thinker
    encoded = stock.read(str(clips["both"]), stock.plan(DecodePlan()))
    with torch.inference_mode():
        prompt = stock.place(encoded, "What?")
        ours = stock.model.thinker.lm_head(stock.model.thinker.model.decode(prompt.embeds, prompt.position_ids))
        theirs = trained.lm_head(trained.model.decode(prompt.embeds, prompt.position_ids))
    assert torch.equal(ours, theirs)
    ran = command("train", "--out", tmp_path / "sync", "--base", random_checkpoint, "--steps", 1, *QUICK)
    assert ran.code == 0
    ran = command("train", "--out", tmp_path / "sync", "--export", tmp_path / "no", "--without-sieve")
    assert ran.code == 3
    assert "three-axis positions" in " ".join(ran.err.split())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--stage", "half"), "--stage: 'half' does not fit: expected one of towers, full, sieve"),
        (keys(families="tuba"), "--set families: 'tuba' does not fit: expected one of instrument, object,"),
        (("--base", "nowhere"), "no model named 'nowhere'"),
        (("--data", "x.jsonl"), "training from nothing takes scenes"),
        (keys(budget_low=0), "--set budget_low: '0' does not fit: not a budget"),
        (keys(lerning_rate=1), "--set sets 'lerning_rate', which is no recipe key try: learning_rate"),
        (("--set", "steps"), "--set steps gives no value try: --set steps=VALUE"),
        (("--dtype", "float16"), "--dtype: 'float16' does not fit: expected one of float32, bfloat16"),
        (("--recipe", "nowhere.toml"), "there is no file nowhere.toml"),
        (keys(quantize="nf4"), "four-bit layers cannot be trained themselves"),
    ],
)
def test_what_does_not_fit_is_said(command: Any, tmp_path: Path, flags: tuple[object, ...], said: str) -> None:
    ran = command("train", "--out", tmp_path / "run", *flags)
    assert ran.code in (2, 3)
    assert said in " ".join(ran.err.split())
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_as_it_began(command: Any, random_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert command("train", "--out", out, "--base", random_checkpoint, "--steps", 1, *QUICK).code == 0
    ran = command("train", "--out", out, "--seed", 9)
    assert ran.code == 2
    assert "started with seed 1, not 9" in " ".join(ran.err.split())
    assert command("train", "--out", out, "--steps", 2).code == 0
    assert len(steps(out)) == 2
    again = tmp_path / "again"
    assert command("train", "--out", again, "--recipe", out / "recipe.toml", "--threads", 1).code == 0
    assert curve(again) == curve(out)
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("keep me")
    ran = command("train", "--out", other, "--steps", 1)
    assert ran.code == 2
    assert "holds no run" in " ".join(ran.err.split())
    ran = command("train", "--out", other / "thesis.txt", "--steps", 1)
    assert ran.code == 2
    assert f"{other / 'thesis.txt'} is a file, and a run is a folder" in " ".join(ran.err.split())
    assert (other / "thesis.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "my.jsonl:2"),
        ('{"videos": ["clip.mp4"]}', "no 'messages'"),
        ('{"messages": [{"role": "user", "content": "?"}], "videos": ["clip.mp4"]}', "one user turn and one assistant"),
        (
            '{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}], "videos": []}',
            "videos must name one file",
        ),
        (
            '{"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "!"}], "videos": ["a"]}',
            "content must be text",
        ),
    ],
)
def test_lines_that_do_not_fit_are_named(
    command: Any, stock_checkpoint: Path, conversations: Path, tmp_path: Path, line: str, said: str
) -> None:
    first = conversations.read_text().splitlines()[0]
    conversations.write_text(f"{first}\n{line}\n")
    ran = command("train", "--out", tmp_path / "run", "--base", stock_checkpoint, "--data", conversations)
    assert ran.code == 2
    assert said in " ".join(ran.err.split())


def test_files_that_cannot_be_read_are_left_out(
    command: Any, stock_checkpoint: Path, conversations: Path, tmp_path: Path
) -> None:
    """Alone in a step too: it counts, changes nothing and is passed over by a run that goes on."""
    flags = ("--base", stock_checkpoint, "--data", conversations, "--steps", 3, "--threads", 1)
    sizes = keys(batch_size=1, sieve_layers=1, max_frames=4, checkpoint_every=1)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ran = command("train", "--out", whole, *flags, *sizes)
    assert ran.code == 0, ran.err
    records = metrics(whole)
    assert [record["step"] for record in records] == [1, 2, 3]
    assert [record.get("empty") for record in records].count(True) == 1
    assert ran.err.count("broken.mp4") == 1
    assert "training goes on without this file" in ran.err
    assert command("train", "--out", parts, *flags, *sizes, "--seconds", 1e-9).code == 0
    while len(metrics(parts)) < 3:
        assert command("train", "--out", parts, "--seconds", 1e-9).code == 0
    assert curve(parts) == curve(whole)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (parts, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_data_of_which_nothing_can_be_read(
    command: Any, stock_checkpoint: Path, conversations: Path, tmp_path: Path
) -> None:
    """The run ends once every file was tried, and has kept how far it came."""
    broken = conversations.read_text().splitlines()[1]
    conversations.write_text(f"{broken}\n{broken}\n{broken}\n")
    flags = ("--base", stock_checkpoint, "--data", conversations, *keys(sieve_layers=1, batch_size=2))
    for step in (3, 6):
        ran = command("train", "--out", tmp_path / "run", *flags)
        assert ran.code == 4
        assert "none of the files of 3 steps in a row could be decoded" in " ".join(ran.err.split())
        assert [record["empty"] for record in metrics(tmp_path / "run")] == [True] * step
        assert int(load_file(tmp_path / "run" / "training_state.safetensors")["step"]) == step


def test_nothing_is_exported_that_was_not_trained(command: Any, random_checkpoint: Path, tmp_path: Path) -> None:
    ran = command("train", "--out", tmp_path / "typo", "--export", tmp_path / "model")
    assert (ran.code, ran.out) == (2, "")
    assert f"there is no run in {tmp_path / 'typo'}" in ran.err
    assert os.listdir(tmp_path) == []
    flags = ["--out", tmp_path / "run", "--base", random_checkpoint, "--steps", 2, "--seed", 0, *QUICK]
    assert command("train", *flags, "--seconds", 1e-9).code == 0  # seed 0 is a seed like any other
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "film.mp4").write_bytes(b"precious")
    ran = command("train", "--out", tmp_path / "run", "--export", tmp_path / "taken")
    assert (ran.code, os.listdir(tmp_path / "taken")) == (2, ["film.mp4"])
    (tmp_path / "run" / "training_state.safetensors").unlink()
    ran = command("train", "--out", tmp_path / "run", "--export", tmp_path / "model")
    assert (ran.code, (tmp_path / "model").exists()) == (2, False)
    assert "no checkpoint" in ran.err


def test_a_run_says_why_it_stopped_and_how_it_goes_on(command: Any, random_checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "a run"
    flags = ["--out", run, "--base", random_checkpoint, "--steps", 2, *QUICK]
    said = command("train", *flags, "--seconds", 1e-9).err
    assert f"stopped after 1e-09 s (--seconds) at step 1 of 2; echopix train --out '{run}' goes on" in said
    assert f"finished after step 2; echopix ask --model '{run}' FILE QUESTION" in command("train", "--out", run).err
    assert "all 2 steps were taken before" in command("train", "--out", run).err


def test_a_picture_is_replaced_only_where_that_is_meant(command: Any, random_checkpoint: Path, tmp_path: Path) -> None:
    picture = tmp_path / "photo.png"
    picture.write_bytes(b"precious")
    ran = command("train", "--out", tmp_path / "run", "--base", random_checkpoint, *QUICK, "--plot", picture)
    assert (ran.code, picture.read_bytes()) == (2, b"precious")
    assert "--force" in ran.err


def test_the_loss_that_is_shown_is_named() -> None:
    from echopix_cli.cli.train import _line
    from echopix_cli.training.loop import Progress

    assert _line(Progress(3, 63, {"answer": 0.5, "loss": 2.0}, 1.0)).startswith("step 3/63, answer loss 0.500, 1.00 s")
    assert _line(Progress(3, 63, {"hearing": 0.5, "loss": 2.0}, 1.0)).endswith(
        "sum of losses 2.000, 1.00 s a step, 1:00 left"
    )
    assert _line(Progress(3, 63, {}, 1.0)) == "step 3/63, none of its files could be read"
