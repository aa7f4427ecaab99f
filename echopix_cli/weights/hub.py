"""Fetching checkpoints from a model hub: what of a repository the thinker needs, and getting it as a whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echopix_cli.errors import ModelError
from echopix_cli.weights.registry import LAYOUTS, Model, is_commit, recognise, repository_key
from echopix_cli.weights.store import HUB, Entry, FileFact, Store
from echopix_cli.weights.transfer import PART, RemoteFile, Transfer, Watcher, folder_name, library_log

_SINGLE, _INDEX, _CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
# What a tokenizer and a processor are read from. Never code, never pickles: what is not named here is not fetched.
SMALL = frozenset(
    {
        _CONFIG,
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.json",
        "chat_template.jinja",
        "LICENSE",
        "LICENSE.txt",
        "LICENSE.md",
        "NOTICE",
    }
)
_NOT_READ = ("talker.", "token2wav.")  # tensors of the parts that speak
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}\.safetensors")
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_LARGEST_SMALL = 128 * 2**20  # bytes of a file that is no weights; the family's tokenizer has 11 MB
_HEADROOM = 64 * 2**20  # bytes of disk left alone


@dataclass(frozen=True)
class Listing:
    """A revision of a repository."""

    repository: str
    commit: str
    licence: str
    files: dict[str, RemoteFile]


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


@dataclass(frozen=True)
class Pulled:
    """What a download did: ``fetched`` bytes over the network in ``seconds``; no ``plan`` when nothing was to do."""

    entry: Entry
    plan: Plan | None
    fetched: int
    seconds: float


class Progress(Watcher):
    """Is told what happens during a download; this one does nothing with it."""

    def planned(self, plan: Plan) -> None:
        """What is about to be fetched."""


def pull(model: Model, watcher: Progress | None = None, store: Store | None = None) -> Pulled:
    """Have a model's files on this machine, whole and checked. What is there already is not fetched again.

    The hub's own environment holds: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE. Offline, files
    that other programs left in the hub's cache are checked and taken.

    Raises:
        ModelError: the hub cannot be reached or refuses, the repository is not one we can use, the disk is too
            small, or a file differs from the hub's checksum twice.
    """
    watcher = watcher or Progress()
    store = store or Store()
    begun = time.monotonic()
    if entry := _whole(store, model):
        return Pulled(entry, None, 0, 0.0)
    with _locked(store, model, watcher):
        if entry := _whole(store, model):  # the other process has done it
            return Pulled(entry, None, 0, time.monotonic() - begun)
        with library_log(watcher):
            fetch = _Fetch(model, watcher)
            plan = fetch.plan()
            watcher.planned(plan)
            facts = fetch.run(plan)
        entry = store.record(
            model.key,
            kind=HUB,
            source=_repository(model),
            revision=plan.commit,
            folder=fetch.link.snapshot(plan.commit),
            files=facts,
            settings={"requested": model.revision, "licence": plan.licence, "layout": plan.layout},
        )
    return Pulled(entry, plan, fetch.link.fetched, time.monotonic() - begun)


def look(model: Model, watcher: Progress | None = None, store: Store | None = None) -> Plan:
    """What :func:`pull` would do. Fetches no more than ``config.json`` and the index of the weights.

    Raises:
        ModelError: as for :func:`pull`.
    """
    watcher = watcher or Progress()
    with _locked(store or Store(), model, watcher), library_log(watcher):
        return _Fetch(model, watcher).plan()


def parts(cache: Path, repository: str | None = None) -> list[Path]:
    """Unfinished downloads in the hub's cache folder, of one repository or of all."""
    folder = "models--*" if repository is None else folder_name(repository)
    return sorted(cache.glob(f"{folder}/blobs/*{PART}"))


def hub_cache() -> Path:
    """The hub's cache folder, as its library understands the environment."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


class _Fetch:
    """One download: what is there, what of it is needed, and getting that. The caller holds the repository's lock."""

    def __init__(self, model: Model, watcher: Progress) -> None:
        self.model = model
        self.repository = _repository(model)
        self.link = Transfer(model.name, self.repository, model.revision, watcher)

    def plan(self) -> Plan:
        """Ask the hub what there is and choose what is needed."""
        listing = self._cached_listing() if self.link.offline else self._listing()
        if _CONFIG not in listing.files:
            raise ModelError(f"{self.repository} holds no {_CONFIG}: not a checkpoint that echopix can use")
        self.link.bring(listing.files[_CONFIG], listing.commit)
        layout = recognise(self.link.snapshot(listing.commit))
        if layout is None:
            kind = _model_type(self.link.snapshot(listing.commit) / _CONFIG)
            raise ModelError(
                f"{self.repository} describes a model of type {kind!r}", f"types that are read: {', '.join(LAYOUTS)}"
            )
        wanted = [file for path, file in listing.files.items() if path in SMALL]
        wanted += [listing.files[name] for name in self._shards(listing)]
        wanted.sort(key=lambda file: file.size)
        remaining = sum(self.link.remaining(file) for file in wanted)
        total = sum(file.size for file in wanted)
        plan = Plan(
            model=self.model,
            commit=listing.commit,
            licence=listing.licence or self.model.licence,
            layout=layout,
            destination=self.link.snapshot(listing.commit),
            files=tuple(wanted),
            fetch=remaining,
            present=total - remaining,
            skipped=sum(file.size for file in listing.files.values()) - total,
            skipped_files=len(listing.files) - len(wanted),
            free=_free(self.link.cache),
        )
        if remaining + _HEADROOM > plan.free:
            raise ModelError(
                f"{self.model.name} needs {_gigabytes(remaining)} more, and the disk of {self.link.cache} has "
                f"{_gigabytes(plan.free)} free",
                "make room, or set HF_HUB_CACHE to a folder on a larger disk",
            )
        return plan

    def run(self, plan: Plan) -> dict[str, FileFact]:
        """Bring every file of a plan."""
        for file in plan.files:
            self.link.bring(file, plan.commit)
        return {file.path: self.link.facts[file.path] for file in plan.files}

    def _listing(self) -> Listing:
        from huggingface_hub import HfApi, constants

        with self.link.explained():
            info = HfApi(endpoint=self.link.endpoint).model_info(
                self.repository,
                revision=self.model.revision,
                files_metadata=True,
                timeout=float(constants.HF_HUB_ETAG_TIMEOUT),
            )
        if not is_commit(info.sha):
            raise ModelError(f"{self.link.endpoint} states no commit for {self.repository}: {str(info.sha)[:60]!r}")
        found = {}
        for sibling in info.siblings or []:
            lfs = sibling.lfs
            digest = None if lfs is None else lfs.sha256
            size = sibling.size if lfs is None else lfs.size
            file = RemoteFile(sibling.rfilename, size or 0, str(sibling.blob_id), digest)
            if file.path in {*SMALL, _INDEX} or _SHARD.fullmatch(file.path):
                # Hashes become names of files below: nothing but a hash may pass.
                right = _SHA1.fullmatch(file.blob) if digest is None else _SHA256.fullmatch(str(digest))
                if not right:
                    raise ModelError(f"{self.link.endpoint} states no checksum for {file.path} of {self.repository}")
                if file.size > _LARGEST_SMALL and not _SHARD.fullmatch(file.path):
                    # These are fetched before anybody is told how much it will be.
                    raise ModelError(f"{file.path} of {self.repository} is unusually large: {_gigabytes(file.size)}")
            found[file.path] = file
        return Listing(self.repository, info.sha, _licence(info), found)

    def _cached_listing(self) -> Listing:
        """Without a network: what the hub's cache holds of the revision. Its files' names are their checksums."""
        wanted = self.model.revision or "main"
        commit = wanted
        if not is_commit(wanted):
            try:
                commit = (self.link.home / "refs" / wanted).read_text(encoding="ascii").strip()
            except (OSError, ValueError):
                commit = ""
        found = {}
        if is_commit(commit):
            for path in sorted(self.link.snapshot(commit).glob("*")):
                name = Path(os.readlink(path)).name if path.is_symlink() else ""
                if path.exists() and (_SHA1.fullmatch(name) or _SHA256.fullmatch(name)):
                    digest = name if len(name) == 64 else None
                    found[path.name] = RemoteFile(path.name, path.stat().st_size, name, digest)
        if not found:
            raise self.link.not_here()
        return Listing(self.repository, commit, "", found)

    def _shards(self, listing: Listing) -> list[str]:
        """Names of the weight files that hold thinker tensors."""
        files = listing.files
        if _INDEX not in files:
            if _SINGLE in files:
                return [_SINGLE]
            if self.link.offline:
                raise self.link.not_here()
            pickles = [path for path in files if path.endswith((".bin", ".pt", ".pth"))]
            has = f"holds weights as pickles ({pickles[0]})" if pickles else "holds no weights"
            raise ModelError(f"{self.repository} {has}", "only safetensors are read")
        self.link.bring(files[_INDEX], listing.commit)
        try:
            raw = json.loads((self.link.snapshot(listing.commit) / _INDEX).read_text(encoding="utf-8"))
            named = sorted({str(file) for name, file in raw["weight_map"].items() if not name.startswith(_NOT_READ)})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"cannot read {_INDEX} of {self.repository}: {error}") from None
        for name in named:
            if not _SHARD.fullmatch(name):
                raise ModelError(f"{_INDEX} of {self.repository} names {name!r}, which is no file of weights")
            if name not in files:
                if self.link.offline:
                    raise self.link.not_here()
                raise ModelError(f"{_INDEX} of {self.repository} names {name}, which is not there")
        if not named:
            raise ModelError(f"{_INDEX} of {self.repository} names no thinker tensors")
        return [_INDEX, *named]


def _locked(store: Store, model: Model, watcher: Progress) -> AbstractContextManager[None]:
    """One process at a time fetches from a repository."""
    return store.lock(
        repository_key(_repository(model)),
        lambda: watcher.notice(f"another process is fetching {model.name}: waiting for it"),
    )


def _whole(store: Store, model: Model) -> Entry | None:
    """The entry of a model whose files are all in their place."""
    entry = store.peek(model.key)
    return entry if entry is not None and not entry.faults else None


def _repository(model: Model) -> str:
    if model.repository is None:
        raise ValueError(f"{model.name} is no download")
    return model.repository


def _licence(info: Any) -> str:
    """What the model card's header states; empty when it does not."""
    card = getattr(info, "card_data", None)
    name, link = getattr(card, "license_name", None), getattr(card, "license_link", None)
    stated = name or getattr(card, "license", None)
    stated = ", ".join(map(str, stated)) if isinstance(stated, Sequence) and not isinstance(stated, str) else stated
    return "" if not stated else f"{stated} ({link})" if link else str(stated)


def _model_type(path: Path) -> str:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "unknown"
    return str(raw.get("model_type"))[:60] if isinstance(raw, dict) else "unknown"


def _free(folder: Path) -> int:
    """Free bytes on the disk that a folder lies on, or will."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
