"""``echopix doctor``: everything tried on this machine, and broken things named with a remedy."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from echopix_cli import __version__
from echopix_cli.cli.demo import right_answer


def findings(ran: Any) -> dict[str, dict[str, str]]:
    return {finding["name"]: finding for finding in json.loads(ran.out)["findings"]}


def test_a_healthy_machine(command: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    ran = command("doctor", "--json")
    found = findings(ran)
    assert ran.code == 0, ran.out
    assert json.loads(ran.out)["healthy"] is True
    assert {name for name, finding in found.items() if finding["state"] == "broken"} == set()
    assert f"echopix {__version__}" in found["python"]["detail"]
    assert f"hears {right_answer()!r}" in found["tiny"]["detail"]
    assert "4 frames, sound used" in found["video"]["detail"]
    assert "0.5 s" in found["sound"]["detail"]
    assert found["bitsandbytes"]["state"] == "ok"
    assert {"qwen2.5-omni-3b", "qwen2.5-omni-7b", "auto", "cache", "config"} <= set(found)
    assert "hub" not in found
    own = tmp_path_factory.getbasetemp()  # of the tests, whatever this machine's person has
    assert found["hub cache"]["detail"].startswith(f"{own / 'no-hub' / 'hub'}, ")


def test_what_is_broken_is_named(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path / "file" / "cache"))
    ran = command("doctor")
    assert ran.code == 1
    (line,) = [line for line in ran.out.splitlines() if line.startswith("broken")]
    assert "not writable" in line
    assert "ECHOPIX_CACHE_DIR" in ran.out.splitlines()[ran.out.splitlines().index(line) + 1]


def test_the_hub_is_asked_only_when_wanted(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and hangs up: reached with --online, and never without."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        assert command("doctor", "--json").code == 0
        with pytest.raises(TimeoutError):
            server.accept()
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    ran = command("doctor", "--online", "--json")
    assert ran.code == 1
    assert findings(ran)["hub"]["state"] == "broken"
    assert endpoint in findings(ran)["hub"]["detail"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    ran = command("doctor", "--online", "--json")
    assert ran.code == 0
    assert findings(ran)["hub"]["state"] == "note"


def test_a_mistake_in_the_hubs_environment_is_a_finding_among_others(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    ran = command("doctor", "--online", "--json")
    assert (ran.code, findings(ran)["hub"]["state"]) == (1, "broken")
    assert findings(ran)["hub"]["detail"] == "HF_ENDPOINT=nonsense is no address of a server"


def test_a_broken_config_file_is_a_finding_among_others(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text("budgte = 1\n")
    monkeypatch.setenv("ECHOPIX_CONFIG", str(tmp_path / "config.toml"))
    ran = command("doctor", "--json")
    found = findings(ran)
    assert ran.code == 1
    assert {name for name, finding in found.items() if finding["state"] == "broken"} == {"settings"}
    assert "config" not in found  # the one that was read is none of the user's
    assert (found["settings"]["detail"], found["settings"]["hint"]) == (
        f"{tmp_path / 'config.toml'} sets 'budgte', which is no setting",
        "budget",
    )
    assert f"hears {right_answer()!r}" in found["tiny"]["detail"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CONFIG", "gone.toml", "ECHOPIX_CONFIG names gone.toml, which does not exist"),
        ("BUDGET", "7", "ECHOPIX_BUDGET: '7' does not fit"),
        ("START", "x", "ECHOPIX_START: "),
    ],
)
def test_a_wrong_setting_is_one_finding_and_all_else_is_tried(
    command: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    whole = findings(command("doctor", "--json")).keys()
    monkeypatch.setenv("ECHOPIX_CONFIG", "/dev/null")  # put back at the end
    monkeypatch.setenv(f"ECHOPIX_{name}", value)
    ran = command("doctor", "--json")
    found = findings(ran)
    assert (ran.code, ran.err) == (1, "")
    assert [key for key, finding in found.items() if finding["state"] == "broken"] == ["settings"]
    assert found["settings"]["detail"].startswith(said) and found["settings"]["hint"]
    assert found.keys() == {"settings", *whole} - {"config"}


def test_libraries_say_nothing_in_between(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import warnings

    from echopix_cli.cli import doctor

    def chatter(run: Any) -> Any:
        warnings.warn("a library warns", stacklevel=1)
        print("a library prints")
        print("a library complains", file=sys.stderr)
        yield doctor.Finding("chatter", "ok", "fine")

    monkeypatch.setattr(doctor, "_versions", chatter)
    for name in ("_device", "_bitsandbytes", "_video", "_sound", "_model", "_disk", "_fitting"):
        monkeypatch.setattr(doctor, name, chatter)
    ran = command("doctor")
    assert ran.code == 0
    assert (set(ran.out.splitlines()), ran.err) == (
        {"ok      config           /dev/null", "ok      chatter          fine"},
        "",
    )


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_rows_on_a_terminal_lose_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    from echopix_cli.cli.output import Output

    cells = ("limit_decoded_frames", "3000000", "default", "and a long text of many words " * 4)
    monkeypatch.setenv("COLUMNS", str(columns))
    Output().columns(cells, (22, 16, 7))
    piped = capsys.readouterr().out
    assert piped.count("\n") == 1
    output = Output()
    monkeypatch.setattr(type(output), "answers_on_terminal", True)
    output.columns(cells, (22, 16, 7))
    shown = capsys.readouterr().out
    assert all(len(line) <= columns for line in shown.splitlines())
    assert shown.split() == piped.split()
