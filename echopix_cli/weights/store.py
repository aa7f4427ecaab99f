"""The local store: what echopix keeps on this machine, and what it has checked.

::

    <cache>/entries/<key>/manifest.json    and beside it the entry's files, unless the manifest names another folder
    <cache>/entries/.<key>.<random>.stage  being written: renamed to <key> when everything in it has reached the disk
    <cache>/locks/<key>.lock               held by whoever works on the entry

An entry is whole or it is not there. Its manifest says what it is (kind, source, revision, settings, library
versions) and what it consists of (size and SHA-256 of every file). Downloads have only the manifest here: their
files stay in the hub's own cache, which other programs share.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from echopix_cli.documents import read_object
from echopix_cli.errors import EchopixError, ModelError
from echopix_cli.files import sha256_of, sync
from echopix_cli.settings import cache_dir
from echopix_cli.weights.environment import hub_constants

MANIFEST = "manifest.json"
HUB = "hub"  # the kind of downloads
_SCHEMA = 1
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@%+=-]{0,200}")
_LEFT_BEHIND = re.compile(r"\.(?P<key>.+)\.[0-9a-f]{8}\.(?:stage|old)")
# Whose versions decide what the bytes of an entry look like.
_LIBRARIES = ("echopix", "torch", "safetensors", "bitsandbytes")


class Busy(EchopixError):
    """Another process works on the entry."""


@dataclass(frozen=True)
class FileFact:
    """What a file must be: bytes and SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an entry is.

    Attributes:
        kind: ``hub`` for downloads; whoever makes other entries names their kind.
        source: repository, or whatever else the files come from.
        revision: of the source, 40 hexadecimal digits for repositories.
        settings: that the files depend on, as JSON values.
        libraries: versions of the packages at work.
        created: ISO 8601, UTC.
        folder: where the files lie; None for the entry's own folder.
        files: relative POSIX path → what it must be.
        damaged: what was found wrong with them when every byte was read, one line each.
    """

    kind: str
    source: str
    revision: str | None
    settings: dict[str, Any] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    created: str = ""
    folder: str | None = None
    files: dict[str, FileFact] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """One entry as found; ``faults`` says what is missing or of the wrong size, one line each."""

    key: str
    home: Path
    manifest: Manifest
    faults: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its files lie: what a loader is given."""
        return Path(self.manifest.folder) if self.manifest.folder else self.home

    @property
    def size(self) -> int:
        """Bytes of its files, as the manifest states them."""
        return sum(fact.size for fact in self.manifest.files.values())


@dataclass(frozen=True)
class Leftover:
    """Something that a killed process left half-written."""

    key: str
    path: Path


class Store:
    """The entries below one folder.

    Args:
        root: made when first written to; None takes the setting ``cache_dir``.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_dir() if root is None else root
        self.entries = self.root / "entries"

    def open(self, key: str) -> Entry | None:
        """An entry whose files are all there and of the right size; None when there is none of that key.

        Raises:
            ModelError: files are missing or of another size, or the manifest cannot be read.
        """
        home = self._home(key)
        if not (home / MANIFEST).exists():
            return None
        entry = self._read(home)
        if entry.faults:
            raise ModelError(f"{entry.folder} is damaged: {entry.faults[0]}")
        return entry

    def peek(self, key: str) -> Entry | None:
        """As :meth:`open`, with what is wrong in ``faults`` rather than raised."""
        home = self._home(key)
        return self._read(home) if (home / MANIFEST).exists() else None

    def all(self) -> list[Entry]:
        """All entries, by key, damaged ones too."""
        homes = sorted(self.entries.iterdir()) if self.entries.is_dir() else []
        return [self._read(home) for home in homes if not home.name.startswith(".") and home.is_dir()]

    def verify(self, entry: Entry, advance: Callable[[int], None] = lambda count: None) -> list[str]:
        """Read every byte; what differs, one line each. ``advance`` is told of the bytes read."""
        wrong = []
        for name, fact in entry.manifest.files.items():
            fault = _fault(entry.folder, name, fact)
            if not fault and sha256_of(entry.folder / name, advance) != fact.sha256:
                fault = f"{name} differs from its checksum"
            if fault:
                wrong.append(fault)
        return wrong

    @contextmanager
    def create(
        self, key: str, *, kind: str, source: str, revision: str | None, settings: Mapping[str, Any] | None = None
    ) -> Iterator[Path]:
        """A folder to write an entry's files to; at the end they are hashed, synced and given their place.

        An entry of the same key is replaced. Nothing remains when the body raises. Hold :meth:`lock` meanwhile.

        Raises:
            EchopixError: the disk refuses.
        """
        with self._stage(key) as stage:
            yield stage
            files = {
                path.relative_to(stage).as_posix(): FileFact(path.stat().st_size, sha256_of(path))
                for path in sorted(stage.rglob("*"))
                if path.is_file()
            }
            self._commit(key, stage, Manifest(kind, source, revision, dict(settings or {}), files=files))

    def record(
        self,
        key: str,
        *,
        kind: str,
        source: str,
        revision: str | None,
        folder: Path,
        files: Mapping[str, FileFact],
        settings: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Make an entry of files that lie elsewhere and have been checked.

        Raises:
            EchopixError: the disk refuses.
        """
        with self._stage(key) as stage:
            made = Manifest(
                kind, source, revision, dict(settings or {}), folder=str(folder.resolve()), files=dict(files)
            )
            self._commit(key, stage, made)
        return self._read(self._home(key))

    def condemn(self, entry: Entry, damaged: Sequence[str]) -> None:
        """Write down that an entry's files, which lie elsewhere, are damaged: it counts as whole no more.

        Raises:
            EchopixError: the disk refuses.
        """
        with self._stage(entry.key) as stage:
            self._commit(entry.key, stage, replace(entry.manifest, damaged=list(damaged)))

    def remove(self, key: str) -> None:
        """Delete an entry's folder (for downloads that is the record alone); no error when there is none.

        Raises:
            EchopixError: the disk refuses.
        """
        home = self._home(key)
        with self._writing():
            if home.exists():
                # Renamed first: a reader finds the entry whole or not at all.
                gone = self._aside(key, "old")
                home.rename(gone)
                shutil.rmtree(gone)

    def leftovers(self) -> list[Leftover]:
        """What killed processes left; look whether :meth:`lock` is free before removing one."""
        found = []
        for path in sorted(self.entries.iterdir()) if self.entries.is_dir() else []:
            if match := _LEFT_BEHIND.fullmatch(path.name):
                found.append(Leftover(match["key"], path))
        return found

    @contextmanager
    def lock(self, key: str, waiting: Callable[[], None] | None = None, *, wait: bool = True) -> Iterator[None]:
        """One process at a time works on a key. The system releases the lock of a process that dies.

        Args:
            key: of an entry, or any other name.
            waiting: called once when another process holds the lock, before waiting for it.
            wait: whether to wait at all.

        Raises:
            Busy: it is held, and ``wait`` is off.
            EchopixError: the disk refuses.
        """
        hub_constants()  # or importing more of the library fails at what it takes from the environment
        from huggingface_hub.utils import WeakFileLock

        path = self.root / "locks" / f"{self._home(key).name}.lock"
        with ExitStack() as held:
            with self._writing():
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    held.enter_context(WeakFileLock(path, timeout=0.2))
                except TimeoutError:
                    if not wait:
                        raise Busy(f"another process works on {key}", "try again when it has ended") from None
                    if waiting is not None:
                        waiting()
                    held.enter_context(WeakFileLock(path))
            yield

    def _home(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key")
        return self.entries / key

    def _aside(self, key: str, suffix: str) -> Path:
        return self.entries / f".{key}.{uuid.uuid4().hex[:8]}.{suffix}"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise EchopixError(
                f"cannot write to {self.root}: {reason}", "set ECHOPIX_CACHE_DIR to a folder that can be written to"
            ) from error

    @contextmanager
    def _stage(self, key: str) -> Iterator[Path]:
        self._home(key)
        stage = self._aside(key, "stage")
        with self._writing():
            stage.mkdir(parents=True)
        try:
            yield stage
        finally:  # renamed, when all went well
            shutil.rmtree(stage, ignore_errors=True)

    def _commit(self, key: str, stage: Path, manifest: Manifest) -> None:
        raw = {
            "schema_version": _SCHEMA,
            **asdict(manifest),
            "libraries": library_versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        home = self._home(key)
        with self._writing():
            (stage / MANIFEST).write_text(json.dumps(raw, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            for path in [*stage.rglob("*"), stage]:
                sync(path)
            if home.exists():
                old = self._aside(key, "old")
                home.rename(old)
                stage.rename(home)
                shutil.rmtree(old, ignore_errors=True)
            else:
                stage.rename(home)
            sync(self.entries)

    def _read(self, home: Path) -> Entry:
        try:
            raw = read_object(home / MANIFEST)
            if raw.pop("schema_version") != _SCHEMA:
                raise ValueError("written by another version")
            raw["files"] = {str(name): FileFact(**fact) for name, fact in raw["files"].items()}
            manifest = Manifest(**raw)
            _require_kinds(manifest)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ModelError) as error:
            why = f"its {MANIFEST} cannot be read: {error}"
            return Entry(home.name, home, Manifest("unknown", "", None), (why,))
        entry = Entry(home.name, home, manifest)
        if not manifest.files:
            return Entry(home.name, home, manifest, (f"its {MANIFEST} lists no files",))
        faults = [fault for name, fact in manifest.files.items() if (fault := _fault(entry.folder, name, fact))]
        return Entry(home.name, home, manifest, tuple(faults or manifest.damaged))


def _require_kinds(manifest: Manifest) -> None:
    """Refuse values that only a damaged or foreign manifest has.

    Raises:
        TypeError: names the field.
    """
    texts = (manifest.kind, manifest.source, manifest.created, manifest.revision or "", manifest.folder or "")
    facts = [fact for file in manifest.files.values() for fact in ((file.size, int), (file.sha256, str))]
    kinds = [*((text, str) for text in texts), *facts, (manifest.settings, dict), (manifest.libraries, dict)]
    if not isinstance(manifest.damaged, list) or not all(isinstance(line, str) for line in manifest.damaged):
        raise TypeError("what is said to be damaged is no list of texts")
    for value, kind in kinds:
        if not isinstance(value, kind):
            raise TypeError(f"{str(value)[:40]!r} stands where a {kind.__name__} belongs")


def library_versions(names: Sequence[str] = _LIBRARIES) -> dict[str, str]:
    """Versions of packages, of those that decide what an entry's bytes look like unless others are named; what is not
    installed is left out."""
    from importlib import metadata  # which takes as long as all else here

    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def is_inside(name: str) -> bool:
    """Whether a manifest's name of a file stays in the entry's folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _fault(folder: Path, name: str, fact: FileFact) -> str:
    """What is plainly wrong with a file, without reading it; empty when nothing is."""
    if not is_inside(name):
        return f"{name!r} lies outside its folder"
    try:
        size = (folder / name).stat().st_size
    except OSError:
        return f"{name} is missing"
    return "" if size == fact.size else f"{name} has {size} bytes, not {fact.size}"
