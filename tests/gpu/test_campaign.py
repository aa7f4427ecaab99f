"""The campaign goes its whole way without a GPU, and what is packed for a bare machine is what is used there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from places import ROOT, load_script

HERE = ROOT / "tests" / "gpu"


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    files = {
        "bitsandbytes-1-py3-none-any.whl": [
            "bitsandbytes/__init__.py",
            "bitsandbytes/libbitsandbytes_cpu.so",
            "bitsandbytes/libbitsandbytes_cuda130.so",
            "bitsandbytes/libbitsandbytes_cuda118.so",
            "bitsandbytes/libbitsandbytes_rocm70.so",
        ],
        "av-18-cp312-abi3-any.whl": ["av/__init__.py", "av/frame.pyi", "av/tests/test_it.py", "av.libs/libavcodec.so"],
    }
    for name, members in files.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in members:
                archive.writestr(member, member)
    return [tmp_path / name for name in files]


def test_what_is_packed_is_what_is_used(wheels: list[Path], tmp_path: Path) -> None:
    pack, target = load_script(HERE / "pack.py"), tmp_path / "carried.tar.xz"
    assert pack.pack(wheels, target, "130") == target.stat().st_size
    with tarfile.open(target) as archive:
        found = {member.name: archive.extractfile(member) for member in archive}
        assert set(found) == {
            "bitsandbytes/__init__.py",
            "bitsandbytes/libbitsandbytes_cpu.so",
            "bitsandbytes/libbitsandbytes_cuda130.so",
            "av/__init__.py",
            "av.libs/libavcodec.so",
        }
        assert all(file is not None and file.read().decode() == name for name, file in found.items())


def campaign(out: Path, parts: str, *more: str) -> tuple[int, dict[str, str]]:
    command = [sys.executable, str(HERE / "campaign.py"), str(out), "--device", "cpu", "--shape", "tiny"]
    done = subprocess.run([*command, "--parts", parts, *more], capture_output=True, text=True, env=dict(os.environ))
    return done.returncode, json.loads((out / "ended.json").read_text())


@pytest.mark.slow
def test_parts_write_what_they_found(tmp_path: Path) -> None:
    code, ended = campaign(tmp_path, "correct,speed-3b,tokens-3b,memory-3b,films-3b")
    logs = {name: (tmp_path / f"{name}.log").read_text() for name in ended}
    assert ended == dict.fromkeys(("correct", "speed-3b", "tokens-3b", "memory-3b", "films-3b"), "ok"), logs
    assert code == 0
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ended}
    assert all(part["finished"] and part["machine"]["torch"] for part in found.values())
    assert found["correct"]["vectors"].endswith(" 0 mismatched")
    assert found["correct"]["against_transformers"]["equal"]
    assert [row["budget"] for row in found["speed-3b"]["2s"]["rows"]] == [1.0, 1.0, 0.2, 0.1, 0.05]
    assert set(found["tokens-3b"]["20 rows"]["rates"]) == {"ours", "ours without graphs", "transformers"}
    assert {"nf4 making", "nf4 loading", "nf4 asking", "none loading"} <= set(found["memory-3b"])
    for copies in (3, 12):
        first, second = found["films-3b"][f"{copies} windows"]
        assert first["film"]["windows"] == copies and not first["cached"] and second["cached"]
        assert first["moments"] and second["moments"]


@pytest.mark.slow
def test_a_cut_leaves_what_was_done(tmp_path: Path) -> None:
    """The time for all parts runs out in the first: it is ended, and the next is not begun."""
    code, ended = campaign(tmp_path, "correct,speed-3b", "--seconds", "5.5")
    assert code == 1
    assert ended["correct"].startswith("stopped after")
    assert ended["speed-3b"] == "no time left"
    assert json.loads((tmp_path / "correct.json").read_text())["machine"]["device"] == "cpu"
