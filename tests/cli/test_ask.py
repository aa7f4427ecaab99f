"""``echopix ask`` from arguments to streams and exit codes."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import SHARED

from echopix_cli.cli.ask import split_arguments
from echopix_cli.cli.output import inert, one_line
from echopix_cli.errors import UsageError


def test_the_answer_alone_goes_to_stdout(run, clips: dict[str, Path]) -> None:
    ran = run("ask", clips["both"], "What instrument is playing?")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 1
    for word in ("video", "audio", "kept %", "sieve", "prefill", "total", "peak memory", "budget 0.1", "used"):
        assert word in ran.err


def test_json_holds_what_the_table_shows(run, clips: dict[str, Path]) -> None:
    ran = run("ask", clips["both"], "What?", "--json", "--budget", "0.2")
    (record,) = ran.records
    assert list(record) == [
        "schema_version", "media", "question", "answer", "choices", "finish_reason", "audio", "tokens", "budget",
        "sieve", "question_layer", "prefilter", "moments", "film", "cached", "latency_s", "tokens_per_second",
        "peak_memory_bytes", "model", "sampling", "notices", "waited_s",
    ]  # fmt: skip
    waited = record["waited_s"]
    assert list(waited) == ["start_up", "load", "read", "answer", "total"]
    assert waited["total"] == pytest.approx(sum(waited[name] for name in list(waited)[:-1]), abs=0.003)
    assert waited["read"] >= record["latency_s"]["decode"]
    assert waited["answer"] >= record["latency_s"]["sieve"] + record["latency_s"]["generate"]
    assert record["schema_version"] == 1
    assert record["media"] == str(clips["both"])
    tokens = record["tokens"]
    kept = tokens["video"]["kept"] + tokens["audio"]["kept"]
    assert kept == math.ceil(0.2 * (tokens["video"]["total"] + tokens["audio"]["total"]))
    assert record["audio"] == "used"
    assert list(record["latency_s"]) == [
        "load", "decode", "vision", "audio", "sieve", "prefill", "first_token", "generate", "total"
    ]  # fmt: skip
    assert set(record["peak_memory_bytes"]) == {"device_allocated", "device_reserved", "host_resident"}
    assert set(record["model"]) == {
        "name",
        "revision",
        "parameters",
        "dtype",
        "device",
        "demonstration",
        "chosen",
        "quantization",
    }
    assert set(record["sampling"]) == {
        "fps", "frames", "height", "width", "second_per_grid", "start", "end", "audio_seconds"
    }  # fmt: skip
    assert set(tokens) == {"video", "audio", "text", "generated"}
    assert ran.err == ""


def test_frames_are_of_the_models_size_unless_told(run, clips: dict[str, Path]) -> None:
    (own,) = run("ask", clips["silent"], "What?", "--json").records
    (told,) = run("ask", clips["silent"], "What?", "--json", "--max-pixels", "50000").records
    assert (own["sampling"]["height"], own["sampling"]["width"]) == (84, 112)
    assert 112 * 112 < told["sampling"]["height"] * told["sampling"]["width"] <= 50_000


def test_quiet_prints_the_answer_only(run, clips: dict[str, Path]) -> None:
    ran = run("ask", clips["silent"], "What?", "-q")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("\n")


def test_several_questions_on_one_file(run, clips: dict[str, Path]) -> None:
    ran = run("ask", clips["both"], "-Q", "What?", "-Q", "Who?", "--json")
    assert [record["question"] for record in ran.records] == ["What?", "Who?"]


def test_a_bad_file_does_not_end_the_others(run, clips: dict[str, Path], tmp_path: Path) -> None:
    ran = run("ask", clips["silent"], tmp_path / "none.mp4", clips["dark"], "What?")
    assert ran.code == 1
    first, second, third = ran.records
    assert (first["audio"], third["audio"]) == ("absent", "used")
    assert second["error"]["type"] == "MediaError"
    assert second["error"]["exit_code"] == 4
    assert "none.mp4" in ran.err
    assert "2 answered, 1 failed" in ran.err


def test_choices_on_one_file(run, clips: dict[str, Path]) -> None:
    ran = run("ask", clips["both"], "What?", "--choices", "a dog|a cat|neither", "--json")
    (record,) = ran.records
    assert [(c["letter"], c["text"]) for c in record["choices"]] == [("A", "a dog"), ("B", "a cat"), ("C", "neither")]
    shares = [choice["probability"] for choice in record["choices"]]
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)
    assert record["answer"] == record["choices"][shares.index(max(shares))]["text"]
    assert record["finish_reason"] == "choice"
    ran = run("ask", clips["both"], "What?", "--choices", "a dog|a cat|neither")
    assert ran.out.strip() == record["answer"]
    assert "a cat" in ran.err


def test_the_question_from_stdin(run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who sings?\n"))
    (record,) = run("ask", clips["dark"], "-", "--json").records
    assert record["question"] == "Who sings?"


def test_verbose_describes_the_file(run, clips: dict[str, Path]) -> None:
    ran = run("ask", clips["both"], "What?", "-v")
    assert "video track 0: h264, 160×120, 10.00 fps" in ran.err
    assert "audio track 0: aac, 16000 Hz" in ran.err


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Things that are no media, under names that say they are."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no film\n" * 50)
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    (folder / "concat.mp4").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ask", "CLIP"], 2, "no media given"),
        (["ask"], 2, "no media and no question"),
        (["ask", "-Q", "What?"], 2, "no media given"),
        (["ask", "{both}", "-Q", "-", "-Q", "-"], 2, "only one thing"),
        (["ask", "{both}"], 2, "no question given"),
        (["ask", "{both}", ""], 2, "question is empty"),
        (["ask", "{both}", "What\udcff?"], 2, "not valid UTF-8"),
        (["ask", "x" * 500], 2, "no media given"),
        (["ask", "{both}", "What?", "--start", "2", "--end", "1"], 2, "--end"),
        (["ask", "{both}", "What?", "--device", "cuda:²"], 2, "--device"),
        (["ask", "{both}", "{both}"], 2, "no question given"),
        (["ask", "{both}", " "], 2, "question is empty"),
        (["ask", "{both}", "What?", "--budget", "0"], 2, "--budget"),
        (["ask", "{both}", "What?", "--budget", "1.01"], 2, "--budget"),
        (["ask", "{both}", "What?", "--budget", "ten"], 2, "--budget"),
        (["ask", "{both}", "What?", "--start", "soon"], 2, "--start"),
        (["ask", "{both}", "What?", "--max-frames", "0"], 2, "--max-frames"),
        (["ask", "{both}", "What?", "--device", "tpu"], 2, "--device"),
        (["ask", "{both}", "What?", "--wrong"], 2, "--wrong"),
        (["ask", "{both}", "What?", "--model", "no-such-model"], 3, "tiny"),
        (["ask", "/none/such.mp4", "What?"], 4, "such.mp4"),
        (["ask", "-", "-"], 2, "only one thing"),
        (["ask", "-", "--questions", "-"], 2, "only one thing"),
        (["ask", "{both}", "-Q", "-", "--questions", "-"], 2, "only one thing"),
        (["ask", "{bad}", "What?", "--glob", ""], 2, "the pattern of --glob is empty"),
        (["ask", "{both}", "/tmp"], 2, "is a folder"),
        (["ask", "{both}", "What?", "--choices", "one"], 2, "choices"),
        (["ask", "{both}", "What?", "--choices", "one\udcff|two"], 2, "a choice is not valid UTF-8"),
        (["ask", "{both}", "What?", "--system", "You\udcff"], 2, "expected valid UTF-8"),
        (["ask", "{both}", "What?", "--choices", "a|a"], 2, "same"),
        (["ask", "{both}", "What?", "--overwrite"], 2, "--output"),
        (["ask", "{both}", "What?", "--shard", "3/2"], 2, "--shard"),
        (["ask", "{both}", "What?", "--timeout", "0"], 2, "--timeout"),
        (["ask", "{both}", "What?", "--input", "{both}"], 2, "--input"),
        (["ask", "--input", "/none.jsonl"], 2, "/none.jsonl"),
        (["ask", "{both}", "--questions", "/none.txt"], 2, "/none.txt"),
        (["ask", "{both}", "What?", "-o", "/none/out.jsonl"], 2, "/none"),
        (["ask", "{both}", "What?", "-o", "{both}"], 2, "no record"),
        (["ask", "{both}", "What?", "-o", ""], 2, "--output: the name is empty"),
        (["ask", "{both}", "What?", "--vtt", ""], 2, "--vtt: the name is empty"),
        (["ask", "{both}", "What?", "--vtt", "."], 2, "the name of a file to write is that of this folder"),
        (["ask", "{bad}/empty.mp4", "What?"], 4, "is empty"),
        (["ask", "{bad}/text.mp4", "What?"], 4, "not a media file"),
        (["ask", "{bad}/list.mp4", "What?"], 4, "playlist"),
        (["ask", "{bad}/concat.mp4", "What?"], 4, "ffconcat"),
        (["ask", "{bad}/pipe", "What?"], 4, "pipe"),
        (["ask", "{bad}", "What?", "--glob", "*.none"], 2, "no files called"),
        (["ask", "https://example.org/x.mp4", "What?"], 4, "example.org"),
        (["ask", "{both}", "What?", "--start", "99"], 4, "3"),
        (["ask", "{both}", "What?", "--audio-track", "7"], 4, "track"),
        (["ask", "{silent}", "What?", "--no-video"], 4, "silent.mp4"),
        (["profile", "{both}", "--budget", "2"], 2, "--budget"),
        (["profile", "{both}", "-q"], 2, "--json"),
        (["profile", "/none/such.mp4"], 4, "such.mp4"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_bad_input_is_one_line_and_a_code(
    run, clips: dict[str, Path], bad_files: Path, arguments: list[str], code: int, said: str
) -> None:
    ran = run(*(argument.format(**clips, bad=bad_files) for argument in arguments))
    assert ran.code == code
    assert said in ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err
    assert "unexpected failure" not in ran.err
    if "Usage:" not in ran.err and len(arguments) < 5:
        assert len(ran.err.splitlines()) <= 2


def test_no_gpu_is_a_device_error(run, clips: dict[str, Path]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    ran = run("ask", clips["both"], "What?", "--device", "cuda")
    assert ran.code == 5
    assert "try: leave --device out" in ran.err


@pytest.mark.parametrize("how", ["flag", "environment", "file"])
def test_debug_shows_the_traceback_and_keeps_the_code(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "environment":
        monkeypatch.setenv("ECHOPIX_DEBUG", "1")
    if how == "file":
        (tmp_path / "config.toml").write_text("debug = true\n")
        monkeypatch.setenv("ECHOPIX_CONFIG", str(tmp_path / "config.toml"))
    ran = run("ask", tmp_path / "none.mp4", "What?", *(["--debug"] if how == "flag" else []))
    assert ran.code == 4
    assert "Traceback" in ran.err
    assert ran.err.count("error: ") == 1


class Terminal(io.StringIO):
    """A stream that says it is a terminal and remembers its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


def test_a_terminal_sees_the_answer_as_it_comes(run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run("ask", clips["both"], "What do you see?", "-q").code == 0
    monkeypatch.undo()
    assert len(terminal.writes) > 2
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().endswith("\n")


def test_an_answer_that_breaks_off_still_ends_its_line(
    run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    import echopix_cli.engine.engine as engine_module

    def broken(*_: object, **__: object):  # type: ignore[no-untyped-def]
        yield torch.tensor([300])
        raise MemoryError

    monkeypatch.setattr(engine_module, "generate", broken)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    ran = run("ask", clips["both"], "What?")
    assert ran.code == 5
    assert terminal.getvalue().endswith("\n")
    assert "out of memory" in ran.err


def test_a_stream_that_cannot_show_a_character(clips: dict[str, Path], tmp_path: Path) -> None:
    code = "from echopix_cli.cli.output import Output; Output().answer('caf\u00e9 \u72ac')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )
    assert done.stdout == b"caf\\xe9 \\u72ac\n"


def test_a_flag_can_switch_back_what_the_environment_switched(
    run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECHOPIX_NO_AUDIO", "1")
    (without,) = run("ask", clips["both"], "What?", "--json").records
    (with_sound,) = run("ask", clips["both"], "What?", "--json", "--audio").records
    assert (without["audio"], with_sound["audio"]) == ("disabled", "used")


@pytest.mark.skipif(not (SHARED / "media").is_dir(), reason="../shared/media is not on this machine")
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("nasa_13013.mp4", "used"),
        ("av1_video.mkv", "absent"),
        ("h265_video.mp4", "absent"),
        ("h264_10bits.mp4", "absent"),
        ("sine_mono_s16.wav", "used"),
        ("jfk.flac", "used"),
    ],
)
def test_real_clips(run, name: str, status: str) -> None:
    (record,) = run("ask", SHARED / "media" / name, "What do you see?", "--json").records
    tokens = record["tokens"]
    total = tokens["video"]["total"] + tokens["audio"]["total"]
    kept = tokens["video"]["kept"] + tokens["audio"]["kept"]
    assert kept == math.ceil(0.1 * total) > 0
    assert record["audio"] == status
    assert (tokens["audio"]["total"] > 0) == (status == "used")


def test_unexpected_failures_are_one_line(run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import echopix_cli.engine

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(echopix_cli.engine.Engine, "load", broken)
    ran = run("ask", clips["both"], "What?")
    assert ran.code == 1
    assert "unexpected failure: ZeroDivisionError: boom" in ran.err
    assert "--debug" in ran.err


def test_splitting_arguments(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    file = str(tmp_path / "a.mp4")
    assert split_arguments([file, "What?"], [], None) == ([file], ["What?"])
    assert split_arguments([file, file], ["What?", "Who?"], None) == ([file, file], ["What?", "Who?"])
    with pytest.raises(UsageError, match="no question given"):
        split_arguments([file, file], [], None)
    with pytest.raises(UsageError, match="no question given"):
        split_arguments([file], [], None)
    assert split_arguments([file, file], [], Path("questions.txt")) == ([file, file], [])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold]x[/bold]", "plain [bold]x[/bold]"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("bell\x07 \x9b2J", "bell\\x07 \\x9b2J"),
        ("two\nlines\tand 犬", "two\nlines\tand 犬"),
        ("family: 👨\u200d👩\u200d👧", "family: 👨\u200d👩\u200d👧"),
    ],
)
def test_text_is_shown_inert(text: str, shown: str) -> None:
    assert inert(text) == shown


def test_one_line() -> None:
    assert one_line(" a\n b\x1b ") == "a b\\x1b"


def test_hostile_file_names_and_questions_are_shown_inert(run, clips: dict[str, Path], tmp_path: Path) -> None:
    name = tmp_path / "a[red]b\x1b[2J.mp4"
    name.write_bytes(clips["silent"].read_bytes())
    ran = run("ask", name, name.parent / "none\x1b]0;x\x07.mp4", "[blink]What\x1b[0m?")
    assert "\x1b" not in ran.out + ran.err
    assert ran.records[0]["media"] == str(name)
    assert "none\\x1b]0;x\\x07.mp4" in ran.err
    (record,) = run("ask", name, "[blink]What\x1b[0m?", "--json").records
    assert record["media"] == str(name)
