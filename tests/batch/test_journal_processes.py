"""The output file of a batch: other processes that hold it, and disks that refuse."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from journal_lines import OURS, line, record, reopened

from echopix_cli.batch.journal import Journal
from echopix_cli.batch.tasks import Task
from echopix_cli.errors import UsageError

SCRIPT = """
import json, os, resource, sys
from functools import partial
from pathlib import Path
from echopix_cli.batch.journal import Journal
from echopix_cli.batch.tasks import Task
from echopix_cli.errors import EchopixError
path = Path(sys.argv[1])
failed = Task("failed.mp4", "q")
def record(number):
    return {"schema_version": 1, "id": number, "key": "key", "file": None, "media": "m" * 50, "question": "q"}
"""


def script(code: str, *arguments: object, under: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [*under, sys.executable, "-c", SCRIPT + code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """The lock holds before and after another file takes the name, for both, and dies with its holder."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(line(Task("failed.mp4", "q"), None, True))
    code = """
journal = Journal(path, [failed])
print("open", flush=True)
sys.stdin.readline()
journal.begin()
journal.append(record(0))
print("begun", flush=True)
sys.stdin.readline()
"""
    with script(code, path) as other:
        assert other.stdin is not None and other.stdout is not None
        for expected in ("open\n", "begun\n"):
            assert other.stdout.readline() == expected
            before = path.read_bytes()
            for overwrite in (False, True):
                with pytest.raises(UsageError, match="another process writes"):
                    Journal(path, (), overwrite)
            assert path.read_bytes() == before
            if expected == "open\n":
                other.stdin.write("\n")
                other.stdin.flush()
        other.send_signal(signal.SIGKILL)
        other.wait()
    journal = reopened(path)
    assert journal.claim("key", Task("m" * 50, "q", 0))
    journal.close()


def test_of_many_that_begin_at_once_one_writes(tmp_path: Path) -> None:
    """Each forgets the failure, so each would put a file of its own in place."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(line(Task("failed.mp4", "q"), None, True))
    code = """
sys.stdin.readline()
try:
    journal = Journal(path, [failed])
    journal.begin()
    journal.append(record(int(sys.argv[2])))
    print("wrote", flush=True)
    sys.stdin.readline()
except EchopixError as error:
    print(error, flush=True)
"""
    others = [script(code, path, number) for number in range(4)]
    for other in others:
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
    said = [other.stdout.readline() for other in others if other.stdout is not None]
    for other in others:
        other.communicate("\n")
    assert said.count("wrote\n") == 1
    assert sum("another process writes" in text for text in said) == 3
    (kept,) = [json.loads(text) for text in path.read_text().splitlines()]
    assert kept["id"] == said.index("wrote\n")


def test_a_file_that_is_replaced_between_opening_and_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process has come and gone; what it put in place is the file, and the one that was opened is not."""
    path, failed = tmp_path / "out.jsonl", Task("failed.mp4", "q")
    path.write_bytes(line(failed, None, True))
    flock, came = fcntl.flock, []

    def after_another(file: int, how: int) -> None:
        if not came:
            came.append(True)
            other = reopened(path, [failed])
            other.append(record(failed, "key"))
            other.close()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", after_another)
    journal = reopened(path, [failed])
    assert journal.claim("key", failed)
    journal.append(record(Task("a.mp4", "q"), "key"))
    journal.close()
    assert path.read_bytes() == line(failed, "key") + OURS


FILL = """
journal = Journal(path)
journal.begin()
for number in range(10000):
    try:
        journal.append(record(number))
    except EchopixError as error:
        print(number, error, "|", error.hint)
        break
size = path.stat().st_size
try:
    journal.append(record("again"))  # a batch would end here; the file must not suffer if it does not
except EchopixError:
    pass
print(size == path.stat().st_size)
"""


def check_filled(path: Path, out: str, error: str, said: str) -> None:
    first, same = out.splitlines()
    assert error == ""
    assert said in first and "make room" in first
    assert same == "True"
    count = int(first.split()[0])
    assert count > 3
    content = path.read_text()
    assert content.endswith("\n")
    assert [json.loads(text)["id"] for text in content.splitlines()] == list(range(count))


@pytest.mark.parametrize("limit", [1000, 1001, 1066, 4096])
def test_a_file_may_not_grow(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "out.jsonl"
    code = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n" + FILL
    check_filled(path, *script(code, path).communicate(timeout=60), "File too large")
    assert path.stat().st_size <= limit


def test_a_full_disk(tmp_path: Path) -> None:
    """A disk of 16 kB in a namespace of its own; what is left on it is copied out."""
    own = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*own, "mount", "--version"], capture_output=True).returncode:
        pytest.skip("this system gives no namespaces to its users")
    mount = f"mount -t tmpfs -o size=16k tmpfs {tmp_path}/disk && "
    under = [*own, "sh", "-c", mount + f'"$@" && cp {tmp_path}/disk/out.jsonl {tmp_path}/kept.jsonl', "-"]
    (tmp_path / "disk").mkdir()
    out, error = script(FILL, tmp_path / "disk" / "out.jsonl", under=under).communicate(timeout=60)
    if "mount" in error:
        pytest.skip(f"no disk can be mounted here: {error}")
    check_filled(tmp_path / "kept.jsonl", out, error, "No space left on device")


def test_forgetting_failures_needs_room_and_costs_nothing_without(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    content = line(Task("failed.mp4", "q"), None, True) + OURS * 5
    path.write_bytes(content)
    code = """
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
journal = Journal(path, [failed])
try:
    journal.begin()
except EchopixError as error:
    print(error)
"""
    out, error = script(code, path).communicate(timeout=60)
    assert (out, error) == (f"cannot write {path}: File too large\n", "")
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_a_file_and_a_folder_that_may_only_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "out.jsonl"
    path.write_bytes(OURS)
    path.chmod(0o444)
    code = """
os.chmod(path.parent, int(sys.argv[2], 8))
os.chdir(path.parent)  # the folders above may be closed to others
if os.getuid() == 0:
    os.setuid(65534)  # permissions do not bind the superuser
for overwrite in (False, True):
    for name in sys.argv[3:]:
        try:
            Journal(Path(name), [], overwrite)
        except EchopixError as error:
            print(error)
"""
    out, error = script(code, path, "777", "out.jsonl").communicate(timeout=60)
    assert (out, error) == ("cannot write out.jsonl: Permission denied\n" * 2, "")
    out, error = script(code, path, "555", "new.jsonl").communicate(timeout=60)
    assert (out, error) == ("the folder . cannot be written\n" * 2, "")
    folder.chmod(0o755)
    assert path.read_bytes() == OURS
