"""What ``echopix ask`` writes where: notices, several questions, formats, the bundled clip, broken streams."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from echopix_cli.cli.demo import QUESTION, right_answer
from echopix_cli.cli.formats import COLUMNS, cells
from echopix_cli.cli.output import Aside, Output, Tally
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.model.values import Prompt, Scored

RIGHT = right_answer() + "\n"  # about the bundled clip


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV of one second whose header promises ten."""
    path = tmp_path_factory.mktemp("cut") / "cut.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\x00\x10\x00\xf0" * 80_000)
    path.write_bytes(path.read_bytes()[: 44 + 32_000])
    return path


@pytest.mark.parametrize("how", [[], ["-q"], ["--json"], ["--format", "tsv", "-q"]])
def test_what_was_not_heard_is_said_whatever_is_printed(run, cut_off: Path, how: list[str]) -> None:
    ran = run("ask", cut_off, "-Q", "What?", "-Q", "Who?", *how)
    assert ran.code == 0
    assert ran.err.count(f"note: {cut_off}: read 0:01 of 0:10; the rest is missing or damaged") == 1


@pytest.mark.parametrize("how", [[], ["-q"], ["--format", "text"], ["--format", "csv", "-q"], ["-o", "OUT"]])
def test_a_batch_says_it_once_a_file_and_counts_it(
    run, cut_off: Path, clips: dict[str, Path], tmp_path: Path, how: list[str]
) -> None:
    how = [str(tmp_path / "out.jsonl") if word == "OUT" else word for word in how]
    ran = run("ask", cut_off, clips["dark"], "-Q", "What?", "-Q", "Who?", *how)
    assert ran.code == 0
    assert ran.err.count(f"{cut_off}: read 0:01 of 0:10") == 1
    assert ("4 answered, 0 failed; notes on 1 of the files" in ran.err) == ("-q" not in how)
    assert "nothing of the" not in ran.err


def test_several_questions_are_pairs_and_one_table(run, clips: dict[str, Path], tmp_path: Path) -> None:
    asked = ["What instrument is playing?", "Who sings\tthere?"]
    (tmp_path / "questions.txt").write_text("\n".join(asked))
    ran = run("ask", clips["both"], *(word for question in asked for word in ("-Q", question)))
    pairs = ran.out.splitlines()
    assert [pair.partition(" → ")[0] for pair in pairs] == ["What instrument is playing?", "Who sings there?"]
    assert ran.err.count("waited") == ran.err.count("peak memory") == 1
    quiet = run("ask", clips["both"], "--questions", tmp_path / "questions.txt", "-q", "--format", "text")
    assert quiet.out.splitlines() == [f"{clips['both']}: {pair}" for pair in pairs]


def test_formats_hold_the_same_answers_on_a_terminal_and_in_a_pipe(
    run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for media in ([clips["silent"]], [clips["silent"], clips["dark"], "none.mp4"]):
        shown = {}
        for form in ("text", "jsonl", "tsv", "csv"):
            arguments = ["ask", *media, "-Q", "What?", "-Q", "Who?", "--format", form, "-q"]
            shown[form] = run(*arguments).out
            with monkeypatch.context() as patch:
                patch.setattr(sys.stdout.__class__, "isatty", lambda stream: True)
                on_terminal = run(*arguments).out
            strip = (lambda text: [json.loads(line)["answer"] for line in text.splitlines() if '"error"' not in line]) \
                if form == "jsonl" else (lambda text: text)  # fmt: skip
            assert strip(on_terminal) == strip(shown[form])
        records = [json.loads(line) for line in shown["jsonl"].splitlines()]
        table = list(csv.DictReader(io.StringIO(shown["csv"])))
        assert [list(row.values()) for row in table] == [list(cells(record)) for record in records]
        assert list(table[0]) == list(COLUMNS)
        tsv = [line.split("\t") for line in shown["tsv"].splitlines()]
        assert {len(row) for row in tsv} == {len(COLUMNS)}
        answers = [record["answer"] for record in records if "answer" in record]
        assert len(shown["text"].splitlines()) == len(answers) == 2 * min(len(media), 2)


def test_cells_of_hostile_texts_stay_in_their_cells(capsys: pytest.CaptureFixture[str]) -> None:
    from echopix_cli.cli.formats import Records

    record = {"media": 'a"b,c.mp4', "question": "one\ttwo\nthree\\n\x1b[2J", "answer": "x\r\ny"}
    for form in ("tsv", "csv"):
        Records(Output(), form).write(record)
        out = capsys.readouterr().out
        assert "\x1b" not in out
        if form == "csv":
            (row,) = list(csv.DictReader(io.StringIO(out)))
            assert (row["media"], row["question"]) == ('a"b,c.mp4', "one\ttwo\nthree\\n\\x1b[2J")
        else:
            _, line = out.splitlines()
            assert line.split("\t")[1:4] == ['a"b,c.mp4', "one\\ttwo\\nthree\\\\n\\\\x1b[2J", "x\\ny"]


@pytest.mark.parametrize(("named", "json", "said"), [("xml", False, "text, jsonl, tsv, csv"), ("csv", True, "--json")])
def test_formats_that_do_not_fit(run, clips: dict[str, Path], named: str, json: bool, said: str) -> None:
    ran = run("ask", clips["dark"], "What?", "--format", named, *(["--json"] if json else []))
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_the_bundled_clip_answers_from_anywhere(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clips: dict[str, Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = command("ask", "demo")
    assert (ran.code, ran.out) == (0, RIGHT)
    assert ran.err.count("tiny is the demonstration model") == 1
    quiet = command("ask", "demo", QUESTION, "-q")
    assert quiet.out == RIGHT
    assert "tiny is the demonstration model" in quiet.err
    (tmp_path / "demo").write_bytes(b"not media\n" * 10)
    assert command("ask", "demo", QUESTION).code == 4  # a file of that name comes first


def test_a_modality_of_which_nothing_was_kept_is_said(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every row of the sound is ranked above those of the picture, and there is more of it than is kept."""
    score = EchoingPixelsThinker.score

    def hearing(self: EchoingPixelsThinker, prompt: Prompt, *more: Any, **named: Any) -> Scored:
        scored = score(self, prompt, *more, **named)
        return replace(scored, scores=scored.scores + 1e6 * (prompt.input_ids == self.special.audio))

    monkeypatch.setattr(EchoingPixelsThinker, "score", hearing)
    monkeypatch.setenv("ECHOPIX_BUDGET", "0.1")
    ran = run("ask", "demo", QUESTION, "--json")
    video, audio = (ran.records[0]["tokens"][name] for name in ("video", "audio"))
    assert video["kept"] == 0 < audio["kept"] < audio["total"]
    said = f"nothing of the picture was kept (0 of {video['total']} tokens); a larger --budget keeps more"
    for more in ((), ("-q",)):
        assert said in " ".join(run("ask", "demo", QUESTION, *more).err.split())
    assert "nothing of" not in run("ask", "demo", QUESTION, "--budget", "1").err
    (tmp_path / "demo.mp4").symlink_to(ROOT / "echopix_cli" / "assets" / "demo.mp4")
    (tmp_path / "cover.jpg").write_bytes(b"")
    ran = run("ask", tmp_path, QUESTION)
    assert "1 answered, 0 failed; nothing of the picture kept in 1" in ran.err
    assert "1 still picture passed over; --glob '*.jpg' takes it" in ran.err
    quiet = run("ask", tmp_path, QUESTION, "-q")
    assert "1 answered, 0 failed; nothing of the picture kept in 1" in quiet.err
    assert "passed over" not in quiet.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{dark}", "What", "is", "playing?"], '"What is playing?"'),
        (["What", "is", "playing?"], "FILE"),
        (["demo", "What", "plays"], '"What plays"'),
    ],
)
def test_an_unquoted_question_is_noticed(run, clips: dict[str, Path], words: list[str], said: str) -> None:
    ran = run("ask", *(word.format(**clips) for word in words))
    assert (ran.code, ran.out) == (2, "")
    assert "quote the question" in ran.err
    assert said in ran.err


def test_the_rate_counts_what_was_done_now() -> None:
    class Bar:
        def __init__(self) -> None:
            self.fields: dict[str, object] = {}
            self.done = 0

        def add_task(self, text: str, **fields: object) -> int:
            return 0

        def update(self, task: int, advance: int = 0, **fields: object) -> None:
            self.done += advance
            self.fields |= fields

    bar = Bar()
    tally = Tally(bar, 1_000_010)  # type: ignore[arg-type]
    tally._began -= 60.0
    tally.skip(1_000_000)
    tally.advance(5)
    assert bar.done == 1_000_005
    assert bar.fields["rate"] == "5/min, 1:00 left"


def test_what_cannot_be_written_beside_the_answers_is_lost_alone() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    stream = Aside(Broken())
    assert stream.write("note") == 4
    stream.flush()
    assert Aside(None).write("note") == 4


ASK = [sys.executable, "-m", "echopix_cli", "ask", "demo", "--device", "cpu"]


@pytest.mark.parametrize(
    ("redirection", "code", "out", "err"),
    [
        pytest.param("2>&-", 0, RIGHT, "", marks=pytest.mark.slow),
        pytest.param("2>/dev/full", 0, RIGHT, "", marks=pytest.mark.slow),
        pytest.param(">&-", 141, "", None, marks=pytest.mark.slow),
        (">/dev/full", 1, "", "error: cannot write to stdout: No space left on device"),
        pytest.param("2>&1 >/dev/full | head -c 1", 1, "n", "", marks=pytest.mark.slow),
        pytest.param("2>&1 | head -c 0", 141, "", "", marks=pytest.mark.slow),
    ],
)
def test_broken_streams(tmp_path: Path, redirection: str, code: int, out: str, err: str | None) -> None:
    shell = f'"$@" {redirection.partition("|")[0]}'
    pipe = redirection.partition("|")[2]
    script = f"{shell} | {pipe}; exit ${{PIPESTATUS[0]}}" if pipe else shell
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "ECHOPIX_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", script, "bash", *ASK], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (done.returncode, done.stdout) == (code, out)
    assert err is None or err in done.stderr


@pytest.mark.parametrize(
    ("duration", "kinds", "plan", "look", "said"),
    [
        (600.0, ("video", "audio"), {}, 4,
         "10:00 long: 10 windows of 1:00, 1 frame every 0.5 s, all of the sound"),
        (4200.0, ("video", "audio"), {}, 4,
         "1:10:00 long: 70 windows of 1:00, 1 frame every 3.75 s, then 4 of them at 2 frames a second, "
         "all of the sound"),
        (4200.0, ("video",), {}, 0, "1:10:00 long: 70 windows of 1:00, 1 frame every 3.75 s"),
        (36_000.0, ("video", "audio"), {"audio": False}, 2**31 - 1,
         "10:00:00 long: 600 windows of 1:00, 1 frame every 30 s, then all at 2 frames a second"),
        (4200.0, ("audio",), {"start": 30.0}, 4,
         "0:30 to 1:10:00: 70 windows of 1:00, all of the sound"),
    ],
)  # fmt: skip
def test_what_will_be_taken_of_a_long_file(
    duration: float, kinds: tuple[str, ...], plan: dict[str, object], look: int, said: str
) -> None:
    from echopix_cli.engine.film import film_of
    from echopix_cli.media import DecodePlan, MediaInfo, TrackInfo
    from echopix_cli.serving.manners import sampling_words

    info = MediaInfo("matroska", duration, tuple(TrackInfo(kind, 0) for kind in kinds))
    film = film_of(DecodePlan(**plan), duration, 60.0)  # type: ignore[arg-type]
    assert film is not None
    assert sampling_words(info, film, look) == said


def test_the_plan_is_said_before_a_long_file_is_read(run, tmp_path: Path) -> None:
    from clips import write_clip

    film = write_clip(tmp_path / "film.mp4", seconds=70, fps=1)
    ran = run("ask", film, "What?", "--max-frames", "4", "--window", "30")
    assert ran.code == 0
    said = "1:10 long: 3 windows of 0:30, 1 frame every 7.5 s, all of the sound"
    assert f"note: {film}: {said}" in ran.err.splitlines()
    assert "windows of" not in run("ask", film, "What?", "--max-frames", "4", "-q").err


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"), (5, "0:05"), (5.25, "0:05.25"), (59.999, "1:00"), (60, "1:00"), (79.6, "1:20"),
        (3599.7, "1:00:00"), (10_925, "3:02:05"), (360_000, "100:00:00"),
    ],
)  # fmt: skip
def test_clocks(seconds: float, shown: str) -> None:
    from echopix_cli.times import clock, parse_time

    assert clock(seconds) == shown
    if seconds == int(seconds):
        assert parse_time(shown) == seconds


def test_stages_show_themselves(run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the start and the answer, something is always said on a terminal."""
    shown: list[str] = []
    progress = Output.progress

    def watched(output: Output, text: str):  # type: ignore[no-untyped-def]
        shown.append(text)
        return progress(output, text)

    monkeypatch.setattr(Output, "progress", watched)
    assert run("ask", clips["both"], "What?").code == 0
    assert shown == ["loading the model", f"reading {clips['both']}", "answering"]
    shown.clear()
    assert run("ask", clips["both"], clips["dark"], "What?").code == 0
    assert shown == ["looking for files and questions", "loading the model"]
