"""The command's side of the process that all workers are forked from; what runs in it is :mod:`.server`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress

from echopix_cli.decoding.channel import Channel
from echopix_cli.errors import EchopixError

_PATIENCE = 300.0  # seconds for it to import what it needs, which is not the file's time
# -P and the path of this process: a folder of media may hold files that are called as modules are.
_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from echopix_cli.decoding.server import begin; begin(int(sys.argv[1]))"

_control: Channel | None = None
_started: subprocess.Popen[bytes] | int | None = None  # begun afresh, or forked
_asking = threading.Lock()


def warm_up() -> None:
    """Begin to make ready for workers, best before torch is imported; returns at once.

    Decoding needs torch, too, and to import it takes longer than anything else. So where it has not been imported yet,
    it is, and the process that workers come from is forked before the command has done anything more.
    """
    with _asking:
        _channel()


def fork_worker(descriptor: int) -> int:
    """Have the nursery fork a worker.

    Args:
        descriptor: of the worker's end of its channel.

    Returns:
        the worker's process id.

    Raises:
        EchopixError: there is no nursery, and none can be started.
    """
    with _asking:
        for _ in range(2):
            with suppress(EOFError, OSError):
                pid = _ask(_channel(), "fork", None, descriptor)
                assert pid is not None
                return pid
    raise _not_started()


def bury(pid: int) -> int | None:
    """The exit code of a worker that was killed or has died, as subprocess counts; None where nobody knows it, as when
    the nursery is gone. No other one is started for that."""
    with _asking:
        if _control is None:
            return None
        try:
            return _ask(_control, "bury", pid)
        except (EOFError, OSError):
            return None


def _ask(channel: Channel, what: str, argument: int | None, *descriptors: int) -> int | None:
    try:
        channel.send((what, argument), *descriptors)
        answer: int | None = channel.receive(time.monotonic() + _PATIENCE)[0]
        return answer
    except BaseException:  # Ctrl-C too: its answer would be taken for that to the next question
        _drop()
        raise


def _channel() -> Channel:
    global _control, _started
    if _control is None:
        fork = "torch" not in sys.modules and threading.current_thread() is threading.main_thread()
        if fork:
            import torch  # noqa: F401
        ours, theirs = Channel.pair()
        # Ctrl-C reaches all processes of a terminal and is the command's to handle: the new one starts with it blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            _started = _forked(theirs.fileno()) if fork else _afresh(theirs.fileno())
            _control = ours
        except OSError as error:
            ours.close()
            raise _not_started() from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
    return _control


def _forked(descriptor: int) -> int:
    from echopix_cli.decoding.server import begin_forked

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which are numpy's and know of forking
        pid = os.fork()
    if not pid:
        begin_forked(descriptor)
    return pid


def _afresh(descriptor: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _BOOT, str(descriptor), *sys.path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(descriptor,),
    )


def _drop() -> None:
    """Have no nursery; the next question starts another."""
    global _control, _started
    control, started = _control, _started
    _control = _started = None
    if control is not None:
        control.close()
    if isinstance(started, subprocess.Popen):
        started.kill()
        started.wait()
    elif started is not None:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(started, signal.SIGKILL)
            os.waitpid(started, 0)


def _not_started() -> EchopixError:
    return EchopixError("the process that decodes files does not start", "free some memory, and run again")


def _forget() -> None:
    """In a process that was forked from this one: what was begun is the other one's."""
    global _control, _started, _asking
    _control, _started, _asking = None, None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
