"""Where things lie that tests need."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
SHARED = ROOT.parent / "shared"  # material beside the checkout; not on every machine
