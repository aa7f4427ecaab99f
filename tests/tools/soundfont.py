"""Which recorded samples a soundfont (SF2, or SF3 with compressed samples) plays for a note.

A soundfont maps ranges of keys and velocities to zones, and each zone to a sample. Two notes that share a sample are
one recording at two speeds, so that splitting notes by pitch alone splits nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_KEYS, _VELOCITIES, _INSTRUMENT, _SAMPLE = 43, 44, 41, 53  # generators of the SoundFont 2.04 specification
_ANY = 0x7F00  # a range from 0 to 127: the low byte is its start


@dataclass(frozen=True)
class Zone:
    """Notes, as ranges (low, high) of keys and velocities, that play one sample."""

    keys: tuple[tuple[int, int], ...]
    velocities: tuple[tuple[int, int], ...]
    sample: str

    def plays(self, key: int, velocity: int) -> bool:
        """Whether a note lies in all of its ranges."""
        return all(low <= key <= high for low, high in self.keys) and all(
            low <= velocity <= high for low, high in self.velocities
        )


class SoundFont:
    """The zones of each preset: ``presets[bank, program]``."""

    def __init__(self, path: str | Path) -> None:
        data = Path(path).read_bytes()
        chunks = dict(_chunks(data, 12, len(data)))

        def records(name: bytes, layout: str) -> list[tuple[int, ...]]:
            return list(struct.iter_unpack(layout, chunks[name][: -struct.calcsize(layout)]))

        def ends(name: bytes, layout: str, place: int) -> list[int]:
            return [record[place] for record in struct.iter_unpack(layout, chunks[name])]

        samples = [str(record[0], "latin-1").split("\0")[0] for record in records(b"shdr", "<20s5IBbHH")]  # type: ignore[call-overload]
        instruments = [list(_zones(own, _SAMPLE)) for own in _bags(chunks, ends(b"inst", "<20sH", 1), b"ibag", b"igen")]
        presets = _bags(chunks, ends(b"phdr", "<20sHHH3I", 3), b"pbag", b"pgen")
        self.presets: dict[tuple[int, int], list[Zone]] = {}
        for record, own in zip(records(b"phdr", "<20sHHH3I"), presets, strict=True):
            self.presets[record[2], record[1]] = [
                Zone(
                    (_range(outer, _KEYS), _range(inner, _KEYS)),
                    (_range(outer, _VELOCITIES), _range(inner, _VELOCITIES)),
                    samples[inner[_SAMPLE]],
                )
                for outer in _zones(own, _INSTRUMENT)
                for inner in instruments[outer[_INSTRUMENT]]
            ]

    def samples(self, bank: int, program: int, key: int, velocity: int) -> tuple[str, ...]:
        """Names of the samples that a note plays, sorted, both sides of a stereo pair under one name.

        KeyError where the soundfont has no such preset.
        """
        own = {zone.sample for zone in self.presets[bank, program] if zone.plays(key, velocity)}
        return tuple(sorted({name.replace("(L)", "").replace("(R)", "").replace(" ", "") for name in own}))


def _chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while at + 8 <= end:
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"LIST":
            yield from _chunks(data, at + 12, at + 8 + size)
        else:
            yield name, data[at + 8 : at + 8 + size]
        at += 8 + size
        at += at % 2 and data[at : at + 1] == b"\0"  # some writers leave out the padding of odd chunks


def _bags(chunks: dict[bytes, bytes], firsts: list[int], bag: bytes, generators: bytes) -> list[list[dict[int, int]]]:
    """For each preset or instrument, the generators of each of its bags."""
    places = [record[0] for record in struct.iter_unpack("<HH", chunks[bag])]
    pairs = list(struct.iter_unpack("<HH", chunks[generators]))
    bags = [dict(pairs[a:b]) for a, b in pairwise(places)]
    return [bags[a:b] for a, b in pairwise(firsts)]


def _zones(bags: list[dict[int, int]], last: int) -> Iterator[dict[int, int]]:
    """Bags that end in what they play; the first one may hold what the others inherit."""
    common: dict[int, int] = {}
    for place, bag in enumerate(bags):
        if last in bag:
            yield {**common, **bag}
        elif place == 0:
            common = bag


def _range(generators: dict[int, int], name: int) -> tuple[int, int]:
    both = generators.get(name, _ANY)
    return both & 255, both >> 8
