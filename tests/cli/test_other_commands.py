"""``profile``, ``config``, start-up cost, completions."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from places import ROOT
from rich.console import Console

from echopix_cli.cli.app import main
from echopix_cli.cli.bench_tables import profile_table, spread
from echopix_cli.cli.options import Run
from echopix_cli.cli.profile import DEFAULT_QUESTION, profile_record
from echopix_cli.engine import AskOptions, Engine, GenerationOptions
from echopix_cli.measure.profiling import Profile, profile
from echopix_cli.measure.rounds import Spread
from echopix_cli.media import DecodePlan
from echopix_cli.results import DEMONSTRATION
from echopix_cli.settings import TABLE, resolve


@pytest.fixture(scope="module")
def measured(random_checkpoint: Path, clips: dict[str, Path]) -> Profile:
    engine = Engine.load(str(random_checkpoint))
    options = AskOptions(generation=GenerationOptions(4))
    return profile(engine, str(clips["both"]), engine.plan(DecodePlan()), "What?", [0.1], repeat=2, options=options)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_profile_table_and_json_agree(measured: Profile, width: int) -> None:
    """Both drawn from one measurement; nothing is cut short at any width."""
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(profile_table(measured))
    table = console.export_text()
    record = profile_record(measured)
    assert [row["budget"] for row in record["budgets"]] == [1.0, 0.1]
    assert "…" not in table
    assert max(map(len, table.splitlines())) <= width
    for row in record["budgets"]:
        tokens, stages = row["last"]["tokens"], row["stages_s"]
        assert f"{tokens['video']['kept']}/{tokens['video']['total']}" in table
        assert f"{tokens['audio']['kept']}/{tokens['audio']['total']}" in table
        low, high = (row["speedup_interval"][end] for end in ("low", "high"))
        assert f"{row['speedup']:.2f}× ({low:.2f}–{high:.2f})" in table
        for name in ("forward", "sieve", "prefill", "first_token", "generate", "total"):
            assert spread(Spread(**stages[name])) in table


def test_the_profile_table_repeats_no_notice_of_loading(measured: Profile) -> None:
    notices = ("3 frames are damaged", DEMONSTRATION)
    rows = tuple(replace(row, answer=replace(row.answer, notices=notices)) for row in measured.rows)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(profile_table(replace(measured, rows=rows)))
    shown = console.export_text()
    assert "3 frames are damaged" in shown
    assert DEMONSTRATION not in shown


def test_profile_asks_what_the_bundled_model_can_answer() -> None:
    """The default question, about the clip that comes with it."""
    demo = ROOT / "echopix_cli" / "assets" / "demo.mp4"
    engine = Engine.load("tiny")
    answer = engine.ask(engine.read(str(demo), engine.plan(DecodePlan())), DEFAULT_QUESTION)
    assert answer.answer == demo.with_name("demo.answer.txt").read_text().strip()


def test_profile_reads_its_budget_from_the_settings_too(
    run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECHOPIX_BUDGET", "0.7")
    monkeypatch.setenv("ECHOPIX_TEMPERATURE", "5")
    (record,) = run("profile", clips["silent"], "--repeat", "1", "--warmup", "0", "--json").records
    assert [row["budget"] for row in record["budgets"]] == [1.0, 0.7]
    assert run("profile", clips["silent"], "--repeat", "1", "--warmup", "0", "-b", "1.0").code == 0


def test_profile_describes_the_file_too(run, clips: dict[str, Path]) -> None:
    ran = run("profile", clips["both"], "-v", "--json", "--repeat", "1", "--warmup", "0", "-b", "1.0")
    assert "video track 0: h264, 160×120" in ran.err


def test_profile_describes_within_the_limits(run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPIX_LIMIT_TRACKS", "1")
    ran = run("profile", clips["both"], "-v", "--json", "--repeat", "1", "--warmup", "0", "-b", "1.0")
    assert ran.code == 4
    assert "2 tracks" in ran.err
    assert "video track 0" not in ran.err, "it was opened beyond its limit to be described"


@pytest.mark.parametrize(
    ("codec", "pixels"), [("png", "rgb24"), ("mjpeg", "yuvj420p"), ("bmp", "bgr24"), ("tiff", "rgb24")]
)
def test_a_still_picture_is_forecast_as_one(codec: str, pixels: str, tmp_path: Path) -> None:
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 48, pixels, Fraction(1, 25)
    packets = [*encoder.encode(av.VideoFrame(64, 48, pixels)), *encoder.encode(None)]
    picture = tmp_path / "picture"
    picture.write_bytes(b"".join(map(bytes, packets)))
    work = Run.begin({}).workload([str(picture)], 1.0)
    assert (work.frames, work.audio_seconds) == (1, 0.0)


def test_profile_default_budgets(run, clips: dict[str, Path]) -> None:
    (record,) = run("profile", clips["silent"], "--repeat", "1", "--warmup", "0", "--json").records
    assert [row["budget"] for row in record["budgets"]] == [1.0, 0.2, 0.1, 0.05]


def test_precedence(tmp_path: Path) -> None:
    """Flag over environment over file over default."""
    file = tmp_path / "config.toml"
    file.write_text("\ufefffps = 1.0\nmax_frames = 7\nno_audio = true\nbudget = 0.5\n")
    environment = {"ECHOPIX_FPS": "3", "ECHOPIX_BUDGET": "0.25"}
    found = resolve({"budget": "0.05", "no_audio": None}, environment, file)
    assert resolve({"no_audio": False}, environment, file).origins["no_audio"] == "flag"
    assert {
        name: (getattr(found.settings, name), found.origins[name])
        for name in ("budget", "fps", "max_frames", "no_audio", "model")
    } == {
        "budget": (0.05, "flag"),
        "fps": (3.0, "environment"),
        "max_frames": (7, "file"),
        "no_audio": (True, "file"),
        "model": ("auto", "default"),
    }


def test_config_shows_where_values_come_from(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.toml"
    file.write_text("max_frames = 9\n")
    monkeypatch.setenv("ECHOPIX_CONFIG", str(file))
    monkeypatch.setenv("ECHOPIX_START", "01:30")
    (record,) = run("config", "--json").records
    settings = record["settings"]
    assert set(settings) == set(TABLE)
    assert settings["max_frames"] == {"value": 9, "origin": "file"}
    assert settings["start"] == {"value": 90.0, "origin": "environment"}
    assert settings["temperature"] == {"value": 0.0, "origin": "default"}
    text = run("config").out
    assert "ECHOPIX_MAX_FRAMES" in text
    assert str(file) in text


def test_config_says_values_as_a_file_would(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied into one, they are read as what they were."""
    monkeypatch.setenv("ECHOPIX_CONFIG", os.devnull)
    monkeypatch.setenv("ECHOPIX_LOOK", "all")
    monkeypatch.setenv("ECHOPIX_LIMIT_MEMORY", "8000000000")
    before = {name: own["value"] for name, own in run("config", "--json").records[0]["settings"].items()}
    said = [line.split()[:2] for line in run("config").out.splitlines()[1:]]
    assert {("look", '"all"'), ("limit_memory", '"8GB"'), ("cache_size", '"4GiB"')} < set(map(tuple, said))
    file = tmp_path / "copy.toml"
    file.write_text("\n".join(f"{name} = {value}" for name, value in said if value != "-"))
    assert asdict(resolve({}, {}, file).settings) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budgte = 1\n", "'budgte'"),
        ("max_frames = true\n", "max_frames"),
        ("no_audio = 3\n", "no_audio"),
        ("fps = 0\n", "fps"),
        ("fps =", "cannot read"),
        ('model = ["a"]', "text or a number"),
        ("system = 1979-05-27", "text or a number"),
        ('cache_dir = ""', "expected a folder"),
    ],
)
def test_a_config_file_that_does_not_fit(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    file = tmp_path / "my.toml"
    file.write_text(text)
    monkeypatch.setenv("ECHOPIX_CONFIG", str(file))
    for name in ("ECHOPIX_CACHE_DIR", "ECHOPIX_MODEL"):
        monkeypatch.delenv(name, raising=False)
    ran = run("config")
    assert ran.code == 2
    assert said in ran.err


def test_a_config_file_that_is_named_and_not_there(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo would silently be another model."""
    monkeypatch.setenv("ECHOPIX_CONFIG", str(tmp_path / "none.toml"))
    ran = run("config")
    assert (ran.code, ran.out) == (2, "")
    assert "ECHOPIX_CONFIG names" in ran.err and "does not exist" in ran.err


@pytest.mark.parametrize("words", [("--queue", "3"), ("--json",), ("--root", "/"), ("--stop", "--status")])
def test_options_of_serve_that_would_do_nothing(run, words: tuple[str, ...]) -> None:
    ran = run("serve", *words)
    assert (ran.code, ran.out) == (2, "")


def test_a_closed_stdin_holds_nothing(run, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["ask", clips["silent"], "-"], ["ask", "-", "What?"], ["ask", "--input", "-"]):
        monkeypatch.setattr("sys.stdin", None)
        ran = run(*arguments)
        assert (ran.code, ran.out) == (2, ""), arguments
        assert "unexpected" not in ran.err


def test_sigterm_ends_it_through_what_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As process 1 of a container, too, for which the system does nothing by itself."""
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def command_line(*names: str) -> Any:
        def run(**options: object) -> None:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            finally:
                cleaned.append(True)

        return run

    monkeypatch.setattr("echopix_cli.cli.app.command_line", command_line)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (ended.value.code, cleaned) == (143, [True])


def test_a_folder_where_a_completion_belongs(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "bash-completion" / "completions" / "echopix").mkdir(parents=True)
    ran = run("--install-completion")
    assert (ran.code, ran.out) == (2, "")
    assert "is a folder" in ran.err


def test_environment_values_are_checked(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPIX_DTYPE", "int3")
    ran = run("config")
    assert ran.code == 2
    assert "ECHOPIX_DTYPE" in ran.err


HEAVY = ("torch", "transformers", "av", "bitsandbytes", "soundfile", "numpy", "huggingface_hub", "matplotlib", "rich")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--help"], {}),
        (["ask", "--help"], {}),
        (["profile", "--help"], {}),
        (["scene", "--help"], {}),
        (["eval", "--help"], {}),
        (["train", "--help"], {}),
        (["doctor", "--help"], {}),
        (["models", "pull", "--help"], {}),
        (["--version"], {}),
        (["config"], {}),
        (["help", "models", "pull"], {}),
        (["--show-completion", "bash"], {}),
    ],
)
def test_nothing_heavy_is_imported_to_show_help(arguments: list[str], environment: dict[str, str]) -> None:
    """In a process of its own: what is imported when the command has ended."""
    code = (
        "import sys\nsys.argv[0] = 'echopix'\nfrom echopix_cli.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code, left.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr.strip().splitlines()[-1] == "[]"
    assert done.stdout


@pytest.mark.parametrize("words", ["ask demo", "doctor"])
def test_a_working_folder_that_was_deleted_is_said(tmp_path: Path, words: str) -> None:
    """In a process of its own: the libraries under torch would end it in words of their own."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"rmdir {gone}; exec {sys.executable} -m echopix_cli {words}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", code], cwd=gone, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the working folder was deleted\n  try: cd to a folder that exists, and run it again\n"
    )


def test_version(run) -> None:
    from echopix_cli import __version__

    assert run("--version").out == f"echopix {__version__}\n"


def test_completions_and_reference_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "completions" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    assert done.returncode == 0


def test_bash_completion_offers_commands_and_options() -> None:
    from echopix_cli.cli.app import command_line

    app = command_line()

    script = ROOT / "completions" / "echopix.bash"

    def offered(*words: str) -> list[str]:
        listing = " ".join(f"'{word}'" for word in words)
        code = (
            f"source '{script}'; compopt() {{ :; }}; COMP_WORDS=({listing}); COMP_CWORD=$(({len(words)}-1)); "
            '_echopix; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()

    commands = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    commands += [group.typer_instance.info.name for group in app.registered_groups]
    assert offered("echopix", "") == sorted(commands)
    assert offered("echopix", "models", "p") == ["path", "prune", "pull"]
    assert offered("echopix", "models", "pull", "--dry") == ["--dry-run"]
    assert offered("echopix", "ask", "a.mp4", "--bud") == ["--budget"]
    assert offered("echopix", "ask", "--device", "cu") == ["cuda"]
    assert offered("echopix", "scene", "--split", "un") == ["unseen-font"]
    assert offered("echopix", "scene", "--family", "o") == ["object", "order"]


@pytest.mark.parametrize(("shell", "name"), [("zsh", "_echopix"), ("fish", "echopix.fish"), ("bash", "echopix.bash")])
def test_completions_are_valid(shell: str, name: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    subprocess.run([shell, "-n", str(ROOT / "completions" / name)], check=True)


def test_interrupting_ends_with_130(clips: dict[str, Path], random_checkpoint: Path, tmp_path: Path) -> None:
    """Ctrl-C while the program works: one line, no traceback, exit 130."""
    files = [str(tmp_path / f"{number}.mp4") for number in range(200)]
    for file in files:
        os.link(clips["both"], file)
    process = subprocess.Popen(
        [sys.executable, "-m", "echopix_cli", "ask", "-m", str(random_checkpoint), *files, "What?"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    process.stdout.readline()  # it is at work
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"Interrupted; \d+ of 200 done", err)
    assert "Traceback" not in err
