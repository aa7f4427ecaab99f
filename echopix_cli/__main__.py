"""``python -m echopix_cli``, and what ``echopix`` runs."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit; also where Ctrl-C comes while it is still being imported."""
    try:
        from echopix_cli.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)  # errors.ExitCode.INTERRUPTED, which may not have been imported yet


if __name__ == "__main__":
    main()
