"""Commands of a person whom permissions bind, which they do not bind root."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

_BOUND = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


def bound(*arguments: object, before: str = "true") -> subprocess.CompletedProcess[str]:
    """Run ``echopix`` so.

    Args:
        arguments: of the command.
        before: what the shell does first.
    """
    words = [*_BOUND, sys.executable, "-m", "echopix_cli", *map(str, arguments)]
    return subprocess.run(["sh", "-c", f"{before}; exec {shlex.join(words)}"], capture_output=True, text=True)
