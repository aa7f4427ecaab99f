"""Films by ``echopix ask``: what of its options one file in one window is tested with holds for them, too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from clips import write_clip

from echopix_cli.decoding.worker import Worker


@pytest.mark.parametrize("option", ["--choices", "--input", "--report", "--vtt"])
def test_a_film_takes_the_options_that_a_clip_takes(
    run: Any, clips: dict[str, Path], tmp_path: Path, option: str
) -> None:
    out = tmp_path / "out"
    task = {"id": "a", "media": str(clips["both"]), "question": "What?", "budget": 0.5, "start": 0.5, "end": 2.5}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    values = {"--choices": "a dog|a violin|a trumpet", "--input": tmp_path / "tasks.jsonl"}
    asked = [] if option == "--input" else [clips["both"], "What?"]
    ran = run("ask", *asked, "--window", "1", "--json", option, values.get(option, out))
    assert ran.code == 0, ran.err
    (record,) = ran.records
    part = option == "--input"
    assert record["film"]["windows"] == (2 if part else 3)
    begin, end = (0.5, 2.5) if part else (0.0, 3.1)
    assert record["moments"] and all(begin <= one["start"] < one["end"] <= end for one in record["moments"])
    if option == "--choices":
        assert [one["text"] for one in record["choices"]] == ["a dog", "a violin", "a trumpet"]
        assert sum(one["probability"] for one in record["choices"]) == pytest.approx(1.0, abs=1e-5)
        assert record["answer"] == max(record["choices"], key=lambda one: one["probability"])["text"]
    elif option == "--input":
        assert (record["id"], record["budget"]) == ("a", 0.5)
        assert (record["sampling"]["start"], record["sampling"]["end"]) == (0.5, 2.5)
        assert record["film"]["share"] == min(
            0.5, record["film"]["survivors"] / sum(record["tokens"][name]["total"] for name in ("video", "audio"))
        )
    elif option == "--report":
        assert f"3 windows of 0:01, {record['film']['survivors']} tokens in the last prompt" in out.read_text()
    else:
        text = out.read_text()
        assert text.startswith("WEBVTT ") and text.count(" --> ") == len(record["moments"])


def test_what_is_interrupted_in_a_film_goes_on_from_the_windows_that_it_read(
    run: Any, random_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows, path, kept = 40, write_clip(tmp_path / "a.mkv", seconds=39.5), tmp_path / "cache" / "features"
    monkeypatch.setenv("ECHOPIX_CACHE", "true")
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ECHOPIX_MODEL", str(random_checkpoint))
    command = ["ask", str(path), "What?", "--window", "1", "--device", "cpu", "--dtype", "float32", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "echopix_cli", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    ) as asking:
        until = time.monotonic() + 120
        while len(list(kept.glob("*.safetensors"))) < 4:
            assert time.monotonic() < until and asking.poll() is None
            time.sleep(0.001)
        asking.send_signal(signal.SIGINT)
        out, err = asking.communicate(timeout=60)
    assert (asking.returncode, out) == (130, b""), err
    before = {file.name: file.stat().st_ino for file in kept.glob("*.safetensors")}
    assert 4 <= len(before) < windows
    decode, starts = Worker.decode, list[float]()

    def decoded(worker: Worker, path: str, plan: Any) -> Any:
        starts.append(plan.start)
        return decode(worker, path, plan)

    monkeypatch.setattr(Worker, "decode", decoded)
    ran = run(*command)
    assert ran.code == 0
    (record,) = ran.records
    assert (record["film"]["windows"], record["film"]["unread"], record["cached"]) == (windows, 0, False)
    after = {file.name: file.stat().st_ino for file in kept.glob("*.safetensors")}
    assert before.items() <= after.items() and len(after) == windows, "those that were read are found again"
    assert len(starts) == len(after) - len(before), "and not decoded"
    assert starts == [windows - 1.0, *map(float, range(int(starts[1]), windows - 1))], "the last tells how long it is"
