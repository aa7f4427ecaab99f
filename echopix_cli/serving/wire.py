"""Messages over a stream socket: a length in four bytes, then a JSON object. Nothing in one can be executed."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

MOST = 2**28  # bytes of one message: a hundred thousand tasks take a tenth of that
# The second is imported where something comes that is not in the first.
_MESSAGES = ("echopix_cli.serving.messages", "echopix_cli.serving.many_messages")
_LENGTH = struct.Struct(">I")
_KIND = "is"  # names the class of a message


class Garbled(ValueError):
    """What came is no message of ours."""


def packed(message: Any) -> bytes:
    """A message as it is sent.

    Raises:
        Garbled: it is too long for one.
    """
    body = json.dumps({_KIND: type(message).__name__, **plain(message)}).encode("ascii")
    if len(body) > MOST:
        raise Garbled(f"a message of {len(body):,} bytes")
    return _LENGTH.pack(len(body)) + body


def received(connection: socket.socket) -> Any:
    """The next message.

    Raises:
        EOFError: the other end is closed.
        Garbled: it is none of ours.
        OSError: the connection fails, or nothing came within its timeout.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > MOST:
        raise Garbled(f"a message of {length:,} bytes")
    return unpacked(_exactly(connection, length))


def unpacked(body: bytes) -> Any:
    """A message from its JSON.

    Raises:
        Garbled: it is none of ours.
    """
    try:
        raw = json.loads(body)
        return rebuilt(_kind_called(raw.pop(_KIND)), raw)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Garbled(f"no message: {error}") from None


def _kind_called(name: str) -> Any:
    """The class of messages of this name.

    Raises:
        ValueError: there is none.
    """
    for module in _MESSAGES:
        kind = vars(import_module(module)).get(name)
        if isinstance(kind, type) and is_dataclass(kind):
            return kind
    raise ValueError(f"no message {name!r}")


def plain(value: Any) -> Any:
    """A value of frozen dataclasses as JSON has it."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def rebuilt(kind: Any, raw: Any) -> Any:
    """What :func:`plain` made a value of this type into, as it was.

    Raises:
        TypeError, ValueError, KeyError: it is nothing of this type.
    """
    if is_dataclass(kind):
        if not isinstance(raw, Mapping):
            raise TypeError(f"no {kind}")
        hints, make = _hints(cast(type, kind)), cast(Any, kind)
        return make(**{name: rebuilt(hints[name], value) for name, value in raw.items()})
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _of_union(parts, raw)
    if origin is tuple:
        if not isinstance(raw, list):
            raise TypeError(f"no list: {raw!r}")
        of = [parts[0]] * len(raw) if parts[-1] is Ellipsis else parts
        return tuple(rebuilt(part, item) for part, item in zip(of, raw, strict=True))
    if issubclass(kind, Enum):
        return kind(raw)
    if kind is float and type(raw) is int:
        return float(raw)
    if type(raw) is not kind:
        raise TypeError(f"no {kind.__name__}: {raw!r}")
    return raw


def _of_union(parts: tuple[Any, ...], raw: Any) -> Any:
    if raw is None and NoneType in parts:
        return None
    for part in parts:
        if part is not NoneType:
            try:
                return rebuilt(part, raw)
            except TypeError:
                continue
    raise TypeError(f"nothing of {parts}: {raw!r}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _exactly(connection: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(min(length - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
