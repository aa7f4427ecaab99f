"""One file from a hub to its place in the hub's cache, checked on the way.

The cache has huggingface_hub's layout, which other programs share: ``blobs/<checksum>``, and links to it in
``snapshots/<commit>``. A file is fetched into a part beside its blob, which stays and grows on the next try, and
becomes the blob only when its checksum is the one that the hub's metadata states. A file in the cache under a
checksum's name is thus a file with that checksum, and nothing is asked of the hub after the check.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from echopix_cli.errors import EchopixError, ModelError
from echopix_cli.files import sha256_of, sync, write_whole
from echopix_cli.weights.environment import hub_constants
from echopix_cli.weights.registry import Model, is_commit
from echopix_cli.weights.store import FileFact
from echopix_cli.weights.unfinished import PART, PIECE, owned
from echopix_cli.weights.web import LONGEST_PAUSE, Lost, TooLong, Web, not_here

_TRIES = 4  # in a row that bring nothing
_PROGRESS = 2**16  # bytes from which a try has brought something
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,160}")
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub's metadata states it: ``sha256`` for large ones, git's own hash (``blob``) for the others.

    Its name and its hash become names of files on this machine, so nothing else can be one.

    Raises:
        ModelError: the name is no plain name, or hash or size are none.
    """

    path: str
    size: int
    blob: str
    sha256: str | None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.path):
            raise ModelError(f"the hub lists a file with a name that is not used: {self.path[:60]!r}")
        if not (_SHA1.fullmatch(self.blob) if self.sha256 is None else _SHA256.fullmatch(self.sha256)):
            raise ModelError(f"the hub states no checksum for {self.path}")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 0 <= self.size < 2**63:
            raise ModelError(f"the hub states no size for {self.path}")

    @property
    def etag(self) -> str:
        """Its name in the hub's cache."""
        return self.sha256 or self.blob


@dataclass(frozen=True)
class Plan:
    """What a download is about to do. All sizes are bytes.

    Attributes:
        files: wanted, the smallest first.
        fetch: still to come over the network.
        present: of the wanted files, already on the disk (and yet to be checked).
        skipped: of files that the thinker does not need.
        free: on the disk of ``destination``.
    """

    model: Model
    commit: str
    licence: str
    layout: str
    destination: Path
    files: tuple[RemoteFile, ...]
    fetch: int
    present: int
    skipped: int
    skipped_files: int
    free: int

    @property
    def total(self) -> int:
        """Of all wanted files."""
        return sum(file.size for file in self.files)


class Progress:
    """Is told what happens during a download; this one does nothing with it."""

    def planned(self, plan: Plan) -> None:
        """What is about to be fetched."""

    def fetching(self, file: RemoteFile, at: int) -> None:
        """``at`` bytes of a file are on the disk. Falls back to 0 when a file has to be fetched again."""

    def checking(self, file: RemoteFile) -> None:
        """All bytes of a file are there and are being compared with the hub's checksum."""

    def done(self, file: RemoteFile) -> None:
        """A file is whole and in its place."""

    def notice(self, text: str) -> None:
        """Something worth knowing: a retry, a file that differed, another process at work."""


class Transfer:
    """Brings files of one repository. The caller holds the repository's lock.

    Args:
        name: what the user calls the model, for hints.
        repository: ``OWNER/NAME``.
        revision: as the user gave it.
        watcher: is told what happens.
        commit: that the revision has stood for on this machine, which is fetched from then.

    Attributes:
        fetched: bytes that came over the network.
        facts: of the files that were brought.
    """

    def __init__(
        self, name: str, repository: str, revision: str | None, watcher: Progress, commit: str | None = None
    ) -> None:
        constants = hub_constants()
        self.name = name
        self.repository = repository
        self.revision = revision
        self.watcher = watcher
        self.web = Web(name, repository, commit or revision)
        self.offline: bool = constants.HF_HUB_OFFLINE
        self.cache = Path(constants.HF_HUB_CACHE)
        self.home = self.cache / folder_name(repository)
        self.fetched = 0
        self.facts: dict[str, FileFact] = {}

    def snapshot(self, commit: str) -> Path:
        """The hub's folder of a commit, which is a hash and nothing else.

        Raises:
            ValueError: it is none.
        """
        if not is_commit(commit):
            raise ValueError(f"{commit!r} is no commit")
        return self.home / "snapshots" / commit

    def _blob(self, file: RemoteFile) -> Path:
        return self.home / "blobs" / file.etag

    def _part(self, file: RemoteFile) -> Path:
        return self.home / "blobs" / (file.etag + PART)

    def remaining(self, file: RemoteFile) -> int:
        """Bytes of a file that are still to come.

        Raises:
            ModelError: the cache cannot be read.
        """
        with self.explained():
            if self._blob(file).exists():
                return 0
            part = self._part(file)
            there = part.stat().st_size if part.exists() else 0
            return file.size - there if there <= file.size else file.size

    def bring(self, file: RemoteFile, commit: str) -> None:
        """One file, checked, in the hub's cache and in the commit's folder.

        Raises:
            ModelError: it cannot be had, or differs from its checksum twice.
        """
        if file.path not in self.facts:
            with self.explained():
                self._bring(file, commit)

    def _bring(self, file: RemoteFile, commit: str) -> None:
        blob = self._blob(file)
        found = blob.stat() if blob.exists() else None
        if found is not None and not self._matches(file, blob):
            if self.offline:
                raise ModelError(f"{file.path} of {self.repository} is damaged", not_here(self.name).hint)
            self.watcher.notice(f"{file.path} on the disk is damaged: fetching it again")
            if blob.exists() and os.path.samestat(found, blob.stat()):  # and no other process has mended it
                blob.unlink()
        for again in (True, False):
            if blob.exists():
                break
            if self.offline:
                raise not_here(self.name)
            if self._fetched(file, commit):
                break
            self.watcher.fetching(file, 0)
            if not again:
                raise ModelError(
                    f"{file.path} of {self.repository} differs from the checksum that the hub states, twice",
                    "the hub or something on the way to it alters files: try another network or HF_ENDPOINT",
                )
            self.watcher.notice(f"{file.path} differs from the checksum that the hub states: fetching it again")
        self._point(file, commit, blob)
        self.watcher.done(file)

    def refer(self, commit: str) -> None:
        """Write down what the revision stands for, as the hub's own library does, so that others find it offline.

        In a cache that is not to be written to nothing is, and nobody here needs it.
        """
        name = self.revision or "main"
        path = self.home / "refs" / name
        with suppress(OSError, ValueError, EchopixError):
            if not is_commit(name) and not (path.exists() and path.read_text(encoding="ascii").strip() == commit):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, commit.encode())

    def _fetched(self, file: RemoteFile, commit: str) -> bool:
        """Fetch what is missing of a file, and give it its place if it is what the hub states; else nothing is kept."""
        blob, part = self._blob(file), self._part(file)
        waiting = f"another process is fetching {file.path}: waiting for it"
        with owned(part, blob, lambda: self.watcher.notice(waiting)) as handle:
            if handle is not None:
                self._download(file, commit, handle)
            whole = self._matches(file, blob if handle is None else part)
            if not whole:
                (blob if handle is None else part).unlink()
            elif handle is not None:
                sync(part)
                part.replace(blob)
            return whole

    def _download(self, file: RemoteFile, commit: str, handle: BinaryIO) -> None:
        """Fetch what is missing of a part, in as many tries as bring something."""
        fruitless = 0
        if handle.tell() > file.size:
            handle.truncate(0)
        self.watcher.fetching(file, handle.seek(0, os.SEEK_END))
        while (begin := handle.tell()) < file.size:
            try:
                self._take(file, commit, handle)
                lost = Lost(f"the download of {self.name} ended early", f"echopix models pull {self.name}")
            except Lost as error:
                lost = error
            handle.flush()
            brought = handle.tell() - begin
            if handle.tell() == file.size:
                break
            fruitless = 0 if brought >= _PROGRESS else fruitless + 1
            if fruitless == _TRIES:
                raise lost
            self.watcher.notice(f"{lost.message}: going on at byte {handle.tell()} of {file.path}")
            time.sleep(min(lost.pause or 2**fruitless, LONGEST_PAUSE))

    def _take(self, file: RemoteFile, commit: str, handle: BinaryIO) -> None:
        """One try: from where the part ends; from the start where the server does not go on.

        Raises:
            Lost: another try may help.
        """
        begin = handle.tell()
        try:
            with self.web.body(file.path, commit, begin) as reply:
                # Some page in its place: the part is as good as ever.
                if reply.is_page or reply.length not in (None, file.size - reply.begin):
                    raise Lost(f"{self.web.endpoint} sends something else in place of {file.path}", "")
                if reply.begin != begin:
                    handle.truncate(0)
                    if reply.begin:
                        raise Lost(f"{self.web.endpoint} sends another part of {file.path} than was asked for", "")
                    begin = handle.seek(0)
                    self.watcher.fetching(file, 0)
                told = begin
                for piece in reply.pieces(file.size - begin):
                    handle.write(piece)
                    self.fetched += len(piece)
                    if handle.tell() - told >= PIECE or handle.tell() == file.size:
                        told = handle.tell()
                        self.watcher.fetching(file, told)
        except TooLong as error:
            handle.truncate(0)
            raise ModelError(
                f"{error.message} of {file.path}", "the hub or something on the way to it is not what it says it is"
            ) from None

    def _matches(self, file: RemoteFile, path: Path) -> bool:
        """Whether a file's bytes are those that the hub's metadata states."""
        self.watcher.checking(file)
        size = path.stat().st_size
        if size != file.size:
            return False
        found = digest = sha256_of(path)
        if file.sha256 is None:  # git's hash is of a header and the bytes, however many they are
            begun = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            with open(path, "rb") as content:
                found = hashlib.file_digest(content, lambda: begun).hexdigest()
        self.facts[file.path] = FileFact(size, digest)
        return found == file.etag

    def _point(self, file: RemoteFile, commit: str, blob: Path) -> None:
        """Link a checked blob into the commit's folder; where a disk has no links, copy it there."""
        pointer = self.snapshot(commit) / file.path
        if os.path.lexists(pointer) and self._leads_to(pointer, blob):
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        beside = pointer.with_name(f".{pointer.name}.{os.urandom(4).hex()}")
        try:
            try:
                beside.symlink_to(os.path.relpath(blob, pointer.parent))
            except OSError:
                shutil.copyfile(blob, beside)
            beside.replace(pointer)
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)

    def _leads_to(self, pointer: Path, blob: Path) -> bool:
        """Whether a snapshot's file is the checked blob; on disks without links, a copy of it."""
        return pointer.exists() and (pointer.samefile(blob) or sha256_of(pointer) == sha256_of(blob))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the disk raises into one sentence."""
        try:
            yield
        except EchopixError:
            raise
        except OSError as error:
            raise ModelError(
                f"cannot write to {self.cache}: {error.strerror or error}",
                "make room or mend the permissions, or set HF_HUB_CACHE to another folder",
            ) from error


def folder_name(repository: str) -> str:
    """A repository's folder in the hub's cache."""
    return f"models--{repository.replace('/', '--')}"
