"""A checkpoint's folder is all that is read of it: no link and no name in it may lead elsewhere.

Folders come from anywhere. A link called ``tokenizer.json`` that leads to a private key would have it read,
and perhaps quoted in an error; one that leads to a pipe would wait for ever. The hub's own cache is made of
links, from a commit's folder to ``blobs`` beside it in the same repository's folder, and those are right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from echopix_cli.documents import read_object
from echopix_cli.errors import ModelError

# What configuration, weights and tokenizer are read from, here and in transformers. Logs and notes may lie anywhere.
_SUFFIXES = frozenset({".jinja", ".json", ".model", ".safetensors", ".txt"})
_TEMPLATES = "additional_chat_templates"  # a folder that transformers reads all templates of
_TOKENIZER = "tokenizer_config.json"
_LARGEST = 64 * 2**20  # bytes of a file that is no weights; the family's largest has 11 MB
# Of the tokenizer's configuration: what some release of transformers opens under the name that stands there.
_NAMING = ("fast_tokenizer_files", "merges_file", "spm_file", "tokenizer_file", "vocab_file")


def require_contained(folder: Path) -> None:
    """Check that all that may be read of a checkpoint's folder lies in it.

    What is missing or unreadable is no matter here: whoever needs it says so.

    Args:
        folder: may itself be a link, or a commit's folder in the hub's cache.

    Raises:
        ModelError: a file is a link to somewhere else, no regular file, or larger than any of its kind, or the
            tokenizer names a file elsewhere.
    """
    root = Path(os.path.realpath(folder))
    for path in _readable(root):
        real = Path(os.path.realpath(path))
        shown = folder / path.relative_to(root)
        if not (real.is_relative_to(root) or _is_blob(real, root)):
            raise ModelError(
                f"{shown} leads out of its folder, to {real}", "copy that file into the folder, if you trust it"
            )
        if real.exists() and not real.is_file() and path.name != _TEMPLATES:
            raise ModelError(f"{shown} is a folder, pipe or device, not a file", "give a checkpoint's own folder")
        if path.suffix != ".safetensors" and real.is_file() and real.stat().st_size > _LARGEST:
            raise ModelError(f"{shown} is unusually large: {real.stat().st_size / 1e6:.0f} MB", "is it the right file?")
    for name in _named(root / _TOKENIZER):
        if Path(name).name != name or name == "..":
            raise ModelError(
                f"{folder / _TOKENIZER} names a file outside its folder: {name!r}", "remove that entry from it"
            )


def _readable(root: Path) -> Iterator[Path]:
    """Every entry that may be read as a part of the checkpoint."""
    try:
        for path in sorted(root.iterdir()):
            if path.suffix in _SUFFIXES or path.name == _TEMPLATES:
                yield path
        yield from sorted((root / _TEMPLATES).glob("*.jinja"))
    except OSError:
        return


def _is_blob(real: Path, root: Path) -> bool:
    """Whether a file lies where the hub's cache keeps the bytes of a commit's files."""
    return root.parent.name == "snapshots" and real.parent == root.parent.parent / "blobs"


def _named(path: Path) -> Iterator[str]:
    """Names of files that stand in a tokenizer's configuration."""
    try:
        raw = read_object(path)
    except (OSError, ModelError):
        return
    for key in _NAMING:
        value = raw.get(key)
        yield from (name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str))
