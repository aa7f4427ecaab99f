"""Fetching checkpoints from a model hub: what of a repository the thinker needs, and getting it as a whole."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echopix_cli.documents import read_object
from echopix_cli.errors import ModelError
from echopix_cli.files import nearest_folder
from echopix_cli.sizes import decimal
from echopix_cli.weights.environment import hub_constants
from echopix_cli.weights.opening import INDEX, LAYOUTS, NOT_READ, SINGLE, SMALL, TOKENIZERS, quantization_of
from echopix_cli.weights.registry import Model, is_commit, repository_key
from echopix_cli.weights.store import HUB, Entry, FileFact, Store
from echopix_cli.weights.transfer import Plan, Progress, RemoteFile, Transfer, folder_name
from echopix_cli.weights.unfinished import PART
from echopix_cli.weights.web import NoRevision, not_here

_CONFIG = "config.json"
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}\.safetensors")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LARGEST_SMALL = 64 * 2**20  # bytes of a file that is no weights; the family's tokenizer has 11 MB
_HEADROOM = 64 * 2**20  # bytes of disk left alone


@dataclass(frozen=True)
class Listing:
    """A revision of a repository.

    ``files`` are those that may be of use, by name; of the others their number, their bytes and the name of one that
    holds pickles, if any does.
    """

    repository: str
    commit: str
    licence: str
    files: dict[str, RemoteFile]
    others: int = 0
    other_bytes: int = 0
    pickle: str = ""


@dataclass(frozen=True)
class Pulled:
    """What a download did: ``fetched`` bytes over the network in ``seconds``; no ``plan`` when nothing was to do."""

    entry: Entry
    plan: Plan | None
    fetched: int
    seconds: float


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
        fetch, plan = _planned(store, model, watcher)
        watcher.planned(plan)
        facts = fetch.run(plan)
        if fetch.commit is None and not fetch.link.offline:
            fetch.link.refer(plan.commit)
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
    watcher, store = watcher or Progress(), store or Store()
    with _locked(store, model, watcher):
        return _planned(store, model, watcher)[1]


def _planned(store: Store, model: Model, watcher: Progress) -> tuple[_Fetch, Plan]:
    """A download, and its plan; of what was here before and is damaged, the same commit again where there still is one.

    A branch may have moved since, and what was fetched and made of its old commit would be in nobody's keeping.
    """
    before = store.peek(model.key)
    if before is not None and is_commit(before.manifest.revision):
        fetch = _Fetch(model, watcher, before.manifest.revision)
        with suppress(NoRevision):
            return fetch, fetch.plan()
    fetch = _Fetch(model, watcher)
    return fetch, fetch.plan()


def parts(cache: Path, repository: str | None = None) -> dict[Path, int]:
    """Bytes of the unfinished downloads in the hub's cache folder, of one repository or of all.

    One that another process ends meanwhile is left out.
    """
    folder = "models--*" if repository is None else folder_name(repository)
    found = {}
    for path in sorted(cache.glob(f"{folder}/blobs/*{PART}")):
        with suppress(FileNotFoundError):
            found[path] = path.stat().st_size
    return found


def hub_cache() -> Path:
    """The hub's cache folder, as its library understands the environment."""
    constants = hub_constants()
    return Path(constants.HF_HUB_CACHE)


class _Fetch:
    """One download: what is there, what of it is needed, and getting that. The caller holds the repository's lock."""

    def __init__(self, model: Model, watcher: Progress, commit: str | None = None) -> None:
        self.model = model
        self.commit = commit
        self.repository = _repository(model)
        self.link = Transfer(model.name, self.repository, model.revision, watcher, commit)

    def plan(self) -> Plan:
        """Ask the hub what there is and choose what is needed."""
        listing = self._cached_listing() if self.link.offline else self._listing()
        if _CONFIG not in listing.files:
            raise ModelError(f"{self.repository} holds no {_CONFIG}: not a checkpoint that echopix can use")
        self.link.bring(listing.files[_CONFIG], listing.commit)
        config = read_object(self.link.snapshot(listing.commit) / _CONFIG)
        kind = str(config.get("model_type"))
        layout = LAYOUTS.get(kind)
        if layout is None:
            raise ModelError(
                f"{self.repository} describes a model of type {kind[:60]!r}",
                f"types that are read: {', '.join(LAYOUTS)}",
            )
        quantization_of(self.repository, config)
        if not any(listing.files.keys() >= names for names in TOKENIZERS):
            if self.link.offline:
                raise not_here(self.model.name)
            raise ModelError(f"{self.repository} holds no tokenizer: not a checkpoint that echopix can use")
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
            skipped=listing.other_bytes + sum(file.size for file in listing.files.values()) - total,
            skipped_files=listing.others + len(listing.files) - len(wanted),
            free=shutil.disk_usage(nearest_folder(self.link.cache)).free,
        )
        if remaining + _HEADROOM > plan.free:
            raise ModelError(
                f"{self.model.name} needs {decimal(remaining)} more, and the disk of {self.link.cache} has "
                f"{decimal(plan.free)} free",
                "make room, or set HF_HUB_CACHE to a folder on a larger disk",
            )
        return plan

    def run(self, plan: Plan) -> dict[str, FileFact]:
        """Bring every file of a plan."""
        for file in plan.files:
            self.link.bring(file, plan.commit)
        return {file.path: self.link.facts[file.path] for file in plan.files}

    def _listing(self) -> Listing:
        """What the hub states, as far as it is of use. Whatever it says, only plain names and hashes get through."""
        info = self.link.web.metadata()
        commit, siblings = info.get("sha"), info.get("siblings")
        if not isinstance(commit, str) or not is_commit(commit):
            raise ModelError(f"{self.link.web.endpoint} states no commit for {self.repository}: {str(commit)[:60]!r}")
        if self.model.revision and is_commit(self.model.revision) and commit != self.model.revision:
            raise ModelError(
                f"{self.link.web.endpoint} offers commit {commit} of {self.repository}, not the one that was asked for",
                "the hub or something on the way to it is not what it says it is",
            )
        found: dict[str, RemoteFile] = {}
        others = other_bytes = 0
        pickle = ""
        for sibling in siblings if isinstance(siblings, list) else []:
            if not isinstance(sibling, dict) or not isinstance(path := sibling.get("rfilename"), str):
                raise ModelError(f"{self.link.web.endpoint} lists files of {self.repository} that have no names")
            lfs = sibling.get("lfs")
            size = (lfs if isinstance(lfs, dict) else sibling).get("size")
            if path not in {*SMALL, INDEX} and not _SHARD.fullmatch(path):
                others += 1
                other_bytes += size if isinstance(size, int) and size > 0 else 0
                pickle = pickle or (path if path.endswith((".bin", ".pt", ".pth")) else "")
                continue
            digest = str(lfs.get("sha256")) if isinstance(lfs, dict) else None
            try:
                file = RemoteFile(path, size, str(sibling.get("blobId")), digest)  # type: ignore[arg-type]
            except ModelError as error:
                raise ModelError(f"{error.message} of {self.repository}", "try another HF_ENDPOINT") from None
            if file.size > _LARGEST_SMALL and not _SHARD.fullmatch(path):
                # These are fetched before anybody is told how much it will be.
                raise ModelError(f"{path} of {self.repository} is unusually large: {decimal(file.size)}")
            found[path] = file
        return Listing(self.repository, commit, _licence(info.get("cardData")), found, others, other_bytes, pickle)

    def _cached_listing(self) -> Listing:
        """Without a network: what the hub's cache holds of the revision. Its files' names are their checksums."""
        wanted = self.commit or self.model.revision or "main"
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
                usable = path.name in {*SMALL, INDEX} or _SHARD.fullmatch(path.name)
                if usable and path.exists() and _HASH.fullmatch(name):
                    digest = name if len(name) == 64 else None
                    found[path.name] = RemoteFile(path.name, path.stat().st_size, name, digest)
        if not found:
            raise not_here(self.model.name)
        return Listing(self.repository, commit, "", found)

    def _shards(self, listing: Listing) -> list[str]:
        """Names of the weight files that hold thinker tensors."""
        files = listing.files
        if SINGLE in files:
            return [SINGLE]
        if INDEX not in files:
            if self.link.offline:
                raise not_here(self.model.name)
            has = f"holds weights as pickles ({listing.pickle})" if listing.pickle else "holds no weights"
            raise ModelError(f"{self.repository} {has}", "only safetensors are read")
        self.link.bring(files[INDEX], listing.commit)
        try:
            raw = read_object(self.link.snapshot(listing.commit) / INDEX)
            named = sorted({str(file) for name, file in raw["weight_map"].items() if not name.startswith(NOT_READ)})
        except (OSError, KeyError, AttributeError) as error:
            raise ModelError(f"{INDEX} of {self.repository} maps no weights: {error}") from None
        for name in named:
            if not _SHARD.fullmatch(name):
                raise ModelError(f"{INDEX} of {self.repository} names {name!r}, which is no file of weights")
            if name not in files:
                if self.link.offline:
                    raise not_here(self.model.name)
                raise ModelError(f"{INDEX} of {self.repository} names {name}, which is not there")
        if not named:
            raise ModelError(f"{INDEX} of {self.repository} names no thinker tensors")
        return [INDEX, *named]


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


def _licence(card: Any) -> str:
    """What the model card's header states; empty when it does not."""
    card = card if isinstance(card, dict) else {}
    stated, link = card.get("license_name") or card.get("license"), card.get("license_link")
    words = [str(word) for word in (stated if isinstance(stated, list) else [stated]) if word]
    return (", ".join(words) + (f" ({link})" if words and link else ""))[:300]
