"""Text that comes in pieces is the text that all ids give, and no piece holds half a character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from echopix_cli.engine.streaming import TextStream

WORDS = "a dog 犬 the piano 🎹 plays 👩‍👩‍👧 slowly, café! \n two  spaces 你好世界"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A byte-level vocabulary, so that a character outside ASCII is several tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(["the dog plays"], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    made.add_special_tokens(["<end>"])
    return made


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [stream.add(token) for token in ids]


@settings(max_examples=200)
@given(st.text(alphabet=st.sampled_from(WORDS), max_size=40))
def test_pieces_add_up_and_are_whole(tokenizer: Tokenizer, text: str) -> None:
    ids = [*tokenizer.encode(text).ids, tokenizer.token_to_id("<end>")]
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids).strip()
    assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=200)
@given(st.data())
def test_bytes_that_are_no_text_never_make_a_piece_that_the_whole_lacks(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    """A model with random weights says anything, ids beyond the vocabulary included."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() + 20), max_size=60))
    assert tokenizer.decode(ids).strip().startswith("".join(streamed(tokenizer, ids)))


def test_a_token_costs_the_same_late_as_early(tokenizer: Tokenizer) -> None:
    """What is decoded at a token is a few ids, however long the answer is."""
    seen: list[int] = []

    class Counted:
        def step(self, given: Tokenizer, token: int) -> str:
            seen.append(token)
            return "x"

    stream = TextStream(tokenizer)
    stream._stream = Counted()
    assert "".join(stream.add(token) for token in range(1000)) == "x" * 1000
    assert seen == list(range(1000))
