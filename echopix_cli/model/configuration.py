"""Configuration of an EchoingPixels checkpoint: Qwen2.5-Omni's, plus the sieve's few fields.

Only what a model is built from has a field; everything else that ``config.json`` says is kept and written back as it
was. Defaults are the family's, of transformers' own configuration classes. The authors read three behaviour switches
from environment variables; here they are part of the configuration, so that a checkpoint says by itself how it was
trained.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch

MROPE_SECTION = (16, 24, 24)  # the family's, where a configuration does not say
_THETA = 1_000_000.0  # base of the decoder's rotary frequencies, where a configuration does not say
_VISION_THETA = 10_000.0  # and of the vision tower's


@dataclass(init=False)
class Section:
    """A part of ``config.json``: its fields, and in ``others`` what else it says.

    Raises:
        ValueError: a field of another kind than its default.
    """

    model_type: ClassVar[str] = ""
    parts: ClassVar[dict[str, type[Section]]] = {}  # fields that are sections themselves
    others: dict[str, Any]

    def __init__(self, **raw: Any) -> None:
        raw = copy.deepcopy(raw)
        raw.pop("model_type", None)
        for known in fields(self):
            if (kind := self.parts.get(known.name)) is not None:
                given = raw.pop(known.name, None)
                setattr(self, known.name, given if isinstance(given, kind) else kind(**(given or {})))
            elif known.name != "others":
                default = getattr(type(self), known.name)
                setattr(self, known.name, _checked(known.name, raw.pop(known.name, default), default))
        self.others = raw
        self.__post_init__()

    def __post_init__(self) -> None:
        """What a section derives from its fields, and requires of them."""

    def to_dict(self) -> dict[str, Any]:
        """As ``config.json`` says it."""
        own = {known.name: getattr(self, known.name) for known in fields(self) if known.name != "others"}
        named = {name: part.to_dict() if isinstance(part, Section) else part for name, part in own.items()}
        return copy.deepcopy({**self.others, **named, "model_type": self.model_type})


def _checked(name: str, value: Any, default: Any) -> Any:
    """A field's value.

    Raises:
        ValueError: it is of another kind than the default.
    """
    kinds: dict[type, tuple[str, tuple[type, ...]]] = {
        bool: ("true or false", (bool,)),
        int: ("a whole number", (int,)),
        float: ("a number", (int, float)),
        str: ("a text", (str,)),
        tuple: ("a list of whole numbers", (list, tuple)),
    }
    if default is None:
        return value
    wanted, types = kinds[type(default)]
    fits = isinstance(value, types) and (isinstance(default, bool) or not isinstance(value, bool))
    if fits and isinstance(default, tuple):
        fits = all(type(part) is int for part in value)
    if not fits:
        raise ValueError(f"{name} is {str(value)[:40]!r}, not {wanted}")
    return value


@dataclass(init=False)
class VisionConfig(Section):
    """The vision tower. ``window_size`` is in pixels; blocks in ``fullatt_block_indexes`` attend to whole frames."""

    model_type = "qwen2_5_omni_vision_encoder"

    depth: int = 32
    hidden_size: int = 3584
    hidden_act: str = "silu"
    intermediate_size: int = 3420
    num_heads: int = 16
    in_channels: int = 3
    patch_size: int = 14
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2
    window_size: int = 112
    out_hidden_size: int = 3584
    fullatt_block_indexes: list[int] | tuple[int, ...] = (7, 15, 23, 31)
    initializer_range: float = 0.02

    @property
    def rope_theta(self) -> float:
        """Base of the rotary frequencies of rows and columns."""
        stated = self.others.get("rope_parameters")
        return float(stated.get("rope_theta", _VISION_THETA)) if isinstance(stated, Mapping) else _VISION_THETA


@dataclass(init=False)
class AudioConfig(Section):
    """The audio tower. A window of attention is ``2 * n_window`` log-mel frames, two seconds of the family's."""

    model_type = "qwen2_5_omni_audio_encoder"

    num_mel_bins: int = 128
    encoder_layers: int = 32
    encoder_attention_heads: int = 20
    encoder_ffn_dim: int = 5120
    d_model: int = 1280
    activation_function: str = "gelu"
    n_window: int = 100
    output_dim: int = 3584
    initializer_range: float = 0.02


@dataclass(init=False)
class EchoingPixelsTextConfig(Section):
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
        sieve_output: which rows leave CS2 as it encoded them: ``all``, or audio-visual ones alone (``media``). Text
            rows that keep their raw embeddings carry nothing of the clip: what is answered comes from kept rows.
        film_time: what the last time axis says of the rows that the windows of a film handed on: as the first one, that
            of windows one after another (``joined``), or of the ``whole`` film, spread over one window's positions.
        sieve_softmax: ``vanilla`` or ``gumbel``, for the straight-through gradient (the authors' ``SOFTMAX``).
        rope_parameters: with ``rope_theta``, and ``mrope_section`` where the decoder has the family's three axes.
            Older files say ``rope_theta`` and ``rope_scaling`` side by side, which is also how it is written.
    """

    model_type = "qwen2_5_omni_compress_text"

    vocab_size: int = 152_064
    hidden_size: int = 3584
    intermediate_size: int = 18_944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int = 4
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 32_768
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    rope_parameters: dict[str, Any] | None = None
    sieve: str = "cs2"
    av_refiner_layers: int = 1
    compression_ratio: float = 0.2
    sync_rope_section: list[int] | tuple[int, ...] = (18, 18, 18, 10)
    retain_token: str = "av"
    sieve_softmax: str = "vanilla"
    sieve_view: str = "whole"
    sieve_output: str = "all"
    film_time: str = "joined"

    def __init__(self, **raw: Any) -> None:
        if raw.get("num_key_value_heads", 1) is None:
            raw.pop("num_key_value_heads")
            raw["num_key_value_heads"] = raw.get("num_attention_heads", type(self).num_attention_heads)
        super().__init__(**raw)

    def __post_init__(self) -> None:
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        scaling = self.others.pop("rope_scaling", None)
        theta = self.others.pop("rope_theta", None)
        stated = {"rope_theta": _THETA if theta is None else theta, "rope_type": "default"}
        self.rope_parameters = stated | dict(self.rope_parameters or scaling or {})
        if not 3 <= len(self.sync_rope_section) <= 4 or min(self.sync_rope_section) < 0:
            raise ValueError(f"sync_rope_section {list(self.sync_rope_section)} must be three or four sizes from 0")
        if sum(self.sync_rope_section) != self.head_dim // 2:
            raise ValueError(
                f"sync_rope_section {list(self.sync_rope_section)} must sum to half of head_dim, {self.head_dim // 2}"
            )
        if not 0.0 < self.compression_ratio <= 1.0:
            raise ValueError(f"compression_ratio must be in (0, 1], not {self.compression_ratio}")
        for name, known in (
            ("sieve", ("cs2", "none")),
            ("retain_token", ("av", "v")),
            ("sieve_softmax", ("vanilla", "gumbel")),
            ("sieve_view", ("whole", "causal", "no-question")),
            ("sieve_output", ("all", "media")),
            ("film_time", ("joined", "whole")),
        ):
            if getattr(self, name) not in known:
                wanted = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
                raise ValueError(f"{name} must be {wanted}, not {getattr(self, name)!r}")

    @property
    def rope_theta(self) -> float:
        """Base of the rotary frequencies."""
        return float((self.rope_parameters or {}).get("rope_theta", _THETA))

    def to_dict(self) -> dict[str, Any]:
        """With the rotary settings under the names the authors' code reads."""
        output = super().to_dict()
        rope = dict(output.pop("rope_parameters"))
        output["rope_theta"] = rope.pop("rope_theta")
        output["rope_scaling"] = rope
        return output


@dataclass(init=False)
class EchoingPixelsThinkerConfig(Section):
    """The thinker: towers, decoder, and the ids of special tokens."""

    model_type = "qwen2_5_omni_compress_thinker"
    parts: ClassVar[dict[str, type[Section]]] = {
        "audio_config": AudioConfig,
        "vision_config": VisionConfig,
        "text_config": EchoingPixelsTextConfig,
    }
    _INDEXED: ClassVar[tuple[str, ...]] = ("audio", "image", "video")  # files say audio_token_index

    audio_config: AudioConfig
    vision_config: VisionConfig
    text_config: EchoingPixelsTextConfig
    audio_token_id: int = 151_646
    image_token_id: int = 151_655
    video_token_id: int = 151_656
    position_id_per_seconds: int = 25
    seconds_per_chunk: int = 2
    audio_start_token_id: int = 151_647
    audio_end_token_id: int = 151_648
    vision_start_token_id: int = 151_652
    vision_end_token_id: int = 151_653

    def __init__(self, **raw: Any) -> None:
        indexed = {f"{kind}_token_id": raw.pop(f"{kind}_token_index", None) for kind in self._INDEXED}
        super().__init__(**{**raw, **{name: token for name, token in indexed.items() if token is not None}})

    def to_dict(self) -> dict[str, Any]:
        """With the placeholders' ids under the names that files have for them."""
        output = super().to_dict()
        return output | {f"{kind}_token_index": output.pop(f"{kind}_token_id") for kind in self._INDEXED}


@dataclass(init=False)
class EchoingPixelsConfig(Section):
    """The whole checkpoint. Talker and vocoder settings, where present, ride along unread."""

    model_type = "qwen2_5_omni_compress"
    parts: ClassVar[dict[str, type[Section]]] = {"thinker_config": EchoingPixelsThinkerConfig}

    thinker_config: EchoingPixelsThinkerConfig
    enable_audio_output: bool = False
    tie_word_embeddings: bool = False

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
        thinker["text_config"] = text
        return cls(architectures=["Qwen2_5OmniCompressForConditionalGeneration"], thinker_config=thinker)

    @property
    def text(self) -> EchoingPixelsTextConfig:
        """The decoder's configuration, two levels down."""
        return self.thinker_config.text_config

    @property
    def dtype(self) -> torch.dtype | None:
        """The precision that the weights are said to be stored in; None where nothing, or none of floats, is said."""
        import torch

        stated = self.others.get("dtype") or self.others.get("torch_dtype")
        found = getattr(torch, stated, None) if isinstance(stated, str) else None
        return found if isinstance(found, torch.dtype) and found.is_floating_point else None
