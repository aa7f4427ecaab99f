"""``echopix bench``: a table for people, a record for scripts, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
QUICK = ("--shape", "tiny", "--seconds", "2", "--trials", "1", "--warmup", "0", "--new-tokens", "2")


def test_the_record_holds_what_the_table_shows(command: Command) -> None:
    ran = command("bench", *QUICK, "-b", "0.1", "--json")
    assert ran.code == 0
    (record,) = ran.records
    assert ran.err == ""
    assert (record["shape"], record["trials"], record["warmup"], record["new_tokens"]) == ("tiny", 1, 0, 2)
    assert record["clip"] | {"text_tokens": 0} == {
        "media": None, "seconds": 2.0, "video_tokens": 30, "audio_tokens": 50, "text_tokens": 0,
    }  # fmt: skip
    whole, tenth = record["rows"]
    assert (whole["budget"], whole["sieve"], whole["kept_tokens"], whole["speedup"]) == (1.0, None, 80, 1.0)
    assert (tenth["budget"], tenth["sieve"], tenth["kept_tokens"]) == (0.1, "cs2", 8)
    assert tenth["share_of_bound"] == pytest.approx(tenth["speedup"] / tenth["bound"])
    assert set(tenth["stages_s"]) == {"sieve", "prefill", "generate", "forward", "first_token"}
    assert set(record["stages_s"]) == {"decode", "vision", "audio"}
    assert {"device", "threads", "torch", "transformers", "python", "echopix"} == set(record["machine"])


def test_the_table(command: Command) -> None:
    ran = command("bench", *QUICK)
    assert (ran.code, ran.out) == (0, "")
    assert [line.split()[0] for line in ran.err.splitlines() if "×" in line][:4] == ["1", "0.2", "0.1", "0.05"]
    for words in ("share", "tokens/s", "smaller", "random parameters", "CS2 layer", "30 video, 50 audio and"):
        assert words in ran.err


def test_a_file_in_place_of_noise(command: Command, clips: dict[str, Path]) -> None:
    ran = command("bench", clips["dark"], "--shape", "tiny", "--trials", "1", "--warmup", "0", "-b", "1.0", "--json")
    assert ran.code == 0
    assert ran.records[0]["clip"]["media"] == str(clips["dark"])
    assert ran.records[0]["clip"]["video_tokens"] == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--shape", "huge"), "there is no shape 'huge'"),
        (("--budget", "2"), "--budget: '2' does not fit"),
        (("--quiet",), "--quiet leaves nothing to print"),
        (("nothing.mp4", "--seconds", "3"), "--seconds is the length of the noise"),
        (("--device", "cuda:99"), "device 'cuda:99' is not available"),
    ],
)
def test_what_it_refuses(command: Command, flags: tuple[str, ...], says: str) -> None:
    ran = command("bench", *flags)
    assert ran.code in (2, 5)
    assert ran.out == ""
    assert says in ran.err
    assert len(ran.err.splitlines()) == 2


def test_the_shapes_offered_are_those_there_are() -> None:
    """The command line names them without loading what describes them."""
    from echopix_cli.cli.bench import SHAPE_NAMES
    from echopix_cli.model.shapes import SHAPES

    assert tuple(SHAPES) == SHAPE_NAMES


def test_a_missing_file(command: Command, tmp_path: Path) -> None:
    ran = command("bench", tmp_path / "none.mp4", "--shape", "tiny")
    assert (ran.code, ran.out) == (4, "")
