"""Downloads against a hub on loopback: interrupted, spoiled, refused, shared, offline."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE, wait_until
from weights.hub_server import COMMIT, HubServer, Repository, environment
from weights.pulls import BIG, NAME, SECOND, TALKER, Heard, pulled

from echopix_cli.errors import ModelError
from echopix_cli.weights import hub
from echopix_cli.weights.registry import resolve_model
from echopix_cli.weights.store import Store
from echopix_cli.weights.transfer import PART, Progress, RemoteFile, Transfer
from echopix_cli.weights.web import Web

CUT = 12_000_000  # bytes after which a connection ends in these tests


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between tries, shortened."""
    pause = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: pause(min(seconds, 0.02)))


def test_only_what_the_thinker_needs(server: HubServer, cache: Path, repository: Repository) -> None:
    heard = Heard()
    done = pulled(heard)
    names = {path.name for path in done.entry.folder.iterdir()}
    assert names == set(repository.files) - {
        TALKER, "README.md", "modeling_evil.py", "spk_dict.pt", "pytorch_model.bin",
    }  # fmt: skip
    for name in names:
        assert (done.entry.folder / name).read_bytes() == repository.files[name]
    assert done.entry.folder == cache / "models--someone--omni" / "snapshots" / COMMIT
    assert (done.entry.folder / BIG).is_symlink()
    assert resolve_model(str(done.entry.folder)).folder == done.entry.folder, "its path may be given as well"
    fetched = sum(len(repository.files[name]) for name in names)
    assert done.fetched == fetched
    assert heard.plan is not None
    # config.json and the index are fetched to make the plan.
    before = len(repository.files["config.json"]) + len(repository.files["model.safetensors.index.json"])
    assert (heard.plan.fetch, heard.plan.present) == (fetched - before, before)
    assert heard.plan.skipped == sum(map(len, repository.files.values())) - fetched
    assert heard.plan.licence == "qwen-research (LICENSE)"
    assert heard.plan.layout == "Qwen2.5-Omni"
    manifest = done.entry.manifest
    assert manifest.revision == COMMIT
    assert {name: fact.sha256 for name, fact in manifest.files.items()} == {n: repository.sha256[n] for n in names}


def test_a_second_start_asks_nobody(server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither online nor offline is a connection attempted once the model is here."""
    folder = pulled().entry.folder
    server.requests.clear()
    assert resolve_model(NAME).folder == folder
    assert resolve_model(NAME).revision == COMMIT
    assert pulled().plan is None
    assert server.requests == []
    connections = []
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *a: connections.append(a))
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pulled().entry.folder == folder
    assert resolve_model(NAME).folder == folder
    assert connections == []


def test_offline_and_not_here(cache: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as failed:
        pulled()
    assert "HF_HUB_OFFLINE" in failed.value.message
    assert failed.value.hint == f"HF_HUB_OFFLINE=0 echopix models pull {NAME}"
    with pytest.raises(ModelError) as failed:
        resolve_model(NAME)
    assert failed.value.hint == f"echopix models pull {NAME}"
    assert server.requests == []


def test_a_client_that_finds_itself_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own client refuses each request, too, with what is an OSError."""
    from huggingface_hub import constants

    web = Web(NAME, "someone/omni", None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        web.metadata()


def test_offline_the_hubs_own_cache_is_checked_and_taken(
    cache: Path, server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that another program fetched, or that were carried here on a disk."""
    from huggingface_hub import constants

    pulled()
    shutil.rmtree(tmp_path / "echopix")
    server.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = pulled()
    assert (done.fetched, done.entry.manifest.revision) == (0, COMMIT)
    assert server.requests == []
    shutil.rmtree(tmp_path / "echopix")
    flip(done.entry.folder / BIG)
    with pytest.raises(ModelError, match=f"{BIG} of someone/omni is damaged"):
        pulled()


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.usefixtures("impatient")
def test_a_cut_connection_is_taken_up_again_within_the_run(cache: Path, server: HubServer) -> None:
    server.cut[BIG] = [CUT]
    heard = Heard()
    done = pulled(heard)
    assert server.served(BIG) == [None, f"bytes={CUT}-"]
    assert any(f"going on at byte {CUT} of {BIG}" in notice for notice in heard.notices)
    assert done.fetched == done.entry.size


@pytest.mark.usefixtures("impatient")
def test_a_link_that_drops_every_three_megabytes_gets_there(cache: Path, server: HubServer) -> None:
    """Each try goes on where the last one ended; only tries that bring nothing are counted against the server."""
    server.cut[BIG] = [3_000_000] * 8
    done = pulled()
    assert server.served(BIG) == [None, *(f"bytes={3_000_000 * n}-" for n in range(1, 9))]
    assert done.fetched == done.entry.size


def test_no_answer_is_asked_for_after_the_check(cache: Path, server: HubServer) -> None:
    """Each file is asked for once, and its link is made here."""
    done = pulled()
    asked = [r.path.rpartition("/")[2] for r in server.requests if r.origin == "hub" and "/resolve/" in r.path]
    assert sorted(asked) == sorted(done.entry.manifest.files)
    for name, fact in done.entry.manifest.files.items():
        link = done.entry.folder / name
        assert os.readlink(link).startswith("../../blobs/") and link.stat().st_size == fact.size


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["cut", "stall", "500", "429"])
def test_what_has_come_is_kept_for_the_next_run(
    cache: Path, server: HubServer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first block comes, then the server fails until the client gives up. Nothing is taken for whole."""
    if fault == "stall":
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
        server.stall[BIG] = [CUT] + [0] * 5
    elif fault == "cut":
        server.cut[BIG] = [CUT] + [0] * 5
    else:
        server.cut[BIG] = [CUT]
        server.status[BIG] = [0] + [int(fault)] * 6
    with pytest.raises(ModelError) as failed:
        pulled()
    assert f"echopix models pull {NAME}" in failed.value.hint
    (part,) = hub.parts(cache)
    assert part.stat().st_size == CUT
    assert not (cache / "models--someone--omni" / "snapshots" / COMMIT / BIG).exists()
    assert Store().all() == []
    with pytest.raises(ModelError, match="not on this machine"):
        resolve_model(NAME)
    for switch in (server.stall, server.cut, server.status):
        switch.clear()
    server.requests.clear()
    done = pulled()
    assert server.served(BIG) == [f"bytes={CUT}-"]
    assert server.served(SECOND) == []  # whole already
    assert done.fetched == done.entry.size - CUT - sum(
        fact.size for name, fact in done.entry.manifest.files.items() if name != BIG
    )
    assert Store().verify(done.entry) == []
    assert hub.parts(cache) == {}


def test_a_server_that_ignores_ranges(cache: Path, server: HubServer, repository: Repository) -> None:
    begun = cache / "models--someone--omni" / "blobs" / (repository.sha256[BIG] + PART)
    begun.parent.mkdir(parents=True)
    begun.write_bytes(repository.files[BIG][:CUT])
    server.ranges = False
    assert Store().verify(pulled().entry) == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("headers", [{"Content-Length": "5"}, {"Content-Type": "text/html; charset=utf-8"}])
@pytest.mark.parametrize("begun", [0, CUT])
def test_some_page_in_its_place_costs_nothing_of_what_came(
    cache: Path, server: HubServer, repository: Repository, begun: int, headers: dict[str, str]
) -> None:
    """A portal that wants a password answers everything, and with success."""
    part = cache / "models--someone--omni" / "blobs" / (repository.sha256[BIG] + PART)
    part.parent.mkdir(parents=True)
    part.write_bytes(repository.files[BIG][:begun])

    def portal(origin: str, path: str, request: Any) -> bool:
        if origin == "cdn" and path.endswith(BIG):
            request.send_response(200)
            for name, value in headers.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(b"login")
            request.close_connection = True
        return origin == "cdn" and path.endswith(BIG)

    server.hostile = portal
    with pytest.raises(ModelError, match="sends something else in place of"):
        pulled()
    assert part.stat().st_size == begun
    server.hostile = None
    assert Store().verify(pulled().entry) == []
    assert server.served(BIG)[-1] == (f"bytes={begun}-" if begun else None)


def test_a_flipped_byte_is_fetched_again_once(cache: Path, server: HubServer) -> None:
    """Files of the right length with other bytes, which the hub's own client accepts."""
    server.corrupt[BIG] = 1
    server.corrupt["tokenizer.json"] = 1  # compared by git's hash
    heard = Heard()
    done = pulled(heard)
    assert Store().verify(done.entry) == []
    assert len(server.served(BIG)) == 2
    assert sum("differs from the checksum" in notice for notice in heard.notices) == 2


@pytest.mark.parametrize("name", [SECOND, "config.json"])
def test_bytes_that_stay_wrong_are_never_used(cache: Path, server: HubServer, name: str) -> None:
    server.corrupt[name] = 9
    with pytest.raises(
        ModelError, match=f"{name} of someone/omni differs from the checksum that the hub states, twice"
    ):
        pulled()
    assert Store().all() == []
    assert not list(cache.glob(f"**/snapshots/*/{name}"))
    assert hub.parts(cache) == {}


def test_files_with_a_hash_of_gits_are_read_in_blocks(tmp_path: Path) -> None:
    """Weights may be such files, too."""
    size, path = 64 * 2**20, tmp_path / "large"
    with open(path, "wb") as made:
        made.truncate(size)
    etag = hashlib.sha1(b"blob %d\0" % size + bytes(size)).hexdigest()
    transfer = Transfer(NAME, "someone/omni", None, Progress())
    tracemalloc.start()
    try:
        assert transfer._matches(RemoteFile("large", size, etag, None), path)
        assert tracemalloc.get_traced_memory()[1] < size / 8
        assert not transfer._matches(RemoteFile("large", size, "0" * 40, None), path)
    finally:
        tracemalloc.stop()


def test_damage_on_the_disk_is_mended_by_the_next_pull(cache: Path, server: HubServer) -> None:
    done = pulled()
    (done.entry.folder / SECOND).resolve().write_bytes(b"short")
    with pytest.raises(ModelError, match=f"{SECOND} has 5 bytes, not 1500000") as failed:
        resolve_model(NAME)
    assert failed.value.hint == f"echopix models pull {NAME}"
    server.requests.clear()
    assert Store().verify(pulled().entry) == []
    assert (len(server.served(SECOND)), len(server.served(BIG))) == (1, 0)


def test_a_revision_is_resolved_once(cache: Path, server: HubServer, repository: Repository) -> None:
    """What the default branch was at the first pull stays, whatever it becomes; a pinned one is kept beside it."""
    server.repositories["someone/moving"] = Repository(repository.files)
    first = pulled(name="hf:someone/moving")
    server.repositories["someone/moving"] = Repository(
        {**repository.files, "generation_config.json": b'{"top_k": 1}'}, commit="f" * 40
    )
    assert pulled(name="hf:someone/moving").entry.manifest.revision == COMMIT
    assert resolve_model("hf:someone/moving").revision == COMMIT
    server.requests.clear()
    pinned = pulled(name=f"hf:someone/moving@{'f' * 40}")
    assert pinned.fetched == len(b'{"top_k": 1}')  # all else is shared
    assert resolve_model(f"hf:someone/moving@{'f' * 40}").folder != first.entry.folder


# Below, whole processes: killed, interrupted, side by side.


def start(server: HubServer, folder: Path, *more: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "echopix_cli", "models", "pull", NAME, *more],
        env={**environment(server, folder), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_a_part_that_the_next_goes_on_with(
    server: HubServer, cache: Path, tmp_path: Path, number: signal.Signals
) -> None:
    server.slow = 0.05
    process = start(server, tmp_path)
    wait_until(lambda: any(size >= 5_000_000 for size in hub.parts(cache).values()))
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    if number == signal.SIGINT:
        assert f"what is there is kept, and this goes on: echopix models pull {NAME}" in err
        assert "Traceback" not in err
    server.slow = 0.0
    server.requests.clear()
    (part,) = hub.parts(cache)
    kept = part.stat().st_size
    done = pulled()  # in this process: no lock of the dead one is in the way
    assert server.served(BIG) == [f"bytes={kept}-"]
    assert Store().verify(done.entry) == []


@pytest.mark.parametrize("folder", ["echopix", "another"])
def test_of_two_processes_one_works_and_one_waits(
    server: HubServer, cache: Path, tmp_path: Path, repository: Repository, folder: str
) -> None:
    """The second may have another folder of its own, and share the hub's cache alone."""
    server.slow = 60.0
    first = start(server, tmp_path, "--json")
    wait_until(lambda: any(part.name.startswith(repository.sha256[SECOND]) for part in hub.parts(cache)))
    second = start(server, tmp_path, "--json", ECHOPIX_CACHE_DIR=str(tmp_path / folder))
    assert second.stderr is not None
    said = next(line for line in second.stderr if "another process" in line)
    assert said == f"note: another process is fetching {NAME if folder == 'echopix' else SECOND}: waiting for it\n"
    server.slow = 0.0
    (out1, err1), (out2, err2) = (one.communicate(timeout=PATIENCE) for one in (first, second))
    assert (first.returncode, second.returncode) == (0, 0), (err1, err2)
    one, two = json.loads(out1), json.loads(out2)
    assert one["folder"] == two["folder"] and (two["fetched"] == 0 or folder == "another")
    assert server.served(SECOND) == [None]
    (entry,) = Store(tmp_path / folder).all()
    assert Store(tmp_path / folder).verify(entry) == []
    assert not hub.parts(cache)


def test_offline_from_the_command_line(server: HubServer, tmp_path: Path) -> None:
    """Not here: exit 3 and the command to type."""
    done = subprocess.run(
        [sys.executable, "-m", "echopix_cli", "models", "pull", "qwen2.5-omni-3b"],
        env={**environment(server, tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "try: HF_HUB_OFFLINE=0 echopix models pull qwen2.5-omni-3b" in done.stderr
    assert os.listdir(tmp_path) == ["echopix"]
    assert server.requests == []
