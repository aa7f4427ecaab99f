"""What starting up imports, by count and by name: seconds are measured by ``tests/benchmarks/startup.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from places import ROOT

ASSETS = ROOT / "echopix_cli" / "assets"
# Beside an empty Typer app: one module for each command, the few that options are made of, and json.
MARGIN = 48
HELP = """
import contextlib, io, json, sys
import typer

def show(run, *arguments):
    sys.argv = ["echopix", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        run()
    assert "Usage" in shown.getvalue()

empty = typer.Typer(rich_markup_mode=None)

@empty.command()
def nothing() -> None:
    "Do nothing."

show(empty, "--help")
before = set(sys.modules)
from echopix_cli.cli.app import main
show(main, "--help")
print(json.dumps(sorted(set(sys.modules) - before)))
"""
ASK = """
import json, sys
from echopix_cli.cli.app import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
# Optional libraries, torch's compilers, what transformers is needed for, and rooms that other commands use.
UNNEEDED = {
    *("accelerate", "bitsandbytes", "datasets", "jinja2", "matplotlib", "pandas", "peft", "scipy", "sklearn"),
    *("huggingface_hub", "sympy", "tensorflow", "torch._dynamo", "torch._inductor", "torch.distributed.tensor"),
    *("torch.fx.experimental.symbolic_shapes", "torchaudio", "torchvision", "transformers", "triton"),
    *("echopix_cli.batch", "echopix_cli.cli.tables", "echopix_cli.measure.bench", "echopix_cli.measure.profiling"),
    *("echopix_cli.evaluation", "echopix_cli.scenes", "echopix_cli.training.loop", "echopix_cli.weights.synthetic"),
}


def child(code: str, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ECHOPIX_CACHE_DIR": str(tmp_path)}
    environment["ECHOPIX_CONFIG"] = os.devnull
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )


def test_help_imports_hardly_more_than_an_empty_typer_app(tmp_path: Path) -> None:
    added = json.loads(child(HELP, tmp_path).stdout)
    assert len(added) <= MARGIN, added
    roots = {name.partition(".")[0] for name in added if not name.startswith("_")}
    heavy = {"av", "huggingface_hub", "numpy", "pydantic", "rich", "soundfile", "torch", "transformers"}
    assert roots & heavy == set()


def test_ask_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    arguments = (str(ASSETS / "demo.mp4"), "What instrument is playing?", "--model", "tiny", "--device", "cpu")
    done = child(ASK, tmp_path, "ask", *arguments, "--json")
    right = (ASSETS / "demo.answer.txt").read_text(encoding="utf-8").strip()
    assert json.loads(done.stdout)["answer"] == right
    assert set(json.loads(done.stderr.splitlines()[-1])) & UNNEEDED == set()


def test_signatures_of_commands_are_no_strings() -> None:
    """Typer evaluates those again and again, for every command at every start."""
    from echopix_cli.cli.app import command_line

    app = command_line()

    commands = [*app.registered_commands]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        commands += group.typer_instance.registered_commands
    assert len(commands) > 10
    for command in commands:
        assert command.callback is not None
        assert not [name for name, hint in command.callback.__annotations__.items() if isinstance(hint, str)]


def test_ctrl_c_while_the_command_is_imported_is_no_traceback(tmp_path: Path) -> None:
    code = (
        "import os, runpy, signal, sys\n"
        "class Slow:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'echopix_cli.cli.app':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "runpy.run_module('echopix_cli', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert stated == {"echopix": "echopix_cli.__main__:main"}
