"""Sizes in bytes as people write and read them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?) ?(?P<unit>[kKmMgGtT]?)(?P<binary>i?)[bB]?")
_BINARY, _DECIMAL = ("B", "KiB", "MiB", "GiB", "TiB"), ("B", "kB", "MB", "GB", "TB")


def parse_size(text: str) -> int:
    """Bytes from ``512MiB``, ``4 GB`` or a plain number; ``kB`` is a thousand, ``KiB`` 1024.

    Raises:
        ValueError: anything else.
    """
    match = _SIZE.fullmatch(text)
    if match is None or (match["binary"] and not match["unit"]):
        raise ValueError("expected a number of bytes, or a size such as 8G, 4GiB or 500MB")
    base = 1024 if match["binary"] else 1000
    factor: int = base ** " KMGT".index(match["unit"].upper() or " ")
    return round(float(match["count"]) * factor)


def parse_positive_size(text: str) -> int:
    """As :func:`parse_size`, but not 0."""
    size = parse_size(text)
    if not size:
        raise ValueError("expected a size above 0, such as 8G")
    return size


def binary(count: int) -> str:
    """Bytes of memory, rounded: ``457.7 MiB``."""
    return _rounded(count, 1024, _BINARY)


def decimal(count: int) -> str:
    """Bytes of files, rounded, as disks and the hub count them: ``31.4 MB``."""
    return _rounded(count, 1000, _DECIMAL)


def exact(count: int) -> str:
    """The shortest text that :func:`parse_size` reads as just this number: ``4GiB``, ``500MB``, ``1025B``."""
    if not count:
        return "0"
    scales = ((1024, _BINARY), (1000, _DECIMAL))
    written = (
        f"{count // base**power}{unit}"
        for base, units in scales
        for power, unit in enumerate(units)
        if not count % base**power
    )
    return min(written, key=len)


def _rounded(count: int, base: int, units: tuple[str, ...]) -> str:
    """One decimal of the largest unit of which there is at least one, or would be after rounding; bytes as they are."""
    power = 0
    while power + 1 < len(units) and round(count / base**power, 1 if power else 0) >= base:
        power += 1
    return f"{count / base**power:.1f} {units[power]}" if power else f"{count} B"
