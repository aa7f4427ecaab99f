"""Token ids to text, as they come: the work of a token does not grow with the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenizers.decoders import DecodeStream

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextStream:
    """Pieces of an answer's text, without special tokens and without white space at its ends.

    A piece comes when its characters are whole, and white space with what follows it. What is still held back at the
    end is for the caller to add, from the text of all ids.

    Args:
        tokenizer: the library's own.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream: Any = DecodeStream(skip_special_tokens=True)
        self._held = ""
        self._begun = False

    def add(self, token: int) -> str:
        """The piece that a token completes; empty where it completes none."""
        text = self._held + (self._stream.step(self._tokenizer, token) or "")
        if not self._begun:
            text = text.lstrip()
        piece = text.rstrip()
        self._held = text[len(piece) :]
        self._begun = self._begun or bool(piece)
        return piece
