"""What a hub refuses, and what is refused from it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from weights.hub_server import HubServer, Repository, environment
from weights.pulls import BIG, SECOND, Heard, pulled

from echopix_cli.errors import ModelError
from echopix_cli.weights import hub
from echopix_cli.weights.registry import find_model
from echopix_cli.weights.store import Store


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf:someone/else", "there is no someone/else at http://.*, or it is private"),
        ("hf:someone/omni@v9", "someone/omni at http://.* has no revision 'v9'"),
        ("hf:someone/gated", "someone/gated at http://.* is gated"),
    ],
)
def test_what_the_hub_refuses(cache: Path, server: HubServer, repository: Repository, name: str, said: str) -> None:
    server.repositories["someone/gated"] = Repository({"config.json": b"{}"}, gated=True)
    with pytest.raises(ModelError, match=said):
        pulled(name=name)


@pytest.mark.parametrize(("status", "said"), [(401, "refuses access"), (429, "slow down"), (503, "error 503")])
def test_what_the_hub_answers_about_itself(cache: Path, server: HubServer, status: int, said: str) -> None:
    server.api_status = [status]
    with pytest.raises(ModelError, match=said):
        pulled()


def test_a_pinned_commit_is_that_commit(
    cache: Path, server: HubServer, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that does not know revisions offers what it has."""
    monkeypatch.setattr(HubServer, "_find", lambda self, request, name, revision: repository)
    with pytest.raises(ModelError, match="not the one that was asked for"):
        pulled(name=f"hf:someone/omni@{'a' * 40}")
    assert not list((cache / "models--someone--omni").rglob("*.safetensors"))


def test_a_token_that_is_no_longer_valid_is_named(cache: Path, server: HubServer) -> None:
    def refuse(origin: str, path: str, request: Any) -> bool:
        request.send_response(401)
        request.send_header("X-Error-Message", "Invalid credentials in Authorization header")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    server.hostile = refuse
    with pytest.raises(ModelError, match="refuses your token") as failed:
        pulled()
    assert "HF_TOKEN" in failed.value.hint


def test_nobody_listens(cache: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"the connection to http://127.0.0.1:9 failed"):
        pulled()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HF_HUB_DOWNLOAD_TIMEOUT", "abc", "HF_HUB_DOWNLOAD_TIMEOUT=abc is no whole number of seconds"),
        ("HF_ENDPOINT", "http://[::1", "HF_ENDPOINT=http://[::1 is no address of a server"),
        ("HF_ENDPOINT", "nonsense", "HF_ENDPOINT=nonsense is no address of a server"),
        ("SSL_CERT_FILE", "/nonexistent", "SSL_CERT_FILE=/nonexistent holds no certificates that can be read"),
        ("HF_TOKEN", "ü", "HF_TOKEN is no token: it holds other characters than ASCII"),
    ],
)
def test_a_mistake_in_the_environment_is_named(
    server: HubServer, tmp_path: Path, name: str, value: str, said: str
) -> None:
    """In a process of its own: the hub's library reads some of it when it is imported. Exit code 2."""
    command = [sys.executable, "-m", "echopix_cli", "models", "pull", "hf:someone/omni"]
    surroundings = {**environment(server, tmp_path), name: value}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split()) and name in done.stderr.partition("try:")[2]


def test_the_token_opens_a_gate_and_stays_with_the_hub(
    cache: Path, server: HubServer, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "good")
    server.repositories["someone/gated"] = Repository(repository.files, gated=True)
    pulled(name="hf:someone/gated")
    assert {r.token for r in server.requests if r.origin == "hub"} == {"Bearer good"}
    assert {r.token for r in server.requests if r.origin == "cdn"} == {None}


def test_a_disk_that_is_too_small(cache: Path, server: HubServer, repository: Repository) -> None:
    server.repositories["someone/huge"] = Repository(repository.files, stated_sizes={BIG: 10**18})
    with pytest.raises(ModelError, match=r"needs 1000000\.0 TB more, and the disk of .* has [0-9.]+ [GT]B free"):
        pulled(name="hf:someone/huge")
    assert server.served(BIG) == []


def _index(file: str) -> bytes:
    return json.dumps({"weight_map": {"thinker.x": file}}).encode()


def _packed(repository: Repository) -> bytes:
    config = json.loads(repository.files["config.json"])
    return json.dumps({**config, "quantization_config": {"quant_method": "awq"}}).encode()


def test_repositories_that_are_no_models_of_ours(cache: Path, server: HubServer, repository: Repository) -> None:
    index = "model.safetensors.index.json"
    shape = {name: data for name, data in repository.files.items() if not name.startswith("model-")}
    cases: dict[str, tuple[dict[str, bytes], str]] = {
        "other": ({**shape, "config.json": b'{"model_type": "bert"}'}, "a model of type 'bert'"),
        "packed": (
            {**shape, "config.json": _packed(repository)},
            "someone/packed is quantized in a way that is not read: 'awq'",
        ),
        "speechless": ({n: d for n, d in shape.items() if not n.startswith("tokenizer")}, "holds no tokenizer"),
        "unreadable": ({**shape, "config.json": b"nonsense"}, "config.json is not JSON"),
        "empty": ({"README.md": b""}, "holds no config.json"),
        "pickles": ({n: d for n, d in shape.items() if n != index}, r"pickles \((spk_dict.pt|pytorch_model.bin)\)"),
        "outside": ({**shape, index: _index("../../evil.safetensors")}, "'../../evil.safetensors', which is no file"),
        "pickle": ({**shape, index: _index("pytorch_model.bin")}, "'pytorch_model.bin', which is no file of weights"),
        "absent": ({**shape, index: _index("model-9.safetensors")}, "names model-9.safetensors, which is not there"),
        "none": ({**shape, index: b'{"weight_map": {"talker.x": "a.safetensors"}}'}, "names no thinker tensors"),
        "broken": ({**shape, index: b"[]"}, "model.safetensors.index.json holds a list, not an object"),
    }
    for name, (files, said) in cases.items():
        server.repositories[f"someone/{name}"] = Repository(files)
        with pytest.raises(ModelError, match=said):
            pulled(name=f"hf:someone/{name}")
    assert Store().all() == []
    assert not any(server.served(name) for name in repository.files if name.endswith(".safetensors"))


def test_an_address_that_holds_no_longer_is_asked_for_again(
    cache: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub signs the addresses of large files for a while, and a storage that refuses is not the hub."""
    pause = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: pause(min(seconds, 0.02)))
    server.status[BIG] = [403, 0]
    heard = Heard()
    pulled(heard)
    (said,) = [text for text in heard.notices if "403" in text]
    assert said.startswith(f"127.0.0.2, to which {server.url} sends, answers with error 403: going on at byte 0")
    server.status[SECOND] = [403] * 9
    shutil.rmtree(cache)
    with pytest.raises(ModelError, match="answers with error 403") as failed:
        pulled()
    assert "HF_TOKEN" not in failed.value.hint


def test_a_password_in_the_address_is_not_shown(
    cache: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", server.url.replace("://", "://me:secret@"))
    server.api_status = [503]
    with pytest.raises(ModelError, match=f"{server.url} answers with error 503"):
        pulled()


def test_names_and_hashes_from_the_hub_stay_in_the_cache(
    cache: Path, server: HubServer, repository: Repository, tmp_path: Path
) -> None:
    """File names with folders are not fetched; hashes that are no hashes are refused."""
    evil = {"size": 3, "blobId": "a" * 40}
    server.repositories["someone/evil"] = Repository(
        {**repository.files},
        siblings=[{"rfilename": name, **evil} for name in ("../../../out.json", "/etc/passwd", "a/config.json")],
    )
    assert hub.look(find_model("hf:someone/evil")).skipped_files == 8
    outside = {"size": 2_000_000, "lfs": {"size": 2_000_000, "sha256": "../../../../out", "pointerSize": 1}}
    server.repositories["someone/worse"] = Repository(
        {n: d for n, d in repository.files.items() if n != SECOND}, siblings=[{"rfilename": SECOND, **outside}]
    )
    with pytest.raises(ModelError, match=f"no checksum for {SECOND}"):
        pulled(name="hf:someone/worse")
    assert not list(tmp_path.glob("**/out*"))
