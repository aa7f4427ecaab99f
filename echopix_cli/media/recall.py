"""What reading one window of a long file leaves for the next one.

To open a film of two hours takes longer than to read some seconds of it. So the process that decodes remembers of the
file that it read last what its header said, containers that are open, and a sound track that is half heard.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from echopix_cli.files import Look, look_at

_Thing = TypeVar("_Thing")

_NOTHING: tuple[None, Callable[[], None]] = None, lambda: None

_lock = threading.Lock()
_remembers = False
_file: Look | None = None
_things: dict[Hashable, tuple[Any, Callable[[], None]]] = {}


@contextmanager
def remembering() -> Iterator[None]:
    """Remember one file at a time, and forget it at the end."""
    global _remembers
    _remembers = True
    try:
        yield
    finally:
        _remembers = False
        _turn_to(None)


def take(path: str | os.PathLike[str], kind: type[_Thing], *key: Hashable) -> _Thing | None:
    """What was left under a key, if the file is the same and unchanged. It belongs to whoever takes it."""
    if not _remembers:
        return None
    _turn_to(_identity(path))
    with _lock:
        found, _ = _things.pop((kind.__module__, kind.__name__, key), _NOTHING)
    return found if isinstance(found, kind) else None


def leave(path: str | os.PathLike[str], thing: object, close: Callable[[], None], *key: Hashable) -> None:
    """Leave something for the next reading of a file; it is closed when the file is no longer read."""
    name = type(thing).__module__, type(thing).__name__, key
    with _lock:
        before = _things.pop(name, _NOTHING)
        # Looked at again: what was read of a file that has changed since is of no use.
        if _remembers and _file is not None and _identity(path) == _file:
            _things[name] = thing, close
        else:
            before[1]()
            before = None, close
    before[1]()


def _turn_to(identity: Look | None) -> None:
    """Forget what is known of another file."""
    global _file
    with _lock:
        if identity == _file:
            return
        old = list(_things.values())
        _things.clear()
        _file = identity
    for _, close in old:
        close()


def _identity(path: str | os.PathLike[str]) -> Look | None:
    with suppress(OSError, ValueError):
        return look_at(path)
    return None
