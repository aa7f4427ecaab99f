"""echopix: ask questions about what is seen and heard in local media.

The public names load lazily, so that ``import echopix_cli`` (and with it
``echopix --help``) costs nothing: torch is imported only
when ``Engine`` is first touched.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

# What a wait at the command line is counted from: the interpreter's start. That of the process may lie long before,
# where a shell ran its last command in its own place.
_BEGAN = time.monotonic() - time.process_time()

__version__ = "0.1.0"

__all__ = ["Answer", "AskOptions", "EchopixError", "Engine", "ExitCode", "__version__"]

if TYPE_CHECKING:
    from echopix_cli.engine import AskOptions, Engine
    from echopix_cli.errors import EchopixError, ExitCode
    from echopix_cli.results import Answer

_HOMES = {
    "Answer": "echopix_cli.results",
    "AskOptions": "echopix_cli.engine",
    "EchopixError": "echopix_cli.errors",
    "Engine": "echopix_cli.engine",
    "ExitCode": "echopix_cli.errors",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
