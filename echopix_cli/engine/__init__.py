"""The engine room: one loaded model, clips in, answers out."""

from echopix_cli.engine.engine import Encoded, Engine, GenerationOptions, TextPiece
from echopix_cli.engine.forecast import Workload
from echopix_cli.engine.sieves import SieveOptions

__all__ = ["Encoded", "Engine", "GenerationOptions", "SieveOptions", "TextPiece", "Workload"]
