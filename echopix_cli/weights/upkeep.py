"""Freeing disk space: what belongs to a model, what is left of interrupted work, and how each of it goes."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.weights import copies, unfinished
from echopix_cli.weights.hub import hub_cache, parts
from echopix_cli.weights.registry import Model, repository_key
from echopix_cli.weights.store import HUB, Busy, Entry, Store, is_inside
from echopix_cli.weights.unfinished import PART


@dataclass(frozen=True)
class Removal:
    """Something that can be removed: what it is, where it lies, how many bytes it frees, and how it goes."""

    what: str
    path: Path
    size: int
    lock: str
    remove: Callable[[], None]


def of_model(model: Model, store: Store | None = None) -> list[Removal]:
    """What this machine holds of a model: its download, copies made of it, and unfinished files.

    The hub's cache is shared with other programs: for them a removed download is gone too.

    Raises:
        UsageError: the model is bundled, or a folder of the user's.
    """
    store = store or Store()
    made = copies.of_model(model, store)
    found = [
        Removal(f"{entry.manifest.settings.get('quantize', entry.manifest.kind)} copy of {model.name}", entry.home,
                _bytes(entry.home), entry.key, partial(store.remove, entry.key))
        for entry in made
    ]  # fmt: skip
    if model.repository is None:
        what = "comes with echopix" if model.origin == "bundled" else f"is a folder of yours: {model.folder}"
        if not found:
            raise UsageError(f"{model.name} {what}", "echopix removes only what it has fetched or made")
        return found
    return [*of_download(model, store), *found, *_unfinished(model.repository)]


def of_download(model: Model, store: Store) -> list[Removal]:
    """A model's downloaded files, as far as no other entry needs them, and the record of them.

    Raises:
        ValueError: it is no download.
    """
    entries = store.all()
    return [
        removal
        for entry in entries
        if entry.key == model.key
        for removal in _download(entry, [other for other in entries if other.key != entry.key], store)
    ]


def drop_download(model: Model, store: Store | None = None) -> int:
    """Remove a download and its record, and leave the copies made of it.

    Returns:
        bytes freed.

    Raises:
        UsageError: the model is a folder of the user's, or bundled.
        EchopixError: something stayed.
    """
    store = store or Store()
    if model.repository is None:
        raise UsageError(f"{model.name} is no download: --drop-source has nothing to remove", "leave it out")
    removals = of_download(model, store)
    for removal, why in carry_out(removals, store):
        if why:
            raise EchopixError(f"{removal.path} stayed: {why}")
    return sum(removal.size for removal in removals)


def of_nobody(store: Store | None = None) -> list[Removal]:
    """What nothing can use: unfinished downloads, half-written entries, records of files that are gone."""
    store = store or Store()
    found = [
        Removal("half-written entry", left.path, _bytes(left.path), left.key, partial(shutil.rmtree, left.path))
        for left in store.leftovers()
    ]
    found += _unfinished()
    for entry in store.all():
        manifest = entry.manifest
        mendable = manifest.folder is not None and any(os.path.lexists(entry.folder / name) for name in manifest.files)
        if entry.faults and not mendable:  # by the next pull, which knows by the record what it has to mend
            found.append(
                Removal(
                    f"entry that cannot be used ({entry.faults[0]})",
                    entry.home,
                    _bytes(entry.home),
                    _lock_of(entry),
                    partial(store.remove, entry.key),
                )
            )
    return found


def judge(entry: Entry, faults: Sequence[str], store: Store) -> None:
    """Keep what reading every byte of an entry found: a damaged copy goes, a damaged download is marked.

    Nothing is done to an entry that has changed since, or that another process works on.
    """
    manifest = entry.manifest
    with suppress(Busy), store.lock(_lock_of(entry), wait=False):
        if store.peek(entry.key) != entry:
            return
        if manifest.folder is None and (faults or entry.faults):
            store.remove(entry.key)
        elif list(faults) != manifest.damaged:
            store.condemn(entry, faults)


def carry_out(removals: list[Removal], store: Store | None = None) -> Iterator[tuple[Removal, str]]:
    """Remove one after the other; yields each with why it stayed, or with the empty string when it is gone."""
    store = store or Store()
    for removal in removals:
        with ExitStack() as held:
            try:
                held.enter_context(store.lock(removal.lock, wait=False))
                removal.remove()
            except Busy:
                yield removal, "another process works on it"
            except FileNotFoundError:
                yield removal, ""
            except (OSError, EchopixError) as error:
                yield removal, str(error)
            else:
                yield removal, ""


def _lock_of(entry: Entry) -> str:
    """What is held by whoever works on an entry: of a download, its repository's."""
    return repository_key(entry.manifest.source) if entry.manifest.kind == HUB else entry.key


def _download(entry: Entry, others: list[Entry], store: Store) -> Iterator[Removal]:
    """A download's files, unless another entry needs them, and then its record."""
    lock = _lock_of(entry)
    shared = [other for other in others if other.folder == entry.folder]
    cached = entry.folder.parent.name == "snapshots" and entry.folder.parents[1].name.startswith("models--")
    if not shared and cached and entry.folder.is_dir():
        own = _Fetched.of(entry)
        yield Removal("downloaded files", entry.folder, own.size, lock, own.remove)
    yield Removal("record of the download", entry.home, _bytes(entry.home), lock, partial(store.remove, entry.key))


@dataclass(frozen=True)
class _Fetched:
    """The files of a download in the hub's cache: what other revisions or programs hold of the repository stays.

    Attributes:
        snapshot: <cache>/models--O--N/snapshots/<commit>, with a link for each file.
        links: of the download.
        blobs: that they lead to, and no other link does.
    """

    snapshot: Path
    links: tuple[Path, ...]
    blobs: tuple[Path, ...]

    @classmethod
    def of(cls, entry: Entry) -> _Fetched:
        """Those that an entry's record names."""
        snapshot, links = entry.folder, tuple(entry.folder / name for name in entry.manifest.files if is_inside(name))
        home = snapshot.parents[1]
        needed = {link.resolve() for link in home.glob("snapshots/*/**/*") if link.is_symlink() and link not in links}
        blobs = {link.resolve() for link in links if link.is_symlink()} - needed
        return cls(snapshot, links, tuple(blob for blob in sorted(blobs) if blob.is_relative_to(home.resolve())))

    @property
    def size(self) -> int:
        """Bytes that go with it."""
        return _held([*self.blobs, *(link for link in self.links if not link.is_symlink())])

    def remove(self) -> None:
        """Remove it, and folders and names of the revision that hold nothing then.

        Raises:
            OSError: something stays.
        """
        for path in (*self.links, *self.blobs):
            path.unlink(missing_ok=True)
        home = self.snapshot.parents[1]
        for folder in (*{link.parent for link in self.links}, self.snapshot):
            with suppress(OSError):  # something else is in there
                folder.rmdir()
        if not self.snapshot.exists():
            for name in (home / "refs").rglob("*"):
                if name.is_file() and name.read_text(errors="replace").strip() == self.snapshot.name:
                    name.unlink()
        for folder in (home / "snapshots", home / "blobs"):
            with suppress(OSError):
                folder.rmdir()
        if not (home / "snapshots").exists() and not (home / "blobs").exists():
            shutil.rmtree(home, ignore_errors=True)


def _unfinished(repository: str | None = None) -> list[Removal]:
    """Unfinished downloads of a repository, or of all."""
    found = []
    for path, size in parts(hub_cache(), repository).items():
        owner = path.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        what = f"unfinished file {path.name.removesuffix(PART)[:12]}…"
        found.append(Removal(what, path, size, repository_key(owner), partial(unfinished.remove, path)))
    return found


def _bytes(folder: Path) -> int:
    return _held(folder.rglob("*"))


def _held(paths: Iterable[Path]) -> int:
    """Bytes of the files among paths, without links; what another process takes away meanwhile counts nothing."""
    size = 0
    for path in paths:
        with suppress(FileNotFoundError):
            found = path.lstat()
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size
