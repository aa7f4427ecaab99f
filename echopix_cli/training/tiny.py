"""Shapes and words of the bundled demonstration model and of the tests' smaller one: the family's classes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from echopix_cli.files import write_whole
from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.processing import FAMILY_TEMPLATE, PixelRules, Processor
from echopix_cli.model.tokenization import Tokenizer
from echopix_cli.scenes import DURATION

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


def build_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A byte-level BPE over ``texts``: any input can be spelled, the scenes' words are single tokens."""
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*texts, *_TURNS], trainer)
    settings = {
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return Tokenizer(core, settings, FAMILY_TEMPLATE)


@dataclass(frozen=True)
class Sizes:
    """Widths and depths of a model in the family's layout, and how its rotary frequencies are spread.

    ``rope_theta``: base of the 32 frequencies of half a head, which have 4 × 4 cells and eight seconds to tell apart:
    with the family's base of a million, columns would differ by a thousandth of a radian.
    """

    width: int
    feed_forward: int
    layers: int
    sieve_layers: int
    vision_width: int
    vision_layers: int
    audio_width: int
    audio_layers: int
    rope_theta: float
    sections: tuple[int, int, int, int]


SMALL = Sizes(192, 576, 3, 2, 96, 2, 128, 2, 1_000_000.0, (9, 9, 9, 5))  # what tests run on
BUNDLED = Sizes(256, 512, 5, 3, 192, 4, 128, 4, 100.0, (8, 8, 8, 8))  # 9.5 million parameters


def build_config(tokenizer: Tokenizer, sizes: Sizes = SMALL) -> EchoingPixelsConfig:
    """A configuration of the given sizes, with heads of 64 in the decoder and of 32 in the towers."""
    token = tokenizer.id_of
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
            "user_token_id": token("user") or 0,
            "pad_token_id": token("<|endoftext|>"),
            "audio_config": {
                "d_model": sizes.audio_width,
                "encoder_layers": sizes.audio_layers,
                "encoder_attention_heads": sizes.audio_width // 32,
                "encoder_ffn_dim": 4 * sizes.audio_width,
                "output_dim": sizes.width,
            },
            "vision_config": {
                "depth": sizes.vision_layers,
                "hidden_size": sizes.vision_width,
                "intermediate_size": 3 * sizes.vision_width,
                "num_heads": sizes.vision_width // 32,
                "out_hidden_size": sizes.width,
                "fullatt_block_indexes": [sizes.vision_layers - 1],
            },
            "text_config": {
                "vocab_size": VOCABULARY,
                "hidden_size": sizes.width,
                "intermediate_size": sizes.feed_forward,
                "num_hidden_layers": sizes.layers,
                "num_attention_heads": sizes.width // 64,
                "num_key_value_heads": sizes.width // 64,
                "head_dim": 64,
                "max_position_embeddings": 8192,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": sizes.rope_theta,
                    "mrope_section": [8, 12, 12],
                },
                "sync_rope_section": list(sizes.sections),
                "av_refiner_layers": sizes.sieve_layers,
                "compression_ratio": 0.1,
                "tie_word_embeddings": False,
            },
        },
    )


def pixel_rules() -> PixelRules:
    """The bundled model looks at small frames and knows single questions; this is what its preprocessor file says."""
    return PixelRules(min_pixels=FRAME_PIXELS, max_pixels=FRAME_PIXELS, window_seconds=DURATION, questions=1)


def build_model(config: EchoingPixelsConfig, seed: int) -> EchoingPixelsForConditionalGeneration:
    """Random weights from ``seed``; CS2 starts as a copy of the decoder's first layers."""
    torch.manual_seed(seed)
    model = EchoingPixelsForConditionalGeneration(config)
    model.draw_weights()
    model.copy_sieve_from_decoder()
    return model


def save_processor(processor: Processor, folder: Path) -> None:
    """Write tokenizer, generation and preprocessing files, as :meth:`Processor.load` reads them.

    Raises:
        EchopixError: the disk or the folder refuses; what lay there stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    processor.tokenizer.save(folder)
    rules = processor.rules
    preprocessor = {
        "image_mean": list(rules.mean),
        "image_std": list(rules.std),
        "patch_size": rules.patch_size,
        "temporal_patch_size": rules.temporal_patch_size,
        "merge_size": rules.merge_size,
        "video_min_pixels": rules.min_pixels,
        "video_max_pixels": rules.max_pixels,
        "video_window_seconds": rules.window_seconds,
        "conversation_questions": rules.questions,
    }
    generation = {"eos_token_id": sorted(processor.stop_ids), "do_sample": False}
    for name, value in (("preprocessor_config.json", preprocessor), ("generation_config.json", generation)):
        write_whole(folder / name, (json.dumps(value, indent=2) + "\n").encode())
