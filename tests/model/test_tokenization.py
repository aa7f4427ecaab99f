"""Tokenizers are taken when they are made as the family's are, and refused by what they are made of otherwise."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen2Tokenizer

from echopix_cli.errors import ExitCode, ModelError
from echopix_cli.model.tokenization import faults, load_tokenizer

ROWS = 640
GROWS = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}


@pytest.fixture(scope="module")
def family() -> dict[str, Any]:
    """A tokenizer as transformers builds the family's."""
    made = Qwen2Tokenizer(vocab={"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, merges=[("a", "b")])
    raw: dict[str, Any] = json.loads(made.backend_tokenizer.to_str())
    assert (raw["normalizer"]["type"], raw["pre_tokenizer"]["type"]) == ("NFC", "Sequence")
    return raw


def test_the_familys_own_are_taken(family: dict[str, Any], random_checkpoint: Path) -> None:
    assert list(faults(family, ROWS)) == []
    assert list(faults(json.loads((random_checkpoint / "tokenizer.json").read_text()), ROWS)) == []
    assert load_tokenizer(random_checkpoint, 10**6).encode("violin")


def test_a_template_in_json_is_read_as_the_official_processor_reads_it(random_checkpoint: Path, tmp_path: Path) -> None:
    """It goes before what the tokenizer says, and after a file of its own in text."""
    folder = tmp_path / "model"
    shutil.copytree(random_checkpoint, folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    stated = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**stated, "chat_template": "of the tokenizer"}))
    assert load_tokenizer(folder, 10**6).chat_template == "of the tokenizer"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "in JSON"}))
    assert load_tokenizer(folder, 10**6).chat_template == "in JSON"
    (folder / "chat_template.jinja").write_text("in text")
    assert load_tokenizer(folder, 10**6).chat_template == "in text"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw.update(normalizer=GROWS), "its normalizer is a 'Replace'"),
        (lambda raw: raw.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, GROWS]}), "'Replace'"),
        (
            lambda raw: raw.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 9}),
            "too many parts",
        ),
        (lambda raw: raw.update(normalizer=7), "its normalizer is a 'int'"),
        (lambda raw: raw["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="(a+)+$"), "another pattern"),
        (lambda raw: raw.update(decoder=GROWS), "its decoder is a 'Replace'"),
        (lambda raw: raw.update(padding={"strategy": {"Fixed": 10**9}}), "it pads every text"),
        (lambda raw: raw.update(model={"type": "Unigram", "vocab": []}), "its model is a 'Unigram'"),
        (lambda raw: raw["model"]["vocab"].update(zz=ROWS), "numbered beyond the model's 640"),
        (lambda raw: raw["model"]["vocab"].update(zz=-1), "numbered beyond the model's 640"),
        (lambda raw: raw["added_tokens"].append({"id": 2**31, "content": "x"}), "a number beyond the model's 640"),
        (lambda raw: raw["added_tokens"].append({"id": 4, "content": "x" * 9999}), "has 9999 characters"),
        (lambda raw: raw.update(added_tokens=[7]), "an added token has no text"),
    ],
)
def test_others_are_refused_by_what_they_are_made_of(
    family: dict[str, Any], change: Callable[[dict[str, Any]], object], said: str
) -> None:
    raw = copy.deepcopy(family)
    change(raw)
    assert said in next(faults(raw, ROWS))


def test_what_the_library_does_not_take_is_a_model_error(random_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(random_checkpoint, tmp_path / "model"))
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["model"]["merges"] = [["q", "zzz"]]
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="cannot read the tokenizer of") as caught:
        load_tokenizer(folder, 10**6)
    assert caught.value.exit_code is ExitCode.MODEL
    with pytest.raises(ModelError, match="numbered beyond the model's 9"):
        load_tokenizer(random_checkpoint, 9)
