"""What runs in the processes that decode.

One process of ours, the *nursery*, has imported what decoding needs and waits. Workers are forked from it, so that the
first, and each that takes the place of one that crashed, costs next to nothing. It is itself forked from the command
as soon as that has imported torch, or begun afresh where the command has gone on since (see :mod:`.worker`).
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from echopix_cli.decoding.channel import Array, Channel, SharedArray
from echopix_cli.errors import EchopixError, MediaError, described
from echopix_cli.files import identity_of, sha256_of
from echopix_cli.media import DecodePlan, Limits, load_clip, probe
from echopix_cli.media.pulse import beat, felt
from echopix_cli.media.recall import remembering
from echopix_cli.media.source import open_regular, shown

_REAPING = 5.0  # seconds to wait for a killed process: a dead network drive holds on to whoever reads it


def begin(descriptor: int) -> None:
    """Be the nursery, in a process of its own. Never returns."""
    try:
        _nurse(Channel(socket.socket(fileno=descriptor)))
    finally:
        os._exit(0)


def begin_forked(descriptor: int) -> None:
    """Be the nursery, in a process that was forked from the command. Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        # Locks and pipes of the command would otherwise be held for as long as this process lives.
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != descriptor:
                with suppress(OSError):
                    os.close(int(name))
        _nurse(Channel(socket.socket(fileno=descriptor)))
    finally:
        os._exit(1)


def _nurse(control: Channel) -> None:
    """Fork workers, and bury them, until the command is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's to handle
    import torch

    # A frame is resized three times as fast by one thread, which the next one does not wait for, as by two.
    torch.set_num_threads(1)
    import echopix_cli.media.load  # noqa: F401

    gc.collect()
    gc.freeze()
    while True:
        try:
            (what, argument), descriptors = control.receive()
        except (EOFError, OSError):
            return
        if what == "fork":
            pid = os.fork()
            if not pid:
                control.close()
                _work(descriptors[0])
            os.close(descriptors[0])
            control.send(pid)
        else:
            control.send(_bury(argument))


def _bury(pid: int) -> int | None:
    """The exit code of a process that was killed or has died, as subprocess counts; None where it does not go."""
    end = time.monotonic() + _REAPING
    while time.monotonic() < end:
        try:
            done, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def _work(descriptor: int) -> None:
    """Be a worker: answer requests until the other side closes, or dies. Never returns."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _raise_file_size()
        channel = Channel(socket.socket(fileno=descriptor))
        threading.Thread(target=_follow, args=(channel.fileno(),), daemon=True).start()
        with remembering():
            while True:
                (what, path, *arguments), (here,) = channel.receive()
                os.fchdir(here)
                os.close(here)
                channel.send("taken")
                channel.send(_answer(channel, what, path, *arguments))
                # Decoders and their threads hang together in circles, and would stay until somebody looks for such.
                gc.collect()
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


def _answer(channel: Channel, what: str, path: str, *arguments: Any) -> tuple[str, Any]:
    """The last message about a request: ``done`` and what came of it, or ``failed`` and why."""
    try:
        with felt(partial(_say_so, channel)):
            return "done", _SERVED[what](channel, path, *arguments)
    except EchopixError as error:
        return "failed", error.with_traceback(None)
    except MemoryError:
        return "failed", MediaError(
            f"{shown(path)}: decoding it ran out of memory",
            "choose a shorter span, or raise the setting limit_memory if this machine has more",
        )
    except ConnectionError:
        raise
    except Exception as error:
        return "failed", MediaError(f"{shown(path)} cannot be decoded: {described(error)}", "please report this")


def _say_so(channel: Channel) -> None:
    """Reading goes on. Whoever is behind with reading messages knows it anyway; whoever is gone ends this process."""
    with suppress(OSError):
        channel.send(("alive", None), wait=False)


def _raise_file_size() -> None:
    """Nothing is written here, but memory that is shared counts as a file."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def _follow(descriptor: int) -> None:
    """Die with the command, even where it was killed and this process is stuck inside a decoder."""
    gone = select.poll()
    gone.register(descriptor, 0)  # which leaves hanging up
    gone.poll()
    os._exit(1)


def _fingerprint(channel: Channel, path: str, take: Callable[[str], str]) -> str:
    open_regular(path).close()  # a pipe would never end
    try:
        return take(path)
    except OSError as error:
        raise MediaError(f"{shown(path)} cannot be read: {error.strerror or error}", "check the path") from None


def _probe(channel: Channel, path: str, limits: Limits) -> object:
    return probe(path, limits)


class _Parts:
    """A clip on its way: its arrays are copied into shared memory as they fill, and announced."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._announced: dict[str, Array] = {}  # what was announced, by name
        self._frames: Array | None = None  # in shared memory
        self._ready = 0

    def heard(self, waveform: Array) -> None:
        self._share("waveform", waveform)
        self._channel.send(("heard", None))

    def arrived(self, frames: Array, ready: int) -> None:
        if frames is not self._announced.get("frames"):
            self._frames, self._ready = self._share("frames", frames, 0), 0
        assert self._frames is not None
        self._frames[self._ready : ready] = frames[self._ready : ready]
        self._ready = ready
        # Whoever is behind is told by the next one, or by the clip itself.
        self._channel.send(("ready", ready), wait=False)

    def finish(self, name: str, array: Array | None) -> None:
        """What a whole clip holds under a name, unless that is known already."""
        if array is not self._announced.get(name):
            if array is None:
                self._channel.send(("none", name))
            else:
                self._share(name, array)

    def _share(self, name: str, array: Array, filled: int | None = None) -> Array:
        shared = SharedArray(array.shape, array.dtype.str)
        try:
            shared.array[:filled] = array[:filled]
            self._channel.send(("array", (name, array.shape, array.dtype.str)), shared.descriptor)
        finally:
            shared.close()
        self._announced[name] = array
        return shared.array


def _decode(channel: Channel, path: str, plan: DecodePlan) -> tuple[object, float]:
    began, parts = time.perf_counter(), _Parts(channel)
    clip = load_clip(path, plan, heard=parts.heard, arrived=parts.arrived)
    parts.finish("frames", clip.frames)
    parts.finish("waveform", clip.waveform)
    return replace(clip, frames=None, waveform=None), time.perf_counter() - began


_SERVED: dict[str, Callable[..., Any]] = {
    "fingerprint": partial(_fingerprint, take=partial(sha256_of, advance=lambda count: beat())),
    "identity": partial(_fingerprint, take=identity_of),
    "probe": _probe,
    "decode": _decode,
}
