"""A checkpoint with the family's real vocabulary, depth and files: from the hub to an answer, not a word too many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from family import write_checkpoint
from transformers.utils import logging
from weights.hub_server import HubServer, Repository, point_to

from echopix_cli.weights.store import Store

NAME = "hf:someone/omni-3b"


@pytest.fixture
def server(family_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    folder = write_checkpoint(tmp_path / "3B", "3B", family_tokenizer)
    with HubServer() as running:
        running.repositories["someone/omni-3b"] = Repository(
            {file.name: file.read_bytes() for file in folder.iterdir()}, card={"license": "other"}
        )
        point_to(running, tmp_path, monkeypatch)
        yield running


@pytest.mark.slow
def test_pull_quantize_verify_ask_remove(command, server: HubServer, clips: dict[str, Path]) -> None:
    """Widths that neither 32 nor 64 divides, in four bits; the only words on stderr are ours."""
    logging.warning_once.cache_clear()  # what was said while the checkpoint was made would not be said again
    pulled = command("models", "pull", NAME, "--quantize", "nf4", "--device", "cpu", "--quiet", "--json")
    assert (pulled.code, pulled.records[0]["quantization"]) == (0, "nf4"), pulled.err
    assert not server.served("model-00003-of-00003.safetensors") and not server.served("spk_dict.pt")
    assert command("models", "verify", NAME, "--quiet").code == 0
    for method in ("nf4", "none"):
        ran = command("ask", clips["dark"], "在发生什么? 🎻", "--model", NAME, "--quantize", method, "--device", "cpu",
                      "--max-new-tokens", 4, "--budget", 1.0, "--quiet", "--json")  # fmt: skip
        assert ran.code == 0, ran.err
        assert ran.records[0]["model"]["quantization"] == method
        assert "\N{REPLACEMENT CHARACTER}" not in ran.records[0]["answer"][:-1]
        for words in ("transformers", "token_id", "MatMul", "Loading weights", "warn"):
            assert words not in pulled.err + ran.err
    assert command("models", "rm", NAME, "--yes", "--quiet").code == 0
    assert Store().all() == []
