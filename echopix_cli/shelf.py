"""A folder of files that may go at any time, kept below a size: whatever was not used for longest goes first.

Several processes share it without locks. A file appears whole, by rename. Whoever puts files there lists now and then
what lies there and removes the oldest until the rest fits, but for what is to stay beside its own: processes that do so
at once remove the same files otherwise, and the last of them has seen all. A list of many files takes long, so it is
made at first, and again when what this process has written since might not fit, or comes to a share of the size. One
process alone never exceeds the size; each that writes at the same time adds that share at most. A reader whose file has
just gone finds nothing, and makes it again.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from echopix_cli.errors import EchopixError
from echopix_cli.files import PART, write_whole

FEATURES = ".safetensors"  # ends the names of files that hold features
_NAME = re.compile(r"[0-9a-f]{16,64}\.[a-z]+")
_LEFT_BEHIND = re.compile(rf"\.{_NAME.pattern}\.[0-9a-f]{{8}}{re.escape(PART)}")
_SHARE = 100  # a hundredth of the cap may be written before another list is made, and is left free when files go
_ABANDONED = 3600.0  # seconds after which whoever wrote a partial file has surely ended


class TooLarge(EchopixError):
    """One file alone is larger than the cap."""


class Full(EchopixError):
    """A file does not fit beside those that are not to go for it."""


@dataclass(frozen=True)
class Item:
    """A file that lies there: its bytes, and when it was last used, in seconds since 1970."""

    path: Path
    size: int
    used: float


class Shelf:
    """The files of one folder.

    Args:
        folder: made when first written to, for its owner alone.
        cap: bytes that may lie there.
    """

    def __init__(self, folder: Path, cap: int) -> None:
        self.folder = folder
        self.cap = cap
        self._unlisted = 0  # bytes that this process may still write before it makes a list
        self._sizes: dict[str, int] = {}  # of files that this process has seen there, bytes

    def get(self, name: str) -> bytes | None:
        """A file's content, which counts as a use of it; None where it is not there or cannot be read.

        A link, pipe or device under its name is not from here: it is not opened, and goes.
        """
        path = self._path(name)
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                self.drop(name)
                return None
            # The look before is for what opening alone would wake up; these hold for what was put there since.
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > self.cap:  # it might not fit into memory
                    self.drop(name)
                    return None
                content = file.read(self.cap + 1)
        except OSError:
            return None
        self._sizes[name] = len(content)
        with suppress(OSError):  # a folder that is only read still serves
            os.utime(path, follow_symlinks=False)
        return content

    def put(self, name: str, content: bytes, beside: Collection[str] = ()) -> None:
        """Write a file, or write it anew, and make room for it.

        Args:
            name: of the file.
            content: of it.
            beside: names of files that are not to go for it.

        Raises:
            TooLarge: it alone is larger than the cap.
            Full: with those beside it, it is; nothing has gone.
            EchopixError: the disk refuses; nothing of it remains.
        """
        path = self._path(name)
        if len(content) > self.cap:
            raise TooLarge(f"{len(content):,} bytes are more than the {self.cap:,} that {self.folder} may hold")
        if beside:
            others = [other for other in beside if other != name]
            staying = sum(map(self._size, others))
            if staying + len(content) > self.cap:  # as far as this process knows: another one may have removed some
                for other in others:
                    self._sizes.pop(other, None)
                staying = sum(map(self._size, others))
            if staying + len(content) > self.cap:
                raise Full(
                    f"{staying + len(content):,} bytes are more than the {self.cap:,} that {self.folder} may hold"
                )
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EchopixError(f"cannot write to {self.folder}: {error.strerror or error}") from error
        write_whole(path, content, mode=0o600, durable=False)
        self._sizes[name] = len(content)
        self._unlisted -= len(content)
        if self._unlisted < 0:
            self._trim(beside)

    def drop(self, name: str) -> None:
        """Remove a file, if it is there and can be removed."""
        self._sizes.pop(name, None)
        with suppress(OSError):
            self._path(name).unlink()

    def items(self) -> list[Item]:
        """All that lies there, what was used last at the end.

        Raises:
            EchopixError: the folder is there, and cannot be looked into.
        """
        return sorted(self._matching(_NAME), key=lambda item: (item.used, item.path.name))

    def clear(self) -> list[Item]:
        """Remove everything, half-written files too; what was removed.

        Raises:
            EchopixError: the disk refuses, or the folder cannot be looked into.
        """
        gone = [*self._matching(_NAME), *self._matching(_LEFT_BEHIND)]
        for item in gone:
            try:
                item.path.unlink(missing_ok=True)
            except OSError as error:
                raise EchopixError(f"cannot remove {item.path}: {error.strerror or error}") from error
        return gone

    def _trim(self, beside: Collection[str]) -> None:
        try:
            items, partial = self.items(), list(self._matching(_LEFT_BEHIND))
        except EchopixError:
            return
        share = self.cap // _SHARE
        total = sum(item.size for item in items)
        self._sizes = {item.path.name: item.size for item in items}
        old = time.time() - _ABANDONED
        going = [item for item in partial if item.used < old]
        most = self.cap if total <= self.cap else self.cap - share
        for item in items:
            if total <= most:
                break
            if item.path.name not in beside:
                going.append(item)
                total -= item.size
                del self._sizes[item.path.name]
        self._unlisted = min(share, max(0, self.cap - total))
        for item in going:
            with suppress(OSError):  # another process was quicker
                item.path.unlink()

    def _size(self, name: str) -> int:
        """Bytes of a file, as far as this process knows; 0 where it is not there."""
        if name not in self._sizes:
            try:
                self._sizes[name] = os.lstat(self._path(name)).st_size
            except OSError:
                return 0
        return self._sizes[name]

    def _matching(self, names: re.Pattern[str]) -> Iterator[Item]:
        try:
            for name in sorted(os.listdir(self.folder)):
                if names.fullmatch(name):
                    with suppress(FileNotFoundError):  # another process was quicker
                        status = os.lstat(self.folder / name)
                        yield Item(self.folder / name, status.st_size, status.st_mtime)
        except FileNotFoundError:
            return
        except OSError as error:
            raise EchopixError(
                f"cannot look into {self.folder}: {error.strerror or error}", "check its permissions"
            ) from error

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a file here")
        return self.folder / name


def feature_shelf(cache_dir: Path, cap: int) -> Shelf:
    """Where features of media files are kept.

    Args:
        cache_dir: the setting of that name.
        cap: the setting ``cache_size``.
    """
    return Shelf(cache_dir / "features", cap)
