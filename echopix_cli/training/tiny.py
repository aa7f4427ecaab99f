"""The bundled demonstration model's shape and words: the family's classes, small enough for a laptop."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.processing import FAMILY_TEMPLATE, PixelRules, Processor

# The family's special tokens, in a fixed order; everything learned comes after them.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|IMAGE|>",
    "<|VIDEO|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
)
VOCABULARY = 640
SIDE = 112  # pixels: 4 × 4 merged rows a grid step
FRAME_PIXELS = SIDE * SIDE
# What the model also meets besides its questions, so that these words are not spelled out by bytes.
_TURNS = ("system\n", "user\n", "assistant\n", "You are a helpful assistant.", "What do you see? What do you hear?")


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE over ``texts``: any input can be spelled, the scenes' words are single tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*texts, *_TURNS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=FAMILY_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> EchoingPixelsConfig:
    """About four million parameters: two vision, two audio, two CS2 and three decoder layers."""
    token = tokenizer.convert_tokens_to_ids
    width = 192
    return EchoingPixelsConfig(
        architectures=["Qwen2_5OmniCompressForConditionalGeneration"],
        thinker_config={
            "audio_token_index": token("<|AUDIO|>"),
            "image_token_index": token("<|IMAGE|>"),
            "video_token_index": token("<|VIDEO|>"),
            "vision_start_token_id": token("<|vision_bos|>"),
            "vision_end_token_id": token("<|vision_eos|>"),
            "audio_start_token_id": token("<|audio_bos|>"),
            "audio_end_token_id": token("<|audio_eos|>"),
            "user_token_id": token("user") if "user" in tokenizer.get_vocab() else 0,
            "pad_token_id": token("<|endoftext|>"),
            "audio_config": {
                "d_model": 128,
                "encoder_layers": 2,
                "encoder_attention_heads": 4,
                "encoder_ffn_dim": 512,
                "output_dim": width,
            },
            "vision_config": {
                "depth": 2,
                "hidden_size": 96,
                "intermediate_size": 288,
                "num_heads": 3,
                "out_hidden_size": width,
                "fullatt_block_indexes": [1],
            },
            "text_config": {
                "vocab_size": VOCABULARY,
                "hidden_size": width,
                "intermediate_size": 576,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "num_key_value_heads": 3,
                "head_dim": 64,
                "max_position_embeddings": 8192,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1_000_000.0,
                    "mrope_section": [8, 12, 12],
                },
                "sync_rope_section": [9, 9, 9, 5],
                "av_refiner_layers": 2,
                "compression_ratio": 0.1,
                "tie_word_embeddings": False,
            },
        },
    )


def pixel_rules() -> PixelRules:
    """The bundled model looks at small frames; this is what its preprocessor file says."""
    return PixelRules(min_pixels=FRAME_PIXELS, max_pixels=FRAME_PIXELS)


def build_model(config: EchoingPixelsConfig, seed: int) -> EchoingPixelsForConditionalGeneration:
    """Random weights from ``seed``; CS2 starts as a copy of the decoder's first layers."""
    torch.manual_seed(seed)
    model = EchoingPixelsForConditionalGeneration(config)
    model.copy_sieve_from_decoder()
    return model


def save_processor(processor: Processor, folder: Path) -> None:
    """Write tokenizer, generation and preprocessing files, as :meth:`Processor.load` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    processor.tokenizer.save_pretrained(folder)
    rules = processor.rules
    preprocessor = {
        "image_mean": list(rules.mean),
        "image_std": list(rules.std),
        "patch_size": rules.patch_size,
        "temporal_patch_size": rules.temporal_patch_size,
        "merge_size": rules.merge_size,
        "video_min_pixels": rules.min_pixels,
        "video_max_pixels": rules.max_pixels,
    }
    generation = {"eos_token_id": sorted(processor.stop_ids), "do_sample": False}
    for name, value in (("preprocessor_config.json", preprocessor), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
