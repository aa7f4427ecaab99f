"""What the measuring commands share: how their threads wait, and what is said when measuring was in vain."""

import os
import sys

from echopix_cli.cli.output import Output

WAIT_POLICY = "OMP_WAIT_POLICY"  # OpenMP reads it once, when torch is loaded


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait for one another, unless the environment says otherwise.

    By default they spin, and beside other work that takes from one another the time that is being measured. Only a
    process that measures does this, and only before torch is loaded: afterwards it would change nothing.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault(WAIT_POLICY, "PASSIVE")


def warn_of_doubt(output: Output, doubt: str | None) -> None:
    """Say so where the ratios do not hold, also under ``--quiet``."""
    if doubt is not None:
        output.warn(f"nothing can be concluded from these speed-ups: {doubt}; measure again on a quiet machine")
