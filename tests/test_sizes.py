"""Sizes as people write and read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.sizes import binary, decimal, exact, parse_size

COUNTS = st.integers(0, 2**50) | st.builds(
    lambda base, power, factor: base**power * factor,
    st.sampled_from([1000, 1024]),
    st.integers(0, 4),
    st.integers(1, 99),
)


@given(COUNTS)
def test_what_is_written_is_read_as_the_same_number(count: int) -> None:
    assert parse_size(exact(count)) == count
    assert len(exact(count)) <= len(f"{count}B")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"), (1, "1B"), (999, "999B"), (1025, "1025B"), (4 * 2**30, "4GiB"), (2**41, "2TiB"),
        (8 * 10**9, "8GB"), (1_500_000_000, "1500MB"), (512 * 2**20, "512MiB"),
    ],
)  # fmt: skip
def test_the_shortest_text_for_a_number(count: int, text: str) -> None:
    assert exact(count) == text


@given(COUNTS)
def test_rounded_sizes_keep_below_the_next_unit_and_within_their_last_digit(count: int) -> None:
    for shown, base in ((binary(count), 1024), (decimal(count), 1000)):
        number, unit = shown.split(" ")
        assert re.fullmatch(r"\d+" if unit == "B" else r"\d+\.\d", number)
        power = " KMGT".index(unit.upper()[0]) if unit != "B" else 0
        assert float(number) < base or power == 4
        assert abs(float(number) * base**power - count) <= 0.05 * base**power * (1 + 1e-9)


@pytest.mark.parametrize(
    ("count", "memory", "files"),
    [
        (0, "0 B", "0 B"), (1000, "1000 B", "1.0 kB"), (1023, "1023 B", "1.0 kB"), (1024, "1.0 KiB", "1.0 kB"),
        (999_999, "976.6 KiB", "1.0 MB"), (2**20 - 1, "1.0 MiB", "1.0 MB"), (2**30, "1.0 GiB", "1.1 GB"),
    ],
)  # fmt: skip
def test_memory_is_counted_in_1024s_and_files_in_1000s(count: int, memory: str, files: str) -> None:
    assert (binary(count), decimal(count)) == (memory, files)
