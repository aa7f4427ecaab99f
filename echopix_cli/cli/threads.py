"""How OpenMP's threads wait for one another."""

import os
import sys

WAIT_POLICY = "OMP_WAIT_POLICY"  # OpenMP reads it once, when torch is loaded


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, unless the environment says otherwise.

    By default they spin, and take the processor from what they wait for: from the process that decodes meanwhile, and
    from whatever else runs. Only a process of our own does this, and only before torch is loaded: afterwards it would
    change nothing.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault(WAIT_POLICY, "PASSIVE")
