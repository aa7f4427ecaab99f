"""Features on the disk: the second question about a file decodes nothing and runs no tower.

An entry is a safetensors file: the features of one clip, and beside them, as JSON, what else questions about it need.
Its name is a hash of all that features depend on: the file's content, what is taken of it, the towers' weights and
configuration, precision, kind of device, the libraries at work, and :data:`FORMAT`. Nothing in it can be executed. A
digest over all of it is compared whenever it is read; what differs is removed, and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from echopix_cli import __version__
from echopix_cli.decoding import worker
from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.loading import is_out_of_memory
from echopix_cli.errors import EchopixError, FileLost, MediaError, described
from echopix_cli.files import Look, look_at
from echopix_cli.media import Clip, DecodePlan, MediaInfo, TrackInfo
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.processing import ClipInputs, PixelRules
from echopix_cli.results import AudioStatus, PeakMemory, Sampling
from echopix_cli.shelf import FEATURES, Full, Shelf, TooLarge
from echopix_cli.weights.checkpoint import Checkpoint, read_tensors
from echopix_cli.weights.opening import folder_revision
from echopix_cli.weights.store import library_versions

FORMAT = 4  # counted up whenever features, or how they are kept, come out differently
_STATED = "echopix"  # the name under which an entry's digest and facts stand
_TOWERS = ("thinker.visual.", "thinker.audio_tower.")
_TOWERS_DIGEST = ".towers"  # ends the names of files that hold the hash of a model's towers
_LIBRARIES = ("torch", "av", "soundfile")  # whose versions may change features


@dataclass(frozen=True)
class Entry:
    """The place in a cache for the features of one file and plan, and the file as it was looked at.

    ``beside`` are names of entries that do not go to make room for it: those of a film's other windows.
    """

    cache: FeatureCache
    name: str
    path: str
    look: Look
    beside: Collection[str] = ()

    def find(self) -> Encoded | None:
        """Features kept earlier, on the CPU, and the seconds that reading them took as ``decode``; or None."""
        began = time.perf_counter()
        content = self.cache.shelf.get(self.name)
        if content is None:
            return None
        try:
            found = _unpacked(content, self)
        except Exception as error:  # a damaged header can be wrong in more ways than can be listed
            if is_out_of_memory(error):
                raise
            self.cache.shelf.drop(self.name)
            self.cache.notice(f"features kept of {self.path} are damaged and are made again: {described(error)}")
            return None
        found.seconds["decode"] = time.perf_counter() - began
        return found

    def keep(self, encoded: Encoded) -> None:
        """Keep what the towers made, unless the file has changed since it was looked at."""
        with suppress(OSError):
            if look_at(self.path) == self.look:
                self.cache.put(self, lambda: _packed(encoded, self.name))


@dataclass(frozen=True)
class Fetched:
    """A file before the device has seen anything of it.

    Attributes:
        content: its decoded clip, or features kept earlier, on the CPU.
        entry: where its features are to be kept; None keeps nothing.
        seconds: that reading it took, wherever that was done.
    """

    content: Clip | Encoded
    entry: Entry | None = None
    seconds: float = 0.0


class FeatureCache:
    """Features of files, for one model; from :func:`open_features`.

    A disk that refuses costs no answer: ``notice`` is told once, and nothing more is kept.

    Args:
        shelf: where the entries lie.
        model: all that features depend on beside file and plan.
        notice: is told what went wrong; called from several threads.
    """

    def __init__(self, shelf: Shelf, model: str, notice: Callable[[str], None] = lambda text: None) -> None:
        self.shelf, self.model, self.notice = shelf, model, notice
        self._keeps = True
        self._outgrown: set[str] = set()  # films that the shelf cannot hold

    def entry(self, path: str, plan: DecodePlan, identity: Callable[[], str] | None = None) -> Entry | None:
        """The place of a file's features; None where the file cannot be read, which decoding it explains.

        Args:
            path: of the file; pipes and devices have no place.
            plan: from :meth:`Engine.plan`. Its limits are left out: they bound the work, not what comes of it.
            identity: as :func:`~echopix_cli.files.identity_of` gives it; by default another process reads for it.

        Raises:
            FileLost: reading the file comes no further.
        """
        try:
            look = look_at(path)
            if not os.path.isfile(path):
                return None
            known = identity() if identity else worker.identity(path)
        except FileLost:
            raise
        except (OSError, ValueError, MediaError):
            return None
        taken = {name: value for name, value in asdict(plan).items() if name != "limits"}
        key = json.dumps([self.model, known, taken], sort_keys=True)
        name = hashlib.sha256(key.encode()).hexdigest() + FEATURES
        return Entry(self, name, os.fsdecode(path), look)

    def put(self, entry: Entry, pack: Callable[[], bytes]) -> None:
        """Put an entry on the shelf, or say why that is not possible: once, where it is of no file in particular."""
        if not self._keeps:
            return
        try:
            self.shelf.put(entry.name, pack(), entry.beside)
        except Full:  # or a film would push out what the next question about it begins with
            if entry.path not in self._outgrown:
                self._outgrown.add(entry.path)
                self.notice(
                    f"features of only a part of {entry.path} are kept: cache_size, {self.shelf.cap:,} bytes, is too "
                    "small for all of its windows"
                )
        except EchopixError as error:
            self._keeps = isinstance(error, TooLarge)
            self.notice(f"features are not kept: {error.message}")


def open_features(
    shelf: Shelf,
    model: EchoingPixelsForConditionalGeneration,
    rules: PixelRules,
    checkpoint: Checkpoint,
    notice: Callable[[str], None] = lambda text: None,
) -> FeatureCache | None:
    """The cache of a loaded model. None where the towers' weights cannot be told, and ``notice`` is told why.

    Args:
        shelf: where the entries lie.
        model: as it was loaded.
        rules: how frames become patches.
        checkpoint: that it was loaded from.
        notice: is told what goes wrong, now and later.
    """
    try:
        towers = _towers_digest(shelf, checkpoint)
    except (EchopixError, OSError) as error:
        notice(f"features are not kept: {error}")
        return None
    thinker: Any = model.config.thinker_config
    parameter = next(iter(model.parameters()))
    parts = {
        "format": FORMAT,
        "towers": towers,
        "configuration": {
            "vision": thinker.vision_config.to_dict(),
            "audio": thinker.audio_config.to_dict(),
            "pixels": asdict(rules),
        },
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "device": parameter.device.type,
        "libraries": {"echopix": __version__, **library_versions(_LIBRARIES)},
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return FeatureCache(shelf, hashlib.sha256(text.encode()).hexdigest(), notice)


def _towers_digest(shelf: Shelf, checkpoint: Checkpoint) -> str:
    """SHA-256 of the towers' tensors as stored. It is remembered on the shelf, for files that have not changed since.

    Raises:
        EchopixError: the model's files cannot be read, have changed since it was loaded, or hold no towers.
    """
    folder, revision = checkpoint.folder, checkpoint.revision
    name = hashlib.sha256(revision.encode()).hexdigest() + _TOWERS_DIGEST
    kept = shelf.get(name) or b""
    known = kept[: hashlib.sha256().digest_size]
    whole = kept == _checked(name, known)
    if not whole:
        tensors = {name: value for name, value in read_tensors(checkpoint).items() if name.startswith(_TOWERS)}
        if not tensors:
            raise EchopixError(f"{folder} holds no towers")
        digest = hashlib.sha256()
        _feed(digest.update, tensors)
        known = digest.digest()
    if folder_revision(folder) != revision:
        raise EchopixError(f"{folder} has changed since the model was loaded")
    if not whole:
        with suppress(EchopixError):  # which keeping features will tell
            shelf.put(name, _checked(name, known))
    return known.hex()


def _checked(name: str, digest: bytes) -> bytes:
    """A towers' digest as it is kept: with a checksum that tells it from a damaged one, and from another model's."""
    return digest + hashlib.sha256(name.encode() + digest).digest()


def _packed(encoded: Encoded, name: str) -> bytes:
    """An entry of that name."""
    inputs = encoded.inputs
    facts = {
        "name": name,
        "info": asdict(encoded.info),
        "audio_status": encoded.audio_status,
        "sampling": asdict(encoded.sampling),
        "notices": encoded.notices,
        "grid_thw": inputs.grid_thw,
        "grid_times": inputs.grid_times.tolist(),
        "grid_end": inputs.grid_end,
        "audio_rows": inputs.audio_rows,
        "merge_size": inputs.merge_size,
    }
    text = json.dumps(facts)
    parts = {"video": encoded.video, "audio": encoded.audio}
    tensors = {part: value.cpu().contiguous() for part, value in parts.items() if value is not None}
    # One string, because the library writes several in any order: the same features are the same bytes.
    packed: bytes = save(tensors, {_STATED: json.dumps([_digest(text, tensors), text])})
    return packed


def _unpacked(content: bytes, entry: Entry) -> Encoded:
    """An entry's features and facts.

    Raises:
        Exception: of any kind, where it is not as :func:`_packed` made it.
    """
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    digest, text = json.loads(header["__metadata__"][_STATED])
    if digest != _digest(text, tensors):
        raise ValueError("the checksum differs")
    facts = json.loads(text)
    if facts["name"] != entry.name:
        raise ValueError("they belong to another file")
    info, grid = facts["info"], facts["grid_thw"]
    return Encoded(
        path=entry.path,
        info=MediaInfo(info["format"], info["duration"], tuple(TrackInfo(**track) for track in info["tracks"])),
        audio_status=AudioStatus(facts["audio_status"]),
        sampling=Sampling(**facts["sampling"]),
        notices=tuple(facts["notices"]),
        inputs=ClipInputs(
            grid_thw=None if grid is None else (grid[0], grid[1], grid[2]),
            grid_times=np.array(facts["grid_times"], np.float64),
            grid_end=facts["grid_end"],
            audio_rows=facts["audio_rows"],
            merge_size=facts["merge_size"],
        ),
        video=tensors.get("video"),
        audio=tensors.get("audio"),
        seconds={},
        peaks=PeakMemory(),
        cached=True,
    )


def _digest(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """Of all that an entry says."""
    digest = hashlib.blake2b(facts.encode(), digest_size=32)
    _feed(digest.update, tensors)
    return digest.hexdigest()


def _feed(update: Callable[[Any], None], tensors: Mapping[str, Tensor]) -> None:
    """Names, kinds, shapes and bytes of tensors."""
    for name, value in sorted(tensors.items()):
        update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
