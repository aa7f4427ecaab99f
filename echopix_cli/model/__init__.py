"""The model room: EchoingPixels as a delta over transformers' Qwen2.5-Omni. Importing it fills the Auto classes."""

from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration

__all__ = ["EchoingPixelsConfig", "EchoingPixelsForConditionalGeneration"]
