"""``echopix models`` at the terminal: what it prints where, what it asks, what it removes."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from weights.hub_server import COMMIT, HubServer, Repository, environment, point_to, stock_repository

from echopix_cli.weights import hub
from echopix_cli.weights.registry import files_of, find_model
from echopix_cli.weights.store import Store
from echopix_cli.weights.transfer import PART

NAME = "hf:someone/omni"
SHARD = "model-00002-of-00003.safetensors"


@pytest.fixture(scope="module")
def repository() -> Repository:
    """The stock checkpoint without its large shard: these tests are about words."""
    files = dict(stock_repository().files)
    files["model-00001-of-00003.safetensors"] = files[SHARD][::-1]
    return Repository(files, card={"license": "mit\x1b[2J"})


@pytest.fixture
def server(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as running:
        running.repositories["someone/omni"] = repository
        point_to(running, tmp_path, monkeypatch)
        yield running


@pytest.fixture
def folder(server: HubServer, tmp_path: Path) -> Path:
    """Where the model's files will lie."""
    return tmp_path / "hub" / "models--someone--omni" / "snapshots" / COMMIT


def test_list_before_and_after(command, server: HubServer, tmp_path: Path) -> None:
    lines = [line.split("\t") for line in command("models", "list").out.splitlines()]
    assert [line[:2] for line in lines] == [
        ["tiny", "bundled"], ["qwen2.5-omni-3b", "not here"], ["qwen2.5-omni-7b", "not here"],
    ]  # fmt: skip
    assert "non-commercial" in lines[1][3]
    assert lines[2][2].startswith("about 1")
    assert server.requests == []
    command("models", "pull", NAME)
    with Store().create("nf4-omni", kind="quantized", source="someone/omni", revision=COMMIT) as stage:
        (stage / "w").write_bytes(b"abc")
    lines = [line.split("\t") for line in command("models", "list").out.splitlines()]
    assert lines[3][:2] == [NAME, "ready"]
    assert lines[4] == ["nf4-omni", "ready", "3 B", "quantized", "someone/omni"]
    (record,) = command("models", "list", "--json").records
    assert record["cache_dir"] == str(tmp_path / "echopix")
    assert [model["state"] for model in record["models"]] == ["bundled", "not here", "not here", "ready"]
    assert record["others"][0]["key"] == "nf4-omni"


class Terminal(io.StringIO):
    """A stdout that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [60, 80, 120])
def test_list_loses_nothing_on_a_narrow_terminal(
    command, server: HubServer, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One table with headings where it fits; elsewhere a value to a line, and no line is cut or broken."""
    plain = [line.split("\t") for line in command("models", "list").out.splitlines()]
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("COLUMNS", str(width))
    from echopix_cli.cli.model_records import columns
    from echopix_cli.cli.output import Output

    columns(Output(), plain, ("model", "state", "size", "licence", "source"))
    lines = shown.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert [cell in shown.getvalue() for row in plain for cell in row] == [True] * 15
    assert len(lines) == (4 if width == 120 else 15)


def test_a_record_of_no_files_is_not_whole(command, server: HubServer, tmp_path: Path) -> None:
    command("models", "pull", NAME)
    (manifest,) = (tmp_path / "echopix" / "entries").glob("*/manifest.json")
    raw = json.loads(manifest.read_text())
    raw["files"] = {}
    manifest.write_text(json.dumps(raw))
    ran = command("models", "verify", NAME, "--json")
    assert ran.code == 3 and ran.records[0]["whole"] is False
    assert "its manifest.json lists no files" in ran.err
    assert command("models", "path", NAME).code == 3
    assert command("models", "pull", NAME).code == 0
    assert command("models", "verify", NAME).code == 0


def test_pull_says_what_it_is_about_to_do(command, server: HubServer, repository: Repository, folder: Path) -> None:
    """Before the first large file: licence, sizes, destination, free disk. Text from the hub is inert."""
    ran = command("models", "pull", NAME)
    assert ran.code == 0 and ran.out == ""
    lines = ran.err.splitlines()
    first = next(number for number, line in enumerate(lines) if "1 of " in line)
    announced = "\n".join(lines[:first])
    assert f"Qwen2.5-Omni from someone/omni, revision {COMMIT}" in announced
    assert "licence: the hub states: mit\\x1b[2J" in announced
    assert "3.0 MB to fetch" in announced and "1.1 MB in 5 files not needed and not fetched" in announced
    assert f"to {folder}, " in announced and " free" in announced
    assert f"{NAME} is whole and checked: {folder}" in lines[-1]
    assert "\x1b" not in ran.err
    again = command("models", "pull", NAME)
    assert f"is on this machine already: {folder}" in again.err


def test_pull_as_json(command, server: HubServer, repository: Repository, folder: Path) -> None:
    (plan,) = command("models", "pull", NAME, "--dry-run", "--json").records
    assert not (folder / SHARD).exists()
    assert plan["to_fetch"] + plan["present"] == plan["bytes"] == sum(plan["files"].values())
    (done,) = command("models", "pull", NAME, "--json", "-q").records
    assert done["folder"] == str(folder) and done["revision"] == COMMIT
    assert done["fetched"] == plan["to_fetch"]
    assert done["not_needed"] == sum(map(len, repository.files.values())) - done["bytes"]


def test_path_and_info(command, server: HubServer, folder: Path, tmp_path: Path) -> None:
    ran = command("models", "path", NAME)
    assert (ran.code, ran.out) == (3, "")
    assert f"try: echopix models pull {NAME}" in ran.err
    command("models", "pull", NAME)
    assert command("models", "path", NAME).out == f"{folder}\n"
    (record,) = command("models", "info", NAME, "--json").records
    assert record["files"][SHARD]["size"] == 1_500_000
    assert (record["layout"], record["revision"], record["state"]) == ("Qwen2.5-Omni", COMMIT, "ready")
    text = command("models", "info", "qwen2.5-omni-7b").out
    assert "context\t32768 tokens" in text and "Apache-2.0" in text and "nf4 7.9 GiB" in text
    rows = dict(line.split("\t", 1) for line in command("models", "info", "tiny").out.splitlines())
    bundled = files_of(find_model("tiny")).folder
    numbers = sum(tensor.numel() for tensor in load_file(bundled / "model.safetensors").values())
    context = json.loads((bundled / "config.json").read_text())["thinker_config"]["text_config"][
        "max_position_embeddings"
    ]
    assert (rows["parameters"], rows["context"]) == (f"{numbers / 1e6:.1f} million", f"{context} tokens")
    assert rows["weights"].startswith(f"none {2 * numbers / 2**20:.1f} MiB, int8 ")
    for what in ("path", "pull"):
        nothing = command("models", what, tmp_path)
        assert (nothing.code, nothing.out) == (3, "")
        assert f"error: {tmp_path} holds no config.json\n" in nothing.err
    wrong = command("models", "info", "quen")
    assert wrong.code == 3
    assert "qwen2.5-omni-3b" in wrong.err


def test_what_a_download_would_bring_is_told_of_what_is_downloaded(
    command, server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text('[models]\ngone = "gone"\n')
    monkeypatch.setenv("ECHOPIX_CONFIG", str(tmp_path / "config.toml"))
    told = ["– (resolved by the first download)", "– (the hub states it before a download)"]
    for name, expected in ((NAME, told), (tmp_path, ["–", "–"]), ("gone", ["–", "–"])):
        rows = dict(line.split("\t", 1) for line in command("models", "info", name).out.splitlines())
        assert [rows["revision"], rows["licence"]] == expected


def test_verify_finds_a_flipped_byte_and_pull_mends_it(command, server: HubServer, folder: Path) -> None:
    command("models", "pull", NAME)
    assert "is whole" in command("models", "verify", NAME).err
    with open(folder / SHARD, "r+b") as file:
        file.write(b"x")
    ran = command("models", "verify", NAME, "--json")
    assert ran.code == 3
    assert f"{SHARD} differs from its checksum" in ran.err
    assert ran.records[0]["whole"] is False
    assert command("models", "list", "--json").records[0]["models"][-1]["state"] == "damaged"
    assert command("models", "verify", NAME).code == 3, "as often as it is asked"
    assert "downloaded files" in command("models", "rm", NAME, "--dry-run").err
    server.requests.clear()
    assert command("models", "pull", NAME).code == 0
    assert server.served(SHARD) == [None]
    assert command("models", "verify", NAME).code == 0


def test_verify_what_has_no_checksums(command, random_checkpoint: Path, tmp_path: Path) -> None:
    assert "there are no checksums" in command("models", "verify", "tiny").err
    assert command("models", "verify", random_checkpoint).code == 0
    for file in random_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: -5 if file.suffix == ".safetensors" else None])
    ran = command("models", "verify", tmp_path)
    assert ran.code == 3 and "model.safetensors" in ran.err
    (tmp_path / "config.json").write_text("{}")
    assert command("models", "verify", tmp_path).code == 3


def test_rm(command, server: HubServer, folder: Path, tmp_path: Path) -> None:
    """Files, record and copies go; other models and other revisions stay."""
    command("models", "pull", NAME)
    with Store().create("nf4-omni", kind="quantized", source="someone/omni", revision=COMMIT) as stage:
        (stage / "w").write_bytes(b"abc")
    with Store().create("nf4-other", kind="quantized", source="someone/other", revision=COMMIT) as stage:
        (stage / "w").write_bytes(b"abc")
    refused = command("models", "rm", NAME)
    assert refused.code == 2 and "--yes" in refused.err
    (told,) = command("models", "rm", NAME, "--dry-run", "--json").records
    assert folder.exists()
    assert {gone["what"] for gone in told["removed"]} == {
        "downloaded files", "record of the download", f"quantized copy of {NAME}",
    }  # fmt: skip
    assert command("models", "rm", NAME, "--yes").code == 0
    assert not folder.exists() and not list((tmp_path / "hub").glob("models--*"))
    assert [entry.key for entry in Store().all()] == ["nf4-other"]
    assert "there is nothing" in command("models", "rm", NAME, "--yes").err


@pytest.mark.parametrize("odd", ["reference", "lost file"])
def test_rm_of_a_cache_that_its_library_does_not_understand(
    command, server: HubServer, folder: Path, tmp_path: Path, odd: str
) -> None:
    command("models", "pull", NAME)
    if odd == "reference":
        (folder.parents[1] / "refs").mkdir(exist_ok=True)
        (folder.parents[1] / "refs" / "main").write_text("f" * 40)
    else:
        (folder / SHARD).resolve().unlink()
    assert command("models", "rm", NAME, "--yes").code == 0
    assert not list((tmp_path / "hub").rglob("*.safetensors"))
    assert not [file for file in (tmp_path / "hub").rglob("blobs/*") if file.is_file()]


def test_what_other_programs_hold_of_a_repository_stays(
    command, server: HubServer, folder: Path, tmp_path: Path
) -> None:
    command("models", "pull", NAME)
    blobs, other = folder.parents[1] / "blobs", folder.parent / ("e" * 40)
    (blobs / ("e" * 64)).write_bytes(b"speech")
    (folder / "talker.safetensors").symlink_to(blobs / ("e" * 64))
    (blobs / ("d" * 64 + ".incomplete")).write_bytes(b"half")
    other.mkdir()
    (other / "config.json").symlink_to((folder / "config.json").resolve())  # another revision has the same one
    (told,) = command("models", "rm", NAME, "--dry-run", "--json").records
    before = sum(file.stat().st_size for file in blobs.iterdir())
    assert command("models", "rm", NAME, "--yes").code == 0
    assert (folder / "talker.safetensors").read_bytes() == b"speech"
    assert json.loads((other / "config.json").read_text())
    left = {file.name for file in blobs.iterdir()}
    assert left == {"e" * 64, "d" * 64 + ".incomplete", (other / "config.json").resolve().name}
    freed = before - sum(file.stat().st_size for file in blobs.iterdir())
    (files,) = (gone for gone in told["removed"] if gone["what"] == "downloaded files")
    assert freed in files.values()


@pytest.mark.parametrize("odd", ["name", "folder"])
def test_rm_touches_nothing_outside_the_hubs_cache(
    command, server: HubServer, folder: Path, tmp_path: Path, odd: str
) -> None:
    """Whatever a record of echopix has become."""
    command("models", "pull", NAME)
    mine = tmp_path / "mine" / "deep" / "model"
    mine.mkdir(parents=True)
    (mine / "config.json").write_text("mine")
    (entry,) = Store().all()
    record = entry.home / "manifest.json"
    told = json.loads(record.read_text())
    if odd == "folder":
        told["folder"] = str(mine)
    else:
        told["files"][os.path.relpath(mine / "config.json", folder)] = next(iter(told["files"].values()))
    record.write_text(json.dumps(told))
    command("models", "rm", NAME, "--yes")
    assert (mine / "config.json").read_text() == "mine"


def test_rm_leaves_what_another_name_needs(command, server: HubServer, folder: Path) -> None:
    command("models", "pull", NAME)
    command("models", "pull", f"{NAME}@{COMMIT}")
    assert command("models", "rm", NAME, "-y").code == 0
    assert command("models", "path", NAME).code == 3
    assert command("models", "path", f"{NAME}@{COMMIT}").out == f"{folder}\n"
    assert command("models", "verify", f"{NAME}@{COMMIT}").code == 0


def test_rm_of_what_is_not_ours(command, random_checkpoint: Path) -> None:
    for name, said in (("tiny", "comes with echopix"), (str(random_checkpoint), "a folder of yours")):
        ran = command("models", "rm", name, "--yes")
        assert ran.code == 2 and said in ran.err
    assert random_checkpoint.is_dir()


def test_prune(command, server: HubServer, folder: Path, tmp_path: Path) -> None:
    """Parts, half-written entries and records without files go; what is whole or being worked on stays."""
    command("models", "pull", NAME)
    blobs = tmp_path / "hub" / "models--someone--omni" / "blobs"
    (blobs / ("a" * 64 + PART)).write_bytes(b"half")
    elsewhere = tmp_path / "hub" / "models--some--body" / "blobs" / ("b" * 64 + PART)
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(b"half")
    store = Store()
    (store.entries / ".nf4-x.01234567.stage").mkdir()
    (store.entries / ".nf4-x.01234567.stage" / "w").write_bytes(b"abc")
    with store.create("damaged", kind="quantized", source="a/b", revision=None) as stage:
        (stage / "w").write_bytes(b"abc")
    (store.entries / "damaged" / "w").unlink()
    with store.lock("hub-some--body"):
        ran = command("models", "prune", "--yes", "--json")
    assert ran.code == 1 and f"{elsewhere} stayed: another process works on it" in ran.err
    assert len(ran.records[0]["removed"]) == 3
    assert elsewhere.exists() and not list(blobs.glob(f"*{PART}"))
    assert sorted(path.name for path in store.entries.iterdir()) == ["hub-someone--omni"]
    assert command("models", "prune", "--yes").code == 0
    assert not elsewhere.exists()
    assert command("models", "path", NAME).code == 0
    assert "there is nothing to prune" in command("models", "prune").err


def test_an_unfinished_download_is_shown(command, server: HubServer, tmp_path: Path) -> None:
    part = tmp_path / "hub" / "models--Qwen--Qwen2.5-Omni-3B" / "blobs" / ("a" * 64 + PART)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    assert "qwen2.5-omni-3b\tunfinished (4 B)" in command("models", "list").out
    assert command("models", "rm", "qwen2.5-omni-3b", "--yes").code == 0
    assert not part.exists()


def on_a_terminal(arguments: list[str], environ: dict[str, str], typed: bytes = b"") -> tuple[int, str]:
    """A command with a terminal for its stdin and stderr, and what it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "echopix_cli", *arguments],
        stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, env={**environ, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, typed)
    shown = b""
    while True:
        try:
            got = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not got:
            break
        shown += got
    os.close(ours)
    return process.wait(30), shown.decode(errors="replace")


def test_on_a_terminal_it_draws_and_asks(server: HubServer, tmp_path: Path, folder: Path) -> None:
    environ = environment(server, tmp_path)
    server.slow = 0.1
    code, shown = on_a_terminal(["models", "pull", NAME], environ)
    assert code == 0
    assert "━" in shown and "MB" in shown and "licence" in shown
    assert "1 of 10 files" not in shown  # lines are for where there is no terminal
    code, shown = on_a_terminal(["models", "rm", NAME], environ, b"n\n")
    assert (code, folder.exists()) == (1, True)
    assert "remove 2 things" in shown and "nothing was removed" in shown
    code, _ = on_a_terminal(["models", "rm", NAME], environ, b"y\n")
    assert (code, folder.exists()) == (0, False)


def test_a_pulled_checkpoint_answers_offline(
    command, server: HubServer, random_checkpoint: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the hub to an answer, and the record says which commit answered."""
    from huggingface_hub import constants

    files = {path.name: path.read_bytes() for path in random_checkpoint.iterdir()}
    server.repositories["me/sieve"] = Repository(files, commit="e" * 40)
    assert command("models", "pull", "hf:me/sieve").code == 0
    assert hub.pull(find_model("hf:me/sieve")).entry.manifest.settings["layout"] == "EchoingPixels"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    (answer,) = command(
        "ask", clips["silent"], "What?", "--model", "hf:me/sieve", "--max-new-tokens", "2", "--json"
    ).records
    assert answer["model"]["revision"] == "e" * 40
    assert answer["model"]["name"] == "hf:me/sieve"
    assert server.requests == []
    assert json.dumps(answer)
