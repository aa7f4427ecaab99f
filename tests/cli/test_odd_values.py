"""Values that nobody types on purpose: empty, huge, long, not text, or at the wrong place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from echopix_cli.cli.chat_prompt import _history
from echopix_cli.errors import UsageError
from echopix_cli.files import check_target, write_whole
from echopix_cli.settings import resolve


@pytest.mark.parametrize("name", ["keep_source", "cache", "server", "fps"])
def test_an_empty_variable_is_none(name: str) -> None:
    """As a compose file writes one that has no value."""
    found = resolve({}, {f"ECHOPIX_{name.upper()}": ""})
    assert found.origins[name] == "default"
    assert getattr(found.settings, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [("CACHE_SIZE", "9" * 400), ("START", f"{'9' * 400}:00:00"), ("MAX_FRAMES", "9" * 400), ("FPS", "9" * 400)],
)
def test_numbers_beyond_all_measure_are_refused(run, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"ECHOPIX_{name}", value)
    ran = run("config")
    assert ran.code == 2
    assert ran.err.count("error: ") == 1 and f"ECHOPIX_{name}" in ran.err and "Traceback" not in ran.err


def test_a_folder_in_the_config_file_starts_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is the same one from wherever the program is called."""
    file = tmp_path / "settings" / "config.toml"
    file.parent.mkdir()
    file.write_text('cache_dir = "kept"\n')
    found = set()
    for folder in (tmp_path, file.parent):
        monkeypatch.chdir(folder)
        found.add(resolve({}, {}, file).settings.cache_dir)
    assert found == {str(file.parent / "kept")}
    assert resolve({}, {"ECHOPIX_CACHE_DIR": "kept"}, file).settings.cache_dir == str(file.parent / "kept")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ask", "demo", "--quiet=yes"], "--quiet takes no value"),
        (["models", "list", "--json=1"], "--json takes no value"),
        (["profile", "demo", "-Q", ""], "the question is empty"),
        (["profile", "demo", "-Q", "\udcff"], "the question is not valid UTF-8"),
        (["--show-completion", "tcsh"], "echopix --show-completion bash"),
        (["train", "--out", "x", "--without-sieve"], "add --export DIR"),
        (["train", "--out", "x", "--export", "y", "--seconds", "3"], "--seconds means nothing with --export"),
        (["train", "--out", "x", "--seconds", "nan"], "--seconds"),
        (["train", "--out", "x", "--seconds", "-5"], "--seconds"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_done(
    run, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ask", "", "What?"], 4, "'' does not exist"),
        (["ask", "", "-Q", "What?"], 4, "'' does not exist"),
        (["chat", ""], 4, "'' does not exist"),
        (["profile", ""], 4, "'' does not exist"),
        (["bench", "", "--shape", "tiny"], 4, "'' does not exist"),
        (["ask", "demo", "What?", "--model", ""], 2, "--model: the name is empty"),
        *((["models", command, ""], 3, "no model named ''") for command in ("info", "path", "verify", "pull", "rm")),
    ],
)
def test_an_empty_name_of_media_or_a_model_is_told(
    run, words: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a shell writes a variable that is not set: no message lacks its subject, and none means this folder."""
    monkeypatch.chdir(tmp_path)
    ran = run(*words)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(f"error: {said}") and "\n  try: " in ran.err
    assert list(tmp_path.iterdir()) == []


def test_the_longest_names_that_a_disk_takes(tmp_path: Path) -> None:
    name = "ä" * 127 + "a"  # 255 bytes
    check_target(tmp_path / name)
    write_whole(tmp_path / name, b"content")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(UsageError, match="256 bytes is too long"):
        check_target(tmp_path / f"{name}b")


@pytest.mark.parametrize("stream", ["2>/dev/full", "2>&-"])
def test_the_traceback_of_debug_goes_where_errors_go(stream: str) -> None:
    """Nowhere, where they go nowhere; never to the records."""
    done = subprocess.run(
        f"exec {sys.executable} -m echopix_cli profile nofile --debug --json {stream}",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (4, "")


def test_the_traceback_of_debug_is_only_shown(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("scene", "x\x1b]0;mine\x07.avi", "--debug")
    assert ran.code == 2 and "Traceback" in ran.err
    assert "\x1b" not in ran.err and "\x07" not in ran.err


def test_a_history_that_the_disk_refuses_is_kept_for_now(tmp_path: Path) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "from pathlib import Path; from echopix_cli.cli.chat_prompt import _history\n"
        f"kept = _history(Path({str(tmp_path / 'lines')!r})); kept.append_string('What?'); print(kept.get_strings())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['What?']\n", "")
    kept = _history(tmp_path / "lines")
    kept.append_string("Who?")
    assert list(_history(tmp_path / "lines").load_history_strings()) == ["Who?"]
    (tmp_path / "lines").unlink()
    assert list(kept.load_history_strings()) == []
    assert json.dumps(kept.get_strings()) == '["Who?"]'
