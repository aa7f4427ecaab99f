"""Fixtures that several rooms' tests share: a tiny random checkpoint, small real clips, a clean environment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clips import write_clip
from places import GOLDEN

if TYPE_CHECKING:
    from echopix_cli.engine import Engine

# Before torch is imported anywhere. Models here are tiny: a second thread saves nothing, and while it waits it
# takes the core away from whatever else runs, such as another process of tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")

with contextlib.suppress(ImportError):  # what gpu/pack.py brings to a bare GPU machine is without it
    from hypothesis import settings

    # The same code gets the same examples, so that a failure is of the change at hand; a busy machine is no failure.
    # --hypothesis-profile explore draws others each time.
    settings.register_profile("suite", deadline=None, derandomize=True)
    settings.register_profile("explore", deadline=None, print_blob=True, max_examples=1000)
    settings.load_profile("suite")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What ``-n auto`` means: the cores that this process may use, within a container's share; at most 8."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())  # "max" where there is no limit
        cores = min(cores, max(1, quota // period))
    return min(cores, 8)


_COMPARED = re.compile(r"^ *(?:from|import) (?:transformers|reference_layers|family)\b", re.MULTILINE)


@cache
def calls_transformers(file: Path) -> bool:
    """Whether tests compare with transformers, or read what only it reads: answering does not import it."""
    return _COMPARED.search(file.read_text(encoding="utf-8")) is not None


def pytest_itemcollected(item: pytest.Item) -> None:
    if calls_transformers(item.path):
        item.add_marker("compat")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Shells start background jobs with Ctrl-C ignored, and children inherit it: the tests of Ctrl-C need it back."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test may reach a model hub, or what a person has downloaded from it, whatever the machine's settings."""
    from huggingface_hub import constants

    home = tmp_path_factory.getbasetemp() / "no-hub"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_HOME", str(home)), ("HF_HUB_CACHE", str(home / "hub"))):
            patch.setenv(name, value)
        # As the library has read them, which may have been before.
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        yield


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The person's own config file, models and ECHOPIX_* variables reach neither tests nor what they share."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("ECHOPIX_") and not name.startswith("ECHOPIX_REQUIRE_"):
                patch.delenv(name)
        patch.setenv("ECHOPIX_CONFIG", os.devnull)
        patch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "no-cache"))
        runtime = tmp_path_factory.getbasetemp() / "no-runtime"  # no person's own server answers here
        runtime.mkdir(mode=0o700, exist_ok=True)
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        patch.setenv("ECHOPIX_CACHE", "false")  # or features that one test made would be found by another
        patch.setenv("ECHOPIX_DTYPE", "float32")  # as here, by `slow_bfloat16`, so in processes that tests begin
        yield


@pytest.fixture(scope="session", autouse=True)
def slow_bfloat16() -> Iterator[None]:
    """No precision, of what tests share neither, depends on what this machine's CPU is fast in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("echopix_cli.engine.precision.bfloat16_gain", lambda: 0.5)
        yield


@pytest.fixture(scope="session")
def reference() -> Path:
    """The shipped part of the authors' vectors."""
    return GOLDEN / "reference"


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the bundled model's shape with seeded random weights, tokenizer and all."""
    from echopix_cli.model.processing import Processor
    from echopix_cli.training import tiny
    from echopix_cli.weights.checkpoint import save_model

    words = ["What instrument is playing?", "What do you see?", "trumpet", "violin", "dog", "yes", "no"]
    tokenizer = tiny.build_tokenizer(words)
    config = tiny.build_config(tokenizer)
    folder = tmp_path_factory.mktemp("random-checkpoint")
    rules = replace(tiny.pixel_rules(), questions=None)  # as of the family's, which read turns before a question
    tiny.save_processor(Processor(tokenizer, config, rules), folder)
    # A seed whose greedy answers are visible characters: tests look at what is printed.
    save_model(tiny.build_model(config, seed=16), folder)
    return folder


@pytest.fixture(scope="session")
def stock_checkpoint(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random checkpoint as a stock one: no sieve, sharded, with a talker and a vocoder that nobody reads."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("stock-checkpoint")
    for file in random_checkpoint.iterdir():
        if file.suffix in (".json", ".jinja") and file.name != "config.json":
            (folder / file.name).write_bytes(file.read_bytes())
    raw = json.loads((random_checkpoint / "config.json").read_text())
    thinker = raw["thinker_config"]
    thinker["model_type"] = "qwen2_5_omni_thinker"
    text = thinker["text_config"]
    for name in ("av_refiner_layers", "compression_ratio", "sync_rope_section", "retain_token", "sieve_softmax"):
        del text[name]
    del text["sieve_view"], text["sieve_output"], text["film_time"], text["sieve"]
    text["model_type"] = "qwen2_5_omni_text"
    whole = {"model_type": "qwen2_5_omni", "architectures": ["Qwen2_5OmniModel"], "thinker_config": thinker}
    (folder / "config.json").write_text(json.dumps(whole))
    tensors = load_file(random_checkpoint / "model.safetensors")
    stock = {n: t for n, t in tensors.items() if ".bidir_encoder." not in n and ".compressor." not in n}
    names = sorted(stock)
    shards = {
        "model-00001-of-00003.safetensors": {n: stock[n] for n in names[: len(names) // 2]},
        "model-00002-of-00003.safetensors": {n: stock[n] for n in names[len(names) // 2 :]},
        "model-00003-of-00003.safetensors": {"talker.x": torch.zeros(3), "token2wav.y": torch.zeros(3)},
    }
    for file_name, part in shards.items():
        save_file(part, folder / file_name)
    weight_map = {n: file_name for file_name, part in shards.items() for n in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.fixture(scope="session")
def random_engine(random_checkpoint: Path) -> Engine:
    """The random checkpoint, loaded; whoever changes it puts it back."""
    return loaded(random_checkpoint)


@pytest.fixture(scope="session")
def stock_engine(stock_checkpoint: Path) -> Engine:
    """The stock checkpoint, loaded; whoever changes it puts it back."""
    return loaded(stock_checkpoint)


def loaded(checkpoint: Path) -> Engine:
    """On the CPU."""
    from echopix_cli.engine import Engine

    return Engine.load(str(checkpoint), "cpu")


@pytest.fixture(scope="session")
def family_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the family's real vocabulary."""
    from family import write_tokenizer

    folder = tmp_path_factory.mktemp("family-tokenizer")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``both``, ``silent`` (picture only) and ``dark`` (sound only)."""
    folder = tmp_path_factory.mktemp("clips")
    return {
        "both": write_clip(folder / "both.mp4"),
        "silent": write_clip(folder / "silent.mp4", sound=False),
        "dark": write_clip(folder / "dark.m4a", picture=False),
    }


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``long.mp4``, which takes longer to decode than anything else here."""
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", seconds=20, fps=25)


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """``command("scene", "out.mp4")``, for what needs no model."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> Ran:
        from echopix_cli.cli.app import main

        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["echopix", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return Ran(int(left.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def run(command: Run, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("ask", clip, "What?")`` with a random model and short answers."""
    monkeypatch.setenv("ECHOPIX_MODEL", str(random_checkpoint))
    monkeypatch.setenv("ECHOPIX_MAX_NEW_TOKENS", "4")
    return command
