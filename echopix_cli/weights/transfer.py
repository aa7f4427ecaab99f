"""One file from a hub to its place in the hub's cache, checked on the way.

huggingface_hub speaks to the hub and keeps its cache; two things it leaves to us. From 1.18 on it throws half a file
away when it is interrupted, so a file is fetched here with its ``http_get`` into a part that stays and grows on the
next try. And it takes any file of the right length, so a part becomes a cached blob only when its checksum is the one
that the hub's metadata states. A file in the cache under a checksum's name is thus a file with that checksum.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echopix_cli.errors import EchopixError, ModelError
from echopix_cli.files import sha256_of, sync
from echopix_cli.weights.store import FileFact

PART = ".echopix.incomplete"


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub's metadata states it: ``sha256`` for large ones, git's own hash (``blob``) for the others."""

    path: str
    size: int
    blob: str
    sha256: str | None

    @property
    def etag(self) -> str:
        """Its name in the hub's cache."""
        return self.sha256 or self.blob


class Watcher:
    """Is told what happens to files; this one does nothing with it."""

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

    Attributes:
        fetched: bytes that came over the network.
        facts: of the files that were brought.
    """

    def __init__(self, name: str, repository: str, revision: str | None, watcher: Watcher) -> None:
        from huggingface_hub import constants

        self.name = name
        self.repository = repository
        self.revision = revision
        self.watcher = watcher
        self.endpoint: str = constants.ENDPOINT
        self.offline: bool = constants.HF_HUB_OFFLINE
        self.cache = Path(constants.HF_HUB_CACHE)
        self.home = self.cache / folder_name(repository)
        self.fetched = 0
        self.facts: dict[str, FileFact] = {}

    def snapshot(self, commit: str) -> Path:
        """The hub's folder of a commit."""
        return self.home / "snapshots" / commit

    def _blob(self, file: RemoteFile) -> Path:
        return self.home / "blobs" / file.etag

    def _part(self, file: RemoteFile) -> Path:
        return self.home / "blobs" / (file.etag + PART)

    def remaining(self, file: RemoteFile) -> int:
        """Bytes of a file that are still to come."""
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
        if file.path in self.facts:
            return
        blob, part = self._blob(file), self._part(file)
        if blob.exists() and not self._matches(file, blob):
            if self.offline:
                raise ModelError(f"{file.path} of {self.repository} is damaged", self.not_here().hint)
            self.watcher.notice(f"{file.path} on the disk is damaged: fetching it again")
            blob.unlink()
        for again in (True, False):
            if blob.exists():
                break
            if self.offline:
                raise self.not_here()
            self._download(file, commit)
            if self._matches(file, part):
                with self.explained():
                    sync(part)
                    part.replace(blob)
            else:
                part.unlink()
                self.watcher.fetching(file, 0)
                if not again:
                    raise ModelError(
                        f"{file.path} of {self.repository} differs from the checksum that the hub states, twice",
                        "the hub or something on the way to it alters files: try another network or HF_ENDPOINT",
                    )
                self.watcher.notice(f"{file.path} differs from the checksum that the hub states: fetching it again")
        self._point(file, commit, blob)
        self.watcher.done(file)

    def _download(self, file: RemoteFile, commit: str) -> None:
        """Fetch what is missing of a part."""
        from huggingface_hub.file_download import hf_hub_url, http_get
        from huggingface_hub.utils import build_hf_headers

        part = self._part(file)
        with self.explained():
            part.parent.mkdir(parents=True, exist_ok=True)
            there = file.size - self.remaining(file)
            if there == 0:
                part.unlink(missing_ok=True)
            self.watcher.fetching(file, there)
            url = hf_hub_url(self.repository, file.path, revision=commit, endpoint=self.endpoint)
            with _Part(part, lambda at: self.watcher.fetching(file, at)) as handle:
                try:
                    http_get(
                        url,
                        handle,
                        resume_size=there,
                        # A compressed answer cannot be resumed. The token goes to the hub alone: on a redirect to
                        # another host the client drops it.
                        headers={**build_hf_headers(), "Accept-Encoding": "identity"},
                        expected_size=file.size,
                        displayed_filename=file.path,
                    )
                finally:
                    self.fetched += handle.received

    def _matches(self, file: RemoteFile, path: Path) -> bool:
        """Whether a file's bytes are those that the hub's metadata states."""
        self.watcher.checking(file)
        with self.explained():
            size = path.stat().st_size
            if size != file.size:
                return False
            digest = sha256_of(path)
            if file.sha256 is None:  # a small file: git's hash is of a header and the bytes
                found = hashlib.sha1(b"blob %d\0" % size + path.read_bytes(), usedforsecurity=False).hexdigest()
            else:
                found = digest
        self.facts[file.path] = FileFact(size, digest)
        return found == file.etag

    def _point(self, file: RemoteFile, commit: str, blob: Path) -> None:
        """Let the hub's library link a checked blob into the commit's folder."""
        from huggingface_hub import hf_hub_download

        pointer = self.snapshot(commit) / file.path
        if os.path.lexists(pointer) and not self._leads_to(pointer, blob):
            pointer.unlink()  # a link to nothing, or to other bytes
        with self.explained():
            hf_hub_download(self.repository, file.path, revision=commit, cache_dir=self.cache, endpoint=self.endpoint)
        if not self._leads_to(pointer, blob):
            raise ModelError(f"{pointer} does not lead to the file that was checked", "remove it and try again")

    def _leads_to(self, pointer: Path, blob: Path) -> bool:
        """Whether a snapshot's file is the checked blob; on disks without links, a copy of it."""
        return pointer.exists() and (pointer.samefile(blob) or sha256_of(pointer) == sha256_of(blob))

    def not_here(self) -> ModelError:
        """What there is to say offline, when something is missing."""
        return ModelError(
            f"{self.name} is not on this machine, and HF_HUB_OFFLINE forbids fetching it",
            f"HF_HUB_OFFLINE=0 echopix models pull {self.name}",
        )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the library, the network and the disk raise into one sentence each."""
        try:
            yield
        except EchopixError:
            raise
        except Exception as error:
            said = self._explain(error)
            if said is None:
                raise
            raise said from error

    def _explain(self, error: BaseException) -> ModelError | None:
        from huggingface_hub import errors

        again = f"type it again, what is there is kept: echopix models pull {self.name}"
        where = f"{self.repository} at {self.endpoint}"
        if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
            return self._explain(error.__cause__)  # the library looked into its cache and then gave up
        if isinstance(error, errors.OfflineModeIsEnabled):
            return self.not_here()
        if isinstance(error, errors.HFValidationError):
            return ModelError(f"{self.repository!r} names no repository: {error}", "hf:OWNER/REPO")
        if isinstance(error, errors.FileMetadataError):
            return ModelError(f"{self.endpoint} does not state what its files are: {error}", "try another HF_ENDPOINT")
        if isinstance(error, errors.GatedRepoError):
            return ModelError(
                f"{where} is gated: its owner has to let you in",
                f"accept its terms at {self.endpoint}/{self.repository}, then set HF_TOKEN, or: hf auth login",
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return ModelError(f"{where} has no revision {self.revision!r}", "give a branch, tag or commit it has")
        if isinstance(error, errors.RepositoryNotFoundError):
            return ModelError(
                f"there is no {where}, or it is private", "check the name; for a private one set HF_TOKEN"
            )
        if isinstance(error, errors.EntryNotFoundError):
            return ModelError(f"{where} no longer holds a file that it lists", again)
        if isinstance(error, errors.HfHubHTTPError):
            status = error.response.status_code
            if status in (401, 403):
                return ModelError(f"{where} refuses access ({status})", "set HF_TOKEN to a token that may read it")
            if status == 429:
                return ModelError(f"{self.endpoint} asks to slow down (429)", f"wait some minutes, then {again}")
            return ModelError(f"{self.endpoint} answers with error {status}", again)
        if type(error).__module__.partition(".")[0] in (
            "httpx",
            "httpx2",
        ):  # 1.x of the library uses one, 2.x the other
            what = str(error).strip() or type(error).__name__
            return ModelError(f"the connection to {self.endpoint} failed: {what}", again)
        if isinstance(error, OSError):
            if error.errno is None:  # the library's own, about lengths
                return ModelError(f"the download of {self.name} ended early", again)
            return ModelError(
                f"cannot write to {self.cache}: {error.strerror or error}",
                "make room or mend the permissions, or set HF_HUB_CACHE to another folder",
            )
        return None


class _Part(io.BufferedWriter):
    """A part that is written to at its end, and says how long it is."""

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._report = tell
        self.received = 0

    def write(self, data: Any) -> int:
        """As of any file; the whole of ``data`` or an error."""
        count = super().write(data)
        self.received += count
        self._report(self.tell())
        return count


class _Forward(logging.Handler):
    """The library's warnings (retries, rate limits) as notices."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__(logging.WARNING)
        self._watcher = watcher

    def emit(self, record: logging.LogRecord) -> None:
        """On one line."""
        self._watcher.notice(" ".join(record.getMessage().split())[:300])


@contextmanager
def library_log(watcher: Watcher) -> Iterator[None]:
    """The library neither prints nor draws meanwhile; what it has to say goes to the watcher."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    handlers, propagate, drawing = logger.handlers[:], logger.propagate, not are_progress_bars_disabled()
    logger.handlers, logger.propagate = [_Forward(watcher)], False
    if drawing:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        if drawing:
            enable_progress_bars()


def folder_name(repository: str) -> str:
    """A repository's folder in the hub's cache."""
    return f"models--{repository.replace('/', '--')}"
