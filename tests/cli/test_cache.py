"""``ask`` with features on the disk, ``echopix cache``, and the settings of both."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from echopix_cli.decoding.worker import Worker
from echopix_cli.errors import UsageError
from echopix_cli.files import WHOLE
from echopix_cli.settings import resolve


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, switched on, in a folder of the test's own; the folder of features in it."""
    monkeypatch.setenv("ECHOPIX_CACHE", "true")
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def without_costs(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in record.items()
        if name not in ("cached", "latency_s", "tokens_per_second", "peak_memory_bytes", "waited_s")
    }


def features(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_the_second_question_finds_features(run, cached: Path, clips: dict[str, Path]) -> None:
    ask = partial(run, "ask", clips["both"])
    (first,), (second,) = (ask("What?", "--json").records for _ in range(2))
    assert (first["cached"], second["cached"]) == (False, True)
    assert without_costs(first) == without_costs(second)
    assert (second["latency_s"]["vision"], second["latency_s"]["audio"]) == (0.0, 0.0)
    (entry,) = features(cached)
    os.utime(entry, (1, 1))
    ran = ask("Who?", "-v")
    assert ran.code == 0
    assert entry.stat().st_mtime > 1
    assert "cached cached" in " ".join(ran.err.split())
    assert "video track 0: h264, 160×120, 10.00 fps" in ran.err  # as without the cache
    assert "damaged" not in ran.err

    entry.write_bytes(b"torn")
    ran = ask("What?", "--json")
    assert [record["cached"] for record in ran.records] == [False]
    entry.write_bytes(b"torn")
    ran = ask("What?", "-v")
    assert f"note: features kept of {clips['both']} are damaged and are made again" in ran.err
    assert "cached" not in ran.err


def test_the_cache_can_be_left_alone(
    run, cached: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*options: str) -> bool:
        (record,) = run("ask", clips["dark"], "What?", "--json", *options).records
        return bool(record["cached"])

    assert not asked("--no-cache")
    assert not cached.exists()
    assert not asked()
    assert not asked("--no-cache")
    monkeypatch.setenv("ECHOPIX_CACHE", "0")
    assert asked("--cache")
    assert not asked()
    assert run("profile", clips["dark"], "--repeat", "1", "--warmup", "0", "--json", "-b", "1").code == 0
    monkeypatch.setenv("ECHOPIX_CACHE", "1")
    monkeypatch.setenv("ECHOPIX_CACHE_SIZE", "0")
    assert not asked()
    ran = run("profile", clips["silent"], "--repeat", "1", "--warmup", "0", "--json", "-b", "1")
    assert ran.records[0]["budgets"][0]["last"]["cached"] is False
    assert len(features(cached)) == 1


def test_info_and_clear(run, cached: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {
        "schema_version": 1, "path": str(cached), "on": True, "entries": 0, "bytes": 0, "cap_bytes": 2**32,
        "oldest_use": None, "newest_use": None,
    }  # fmt: skip
    assert run("cache", "info", "--json").records == [nothing]
    assert run("cache", "clear", "--json").records == [
        {"schema_version": 1, "path": str(cached), "entries": 0, "bytes": 0}
    ]
    assert not cached.exists()
    for clip in ("silent", "dark"):
        assert run("ask", clips[clip], "What?", "-q").code == 0
    first, second = features(cached)
    os.utime(first, (86400, 86400))
    os.utime(second, (2 * 86400, 2 * 86400))
    total = sum(path.stat().st_size for path in cached.iterdir())
    monkeypatch.setenv("ECHOPIX_CACHE_SIZE", "1.5 MB")
    (record,) = run("cache", "info", "--json").records
    assert record == nothing | {
        "entries": 2, "bytes": total, "cap_bytes": 1_500_000,
        "oldest_use": "1970-01-02T00:00:00+00:00", "newest_use": "1970-01-03T00:00:00+00:00",
    }  # fmt: skip
    ran = run("cache", "info")
    assert (ran.code, ran.err) == (0, "")
    rows = dict(line.split("\t") for line in ran.out.splitlines())
    assert (rows["path"], rows["entries"], rows["state"]) == (str(cached), "2", "on")
    assert rows["size"] == f"{total / 1024:.1f} KiB of 1.4 MiB"
    monkeypatch.setenv("ECHOPIX_CACHE", "no")
    assert "state\toff" in run("cache", "info").out
    ran = run("cache", "clear")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == f"note: removed 2 entries, {total / 1024:.1f} KiB, from {cached}\n"
    assert list(cached.iterdir()) == []


def test_what_cannot_be_removed_is_a_failure(run, cached: Path) -> None:
    (cached / f"{1:064x}.safetensors").mkdir(parents=True)
    ran = run("cache", "clear")
    assert (ran.code, ran.out) == (1, "")
    assert "cannot remove" in ran.err


def test_sizes(tmp_path: Path) -> None:
    def size(text: str) -> int:
        return resolve({}, {"ECHOPIX_CACHE_SIZE": text}, tmp_path / "none.toml").settings.cache_size

    for text, expected in (
        ("0", 0), ("1", 1), ("12B", 12), ("2kB", 2000), ("2KiB", 2048), ("1.5 MB", 1_500_000), ("4GiB", 2**32),
        ("4GB", 4 * 10**9), ("4G", 4 * 10**9), ("1TiB", 2**40),
    ):  # fmt: skip
        assert size(text) == expected
    for text in ("-1", "4 apples", "GiB", "1e9", "4iB", "nan", "4 G B"):
        with pytest.raises(UsageError, match="or a size such as 8G"):
            size(text)
    (tmp_path / "my.toml").write_text("cache_size = 5\ncache = false\n")
    found = resolve({}, {}, tmp_path / "my.toml").settings
    assert (found.cache_size, found.cache) == (5, False)


# --- batches


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the processes that decode are asked for."""
    counts = {"fingerprint": 0, "identity": 0, "decode": 0, "probe": 0}
    original = Worker._talk

    def counting(worker: Worker, what: str, *arguments: Any) -> Any:
        counts[what] += 1
        return original(worker, what, *arguments)

    monkeypatch.setattr(Worker, "_talk", counting)
    return counts


def test_a_batch_with_another_question_decodes_nothing(
    run, cached: Path, clips: dict[str, Path], tmp_path: Path, served: dict[str, int]
) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    padding = WHOLE.to_bytes(4, "big") + b"free" + bytes(WHOLE - 8)
    (folder / "large.m4a").write_bytes(clips["dark"].read_bytes() + padding)
    (folder / "both.mp4").write_bytes(clips["both"].read_bytes())
    (folder / "bad.mp4").write_text("no media\n" * 9)
    (one,) = run("ask", folder / "both.mp4", "What?", "--json").records  # which batches find, too
    assert served == {"fingerprint": 0, "identity": 1, "decode": 1, "probe": 1}
    served.update(dict.fromkeys(served, 0))
    first = run("ask", folder, "What?", "-o", tmp_path / "out.jsonl")
    assert served == {"fingerprint": 3, "identity": 1, "decode": 1, "probe": 3}
    assert "2 answered, 1 failed" in first.err
    assert len(features(cached)) == 2
    served.update(dict.fromkeys(served, 0))
    second = run("ask", folder, "-Q", "What?", "-Q", "Who?", "--json")
    assert second.code == 1
    assert served == {"fingerprint": 3, "identity": 1, "decode": 0, "probe": 3}  # one of which always fails
    found = {(Path(r["media"]).name, r["question"]): r for r in second.records if "error" not in r}
    assert {key: record["cached"] for key, record in found.items()} == {
        (name, question): True for name in ("both.mp4", "large.m4a") for question in ("What?", "Who?")
    }
    same = without_costs(found["both.mp4", "What?"])
    assert {name: same[name] for name in without_costs(one)} == without_costs(one)

    (folder / "both.mp4").write_bytes(clips["both"].read_bytes() + b"\0\0\0\x08free")
    os.utime(folder / "large.m4a", (1, 1))
    served.update(dict.fromkeys(served, 0))
    third = run("ask", folder, "What?", "--json", "--start", "0")
    assert served["decode"] == 2
    assert [record["cached"] for record in third.records if "error" not in record] == [False, False]


# --- two at once


@pytest.mark.slow
def test_two_processes_ask_at_once(run, cached: Path, clips: dict[str, Path], random_checkpoint: Path) -> None:
    """Both answer, whoever is first; and a third finds what they kept."""
    environment = {**os.environ, "ECHOPIX_MODEL": str(random_checkpoint), "ECHOPIX_MAX_NEW_TOKENS": "4"}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "echopix_cli", "ask", str(clips["both"]), "What?", "-q"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    ran = run("ask", clips["both"], "What?", "--json")
    assert ran.records[0]["cached"] is True
    assert [out.strip() for out, _ in ended] == [ran.records[0]["answer"]] * 2
    # Nothing but what a sieve left out, which is said of every file.
    lines = [line for _, err in ended for line in err.splitlines()]
    assert [line for line in lines if "was kept (0 of" not in line] == []
    assert len(features(cached)) == 1
    assert [path.name for path in cached.iterdir() if path.name.startswith(".")] == []
