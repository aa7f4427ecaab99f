"""Configuration of an EchoingPixels checkpoint: Qwen2.5-Omni's, plus the sieve's few fields.

The authors read three behaviour switches from environment variables; here they are part of the
configuration, so that a checkpoint says by itself how it was trained.
"""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import (
    Qwen2_5OmniAudioEncoderConfig,
    Qwen2_5OmniTextConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniVisionEncoderConfig,
)

MROPE_SECTION = (16, 24, 24)  # the family's, where a configuration does not say


@strict
class EchoingPixelsTextConfig(Qwen2_5OmniTextConfig):
    """Decoder and sieve.

    Args:
        sieve: ``cs2``: the checkpoint holds a CS2 and a score head; ``none``: it holds neither, as the stock
            family's does not.
        av_refiner_layers: bidirectional CS2 layers before the decoder; 0 scores the raw embeddings.
        compression_ratio: the budget used when a call names none (fraction of audio-visual rows kept).
        sync_rope_section: frequencies of half a head given to the axes ``[T, H, W, T]`` (paper, Sync-RoPE). Three
            of them are the family's M-RoPE ``[T, H, W]``.
        retain_token: ``av``: video and audio compete in one pool; ``v``: only video and image rows are
            candidates and audio rows are dropped (the authors' ``RETAIN_TOKEN``).
        sieve_view: what CS2's rows see: the ``whole`` prompt in both directions; as ablations, only what comes
            before (``causal``), or, up to the last audio-visual row, all but the question (``no-question``).
        sieve_softmax: ``vanilla`` or ``gumbel``, for the straight-through gradient (the authors' ``SOFTMAX``).
    """

    model_type = "qwen2_5_omni_compress_text"

    head_dim: int | None = None
    sieve: str = "cs2"
    av_refiner_layers: int = 1
    compression_ratio: float = 0.2
    sync_rope_section: list[int] | tuple[int, ...] = (18, 18, 18, 10)
    retain_token: str = "av"
    sieve_softmax: str = "vanilla"
    sieve_view: str = "whole"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)
        if sum(self.sync_rope_section) != self.head_dim // 2:
            raise ValueError(
                f"sync_rope_section {list(self.sync_rope_section)} must sum to half of head_dim, {self.head_dim // 2}"
            )
        if not 0.0 < self.compression_ratio <= 1.0:
            raise ValueError(f"compression_ratio must be in (0, 1], not {self.compression_ratio}")
        if self.sieve not in ("cs2", "none"):
            raise ValueError(f"sieve must be 'cs2' or 'none', not {self.sieve!r}")
        if self.retain_token not in ("av", "v"):
            raise ValueError(f"retain_token must be 'av' or 'v', not {self.retain_token!r}")
        if self.sieve_softmax not in ("vanilla", "gumbel"):
            raise ValueError(f"sieve_softmax must be 'vanilla' or 'gumbel', not {self.sieve_softmax!r}")
        if self.sieve_view not in ("whole", "causal", "no-question"):
            raise ValueError(f"sieve_view must be 'whole', 'causal' or 'no-question', not {self.sieve_view!r}")

    def to_dict(self) -> dict[str, Any]:
        """As the parent's, with the rotary settings under the names the authors' code reads."""
        output: dict[str, Any] = super().to_dict()
        rope = dict(output.pop("rope_parameters", None) or {})
        output["rope_theta"] = rope.pop("rope_theta", 1_000_000.0)
        output["rope_scaling"] = rope
        return output


@strict
class EchoingPixelsThinkerConfig(Qwen2_5OmniThinkerConfig):
    """The thinker: towers, decoder, special token ids."""

    model_type = "qwen2_5_omni_compress_thinker"
    # Named twice on purpose: transformers before 5.20 reads ``sub_configs``, later ones derive it.
    sub_configs: ClassVar[dict[str, type]] = {
        "audio_config": Qwen2_5OmniAudioEncoderConfig,
        "vision_config": Qwen2_5OmniVisionEncoderConfig,
        "text_config": EchoingPixelsTextConfig,
    }
    sub_configs_defaults: ClassVar[dict[str, type]] = dict(sub_configs)

    text_config: Any = None
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = EchoingPixelsTextConfig(**(self.text_config or {}))
        super().__post_init__(**kwargs)


@strict
class EchoingPixelsConfig(PreTrainedConfig):
    """The whole checkpoint. Talker and vocoder settings, where present, ride along unread."""

    model_type = "qwen2_5_omni_compress"
    sub_configs: ClassVar[dict[str, type]] = {"thinker_config": EchoingPixelsThinkerConfig}
    sub_configs_defaults: ClassVar[dict[str, type]] = dict(sub_configs)

    thinker_config: dict[str, Any] | PreTrainedConfig | None = None
    enable_audio_output: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.thinker_config, PreTrainedConfig):
            self.thinker_config = EchoingPixelsThinkerConfig(**(self.thinker_config or {}))
        super().__post_init__(**kwargs)

    @classmethod
    def from_stock(cls, raw: dict[str, Any], **text_fields: Any) -> EchoingPixelsConfig:
        """A stock checkpoint's configuration as one of ours.

        Args:
            raw: contents of its ``config.json``: of the whole family model, or of the bare thinker.
            text_fields: of the text configuration, set over what ``raw`` says. Without any, the decoder stays as
                it is: no sieve, and the family's three-axis M-RoPE.

        Raises:
            KeyError, TypeError, ValueError: it is no configuration of the family.
        """
        thinker = dict(raw.get("thinker_config", raw))
        text = dict(thinker["text_config"])
        rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
        text.update(text_fields or {"sieve": "none", "sync_rope_section": rope.get("mrope_section", MROPE_SECTION)})
        for part in (thinker, text):
            part.pop("model_type", None)
        thinker["text_config"] = text
        return cls(architectures=["Qwen2_5OmniCompressForConditionalGeneration"], thinker_config=thinker)

    @property
    def text(self) -> EchoingPixelsTextConfig:
        """The decoder's configuration, two levels down."""
        text_config: EchoingPixelsTextConfig = self.thinker_config.text_config  # type: ignore[union-attr]
        return text_config

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The configuration that generation utilities ask for."""
        return self.text


AutoConfig.register(EchoingPixelsConfig.model_type, EchoingPixelsConfig)
AutoConfig.register(EchoingPixelsThinkerConfig.model_type, EchoingPixelsThinkerConfig)
AutoConfig.register(EchoingPixelsTextConfig.model_type, EchoingPixelsTextConfig)
