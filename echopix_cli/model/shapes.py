"""Named shapes: the sizes of models whose cost can be measured with random weights, before any are downloaded."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echopix_cli.model.processing import PixelRules


@dataclass(frozen=True)
class Shape:
    """Sizes that replace those of a base configuration; what is not named stays as it is there.

    Attributes:
        name: what people call it.
        text, vision, audio: fields of the three configurations.
        pixels: of a resized frame, for shapes made for small ones; None takes the family's own bounds.
        seconds: length of the clip it is measured with unless another is asked for.
    """

    name: str
    text: Mapping[str, Any] = field(default_factory=dict)
    vision: Mapping[str, Any] = field(default_factory=dict)
    audio: Mapping[str, Any] = field(default_factory=dict)
    pixels: int | None = None
    seconds: float = 60.0

    @property
    def context(self) -> int | None:
        """Tokens that it may hold, where that is named."""
        return self.text.get("max_position_embeddings")

    def configured(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """A ``config.json`` of this shape.

        Args:
            base: contents of a checkpoint's ``config.json``; its token ids stay.
        """
        raw = copy.deepcopy(dict(base))
        thinker = raw["thinker_config"]
        for part, fields in (("text", self.text), ("vision", self.vision), ("audio", self.audio)):
            thinker[f"{part}_config"] |= fields
        text = thinker["text_config"]
        text["layer_types"] = ["full_attention"] * text["num_hidden_layers"]
        thinker["vision_config"]["out_hidden_size"] = thinker["audio_config"]["output_dim"] = text["hidden_size"]
        return raw

    def rules(self, base: PixelRules) -> PixelRules:
        """How frames become patches, with this shape's own frame size."""
        return replace(base, min_pixels=self.pixels, max_pixels=self.pixels)


# Of the published configurations of Qwen2.5-Omni; CS2 and Sync-RoPE as in the paper.
_FAMILY_TEXT = {
    "head_dim": 128,
    "av_refiner_layers": 4,
    "compression_ratio": 0.1,
    "max_position_embeddings": 32_768,
    "sync_rope_section": [18, 18, 18, 10],
    "rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24]},
}
_FAMILY_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_FAMILY_AUDIO = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}

TINY = Shape("tiny", pixels=112 * 112, seconds=8.0)
SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        TINY,
        # What two processors measure in a minute. A minute of sound and small frames is 2,100 rows, at which
        # attention has about the share of a layer's work (an eighth) that it has in the 3B at as many.
        Shape(
            "small",
            text={
                **_FAMILY_TEXT,
                "vocab_size": 8192,
                "hidden_size": 512,
                "intermediate_size": 2304,
                "num_hidden_layers": 24,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 64,
                "sync_rope_section": [9, 9, 9, 5],
                "rope_scaling": {"rope_type": "default", "mrope_section": [8, 12, 12]},
            },
            vision={"depth": 2, "hidden_size": 96, "intermediate_size": 288, "num_heads": 3},
            pixels=84 * 140,
        ),
        Shape(
            "qwen2.5-omni-3b",
            text={
                **_FAMILY_TEXT,
                "vocab_size": 151_936,
                "hidden_size": 2048,
                "intermediate_size": 11_008,
                "num_hidden_layers": 36,
                "num_attention_heads": 16,
                "num_key_value_heads": 2,
            },
            vision=_FAMILY_VISION,
            audio=_FAMILY_AUDIO,
        ),
        Shape(
            "qwen2.5-omni-7b",
            text={
                **_FAMILY_TEXT,
                "vocab_size": 152_064,
                "hidden_size": 3584,
                "intermediate_size": 18_944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
            },
            vision=_FAMILY_VISION,
            audio=_FAMILY_AUDIO,
        ),
    )
}
