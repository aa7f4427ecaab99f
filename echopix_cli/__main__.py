"""``python -m echopix_cli``, and what ``echopix`` runs."""

import gc
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit; also where Ctrl-C comes while it is still being imported."""
    gc.disable()  # what is made while the commands are declared all stays
    try:
        from echopix_cli.cli.app import main as run

        gc.freeze()
        gc.enable()
        run()
    except KeyboardInterrupt:
        sys.exit(130)  # errors.ExitCode.INTERRUPTED, which may not have been imported yet
    finally:
        gc.freeze()  # or the interpreter would look through everything for what to give back before it ends


if __name__ == "__main__":
    main()
