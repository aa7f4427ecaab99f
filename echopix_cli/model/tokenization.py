"""A checkpoint's tokenizer, read only when it is one that cannot run away.

A ``tokenizer.json`` is a small program: it may replace texts by longer ones, again and again, or split them by a
pattern that never ends. The family's does neither. What it is made of is compared with what the family's tokenizers
are made of before the library reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers

from echopix_cli.documents import read_object
from echopix_cli.errors import ModelError, described
from echopix_cli.files import write_whole

_LARGEST = 64 * 2**20  # bytes of tokenizer.json; the family's has 11 MB
_LONGEST = 1000  # characters of an added token
_DEEPEST = 8  # sequences in sequences
_TEMPLATE, _LONGEST_TEMPLATE = "chat_template.jinja", 2**21  # characters that are read of it
_OLDER_TEMPLATE = "chat_template.json"
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
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


@dataclass(frozen=True)
class Tokenizer:
    """Text to token ids and back.

    Attributes:
        core: the library's own.
        settings: contents of ``tokenizer_config.json``.
        chat_template: a text, or several by name; None where the checkpoint brings none.
    """

    core: tokenizers.Tokenizer
    settings: dict[str, Any] = field(default_factory=dict)
    chat_template: object = None

    @property
    def named(self) -> dict[str, str]:
        """Special tokens by their roles, such as ``eos_token``."""
        stated = {role: self.settings.get(role) for role in _ROLES}
        texts = {role: token.get("content") if isinstance(token, dict) else token for role, token in stated.items()}
        return {role: text for role, text in texts.items() if isinstance(text, str)}

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text; None where none is named."""
        return self.id_of(self.named.get("eos_token", ""))

    @property
    def pad_token_id(self) -> int | None:
        """The token that fills up a batch; None where none is named."""
        return self.id_of(self.named.get("pad_token", ""))

    def id_of(self, token: str) -> int | None:
        """A token's number; None of what is not one token."""
        number: int | None = self.core.token_to_id(token)
        return number

    def encode(self, text: str, literal: bool = False) -> list[int]:
        """Token ids of a text; ``literal`` reads no word of it as a special token."""
        self.core.encode_special_tokens = literal
        return list(self.core.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids → text without special tokens."""
        return str(self.core.decode(list(ids), skip_special_tokens=True))

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and the chat template, as they are read.

        Raises:
            EchopixError: the disk or the folder refuses; what lay there stays.
        """
        write_whole(folder / "tokenizer.json", self.core.to_str(pretty=True).encode())
        text = json.dumps(self.settings, indent=2, sort_keys=True)
        write_whole(folder / "tokenizer_config.json", (text + "\n").encode())
        if isinstance(self.chat_template, str):
            write_whole(folder / _TEMPLATE, self.chat_template.encode())


def load_tokenizer(folder: Path, rows: int) -> Tokenizer:
    """Read a checkpoint's tokenizer.

    Args:
        folder: of the checkpoint.
        rows: of the model's embeddings; each word's number is one of them.

    Raises:
        ModelError: it is missing, unreadable, or made of parts that the family's tokenizers are not made of.
    """
    path = folder / "tokenizer.json"
    try:
        raw = read_object(path, _LARGEST)
    except FileNotFoundError:
        raw = None  # made of vocab.json and merges.txt then
    if fault := next(faults(raw or {}, rows), None):
        raise ModelError(f"{path} is no tokenizer of the family: {fault}")
    try:
        settings = read_object(folder / "tokenizer_config.json", _LARGEST)
    except FileNotFoundError:
        settings = {}
    added = settings.get("added_tokens_decoder") or {}
    listed = [{"id": number, **token} for number, token in _numbered(added)]
    if fault := next(_added_faults(listed, rows), None):
        raise ModelError(f"{folder / 'tokenizer_config.json'} is of no tokenizer of the family: {fault}")
    try:
        core = _of_vocabulary(folder) if raw is None else tokenizers.Tokenizer.from_file(str(path))
        core.no_truncation()
        core.no_padding()
        made = Tokenizer(core, settings, _template(folder, settings))
        # What the configuration says of a token holds; a special token that is not yet one becomes it.
        core.add_tokens([_token(**token) for token in listed])
        known = {token.content for token in core.get_added_tokens_decoder().values()}
        core.add_tokens([_token(text, special=True) for text in made.named.values() if text not in known])
        words = core.get_vocab_size(with_added_tokens=True)
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
    return made


def _of_vocabulary(folder: Path) -> tokenizers.Tokenizer:
    """A tokenizer of ``vocab.json`` and ``merges.txt``, which transformers knows how to put together."""
    from transformers import AutoTokenizer, PreTrainedConfig

    # Given no configuration it reads the folder's, talker and all, and warns of every token id in it.
    return AutoTokenizer.from_pretrained(
        folder, config=PreTrainedConfig(), local_files_only=True, trust_remote_code=False
    ).backend_tokenizer


def _template(folder: Path, settings: dict[str, Any]) -> object:
    """The chat template: a file of its own, in text or, as older programs write it, in JSON; or what the configuration
    says."""
    try:
        with open(folder / _TEMPLATE, encoding="utf-8") as handle:
            return handle.read(_LONGEST_TEMPLATE)
    except FileNotFoundError:
        pass
    try:
        stated = read_object(folder / _OLDER_TEMPLATE, _LARGEST).get("chat_template")
    except FileNotFoundError:
        stated = settings.get("chat_template")
    if isinstance(stated, list):
        return {part["name"]: part["template"] for part in stated}
    return stated


def _numbered(added: object) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """Tokens by their numbers, of a configuration that lists them; what is no such list has no number."""
    for number, token in added.items() if isinstance(added, dict) else [("", {})]:
        yield (int(number) if number.isdecimal() else None), token if isinstance(token, dict) else {}


def _token(content: str, special: bool = False, **flags: Any) -> tokenizers.AddedToken:
    """A token that is found in texts before they are split."""
    kept = {name: bool(flags[name]) for name in ("single_word", "lstrip", "rstrip", "normalized") if name in flags}
    return tokenizers.AddedToken(content, special=bool(special), **kept)


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
    yield from _added_faults(raw.get("added_tokens") or [], rows)


def _added_faults(added: object, rows: int) -> Iterator[str]:
    """What added tokens have that those of the family have not."""
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
