"""Ctrl-C where it has to wait."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
from places import ROOT

from echopix_cli.cli.signals import unbroken


def test_ctrl_c_comes_at_the_end_of_what_is_not_broken_off() -> None:
    before, done = signal.getsignal(signal.SIGINT), list[str]()
    with pytest.raises(KeyboardInterrupt), unbroken():
        signal.raise_signal(signal.SIGINT)
        done.append("all")
    assert (done, signal.getsignal(signal.SIGINT)) == (["all"], before)
    with unbroken():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with unbroken():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_takes_no_signals() -> None:
    before, seen = signal.getsignal(signal.SIGINT), list[object]()

    def work() -> None:
        with unbroken():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_second_ctrl_c_ends_the_process() -> None:
    code = (
        "import signal\n"
        "from echopix_cli.cli.signals import unbroken\n"
        "with unbroken():\n"
        "    for _ in range(2): signal.raise_signal(signal.SIGINT)\n"
        "    print('goes on')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")
