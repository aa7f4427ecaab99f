"""Quantized copies in the store: found, made, proven, refused, made again.

A copy stands for one revision of one model, one method and one compute precision. Of a download the revision is the
commit. Of a folder it is a fingerprint: path, names, sizes and times of change of all files that are read, so that
a folder that has changed is never answered from an old copy.

A copy is used when it was made in the present format, by the bitsandbytes that is installed or by one whose bytes
are known to be the same. Otherwise it is made again. Its files' sizes are compared whenever it is opened; a file
touched since its manifest was written is read and compared byte by byte.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING

from echopix_cli.errors import EchopixError, ModelError
from echopix_cli.files import nearest_folder, sha256_of
from echopix_cli.sizes import decimal
from echopix_cli.weights import quantize
from echopix_cli.weights.opening import folder_revision as folder_revision
from echopix_cli.weights.opening import open_checkpoint
from echopix_cli.weights.packing import settings_of
from echopix_cli.weights.registry import Model, ModelSource, files_of
from echopix_cli.weights.store import MANIFEST, Busy, Entry, Store

if TYPE_CHECKING:
    import torch

KIND = "quantized"
FORMAT = 1  # counted up whenever this program writes copies that older ones did not
# Releases of bitsandbytes that write the same copies byte for byte (measured on a CPU, both methods, both precisions).
KNOWN_GOOD = frozenset({"0.48.2", "0.49.2", "0.50.2"})
_HEADROOM = 64 * 2**20  # bytes of disk left alone


class Watcher:
    """Is told what happens while a copy is made; this one does nothing with it."""

    def notice(self, text: str) -> None:
        """Something that the user should know."""

    def quantizing(self, done: int, total: int) -> None:
        """Bytes of the full-precision model that have been read, and of all there are."""


@dataclass(frozen=True)
class Wanted:
    """Which copy: of a model, by a method (``int8`` or ``nf4``), all else in ``dtype`` (such as ``bfloat16``)."""

    model: Model
    method: str
    dtype: str

    @property
    def remedy(self) -> str:
        """What to type to have it made, or made again."""
        return f"echopix models pull {self.model.typed} --quantize {self.method} --dtype {self.dtype}"


def find(wanted: Wanted, store: Store | None = None, *, any_state: bool = False) -> Entry | None:
    """The copy, if there is one that can be used; without a download, one of what the name stood for then.

    Args:
        wanted: which.
        store: None for the usual one.
        any_state: damaged and outdated copies too, unchecked.

    Raises:
        ModelError: its files are not what its manifest says.
    """
    store = store or Store()
    revision = _revision(wanted.model, store)
    key = None if revision is None else _key(wanted, revision)
    candidates = [
        entry for entry in store.all() if (entry.key == key if key is not None else _stands_for(entry, wanted))
    ]
    for entry in sorted(candidates, key=lambda entry: entry.manifest.created, reverse=True):
        if any_state:
            return entry
        if faults := list(entry.faults):
            raise _damaged(wanted, faults)
        if is_current(entry):
            if faults := _touched(entry):
                raise _damaged(wanted, faults)
            return entry
    return None


def require_none(wanted: Wanted, store: Store | None = None) -> None:
    """Check that no copy is here that cannot be used any more, of a model whose download is not here.

    Raises:
        ModelError: there is one, with the reason.
    """
    if (outdated := find(wanted, store, any_state=True)) is not None:
        raise _alone(wanted, outdated)


def of_model(model: Model, store: Store) -> list[Entry]:
    """All copies made of what a name stands for, or stood for."""
    revision = _revision(model, store) if model.repository else None
    return [
        entry
        for entry in store.all()
        if entry.manifest.kind == KIND
        and entry.manifest.source == _source(model)
        and (model.repository is None or entry.manifest.revision == revision or _requested(entry, model))
    ]


def is_current(entry: Entry) -> bool:
    """Whether a copy was made as this program would make it now."""
    try:
        installed = metadata.version("bitsandbytes")
    except metadata.PackageNotFoundError:
        installed = ""
    made = entry.manifest.libraries.get("bitsandbytes")
    known = made == installed or {made, installed} <= KNOWN_GOOD
    return entry.manifest.settings.get("format") == FORMAT and known


def as_source(wanted: Wanted, entry: Entry) -> ModelSource:
    """A copy as the files of its model."""
    revision = entry.manifest.revision if wanted.model.repository else None
    if wanted.model.origin == "bundled":
        whole = files_of(wanted.model)
        return replace(whole, folder=entry.folder, quantization=wanted.method)
    return ModelSource(wanted.model.name, entry.folder, revision, quantization=wanted.method)


def make(
    wanted: Wanted,
    device: torch.device,
    watcher: Watcher | None = None,
    store: Store | None = None,
    *,
    mend: bool = False,
) -> tuple[Entry, bool]:
    """Have a copy in the store, proven by reloading it; what is there already is not made again.

    Args:
        wanted: which.
        device: that quantizes.
        watcher: is told what happens.
        store: None for the usual one.
        mend: make a damaged copy again rather than refuse it.

    Returns:
        the copy, and whether it was made now.

    Raises:
        ModelError: no full-precision model to make it of, the copy there is damaged, or the disk is too small.
        EchopixError: the disk refuses.
    """
    import torch

    watcher, store = watcher or Watcher(), store or Store()
    name = wanted.model.name

    def present() -> Entry | None:
        try:
            return find(wanted, store)
        except ModelError:
            if mend:
                return None
            raise

    if entry := present():
        return entry, False
    outdated = find(wanted, store, any_state=True)
    try:
        folder = files_of(wanted.model).folder
    except ModelError as error:
        if outdated is None:
            raise
        raise _alone(wanted, outdated) from error
    revision = _revision(wanted.model, store)
    assert revision is not None
    key = _key(wanted, revision)
    with store.lock(key, lambda: watcher.notice(f"another process is quantizing {name}: waiting for it")):
        if entry := present():  # the other process has done it
            return entry, False
        if outdated is not None:
            watcher.notice(f"the {wanted.method} copy of {name} is made again: {_why(outdated)}")
        checkpoint = open_checkpoint(folder)
        dtype: torch.dtype = getattr(torch, wanted.dtype)
        _need_disk(store, checkpoint.counts.bytes_as(wanted.method, dtype.itemsize))
        settings = {
            "quantize": wanted.method,
            "dtype": wanted.dtype,
            "format": FORMAT,
            "requested": wanted.model.revision,
            "quantization_config": settings_of(wanted.method, dtype),
        }
        source = _source(wanted.model)
        with store.create(key, kind=KIND, source=source, revision=revision, settings=settings) as stage:
            try:
                written = quantize.write_copy(checkpoint, stage, wanted.method, dtype, device, watcher.quantizing)
                quantize.prove(stage, written, wanted.method, dtype, device)
                if wanted.model.folder and {checkpoint.revision, folder_revision(folder)} != {revision}:
                    raise ModelError(f"{folder} has changed while it was quantized", "run the same again")
            except OSError as error:
                raise EchopixError(
                    f"cannot write to {store.root}: {error.strerror or error}",
                    "make room, or set ECHOPIX_CACHE_DIR to a folder on a larger disk",
                ) from error
        entry = store.open(key)
        assert entry is not None
        _forget_others(wanted, entry, store)
    return entry, True


def _damaged(wanted: Wanted, faults: list[str]) -> ModelError:
    return ModelError(f"the {wanted.method} copy of {wanted.model.name} is damaged: {faults[0]}", wanted.remedy)


def _alone(wanted: Wanted, entry: Entry) -> ModelError:
    """That a copy cannot be used, and what it was made of is not here."""
    return ModelError(
        f"the {wanted.method} copy of {wanted.model.name} cannot be used ({_why(entry)}), and the download is not here "
        "to make it again",
        wanted.remedy,
    )


def _source(model: Model) -> str:
    return model.repository or str(model.folder and model.folder.resolve())


def _revision(model: Model, store: Store) -> str | None:
    """What is on this machine under a model's name; None when nothing is.

    Raises:
        ModelError: a folder without weights.
    """
    if model.folder is not None:
        return folder_revision(model.folder)
    record = store.peek(model.key)
    return None if record is None else record.manifest.revision


def _key(wanted: Wanted, revision: str) -> str:
    of = (wanted.model.repository or f"folder/{wanted.model.name}").replace("/", "--")
    of = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in of)[:100]
    return f"{wanted.method}-{wanted.dtype}-{of}@{revision[:16]}"


def _stands_for(entry: Entry, wanted: Wanted) -> bool:
    """Whether a copy, of whatever revision, was made of what the name stood for."""
    settings = entry.manifest.settings
    return (
        entry.manifest.kind == KIND
        and entry.manifest.source == _source(wanted.model)
        and (settings.get("quantize"), settings.get("dtype")) == (wanted.method, wanted.dtype)
        and _requested(entry, wanted.model)
    )


def _requested(entry: Entry, model: Model) -> bool:
    """Whether a copy was made under what the model asks of its hub; a folder asks for nothing."""
    settings = entry.manifest.settings
    return "requested" in settings and settings["requested"] == model.revision


def _why(entry: Entry) -> str:
    """Why a copy is not used as it is."""
    if entry.faults:
        return entry.faults[0]
    if entry.manifest.settings.get("format") != FORMAT:
        return "another version of echopix made it"
    if not is_current(entry):
        return f"bitsandbytes {entry.manifest.libraries.get('bitsandbytes', 'of some version')} made it"
    return next(iter(_touched(entry)), "its files differ from their checksums")


def _touched(entry: Entry) -> list[str]:
    """Files that were changed since the manifest was written, and differ from it."""
    written = os.stat(entry.home / MANIFEST).st_mtime_ns
    return [
        f"{name} differs from its checksum"
        for name, fact in entry.manifest.files.items()
        if (entry.folder / name).stat().st_mtime_ns > written and sha256_of(entry.folder / name) != fact.sha256
    ]


def _forget_others(wanted: Wanted, entry: Entry, store: Store) -> None:
    """Remove copies of what the name stood for earlier: nothing will ever ask for them."""
    for other in store.all():
        if other.key != entry.key and _stands_for(other, wanted):
            with suppress(Busy), store.lock(other.key, wait=False):  # whoever makes it may be waiting for this one
                store.remove(other.key)


def _need_disk(store: Store, size: int) -> None:
    """Check that a copy of ``size`` bytes fits on the store's disk.

    Raises:
        ModelError: it does not.
    """
    free = shutil.disk_usage(nearest_folder(store.root)).free
    if size + _HEADROOM > free:
        raise ModelError(
            f"the quantized copy takes {decimal(size)}, and the disk of {store.root} has {decimal(free)} free",
            "make room, or set ECHOPIX_CACHE_DIR to a folder on a larger disk; --quantize none needs no copy",
        )
