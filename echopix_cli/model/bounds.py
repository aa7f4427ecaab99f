"""What a configuration may ask for, before anything is built of it.

Sizes are bounded well above the family's largest, so that what is wrong is said as such rather than ending in memory
that runs out. Whether they are those of the weights is for :mod:`echopix_cli.weights.headers`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from echopix_cli.model.configuration import EchoingPixelsConfig

_WIDTH, _DEPTH, _HEADS = (1, 2**15), (1, 256), (1, 256)
# Part of the thinker → field → least and most. All memory but a table of n_window × d_model is that of tensors.
_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "text_config": {
        "hidden_size": _WIDTH, "intermediate_size": (1, 2**18), "num_hidden_layers": _DEPTH, "head_dim": (2, 1024),
        "num_attention_heads": _HEADS, "num_key_value_heads": _HEADS, "vocab_size": (1, 2**21),
        "max_position_embeddings": (1, 2**24), "av_refiner_layers": (0, 256), "rms_norm_eps": (0.0, 1.0),
    },
    "audio_config": {
        "d_model": (4, 2**13), "encoder_layers": _DEPTH, "encoder_attention_heads": _HEADS,
        "encoder_ffn_dim": (1, 2**18), "num_mel_bins": (128, 128),
        "n_window": (1, 2**12), "output_dim": _WIDTH,
    },
    "vision_config": {
        "hidden_size": _WIDTH, "depth": _DEPTH, "num_heads": _HEADS, "intermediate_size": (1, 2**18),
        "in_channels": (3, 3), "patch_size": (1, 64), "temporal_patch_size": (1, 8), "spatial_merge_size": (1, 8),
        "window_size": (1, 2**14), "out_hidden_size": _WIDTH,
    },
    "": {"position_id_per_seconds": (1, 10_000), "seconds_per_chunk": (1, 10_000)},
}  # fmt: skip
_IDS = ("audio_token_id", "image_token_id", "video_token_id", "audio_start_token_id", "audio_end_token_id",
        "vision_start_token_id", "vision_end_token_id")  # fmt: skip
_ROPE_TYPES = ("default", "mrope")  # two names of one thing


def faults(config: EchoingPixelsConfig) -> Iterator[str]:
    """What no model of the family has, one line each."""
    thinker: Any = config.thinker_config
    for part, fields in _RANGES.items():
        owner = getattr(thinker, part) if part else thinker
        for name, (least, most) in fields.items():
            value = getattr(owner, name, None)
            number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
            if not least <= number <= most or (most > 1 and number != int(number)):
                wanted = f"{least:g}" if least == most else f"between {least:g} and {most:g}"
                where = f"{part}.{name}" if part else name
                yield f"{where} is {str(value)[:40]}, not {wanted}"
                return  # what follows divides by these
    text, audio, vision = thinker.text_config, thinker.audio_config, thinker.vision_config
    for whole, share, what in (
        (text.num_attention_heads, text.num_key_value_heads, "attention heads by num_key_value_heads"),
        (text.head_dim, 2, "head_dim by 2"),
        (audio.d_model, audio.encoder_attention_heads, "audio_config.d_model by its heads"),
        (audio.d_model, 2, "audio_config.d_model by 2"),
        (vision.hidden_size, 4 * vision.num_heads, "vision_config.hidden_size by four times its heads"),
    ):
        if whole % share:
            yield f"{what} cannot be divided: {whole} / {share}"
    for name, width in (("audio_config.output_dim", audio.output_dim), ("vision_config.out_hidden_size",
                                                                        vision.out_hidden_size)):  # fmt: skip
        if width != text.hidden_size:
            yield f"{name} is {width}, and text_config.hidden_size {text.hidden_size}"
    for name in _IDS:
        value = getattr(thinker, name, None)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < text.vocab_size:
            yield f"{name} is {str(value)[:40]}, and the vocabulary has {text.vocab_size} words"
    for part, name, known in (
        ("text_config", "hidden_act", "silu"),
        ("vision_config", "hidden_act", "silu"),
        ("audio_config", "activation_function", "gelu"),
    ):
        if (value := getattr(getattr(thinker, part), name)) != known:
            yield f"{part}.{name} is {value[:40]!r}, not {known!r}"
    yield from _other_attention(text)
    if vision.window_size < vision.patch_size * vision.spatial_merge_size:
        yield f"vision_config.window_size is {vision.window_size}, less than one merged patch"
    rotary = ("text_config", text.rope_parameters), ("vision_config", vision.others.get("rope_parameters"))
    for part, stated in rotary:
        theta = (stated or {}).get("rope_theta", 1.0)
        if not isinstance(theta, (int, float)) or not 1.0 <= theta <= 1e12:
            yield f"{part}: rope_theta is {str(theta)[:40]}"


def _other_attention(text: Any) -> Iterator[str]:
    """Attention and positions that the family's code can be asked for, and that are not computed here."""
    for name in ("rope_type", "type"):
        if (kind := text.rope_parameters.get(name, "default")) not in _ROPE_TYPES:
            yield f"text_config: {name} of its rope_scaling is {str(kind)[:40]!r}, not {_ROPE_TYPES[0]!r}"
    layers = text.others.get("layer_types")
    slides = isinstance(layers, (list, tuple)) and any(layer != "full_attention" for layer in layers)
    if text.others.get("use_sliding_window") or slides:
        yield "text_config asks for sliding window attention, which no published checkpoint of the family uses"
