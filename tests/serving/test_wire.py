"""Messages come out of a socket as they went in, and nothing else does."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echopix_cli.media.plan import DecodePlan
from echopix_cli.serving import many_messages as mm
from echopix_cli.serving import messages as m
from echopix_cli.serving.client import Naming
from echopix_cli.serving.wire import MOST, Garbled, packed, received, unpacked

KINDS = [
    kind
    for module in (m, mm)
    for kind in vars(module).values()
    if isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module.__name__
]
NUMBERS = st.floats(allow_nan=False)
st.register_type_strategy(float, NUMBERS)
st.register_type_strategy(str, st.text(st.characters(exclude_categories=[])))  # names of files hold lone surrogates
st.register_type_strategy(DecodePlan, st.builds(DecodePlan, fps=st.floats(0.1, 60), keyframes=st.booleans()))


@given(st.one_of(*map(st.from_type, KINDS)))
@settings(max_examples=100)
def test_a_message_comes_out_as_it_went_in(message: Any) -> None:
    sent = packed(message)
    (length,) = struct.unpack(">I", sent[:4])
    assert length == len(sent) - 4
    assert unpacked(sent[4:]) == message


@given(
    st.recursive(
        st.none() | st.booleans() | NUMBERS | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
@settings(max_examples=50)
def test_other_json_is_no_message(value: Any) -> None:
    with pytest.raises(Garbled):
        unpacked(json.dumps(value).encode())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(st.data())
@settings(max_examples=5)
def test_a_message_with_a_value_of_another_type_is_none(kind: Any, data: st.DataObject) -> None:
    raw = json.loads(packed(data.draw(st.from_type(kind)))[4:])
    names = [field.name for field in fields(kind)]
    name = data.draw(st.sampled_from([*names, "more"]))
    with pytest.raises(Garbled):
        unpacked(json.dumps(raw | {name: {"no": ["type", {}]}}).encode())


def test_a_name_of_something_else_makes_no_object() -> None:
    for name in ("Callable", "dataclass", "Event", "__builtins__", "annotations"):
        with pytest.raises(Garbled):
            unpacked(json.dumps({"is": name}).encode())


def test_a_connection_that_breaks_off_and_a_length_beyond_all_bounds() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(packed(m.Found())[:5])
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            received(ours)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(struct.pack(">I", MOST + 1))
        with pytest.raises(Garbled, match="bytes"):
            received(ours)


def test_files_are_called_as_they_were_typed() -> None:
    named = Naming({"/home/me/a\x07.mp4": "a\x07.mp4"})
    assert (
        named.text("/home/me/a\\x07.mp4 does not exist; /home/me/b.mp4") == "a\\x07.mp4 does not exist; /home/me/b.mp4"
    )
