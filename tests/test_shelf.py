"""A folder of files that may go at any time: capped, shared by processes, some of which are killed."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from places import ROOT

from echopix_cli.errors import EchopixError
from echopix_cli.files import WHOLE, identity_of, sha256_of, whole_identity
from echopix_cli.shelf import Full, Shelf, TooLarge, feature_shelf


def name(number: int) -> str:
    return f"{number:064x}.safetensors"


def used(shelf: Shelf, number: int, seconds: float) -> None:
    """As if a file had been used so many seconds after 1970 began."""
    os.utime(shelf.folder / name(number), (seconds, seconds))


def lying(shelf: Shelf) -> list[int]:
    """Numbers of what lies there, the last used at the end."""
    return [int(item.path.stem, 16) for item in shelf.items()]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "cache" / "features", 1000)


def test_what_is_put_there_is_found_there(shelf: Shelf) -> None:
    assert shelf.get(name(1)) is None
    assert (shelf.items(), shelf.clear()) == ([], [])
    shelf.put(name(1), b"one")
    shelf.put(name(1), b"two")
    assert shelf.get(name(1)) == b"two"
    (item,) = shelf.items()
    assert (item.path, item.size) == (shelf.folder / name(1), 3)
    shelf.drop(name(1))
    shelf.drop(name(1))
    assert shelf.get(name(1)) is None
    for odd in ("a.safetensors", "../" + name(1), "f" * 64, ""):
        with pytest.raises(ValueError, match="no name"):
            shelf.get(odd)


def test_what_is_not_to_go_stays_and_what_does_not_fit_beside_it_is_refused(shelf: Shelf) -> None:
    for number in range(3):
        shelf.put(name(number), bytes(300))
        used(shelf, number, 10.0 + number)
    shelf.put(name(3), bytes(300), {name(0), name(3)})
    assert set(lying(shelf)) == {0, 2, 3}, "the one unused for longest of the others went"
    with pytest.raises(Full, match="1,001 bytes are more than the 1,000"):
        shelf.put(name(4), bytes(401), {name(0), name(3)})
    assert set(lying(shelf)) == {0, 2, 3}, "and none for what cannot be kept"
    shelf.put(name(3), bytes(700), {name(0), name(3)})
    assert set(lying(shelf)) == {0, 3}, "a file is not beside itself"


def test_what_is_no_file_is_neither_opened_nor_kept(shelf: Shelf, tmp_path: Path) -> None:
    secret, opened = tmp_path / "secret", []
    secret.write_bytes(b"secret")
    shelf.put(name(0), b"")
    path = shelf.folder / name(1)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened.append(arguments[0])

    watching = False
    sys.addaudithook(watch)
    for plant in (
        lambda: path.symlink_to(secret),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("nowhere"),
        lambda: os.mkfifo(path),
    ):
        plant()
        watching = True
        assert shelf.get(name(1)) is None
        watching = False
        assert opened == []
        assert not path.is_symlink() and not path.exists()
        shelf.put(name(1), b"one")
        assert shelf.get(name(1)) == b"one"
        path.unlink()
    assert secret.read_bytes() == b"secret"
    path.mkdir()
    assert shelf.get(name(1)) is None


def test_it_is_its_owners_alone(shelf: Shelf, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        shelf.put(name(1), b"one")
    finally:
        os.umask(before)
    assert shelf.folder.stat().st_mode & 0o777 == 0o700
    assert (shelf.folder / name(1)).stat().st_mode & 0o777 == 0o600
    assert feature_shelf(tmp_path, 5).folder == tmp_path / "features"


def test_what_was_not_used_for_longest_goes_first(shelf: Shelf) -> None:
    for number in range(4):
        shelf.put(name(number), bytes(250))
        used(shelf, number, 1000 + number)
    assert lying(shelf) == [0, 1, 2, 3]  # 1000 bytes are not too many
    assert shelf.get(name(0)) == bytes(250)
    shelf.put(name(4), bytes(1))
    assert lying(shelf) == [2, 3, 0, 4]
    shelf.put(name(5), bytes(600))
    assert lying(shelf) == [0, 4, 5]
    assert sum(item.size for item in shelf.items()) == 851
    with pytest.raises(TooLarge, match="1,001 bytes are more than the 1,000"):
        shelf.put(name(6), bytes(1001))
    assert lying(shelf) == [0, 4, 5]
    lower = Shelf(shelf.folder, 300)
    assert lower.get(name(5)) is None  # larger than anything that may lie there
    lower.put(name(7), b"")
    assert lying(lower) == [0, 4, 7]


def test_only_its_own_files_are_touched(shelf: Shelf) -> None:
    shelf.put(name(1), b"one")
    (shelf.folder / "notes.txt").write_bytes(bytes(5000))
    old, new = (shelf.folder / f".{name(2)}.0123456{digit}.part" for digit in "78")
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    Shelf(shelf.folder, shelf.cap).put(name(3), b"three")  # whoever comes anew looks at what lies there
    assert lying(shelf) == [1, 3]
    assert new.exists() and not old.exists()
    assert sorted(item.size for item in shelf.clear()) == [3, 4, 5]
    assert [path.name for path in shelf.folder.iterdir()] == ["notes.txt"]


def test_a_list_is_made_now_and_then_and_the_cap_holds_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also beside hundreds of files that are to stay: what is written costs the same however many lie there."""
    shelf, listed, looked = Shelf(tmp_path, 200_000), [], []
    listing, look = os.listdir, os.lstat
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listing(path))
    monkeypatch.setattr(os, "lstat", lambda path: looked.append(path) or look(path))
    beside: set[str] = set()
    for number in range(1500):  # three times what may lie there: of several films, and of clips
        beside = {name(number)} if number % 300 == 0 else beside | {name(number)}
        before = len(listed), len(looked)
        shelf.put(name(number), bytes(400), beside if number % 2 else ())
        if before[0] == len(listed):
            assert len(looked) - before[1] <= 1, "nothing but what was not known yet"
        lie = sum(look(tmp_path / entry).st_size for entry in listing(tmp_path))
        assert lie <= shelf.cap
    assert lie > 0.97 * shelf.cap
    assert len(listed) <= 2 * (1 + 1500 * 400 * 100 // shelf.cap), "as often as a hundredth of the cap was written"


def test_several_at_once_exceed_the_cap_by_no_more_than_a_hundredth_each(tmp_path: Path) -> None:
    shelves, most = [Shelf(tmp_path, 100_000) for _ in range(4)], 0
    for number in range(3000):
        shelves[number % 7 % 4].put(name(number), bytes(100))
        if number % 10 == 0:
            most = max(most, sum(item.size for item in shelves[0].items()))
    assert 97_000 < most <= 103_000


def test_what_another_process_removed_is_not_counted_among_what_stays(shelf: Shelf) -> None:
    for number in range(3):
        shelf.put(name(number), bytes(300))
    Shelf(shelf.folder, shelf.cap).drop(name(1))
    beside = {name(number) for number in range(4)}
    shelf.put(name(3), bytes(400), beside)
    assert set(lying(shelf)) == {0, 2, 3}
    with pytest.raises(Full, match="1,001 bytes"):
        shelf.put(name(4), bytes(1), beside)


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Files cannot grow beyond a limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_refuses(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(name(1), b"old")
    with full_disk(100), pytest.raises(EchopixError, match="cannot write"):
        shelf.put(name(1), bytes(500))
    assert shelf.get(name(1)) == b"old"
    assert len(list(shelf.folder.iterdir())) == 1
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EchopixError, match="cannot write to"):
        Shelf(tmp_path / "file" / "features", 1000).put(name(1), b"one")
    assert Shelf(tmp_path / "file" / "features", 1000).get(name(1)) is None
    for look in (Shelf.items, Shelf.clear):
        with pytest.raises(EchopixError, match="cannot look into"):
            look(Shelf(tmp_path / "file" / "features", 1000))


def test_what_cannot_be_listed_can_be_written(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    shelf.put(name(1), bytes(600))
    shelf.put(name(2), bytes(600))
    assert (shelf.get(name(1)), shelf.get(name(2))) == (bytes(600), bytes(600))


WRITER = """
import hashlib, os, random, sys
from pathlib import Path
from echopix_cli.shelf import Shelf
shelf, chance = Shelf(Path(sys.argv[1]), 20_000_000), random.Random(int(sys.argv[2]))
print("ready", flush=True)
for turn in range(int(sys.argv[3])):
    name = f"{chance.randrange(12):064x}.safetensors"
    content = shelf.get(name)
    if content is not None:
        assert hashlib.sha256(content[32:]).digest() == content[:32], "half a file"
    content = os.urandom(chance.randrange(1_000_000, 4_000_000))
    shelf.put(name, hashlib.sha256(content).digest() + content)
"""


def writer(shelf: Shelf, seed: int, turns: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(shelf.folder), str(seed), str(turns)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_processes_share_it_and_may_be_killed(tmp_path: Path) -> None:
    """Whole files or none, whoever dies; no more than the cap when all have ended; what the dead left goes."""
    shelf, chance = Shelf(tmp_path / "features", 20_000_000), random.Random(3)
    lasting = [writer(shelf, seed, 25) for seed in (1, 2)]
    for seed in range(10, 16):
        dying = writer(shelf, seed, 10_000)
        assert dying.stdout is not None
        dying.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.15))
        dying.send_signal(signal.SIGKILL)
        dying.communicate()
    for process in lasting:
        assert process.communicate(timeout=120)[1] == ""
        assert process.returncode == 0
    last = writer(shelf, 99, 1)  # the killed ones may have died between writing and making room
    assert last.communicate(timeout=60)[1] == ""
    items = shelf.items()
    assert 0 < sum(item.size for item in items) <= shelf.cap
    for item in items:
        content = item.path.read_bytes()
        assert hashlib.sha256(content[32:]).digest() == content[:32]
    left = [path for path in shelf.folder.iterdir() if path.name.startswith(".")]
    for path in left:
        os.utime(path, (1, 1))
    shelf.put(name(1), b"one")
    assert not [path for path in shelf.folder.iterdir() if path.name.startswith(".")]


def test_identities_of_files(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"content")
    assert identity_of(small) == whole_identity(sha256_of(small))
    os.utime(small, (1, 1))
    small.rename(tmp_path / "renamed")
    assert identity_of(tmp_path / "renamed") == whole_identity(hashlib.sha256(b"content").hexdigest())

    content = bytearray(os.urandom(WHOLE + 1))
    large.write_bytes(content)
    os.utime(large, ns=(5, 10**18 + 7))
    known = identity_of(large)
    copy = tmp_path / "copy"
    copy.write_bytes(content)
    assert identity_of(copy) != known
    os.utime(copy, ns=(5, 10**18 + 7))
    assert identity_of(copy) == known
    os.utime(copy, ns=(5, 10**18 + 8))
    assert identity_of(copy) != known
    for place in (0, len(content) - 1, len(content) // 15):  # head, tail, and a block between them
        content[place] ^= 1
        large.write_bytes(content)
        os.utime(large, ns=(5, 10**18 + 7))
        assert identity_of(large) != known
        content[place] ^= 1
    large.write_bytes(content + b"x")
    os.utime(large, ns=(5, 10**18 + 7))
    assert identity_of(large) != known
