"""Where things lie that tests need."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"
SHARED = ROOT.parent / "shared"  # material beside the checkout; not on every machine


def load_script(path: Path) -> ModuleType:
    """A script as a module, so that its functions can be tested."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module
