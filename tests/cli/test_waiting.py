"""What a person waited is counted from the start of the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys


def test_what_a_shell_did_before_is_not_counted() -> None:
    """``sh -c "sleep 60; echopix …"`` may run its last command in its own place: the same process, begun long ago."""
    asking = "from echopix_cli.cli.waiting import since_start; print(since_start())"
    before = "import os, sys, time; time.sleep(3); os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    ran = subprocess.run(
        [sys.executable, "-c", before, asking], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert 0 < float(ran.stdout) < 3
