"""A checkpoint's tokenizer, read only when it is one that cannot run away.

A ``tokenizer.json`` is a small program: it may replace texts by longer ones, again and again, or split them by a
pattern that never ends. The family's does neither. What it is made of is compared with what the family's tokenizers
are made of before the library reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from echopix_cli.documents import read_object
from echopix_cli.errors import ModelError, described

_LARGEST = 64 * 2**20  # bytes of tokenizer.json; the family's has 11 MB
_LONGEST = 1000  # characters of an added token
_DEEPEST = 8  # sequences in sequences
# Of each section: what changes no text's length by more than a small factor, in time that grows with the text.
_KNOWN = {
    "normalizer": {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "ByteLevel", "Sequence"},
    "pre_tokenizer": {"ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "Sequence"},
    "post_processor": {"ByteLevel", "TemplateProcessing", "Sequence"},
    "decoder": {"ByteLevel", "ByteFallback", "Fuse", "Sequence"},
    "model": {"BPE"},
}
# Patterns that tokenizers of the family split texts by, in its older and its newer writing.
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_PATTERNS = {
    _LETTERS + numbers + r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for numbers in (r"\p{N}|", r"\p{N}{1,3}|")
}


def load_tokenizer(folder: Path, rows: int) -> PreTrainedTokenizerBase:
    """Read a checkpoint's tokenizer.

    Args:
        folder: of the checkpoint.
        rows: of the model's embeddings; each word's number is one of them.

    Raises:
        ModelError: it is missing, unreadable, or made of parts that the family's tokenizers are not made of.
    """
    try:
        raw = read_object(folder / "tokenizer.json", _LARGEST)
    except FileNotFoundError:
        raw = {}  # made of vocab.json and merges.txt then
    if fault := next(faults(raw, rows), None):
        raise ModelError(f"{folder / 'tokenizer.json'} is no tokenizer of the family: {fault}")
    try:
        # Given no configuration it reads the folder's, talker and all, and warns of every token id in it.
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, config=PreTrainedConfig(), local_files_only=True, trust_remote_code=False
        )
        tokenizer.model_max_length = 2**40  # what is too long is for whoever knows the model
        words = len(tokenizer)
    except MemoryError:
        raise
    except BaseException as error:
        # Its native part reports what it did not foresee as a panic, which is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = next(iter(described(error).splitlines()), "")[:300]
        raise ModelError(f"cannot read the tokenizer of {folder}: {reason}") from None
    if words > rows:
        raise ModelError(f"the tokenizer of {folder} has {words} words, and the model {rows}")
    return tokenizer


def faults(raw: dict[str, Any], rows: int) -> Iterator[str]:
    """What makes a ``tokenizer.json`` unlike those of the family, for a model with so many rows of embeddings."""
    for section, known in _KNOWN.items():
        yield from _unknown(section, raw.get(section), known, _DEEPEST)
    if isinstance(raw.get("padding"), dict):
        yield "it pads every text"
    model = raw.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    numbers = vocabulary.values() if isinstance(vocabulary, dict) else ()
    if not all(isinstance(number, int) and 0 <= number < rows for number in numbers):
        yield f"its words are numbered beyond the model's {rows}"
    added = raw.get("added_tokens") or []
    if not isinstance(added, list) or len(added) > rows:
        yield "its added tokens are no list of tokens"
        return
    for token in added:
        number, content = (token.get("id"), token.get("content")) if isinstance(token, dict) else (None, None)
        if not isinstance(number, int) or not 0 <= number < rows or not isinstance(content, str) or not content:
            yield f"an added token has no text, or a number beyond the model's {rows}"
        elif len(content) > _LONGEST:
            yield f"an added token has {len(content)} characters"


def _unknown(section: str, part: object, known: set[str], depth: int) -> Iterator[str]:
    """Parts of a section that are not of the family's kinds."""
    if part is None:
        return
    kind = part.get("type", "BPE" if section == "model" else None) if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in known:
        yield f"its {section} is a {str(kind or type(part).__name__)[:40]!r}"
        return
    if kind == "Split":
        pattern = part.get("pattern")
        written = pattern.get("Regex") if isinstance(pattern, dict) else None
        if written is not None and written not in _PATTERNS:
            yield f"it splits texts by another pattern: {str(written)[:80]!r}"
    if kind == "TemplateProcessing":
        for name in ("single", "pair"):
            pieces = part.get(name)
            if isinstance(pieces, list) and len(pieces) > 64:
                yield f"it adds {len(pieces)} tokens to every text"
    if kind == "Sequence":
        inner = [value for value in part.values() if isinstance(value, list)]
        if depth == 0 or any(len(value) > _DEEPEST for value in inner):
            yield f"its {section} has too many parts"
            return
        for value in inner:
            for item in value:
                yield from _unknown(section, item, known, depth - 1)
