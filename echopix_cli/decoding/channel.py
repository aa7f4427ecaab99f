"""Messages between two processes of one machine, descriptors with them, and arrays in memory that both see."""

from __future__ import annotations

import math
import mmap
import os
import pickle
import select
import socket
import struct
import tempfile
import time
from contextlib import suppress
from typing import Any

import numpy as np

_HEAD = struct.Struct("!QB")  # bytes of the message, and how many descriptors come with it
_LONGEST_WAIT = 1e6  # seconds that a socket can count
_MOST = 4  # descriptors with one message
Array = np.ndarray[Any, np.dtype[Any]]


class Channel:
    """One end of a socket pair. What is sent arrives whole and in order; the other process is one of ours."""

    def __init__(self, own: socket.socket) -> None:
        self._own = own

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends that are joined."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        """The descriptor of this end."""
        return self._own.fileno()

    def close(self) -> None:
        """Close this end: the other process reads no more."""
        self._own.close()

    def send(self, message: object, *descriptors: int, wait: bool = True) -> None:
        """Hand a message on. Without ``wait`` it is dropped where the other side has many to read already.

        Raises:
            OSError: the other process is gone.
        """
        body = pickle.dumps(message)
        content = _HEAD.pack(len(body), len(descriptors)) + body
        self._own.settimeout(None)
        with suppress(BlockingIOError):
            sent = socket.send_fds(self._own, [content], descriptors, 0 if wait else socket.MSG_DONTWAIT)
            self._own.sendall(content[sent:])

    def arrives(self, seconds: float) -> bool:
        """Whether something of a message, or the end of all, is there within so many seconds."""
        waiting = select.poll()
        waiting.register(self._own, select.POLLIN)
        return bool(waiting.poll(math.ceil(1000 * min(max(0.0, seconds), _LONGEST_WAIT))))

    def receive(self, deadline: float | None = None) -> tuple[Any, list[int]]:
        """The next message and its descriptors, which are the caller's to close.

        Args:
            deadline: by the monotonic clock; None waits.

        Raises:
            TimeoutError: it was not there by then.
            EOFError, OSError: the other process is gone.
        """
        head, descriptors = b"", list[int]()
        try:
            while len(head) < _HEAD.size:
                self._limit(deadline)
                part, found, _, _ = socket.recv_fds(self._own, _HEAD.size - len(head), _MOST, socket.MSG_CMSG_CLOEXEC)
                descriptors += found
                if not part:
                    raise EOFError
                head += part
            length, count = _HEAD.unpack(head)
            body = bytearray(length)
            view = memoryview(body)
            while view:
                self._limit(deadline)
                read = self._own.recv_into(view)
                if not read:
                    raise EOFError
                view = view[read:]
            if len(descriptors) != count:
                raise OSError("descriptors were lost on their way: this process may hold no more of them")
            return pickle.loads(body), descriptors
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    def _limit(self, deadline: float | None) -> None:
        if deadline is None:
            self._own.settimeout(None)
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._own.settimeout(min(left, _LONGEST_WAIT))


class SharedArray:
    """An array in memory that has no name: nothing of it is left when the last process that sees it has ended.

    Args:
        shape, dtype: of the array, whose content is zeros.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        size = max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("echopix", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                self.descriptor = os.dup(file.fileno())
        try:
            os.ftruncate(self.descriptor, size)
            self.array = mapped(self.descriptor, shape, dtype)
        except BaseException:
            os.close(self.descriptor)
            raise

    def close(self) -> None:
        """Give the descriptor back; the array stays."""
        os.close(self.descriptor)


def mapped(descriptor: int, shape: tuple[int, ...], dtype: str) -> Array:
    """The array behind a descriptor, which may be closed then; its memory goes with the array."""
    count = int(np.prod(shape, dtype=np.int64))
    memory = mmap.mmap(descriptor, max(1, count * np.dtype(dtype).itemsize))
    return np.frombuffer(memory, dtype, count).reshape(shape)
