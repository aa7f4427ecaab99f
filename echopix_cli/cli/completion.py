"""Installing the shell completions that come with the program."""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

import echopix_cli
from echopix_cli.errors import EchopixError, UsageError

SHELLS = ("bash", "zsh", "fish")
_FILES = {"bash": "echopix.bash", "zsh": "_echopix", "fish": "echopix.fish"}  # in a checkout
_INSTALLED = {  # below the prefix that the wheel was installed to
    "bash": "share/bash-completion/completions/echopix",
    "zsh": "share/zsh/site-functions/_echopix",
    "fish": "share/fish/vendor_completions.d/echopix.fish",
}
_OURS = ("completions/generate.py", "_ECHOPIX_COMPLETE")  # what this program's scripts hold, this and older ones


def script(shell: str) -> str:
    """The completion of a shell, as text.

    Raises:
        UsageError: there is none for this shell.
        EchopixError: it is not there.
    """
    if shell not in SHELLS:
        raise UsageError(
            f"there is no completion for {shell or 'this shell'}", f"echopix --show-completion {SHELLS[0]}"
        )
    beside = Path(echopix_cli.__file__).parent.parent / "completions" / _FILES[shell]
    for path in (beside, *(Path(prefix) / _INSTALLED[shell] for prefix in (sys.prefix, site.getuserbase()))):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise EchopixError("the completions are not beside the program", "install echopix again")


def current_shell() -> str:
    """The name of the shell that this person's account uses."""
    return os.path.basename(os.environ.get("SHELL", ""))


def target(shell: str) -> Path:
    """Where a shell looks for completions of one person."""
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return {
        "bash": data / "bash-completion" / "completions" / "echopix",
        "zsh": home / ".zfunc" / "_echopix",
        "fish": config / "fish" / "completions" / "echopix.fish",
    }[shell]


def install(shell: str) -> str:
    """Put a completion where its shell looks for it; what is to be done then, in words.

    Raises:
        UsageError: there is none for this shell, or something else lies in its place.
        EchopixError: the disk refuses.
    """
    from echopix_cli.cli.own_files import write_own

    text, path = script(shell), target(shell)
    if path.is_dir():
        raise UsageError(f"{path} is a folder", f"echopix --show-completion {shell} > FILE")
    if path.exists() and not any(mark in path.read_text(errors="replace") for mark in _OURS):
        raise UsageError(f"{path} is not of this program", f"echopix --show-completion {shell} > FILE")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EchopixError(f"cannot write to {path.parent}: {error.strerror}") from error
    write_own(path, text.encode())
    zsh = "; where ~/.zshrc has no such line yet, add: fpath+=~/.zfunc; autoload -U compinit; compinit"
    return f"{path} is written; it works in the next {shell}{zsh if shell == 'zsh' else ''}"
