"""Model names → what they stand for → folders on disk. Nothing here reaches for the network."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from echopix_cli import __version__
from echopix_cli.errors import ModelError, UsageError
from echopix_cli.model.shapes import SHAPES, Shape
from echopix_cli.settings import config_path, read_models
from echopix_cli.weights.containment import require_contained
from echopix_cli.weights.names import AUTO as AUTO
from echopix_cli.weights.names import BUNDLED as BUNDLED
from echopix_cli.weights.names import PREFIX as PREFIX
from echopix_cli.weights.packing import WeightCounts
from echopix_cli.weights.store import HUB, Entry, Store

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class NotHere(ModelError):
    """A model that could be downloaded, and was not.

    Args:
        model: which.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(f"{model.name} is not on this machine", f"echopix models pull {model.name}")
        self.model = model


@dataclass(frozen=True)
class Model:
    """What a name stands for.

    Attributes:
        name: as the user types it.
        repository: on the hub, ``OWNER/NAME``; None for a folder.
        revision: what is asked of the hub; None lets its default branch be resolved once, at the first download.
        folder: of a model that is on this machine anyway; None for the hub's.
        licence: as the model card states it; empty when it is not known before the hub has been asked.
        download: bytes to fetch, about; None when not known.
        shape: of its layers; None when not known.
        origin: ``bundled``, ``registered``, ``config`` (the user's file) or ``given`` (a path or ``hf:``).
    """

    name: str
    repository: str | None = None
    revision: str | None = None
    folder: Path | None = None
    licence: str = ""
    download: int | None = None
    shape: Shape | None = None
    origin: str = "registered"

    @property
    def counts(self) -> WeightCounts | None:
        """Of its weights, by its shape; None when that is not known."""
        return None if self.shape is None else stock_counts(self.shape)

    @property
    def key(self) -> str:
        """The store's key of its download.

        Raises:
            ValueError: it is a folder, not a download.
        """
        if self.repository is None:
            raise ValueError(f"{self.name} is no download")
        wanted = "" if self.revision is None else "@" + quote(self.revision, safe="")
        return repository_key(self.repository) + wanted

    @property
    def typed(self) -> str:
        """What to type on a command line to mean it."""
        return str(self.folder) if self.folder is not None and self.origin == "given" else self.name

    @property
    def source(self) -> str:
        """Where it comes from, as ``hf:OWNER/NAME[@REVISION]`` or a folder."""
        if self.repository is None:
            return str(self.folder)
        return PREFIX + self.repository + ("" if self.revision is None else f"@{self.revision}")


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files lie, and what to say about it.

    ``demonstration`` marks the bundled model, which knows only its own little world. ``quantization`` says how the
    folder's decoder weights are stored: ``none``, ``int8`` or ``nf4``.
    """

    name: str
    folder: Path
    revision: str | None = None
    demonstration: bool = False
    quantization: str = "none"


# No commit is pinned: the first download resolves and records it.
REGISTERED: tuple[Model, ...] = (
    Model(
        "qwen2.5-omni-3b",
        "Qwen/Qwen2.5-Omni-3B",
        licence="Qwen research licence: non-commercial use only",
        download=9_400_000_000,
        shape=SHAPES["qwen2.5-omni-3b"],
    ),
    Model(
        "qwen2.5-omni-7b",
        "Qwen/Qwen2.5-Omni-7B",
        licence="Apache-2.0",
        download=17_900_000_000,
        shape=SHAPES["qwen2.5-omni-7b"],
    ),
)


def stock_counts(shape: Shape) -> WeightCounts:
    """The weights of a stock thinker, by a shape that names the sizes of all its layers."""
    text, vision, audio = shape.text, shape.vision, shape.audio
    width, inner = text["hidden_size"], text["intermediate_size"]
    query, key = (text[heads] * text["head_dim"] for heads in ("num_attention_heads", "num_key_value_heads"))
    rows = query + 2 * key + width + 2 * inner + width  # q, k, v, o, gate, up, down
    linear = width * (query + 2 * key + 2 * inner) + width * (query + inner)
    decoder = text["num_hidden_layers"] * (query + 2 * key + 2 * width)  # biases, norms
    decoder += 2 * text["vocab_size"] * width + width  # embeddings, output layer, last norm
    w, v = vision["hidden_size"], vision["intermediate_size"]
    merged = 4 * w
    picture = vision["depth"] * (4 * (w * w + w) + 3 * w * v + 2 * v + w + 2 * w)  # attention, MLP, norms
    picture += 3 * 2 * 14 * 14 * w + w + merged * (merged + 1) + (merged + 1) * width  # patches, merger
    d, f = audio["d_model"], audio["encoder_ffn_dim"]
    sound = audio["encoder_layers"] * (4 * d * d + 3 * d + 2 * d * f + f + d + 4 * d)  # keys have no bias
    sound += 3 * 128 * d + d + 3 * d * d + d + 2 * d + (d + 1) * width + 2 * width  # two convolutions, norm, projection
    layers = text["num_hidden_layers"]
    return WeightCounts(layers * linear, layers * rows, layers * 7, decoder + picture + sound)


def repository_key(repository: str) -> str:
    """The store's name for all that belongs to a repository; also of the lock held while fetching from it."""
    return f"{HUB}-{repository.replace('/', '--')}"


def known_models() -> dict[str, Model]:
    """Every name there is: the bundled model, the registered ones, the user's own.

    Raises:
        UsageError: the config file gives a name that is taken, or stands for nothing.
    """
    bundled = Model(
        BUNDLED, folder=Path(str(files("echopix_cli") / "assets" / BUNDLED)), licence="MIT", origin="bundled"
    )
    found = {model.name: model for model in (bundled, *REGISTERED)}
    for name, value in read_models().items():
        where = f"{config_path()}, [models]"
        if name in found or name == AUTO or not _NAME.fullmatch(name):
            raise UsageError(f"{where}: {name!r} cannot be a model's name", "choose another: letters, digits, . _ -")
        if value.startswith(PREFIX):
            try:
                given = _parse_hub(name, value)
            except ModelError as error:
                raise UsageError(f"{where}, {name}: {error.message}", error.hint) from None
            found[name] = Model(name, given.repository, given.revision, origin="config")
        else:
            found[name] = Model(name, folder=Path(value), origin="config")
    return found


def find_model(name: str) -> Model:
    """What a name stands for: a known name, ``hf:OWNER/REPO[@REVISION]``, or the path of a folder.

    Raises:
        ModelError: none of these; the message lists the names there are.
    """
    known = known_models()
    if name in known:
        return known[name]
    if name.startswith(PREFIX):
        return _parse_hub(name, name)
    path = Path(os.path.expanduser(name))
    if name and os.path.isdir(path):  # unlike Path.is_dir, this takes names that no file can have
        return Model(path.resolve().name, folder=path, origin="given")
    near = difflib.get_close_matches(name.lower(), list(known), 1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise ModelError(
        f"no model named {name!r}, and no such folder",
        f"{guess}models are: {', '.join(known)}; or give hf:OWNER/REPO, or the path of a folder with a checkpoint",
    )


def resolve_model(name: str) -> ModelSource:
    """The folder of a model that is on this machine.

    Raises:
        ModelError: no such name, not downloaded, or its files are not what was downloaded.
    """
    return files_of(find_model(name))


def files_of(model: Model) -> ModelSource:
    """As :func:`resolve_model`, of a name that was looked up already.

    Raises:
        ModelError: not downloaded, or its files are not what was downloaded; or a folder that leads elsewhere.
    """
    if model.folder is not None:
        bundled = model.origin == "bundled"
        if not bundled:  # the package's own files are as its installer laid them, with links if it likes
            require_contained(model.folder)
        return ModelSource(model.name, model.folder, f"echopix {__version__}" if bundled else None, bundled)
    entry = open_download(model)
    if entry is None:
        raise NotHere(model)
    return ModelSource(model.name, entry.folder, entry.manifest.revision)


def open_download(model: Model) -> Entry | None:
    """What was downloaded and checked under this name; None when nothing was. Sizes are compared, bytes are not.

    Raises:
        ModelError: files are missing or of another size.
    """
    try:
        return Store().open(model.key)
    except ModelError as error:
        raise ModelError(f"{model.name}: {error.message}", f"echopix models pull {model.name}") from None


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a full commit hash, 40 hexadecimal digits; branches and tags may move."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def _parse_hub(name: str, text: str) -> Model:
    """``hf:OWNER/REPO[@REVISION]``.

    Raises:
        ModelError: it is not of this form.
    """
    repository, at, revision = text.removeprefix(PREFIX).partition("@")
    odd = ".." in text or "--" in repository  # the hub allows neither, and both have a meaning in folder names
    if odd or not _REPOSITORY.fullmatch(repository) or (at and not _REVISION.fullmatch(revision)):
        raise ModelError(f"{text!r} names no repository", "hf:OWNER/REPO, or hf:OWNER/REPO@REVISION")
    return Model(name, repository, revision if at else None, origin="given")
