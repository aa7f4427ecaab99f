"""A command on a terminal of a chosen width, typed at and read as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType

from waiting import PATIENCE

_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_=>])")


class Terminal:
    """The program in a pseudo-terminal.

    Args:
        arguments: of the program.
        columns: of the terminal.
        environment: of the process.
    """

    def __init__(self, *arguments: str, columns: int, environment: Mapping[str, str]) -> None:
        self._pid, self._master = pty.fork()
        if not self._pid:
            command = [sys.executable, "-m", "echopix_cli", *arguments]
            os.execve(sys.executable, command, {**environment, "TERM": "xterm", "COLUMNS": str(columns)})
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._raw = b""
        self._from = 0  # what was waited for last ends there

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        os.close(self._master)

    @property
    def shown(self) -> str:
        """All that was written, without what moves the cursor and colours."""
        return _ESCAPES.sub(b"", self._raw).decode(errors="replace").replace("\r", "")

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def wait_for(self, text: str) -> str:
        """Read until something is shown, behind what was waited for before; all from there up to it."""
        until = time.monotonic() + PATIENCE
        while text not in self.shown[self._from :]:
            assert time.monotonic() < until and self._read(), f"no {text!r} in {self.shown[self._from :]!r}"
        end = self.shown.index(text, self._from) + len(text)
        found, self._from = self.shown[self._from : end], end
        return found

    def ended(self) -> int:
        """The exit code, once the program has ended."""
        until = time.monotonic() + PATIENCE
        while self._read():
            assert time.monotonic() < until, self.shown
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _read(self) -> bool:
        """Take what is there; whether more may come."""
        if select.select([self._master], [], [], 0.2)[0]:
            try:
                new = os.read(self._master, 65_536)
            except OSError:  # the program has ended
                return False
            for _ in range(new.count(b"\x1b[6n")):  # where is the cursor?
                os.write(self._master, b"\x1b[1;1R")
            self._raw += new
            return bool(new)
        return True
