"""Files that appear whole or not at all."""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echopix_cli.errors import EchopixError, UsageError

PART = ".part"  # ends the names of files that are being written
_LONGEST, _NAMED = 255, 200  # bytes of a file's name, and what is taken of it for the one that is written first
WHOLE = 2**20  # bytes up to which a file is known by all of its content
_BLOCK = 1 << 20  # bytes read at a time
_SAMPLES, _SAMPLE = 16, 1 << 14  # of a larger file: how many blocks are read, and their bytes
_HINT = "name a file in a folder that exists and can be written"
FULL, _ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there, or name a file on another disk"


def check_stream(path: Path) -> None:
    """Refuse ``-`` and whatever else names stdout or stderr, which have answers and notes, for a file of its own.

    Raises:
        UsageError: it is one of them.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if str(path) == "-" or _leads_to(path, number):
            raise UsageError(f"{path} is {name}, and no file of its own", _HINT)


def _leads_to(path: Path, number: int) -> bool:
    """Whether a path is that of the file which this process has open under a number."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(number))
    except (OSError, ValueError):
        return False  # there is none yet, or none is open


def check_target(path: Path) -> None:
    """Refuse a place where no file can go before hours are spent on what goes there.

    Raises:
        UsageError: its folder does not exist, or cannot be entered or written, or it is a folder itself, stdout or
            stderr.
    """
    if str(path) == ".":
        raise UsageError("the name of a file to write is that of this folder", _HINT)
    check_stream(path)
    if (length := len(os.fsencode(path.name))) > _LONGEST:
        raise UsageError(f"a name of {length} bytes is too long for a file", "choose a shorter one")
    if os.path.isdir(path):  # Path.is_dir raises where a folder may not be entered
        raise UsageError(f"{path} is a folder", _HINT)
    if not os.path.isdir(path.parent):
        raise UsageError(f"the folder {path.parent} {_absence(path.parent)}", _HINT)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {path.parent} cannot be written", _HINT)


def _absence(folder: Path) -> str:
    """Why there is no folder."""
    try:
        os.stat(folder)
    except PermissionError:
        return "cannot be entered"
    except (OSError, ValueError):
        pass
    return "does not exist"


def write_whole(path: Path, content: bytes, *, mode: int = 0o666, masked: bool = True, durable: bool = True) -> None:
    """Write beside the target and rename once it is on the disk; an existing file is replaced.

    Args:
        path: of the target.
        content: all of it.
        mode: of the new file.
        masked: take away from that mode what the umask does.
        durable: wait for the disk. What is checked when it is read, and can be had again, need not wait.

    Raises:
        EchopixError: the disk or the folder refuses.
    """
    # Chance, because processes of several machines or containers may share a folder and have the same number.
    beside = os.fsdecode(os.fsencode(path.name)[:_NAMED])  # with what is added, no longer than a name may be
    partial = path.with_name(f".{beside}.{os.urandom(4).hex()}{PART}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
            if not masked:
                os.fchmod(file.fileno(), mode)
        if durable:
            sync(partial)
        os.replace(partial, path)
        if durable:
            sync(path.parent)
    except OSError as error:
        hint = _ROOM if error.errno in FULL else _HINT
        raise EchopixError(f"cannot write {path}: {error.strerror or error}", hint) from error
    finally:
        with suppress(OSError):  # nothing is there, or nothing could be written in the first place
            partial.unlink()


def rename_new(part: Path, path: Path) -> None:
    """Give a file its name, unless something has it.

    Raises:
        FileExistsError: something has it.
        OSError: the disk refuses.
    """
    try:
        os.link(part, path)  # renaming would replace what lies there
    except FileExistsError:
        raise
    except OSError:  # file systems of cameras and sticks have no second names
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        try:
            os.replace(part, path)
        except OSError:
            path.unlink()  # what only held the name
            raise
    else:
        part.unlink()


def hidden_name(name: str) -> str:
    """What a file is called that is to take the place of one of this name: always the same, and never too long."""
    whole = os.fsencode(name)
    if len(whole) + len(f".{PART}") > _LONGEST:
        from hashlib import sha256

        name = f"{os.fsdecode(whole[:_NAMED])}.{sha256(whole).hexdigest()[:8]}"
    return f".{name}{PART}"


def nearest_folder(path: Path) -> Path:
    """What there is of a path that is to be made: itself, or the nearest folder above it."""
    # Unlike Path.exists, this takes folders that may not be entered.
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """A folder, made with those above it that are missing; each that was made goes again where it stays empty.

    Raises:
        OSError: it cannot be made.
    """
    with ExitStack() as held:
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            held.callback(_remove_empty, missing)
        folder.mkdir(parents=True, exist_ok=True)
        yield


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk.

    Raises:
        OSError: they do not get there.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: str | os.PathLike[str], advance: Callable[[int], None] = lambda count: None) -> str:
    """A file's SHA-256 in hexadecimal digits; ``advance`` is told of the bytes read.

    Raises:
        OSError: it cannot be read.
    """
    from hashlib import sha256  # here, because OpenSSL comes with it

    digest = sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


def identity_of(path: str | os.PathLike[str], *, timed: bool = True) -> str:
    """What tells a file's content from any other, quickly, whatever its size; its name is no part of it.

    Up to :data:`WHOLE` bytes that is the SHA-256 of all of it. Of larger files 16 blocks of 16 KiB are read, spread
    evenly from the first byte to the last, and go with the size and the time of the last change in nanoseconds. A
    copy that keeps its time is the same file then, any other copy another one. Not seen is only a change that keeps
    size and time of a large file and leaves all of those blocks as they were.

    Args:
        path: of the file.
        timed: without the time, every copy is the same file, and so is one with a change between those blocks: enough
            for weights, of which training changes all.

    Raises:
        OSError: it cannot be read.
    """
    status = os.stat(path)
    if status.st_size <= WHOLE:
        return whole_identity(sha256_of(path))
    from hashlib import sha256

    digest = sha256(f"{status.st_size} {status.st_mtime_ns if timed else '-'}".encode())
    with open(path, "rb", buffering=0) as file:
        for number in range(_SAMPLES):
            file.seek(number * (status.st_size - _SAMPLE) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return f"sampled:{digest.hexdigest()}"


def whole_identity(sha256: str) -> str:
    """What :func:`identity_of` says of a file of at most :data:`WHOLE` bytes with this SHA-256."""
    return f"sha256:{sha256}"


@dataclass(frozen=True)
class Look:
    """What tells, without reading it, that the file under a path is still the one that it was.

    Whoever puts another file there, or writes to this one, changes it, also where size and time of change are kept.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def look_at(path: str | os.PathLike[str]) -> Look:
    """A file as it is now.

    Raises:
        OSError, ValueError: there is none.
    """
    status = os.stat(path)
    return Look(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def shown(path: str | os.PathLike[str]) -> str:
    """The path as given, in one printable line: control characters and broken encodings escaped, nothing as ``''``."""
    text = os.fsdecode(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text) or "''"


def named(path: str) -> dict[str, str]:
    """A media file's name for a record: ``media``, always valid UTF-8; where the name is not, what is broken in it
    reads as U+FFFD, and ``media_bytes`` holds the name itself in base64."""
    raw = os.fsencode(path)
    text = raw.decode(errors="replace")
    return {"media": text} if text == path else {"media": text, "media_bytes": base64.b64encode(raw).decode()}


def folder_of(path: str) -> dict[str, str]:
    """Where a relative path starts, for a record: ``folder``, which is this process's; nothing of a whole path, nor
    where the folder is gone or its own name no UTF-8."""
    if os.path.isabs(path):
        return {}
    try:
        folder = os.getcwd()
        folder.encode()
    except (OSError, UnicodeEncodeError):
        return {}
    return {"folder": folder}


def name_in(record: Mapping[str, Any]) -> Any:
    """The name that :func:`named` put into a record, as the file system knows it.

    Raises:
        ValueError: ``media_bytes`` is none of ours.
    """
    if "media_bytes" not in record:
        return record["media"]
    if not isinstance(record["media_bytes"], str):
        raise ValueError("no base64")
    return os.fsdecode(base64.b64decode(record["media_bytes"], validate=True))


def stated_bytes(path: Path, name: str) -> int | None:
    """What a file of Linux's ``/proc`` states in kB under a name, in bytes; None where it does not."""
    try:
        for line in path.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
