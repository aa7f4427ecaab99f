"""From the hub to an answer out of four bits: pull, quantize, verify, ask, ask offline, remove."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from huggingface_hub import constants
from weights.hub_server import COMMIT, HubServer, Repository, point_to

from echopix_cli.weights.store import Store

NAME = "hf:someone/omni"
QUESTION = "What instrument is playing?"


@pytest.fixture
def server(stock_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as running:
        running.repositories["someone/omni"] = Repository(
            {file.name: file.read_bytes() for file in stock_checkpoint.iterdir()}, card={"license": "mit"}
        )
        point_to(running, tmp_path, monkeypatch)
        yield running


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 0xFF
    path.write_bytes(data)


def test_pull_quantize_verify_ask_offline_rm(
    command, server: HubServer, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = str(clips["both"])
    (pulled,) = command("models", "pull", NAME, "--quantize", "nf4", "--device", "cpu", "--json").records
    assert pulled["revision"] == COMMIT and pulled["quantization"] == "nf4" and pulled["fetched"] > 0
    assert not server.served("model-00003-of-00003.safetensors")  # the talker's
    copy = Path(pulled["copy"])
    assert copy.is_relative_to(tmp_path / "echopix")
    (manifest,) = [entry.manifest for entry in Store().all() if entry.manifest.kind == "quantized"]
    assert (manifest.source, manifest.revision) == ("someone/omni", COMMIT)

    ran = command("models", "verify", NAME)
    assert ran.code == 0 and "is whole, and its 1 quantized copy" in ran.err

    asked = ("ask", clip, QUESTION, "--model", NAME, "--quantize", "nf4", "--device", "cpu", "--json")
    before = len(server.requests)
    (answer,) = command(*asked).records
    assert answer["model"]["quantization"] == "nf4" and answer["model"]["dtype"] == "float32"
    assert answer["model"]["revision"] == COMMIT
    assert answer["sieve"] == "question-attention"
    assert len(server.requests) == before

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (again,) = command(*asked).records
    assert (again["answer"], again["tokens"]) == (answer["answer"], answer["tokens"])

    ran = command("models", "rm", NAME, "--yes")
    assert ran.code == 0
    assert Store().all() == [] and not copy.exists()
    assert not list((tmp_path / "hub").rglob("*.safetensors"))


def test_ask_fetches_what_is_not_here(
    command, server: HubServer, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command on a fresh machine: fetched with its licence shown, quantized, answered; then never fetched again."""
    asked = ("ask", str(clips["both"]), QUESTION, "--model", NAME, "--quantize", "nf4", "--device", "cpu", "--json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    ran = command(*asked)
    assert (ran.code, ran.out, server.requests) == (3, "", [])
    assert f"echopix models pull {NAME}" in ran.err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    ran = command(*asked)
    assert ran.code == 0, ran.err
    assert "licence: the hub states: mit" in ran.err
    assert ran.records[0]["model"]["quantization"] == "nf4"
    before = len(server.requests)
    assert command(*asked).records[0]["answer"] == ran.records[0]["answer"]
    assert len(server.requests) == before


def test_dropping_the_source_leaves_the_copy(
    command, server: HubServer, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = ("models", "pull", NAME, "--quantize", "int8", "--device", "cpu")
    (kept,) = command(*pull, "--json").records
    assert list((tmp_path / "hub").rglob("*.safetensors"))
    other = tmp_path / "hub" / "models--someone--other"
    other.mkdir()
    (dropped,) = command(*pull, "--drop-source", "--json").records
    assert dropped["copy"] == kept["copy"] and dropped["fetched"] == 0
    assert not list((tmp_path / "hub").rglob("*.safetensors")) and other.is_dir()
    requests = len(server.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = ("ask", str(clips["both"]), QUESTION, "--model", NAME, "--device", "cpu", "--json")
    (answer,) = command(*asked).records  # auto takes the copy that is there
    assert answer["model"]["quantization"] == "int8" and answer["model"]["revision"] == COMMIT
    refused = command(*asked, "--quantize", "none")
    assert refused.code == 3 and f"echopix models pull {NAME}" in refused.err
    (again,) = command(*pull, "--json").records
    assert again["copy"] == kept["copy"]
    assert len(server.requests) == requests
    (listed,) = command("models", "info", NAME, "--json").records
    assert listed["state"] == "copy only"
    assert [entry["quantize"] for entry in listed["copies"]] == ["int8"]
    assert command("models", "verify", NAME).code == 0
    assert command("models", "path", NAME).out == f"{kept['copy']}\n"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda name: "9.9.9" if name == "bitsandbytes" else "1")
        stale = command(*asked)  # which fetches nothing without being told to
    assert stale.code == 3 and len(server.requests) == requests
    assert "cannot be used (bitsandbytes" in stale.err and f"echopix models pull {NAME} --quantize int8" in stale.err
    assert command("models", "rm", NAME, "--yes").code == 0
    assert Store().all() == []


def test_without_the_library_nothing_is_fetched(command, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    ran = command("models", "pull", NAME, "--quantize", "nf4", "--device", "cpu")
    assert ran.code == 1 and "pip install bitsandbytes" in ran.err
    assert server.requests == []


def test_verify_finds_the_damaged_file_of_a_copy(command, server: HubServer) -> None:
    pull = ("models", "pull", NAME, "--quantize", "nf4", "--device", "cpu")
    (pulled,) = command(*pull, "--json").records
    weights = Path(pulled["copy"]) / "quantized-00001.safetensors"
    spoil(weights)
    ran = command("ask", "no-such-file-needed", QUESTION, "--model", NAME, "--quantize", "nf4", "--device", "cpu")
    assert ran.code == 4  # media are looked at first
    ran = command("models", "verify", NAME, "--json")
    assert ran.code == 3
    (record,) = ran.records
    assert record["faults"] == ["nf4 copy: quantized-00001.safetensors differs from its checksum"]
    assert f"echopix models pull {NAME} --quantize nf4" in ran.err
    (again,) = command(*pull, "--json").records
    assert again["copy"] == pulled["copy"] and again["fetched"] == 0
    assert command("models", "verify", NAME).code == 0


def test_a_damaged_copy_is_not_asked(command, server: HubServer, clips: dict[str, Path]) -> None:
    pull = ("models", "pull", NAME, "--quantize", "nf4", "--device", "cpu")
    (pulled,) = command(*pull, "--json").records
    spoil(Path(pulled["copy"]) / "quantized-00001.safetensors")
    asked = ("ask", str(clips["both"]), QUESTION, "--model", NAME, "--quantize", "nf4", "--device", "cpu")
    ran = command(*asked)
    assert ran.code == 3 and ran.out == ""
    assert "quantized-00001.safetensors differs from its checksum" in ran.err
    assert f"echopix models pull {NAME} --quantize nf4 --dtype float32" in ran.err
    assert command("models", "pull", NAME, "--quantize", "nf4", "--dtype", "float32", "--device", "cpu").code == 0
    assert command(*asked).code == 0


@pytest.mark.parametrize(
    "words", [("tiny", "--quantize", "nf4", "--drop-source"), (NAME, "--drop-source"), ("tiny", "--drop-source")]
)
def test_only_a_download_with_a_copy_is_dropped(command, words: tuple[str, ...]) -> None:
    ran = command("models", "pull", *words)
    assert ran.code == 2 and "--drop-source removes a download that has a quantized copy" in ran.err


def test_a_folder_is_quantized_by_pull_and_forgotten_by_rm(command, random_checkpoint: Path, tmp_path: Path) -> None:
    folder = str(random_checkpoint)
    (record,) = command("models", "pull", folder, "--quantize", "nf4", "--device", "cpu", "--json").records
    assert Path(record["copy"]).is_dir() and record["fetched"] == 0
    assert command("models", "verify", folder).code == 0
    assert command("models", "rm", folder, "--yes").code == 0
    assert not Path(record["copy"]).exists() and random_checkpoint.is_dir()
    assert command("models", "rm", folder, "--yes").code == 2


def test_too_large_for_this_machine_is_exit_5(command, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from echopix_cli.engine import loading

    monkeypatch.setattr(loading, "free_memory", lambda device: 10 * 2**20)
    ran = command("ask", str(clips["both"]), QUESTION, "--model", "tiny", "--device", "cpu")
    assert ran.code == 5 and ran.out == ""
    assert "tiny does not fit on cpu" in ran.err and "10.0 MiB are free" in ran.err
    for flag in ("--quantize nf4", "--max-frames", "--max-pixels"):
        assert flag in ran.err
