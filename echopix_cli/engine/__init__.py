"""The engine room: one loaded model, clips in, answers out."""

from echopix_cli.engine.encoded import Encoded
from echopix_cli.engine.engine import Engine, TextPiece
from echopix_cli.engine.forecast import Workload
from echopix_cli.engine.options import AskOptions, GenerationOptions
from echopix_cli.engine.sieves import SieveOptions

__all__ = [
    "AskOptions",
    "Encoded",
    "Engine",
    "GenerationOptions",
    "SieveOptions",
    "TextPiece",
    "Workload",
]
