"""A hub's cache that others use, too: other stores, other programs, other rights; and a record that is judged."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from weights.hub_server import COMMIT, HubServer, Repository, environment
from weights.pulls import BIG, NAME, SECOND, pulled

from echopix_cli.errors import ModelError
from echopix_cli.weights import hub, unfinished, upkeep
from echopix_cli.weights.registry import find_model
from echopix_cli.weights.store import Busy, FileFact, Store

HOME = "models--someone--omni"
NEWER = "f" * 40


def test_a_cache_that_is_not_written_to_serves(cache: Path, tmp_path: Path) -> None:
    """All files are there; that no name can be noted for other programs is no fault."""
    pulled()
    (tmp_path / "echopix").rename(tmp_path / "before")
    refs = cache / HOME / "refs"
    assert (refs / "main").read_text() == COMMIT
    (refs / "main").unlink()
    refs.rmdir()
    refs.write_text("no folder")
    assert pulled().fetched == 0
    assert refs.read_text() == "no folder"


def test_a_disk_that_fills_meanwhile_is_one_sentence(server: HubServer, cache: Path, tmp_path: Path) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5_500_000, 5_500_000));"
        "from echopix_cli.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "models", "pull", NAME],
        env=environment(server, tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert f"error: cannot write to {cache}: File too large" in done.stderr
    assert "unexpected" not in done.stderr and "Traceback" not in done.stderr


def test_a_folder_in_the_files_place_is_one_sentence(cache: Path, repository: Repository) -> None:
    (cache / HOME / "blobs" / repository.sha256[BIG]).mkdir(parents=True)
    with pytest.raises(ModelError, match=f"cannot write to {cache}"):
        pulled()


def test_what_somebody_writes_to_is_not_removed(cache: Path, tmp_path: Path) -> None:
    """The lock of a store says nothing about the processes of another."""
    part = cache / HOME / "blobs" / ("a" * 64 + unfinished.PART)
    part.parent.mkdir(parents=True)
    with open(part, "ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        ((removal, why),) = upkeep.carry_out(upkeep.of_nobody())
        assert (removal.path, why) == (part, "another process works on it")
        with pytest.raises(Busy):
            unfinished.remove(part)
    ((_, why),) = upkeep.carry_out(upkeep.of_nobody())
    assert why == "" and not part.exists()


def test_a_part_behind_a_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"precious")
    link = tmp_path / f"x{unfinished.PART}"
    link.symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic link"):
        unfinished.remove(link)
    with pytest.raises(OSError, match="symbolic link"), unfinished.owned(link, tmp_path / "blob", lambda: None):
        pass
    assert (tmp_path / "mine").read_bytes() == b"precious"


def test_mending_keeps_to_the_commit(cache: Path, server: HubServer, repository: Repository) -> None:
    """The branch has moved since: what is here is made whole, and not left behind for what is newer."""
    first = pulled()
    (first.entry.folder / "tokenizer.json").resolve().unlink()
    moved = {**repository.files, BIG: repository.files[BIG][::-1]}
    server.repositories["someone/omni"] = Repository(moved, commit=NEWER)
    server.repositories["someone/omni"].older[COMMIT] = repository
    again = pulled()
    assert (again.entry.manifest.revision, again.entry.folder) == (COMMIT, first.entry.folder)
    assert again.fetched == len(repository.files["tokenizer.json"])
    (again.entry.folder / "tokenizer.json").resolve().unlink()
    server.repositories["someone/omni"].older.clear()  # as after a history that was rewritten
    assert pulled().entry.manifest.revision == NEWER


def test_prune_leaves_what_can_be_mended(cache: Path) -> None:
    folder = pulled().entry.folder
    (folder / SECOND).unlink()
    assert upkeep.of_nobody() == []
    assert next(removal.what for removal in upkeep.of_model(find_model(NAME))) == "downloaded files"
    for path in list(folder.iterdir()):
        path.unlink()
    (removal,) = upkeep.of_nobody()
    assert removal.path == Store().entries / "hub-someone--omni"


def test_a_judgement_holds_for_what_was_read(cache: Path, tmp_path: Path) -> None:
    """Reading every byte takes minutes, in which another process may remove an entry, or make it anew."""
    store = Store()
    entry = pulled().entry
    store.remove(entry.key)
    upkeep.judge(entry, ["x is missing"], store)
    assert store.peek(entry.key) is None
    entry = pulled().entry
    with store.lock("hub-someone--omni"):
        upkeep.judge(entry, ["x is missing"], store)
    assert store.open(entry.key) == entry
    upkeep.judge(entry, ["x is missing"], store)
    marked = store.peek(entry.key)
    assert marked is not None and marked.faults == ("x is missing",)
    upkeep.judge(marked, [], store)
    assert store.open(entry.key) is not None
    with store.create("copy", kind="quantized", source="a/b", revision=None) as stage:
        (stage / "w").write_bytes(b"abc")
    made = store.open("copy")
    assert made is not None and made.manifest.files["w"] == FileFact(3, made.manifest.files["w"].sha256)
    with store.create("copy", kind="quantized", source="a/b", revision="new") as stage:
        (stage / "w").write_bytes(b"abc")
    upkeep.judge(made, ["w differs"], store)
    now = store.open("copy")
    assert now is not None
    upkeep.judge(now, ["w differs"], store)
    assert store.peek("copy") is None
    assert os.path.isdir(store.entries)


def test_what_goes_while_it_is_counted(cache: Path, tmp_path: Path) -> None:
    """Another process ends its download, or its conversion, between a look into a folder and one at a file."""
    gone, there = (cache / HOME / "blobs" / (letter * 64 + unfinished.PART) for letter in "ab")
    gone.parent.mkdir(parents=True)
    gone.symlink_to(tmp_path / "ended")  # listed, and no file
    there.write_bytes(b"123")
    assert hub.parts(cache) == {there: 3}
    assert [(found.path, found.size) for found in upkeep.of_nobody()] == [(there, 3)]
