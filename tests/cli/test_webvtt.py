"""Moments as WebVTT."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from answers import an_answer
from places import ROOT

from echopix_cli.cli.webvtt import is_webvtt, webvtt
from echopix_cli.results import Moment

MOMENTS = (
    Moment(3.76, 5.0, "audio", 0.5),
    Moment(2.16, 2.64, "video", 0.26),
    Moment(3725.2, 3725.2001, "audio", 0.004),
)
WHOLE = """\
WEBVTT - moments that answers rest on, by echopix

NOTE &lt;b&gt; &amp; \\x1b[2J.mp4

NOTE
question 1: What instrument is playing?
answer 1: a piano

NOTE
question 2: Who --&gt; whom?
answer 2: &lt;i&gt; one two

q1-m2
00:00:02.160 --> 00:00:02.640
What instrument is playing? → a piano
picture, 26 %

q2-m1
00:00:03.000 --> 00:00:04.000
Who --&gt; whom? → &lt;i&gt; one two
sound, 100 %

q1-m1
00:00:03.760 --> 00:00:05.000
What instrument is playing? → a piano
sound, 50 %

q1-m3
01:02:05.200 --> 01:02:05.201
What instrument is playing? → a piano
sound, &lt; 1 %
"""


def test_of_all_answers_in_order_of_time() -> None:
    first = an_answer(MOMENTS, media="/x/<b> & \x1b[2J.mp4")
    second = an_answer((Moment(3.0, 4.0, "audio", 1.0),), question="Who --> whom?", answer="<i> one\n\ntwo")
    assert webvtt([first, second]) == WHOLE
    assert is_webvtt(WHOLE.encode()) and not is_webvtt(b"WEBVTT\n\n1\n00:00.000 --> 00:01.000\nmine\n")
    assert "-->" not in webvtt([replace(first, moments=())])


def test_asked_of_one_file(run, clips: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "moments.vtt"
    ran = run("ask", clips["both"], "-Q", "What?", "-Q", "Who?", "--json", "--vtt", out)
    assert ran.code == 0
    moments = [moment for record in ran.records for moment in record["moments"]]
    blocks = out.read_text().split("\n\n")
    assert len([block for block in blocks if " --> " in block]) == len(moments) > 0
    starts = [block.splitlines()[1] for block in blocks if " --> " in block]
    assert starts == sorted(starts)
    again = run("ask", clips["both"], "Who?", "-q", "--vtt", out)
    assert again.code == 0 and "question 2" not in out.read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["moments.vtt"]


@pytest.mark.parametrize("option", ["--vtt", "--report"])
def test_nothing_of_others_is_replaced(run, clips: dict[str, Path], tmp_path: Path, option: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text("WEBVTT\n\nmy own\n")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place, said in (
        (mine, "exists and is no"),
        (clips["both"], "exists and is no"),
        (tmp_path / "link", "exists and is no"),
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "x", "does not exist"),
    ):
        ran = run("ask", clips["both"], "What?", option, place)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
    assert mine.read_text() == "WEBVTT\n\nmy own\n"


@pytest.mark.parametrize("option", ["--vtt", "--report"])
def test_what_a_link_leads_to_is_written_and_stays_private(
    run, clips: dict[str, Path], tmp_path: Path, option: str
) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.touch(0o600)
    link.symlink_to(real)
    assert run("ask", clips["both"], "What?", "-q", option, link).code == 0
    assert link.is_symlink() and real.stat().st_size > 0 and real.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link", "real"]


@pytest.mark.parametrize(
    ("command", "name", "stream"),
    [
        ("ask {clip} What? --vtt", "-", "stdout"),
        ("ask {clip} What? --vtt", "out", "stdout"),
        ("ask {clip} What? --report", "/dev/stdout", "stdout"),
        ("ask {clip} What? --report", "/dev/stderr", "stderr"),
        ("ask {clip} What? -o", "/dev/stdout", "stdout"),
        ("ask {clip} demo What? --report", "-", "stdout"),
        ("ask {clip} demo What? --report", "/dev/stdout", "stdout"),
        ("eval --data scenes:test --count 1 --force -o", "/proc/self/fd/1", "stdout"),
    ],
)
def test_streams_are_for_answers_and_notes(
    clips: dict[str, Path], tmp_path: Path, command: str, name: str, stream: str
) -> None:
    """In files, too, where nothing but their names tells them from others."""
    words = [sys.executable, "-m", "echopix_cli", *command.format(clip=clips["dark"]).split(), name]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "ECHOPIX_MODEL": "tiny"}
        done = subprocess.run(words, stdout=out, stderr=err, cwd=tmp_path, env=environment, check=False)
    said = (tmp_path / "err").read_text().splitlines()[0]
    assert (done.returncode, (tmp_path / "out").read_bytes()) == (2, b"")
    assert said.endswith(f" is {stream}, and no file of its own")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["err", "out"]


def test_it_is_of_one_file(run, clips: dict[str, Path], tmp_path: Path) -> None:
    ran = run("ask", clips["both"], clips["dark"], "What?", "--vtt", tmp_path / "x.vtt")
    assert (ran.code, ran.out) == (2, "")
    assert "--vtt is for the answers about one file" in ran.err
    ran = run("ask", clips["both"], "What?", "--vtt", tmp_path / "x", "--report", tmp_path / "." / "x")
    assert (ran.code, ran.out) == (2, "") and "name one file" in ran.err
