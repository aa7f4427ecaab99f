"""The engine room: one loaded model, clips in, answers out."""

from echopix_cli.engine.engine import Encoded, Engine, GenerationOptions, TextPiece

__all__ = ["Encoded", "Engine", "GenerationOptions", "TextPiece"]
