"""``python -m echopix_cli``."""

from echopix_cli.cli.app import main

if __name__ == "__main__":
    main()
