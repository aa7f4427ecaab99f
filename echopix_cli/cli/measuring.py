"""What the measuring commands share: what is said when measuring was in vain."""

from echopix_cli.cli.output import Output


def warn_of_doubt(output: Output, doubt: str | None) -> None:
    """Say so where the ratios do not hold, also under ``--quiet``."""
    if doubt is not None:
        output.warn(f"nothing can be concluded from these speed-ups: {doubt}; measure again on a quiet machine")
