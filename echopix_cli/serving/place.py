"""Where servers listen: a folder that is this user's alone, and in it a socket and a lock for each model.

A lock is held as long as its server lives, and the kernel gives it back when that dies, however it dies. So what a dead
server left behind is told from a living one at once, and never stands in the way. In the lock stands who holds it, for
as long as its server cannot be asked: while it loads the model, has no place for another client, or is ending.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from echopix_cli.errors import EchopixError
from echopix_cli.serving.messages import Wish

SOCKET, LOCK = ".sock", ".lock"  # end the names of the two
_MOST_SIGNED = 65_536  # bytes
_CREDENTIALS = struct.Struct("3i")  # pid, uid and gid of SO_PEERCRED


@dataclass(frozen=True)
class Peer:
    """The process at the other end of a Unix socket, as the kernel knows it."""

    pid: int
    uid: int


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as it says itself.

    Attributes:
        pid: its process.
        model: as of its wish.
        state: what it is doing, where it cannot be asked: ``loading`` or ``ending``; else nothing.
    """

    pid: int
    model: str
    state: str


def folder_path() -> Path:
    """The folder of this user's sockets: below ``XDG_RUNTIME_DIR``, or else below the folder for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime) and _is_own(runtime):
        return Path(runtime) / "echopix"
    from tempfile import gettempdir

    return Path(gettempdir()) / f"echopix-{os.geteuid()}"


@contextmanager
def opened_folder(make: bool = False) -> Iterator[int | None]:
    """A descriptor of the folder; None where there is none. Names are looked up in what was checked, not once more.

    Args:
        make: make it where it is not there.

    Raises:
        EchopixError: another user could put something there, or it cannot be made.
    """
    path = folder_path()
    if make:
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise EchopixError(f"cannot make {path}: {error.strerror or error}", "set XDG_RUNTIME_DIR") from None
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise _unsafe(path, error.strerror or str(error)) from None
    try:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid():
            raise _unsafe(path, "it belongs to another user")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise _unsafe(path, "others may enter it")
        yield folder
    finally:
        os.close(folder)


def _is_own(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o022


def _unsafe(path: Path, why: str) -> EchopixError:
    return EchopixError(
        f"{path} is no safe place for a socket: {why}", f"remove it, or set XDG_RUNTIME_DIR; chmod 700 {path}"
    )


def name_of(wish: Wish) -> str:
    """The name, without its ending, of the socket and the lock of who serves this."""
    from hashlib import sha256

    return sha256("\0".join(astuple(wish)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def sockets(folder: int) -> list[str]:
    """Names of all sockets there, the newest first."""
    return _names(folder, SOCKET)


def locks(folder: int) -> list[str]:
    """Names of all locks there, without their ending, the newest first; whether they are held or not."""
    return [name.removesuffix(LOCK) for name in _names(folder, LOCK)]


def _names(folder: int, ending: str) -> list[str]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ending):
                with suppress(OSError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
    return [name for _, name in sorted(found, reverse=True)]


def unlisten(listener: socket.socket) -> None:
    """Take a socket from :func:`listening` away, its name first; nothing where that was done. Whoever calls holds the
    lock."""
    with suppress(OSError):
        os.unlink(listener.getsockname())
    listener.close()


def connected(folder: int, name: str, timeout: float) -> tuple[socket.socket, Peer] | None:
    """A connection to a socket there, and who listens; None where nobody does, or it is not this user.

    Args:
        folder: a descriptor.
        name: of the socket.
        timeout: seconds of every wait.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(address(folder, name))
        peer = peer_of(connection)
        if peer.uid == os.geteuid():
            return connection, peer
    except OSError:
        pass
    connection.close()
    return None


def address(folder: int, name: str) -> str:
    """What to bind or connect to: short, however long the folder's path, which sockets allow 107 bytes."""
    return f"/proc/self/fd/{folder}/{name}"


def peer_of(connection: socket.socket) -> Peer:
    """Who is at the other end.

    Raises:
        OSError: the kernel does not tell.
    """
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Peer(pid, uid)


def locked(folder: int, name: str) -> int | None:
    """A descriptor that holds the lock of this name until it is closed; None where another process holds it.

    Raises:
        EchopixError: the lock cannot be made.
    """
    try:
        lock = os.open(name + LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        raise EchopixError(f"cannot make a lock in {folder_path()}: {error.strerror or error}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def sign(lock: int, model: str, state: str = "") -> None:
    """Write into a lock from :func:`locked` that this process holds it, for :func:`holder_of`; where there is no room
    for that, nobody is told."""
    text = json.dumps(asdict(Holder(os.getpid(), model, state))).encode("ascii")
    with suppress(OSError):
        os.pwrite(lock, text, 0)
        os.ftruncate(lock, len(text))


def holder_of(folder: int, name: str) -> Holder | None:
    """Who holds the lock of this name; None where nobody does who is a process of this user here. What is written there
    is not believed: the kernel has to know the lock as that process's."""
    try:
        lock = os.open(name + LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    try:
        raw = json.loads(os.read(lock, _MOST_SIGNED))
        holder = Holder(**{field.name: raw[field.name] for field in fields(Holder)})
        return holder if type(holder.pid) is int and _holds(holder.pid, os.fstat(lock)) else None
    except (OSError, ValueError, TypeError, KeyError):  # nobody has signed it, or not to the end
        return None
    finally:
        os.close(lock)


def _holds(pid: int, file: os.stat_result) -> bool:
    """Whether a process is of this user, and holds the lock of this file.

    Raises:
        OSError: there is no such process, or it cannot be looked at.
    """
    process = Path(f"/proc/{pid}")
    if process.stat().st_uid != os.geteuid():
        return False
    for opened in (process / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if os.path.samestat(opened.stat(), file) and "FLOCK" in (process / "fdinfo" / opened.name).read_text():
                return True
    return False


def listening(folder: int, name: str) -> socket.socket:
    """A socket of this name that listens, in the place of what a dead server left; whoever calls holds the lock.

    Raises:
        EchopixError: it cannot be made.
    """
    file = name + SOCKET
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            os.unlink(file, dir_fd=folder)
        before = os.umask(0o177)  # the socket is 0600 from its first moment on
        try:
            listener.bind(address(folder, file))
        finally:
            os.umask(before)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise EchopixError(f"cannot listen in {folder_path()}: {error.strerror or error}") from None
    return listener
