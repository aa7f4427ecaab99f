"""The model room: EchoingPixels as a delta over transformers' Qwen2.5-Omni.

Importing :mod:`echopix_cli.model.modeling` fills the Auto classes; the room itself loads nothing.
"""
