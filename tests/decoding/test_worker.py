"""Workers that crash, hang or are closed, for real: signals hit the process while it has a file in hand."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import threading
import time
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import gone, pid_of

from echopix_cli.decoding import nursery
from echopix_cli.decoding import worker as worker_module
from echopix_cli.decoding.channel import Channel
from echopix_cli.decoding.worker import Decoded, Heard, Ready, Worker, borrowed, probe
from echopix_cli.errors import FileLost, MediaError
from echopix_cli.files import identity_of, sha256_of
from echopix_cli.media import Clip, DecodePlan, Limits, load_clip
from echopix_cli.media import probe as probe_here

PLAN = DecodePlan(max_frames=4)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(timeout=30.0)
    yield made
    made.close()


def channel_of(worker: Worker) -> Channel:
    assert worker._channel is not None
    return worker._channel


def nursery_pid() -> int:
    started = nursery._started
    return started if isinstance(started, int) else started.pid


def stopped(worker: Worker, clip: Path) -> int:
    """A worker that has started and will not answer the next request."""
    worker.fingerprint(str(clip))
    os.kill(pid_of(worker), signal.SIGSTOP)
    return pid_of(worker)


def silence(path: Path, seconds: int) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(bytes(2 * 16000 * seconds))


def test_a_clip_is_what_decoding_here_gives(worker: Worker, clips: dict[str, Path]) -> None:
    there, here = worker.decode(str(clips["both"]), PLAN), load_clip(clips["both"], PLAN)
    assert isinstance(there.clip, Clip)
    for name in ("frames", "frame_times", "waveform"):
        assert np.array_equal(getattr(there.clip, name), getattr(here, name))
    assert (there.clip.path, there.clip.notices) == (str(clips["both"]), here.notices)
    assert there.seconds > 0
    assert worker.fingerprint(str(clips["both"])) == sha256_of(clips["both"])


def test_parts_come_as_they_are_ready_and_are_the_clips_own(worker: Worker, clips: dict[str, Path]) -> None:
    *parts, decoded = worker.stream(str(clips["both"]), DecodePlan(fps=25.0))
    here = load_clip(clips["both"], DecodePlan(fps=25.0))
    assert isinstance(decoded, Decoded) and decoded.clip.frames is not None and here.frames is not None
    assert isinstance(parts[0], Heard) and parts[0].waveform is decoded.clip.waveform
    counts = [part.count for part in parts[1:] if isinstance(part, Ready)]
    assert counts == list(range(1, len(here.frames) + 1))
    assert all(part.frames is decoded.clip.frames for part in parts[1:] if isinstance(part, Ready))
    assert np.array_equal(decoded.clip.frames, here.frames)
    decoded.clip.frames[0] = 0  # as any array


def test_frames_are_final_when_they_are_announced(worker: Worker, clips: dict[str, Path]) -> None:
    here = load_clip(clips["silent"], DecodePlan(fps=25.0)).frames
    assert here is not None
    for part in worker.stream(str(clips["silent"]), DecodePlan(fps=25.0)):
        if isinstance(part, Ready):
            assert np.array_equal(part.frames[: part.count], here[: part.count])


def test_whoever_is_slow_holds_up_no_decoder(worker: Worker, clips: dict[str, Path]) -> None:
    """Announcements that nobody reads are dropped; the last one, which is the clip, never is."""
    parts = worker.stream(str(clips["silent"]), DecodePlan(fps=25.0, max_frames=10_000, min_frames=4))
    assert isinstance(next(parts), Ready)
    time.sleep(1.0)
    assert isinstance(list(parts)[-1], Decoded)


def test_lost_frames_are_another_array(worker: Worker, clips: dict[str, Path], tmp_path: Path) -> None:
    """What was announced before is right as far as it goes, and the clip is what decoding here gives."""
    data = bytearray(clips["silent"].read_bytes())
    begin, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    middle = begin + 4 * (end - begin) // 5
    data[middle:end] = bytes(end - middle)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    plan = DecodePlan(fps=25.0)
    here = load_clip(path, plan)
    *parts, there = worker.stream(str(path), plan)
    assert isinstance(there, Decoded) and there.clip.frames is not None and here.frames is not None
    assert np.array_equal(there.clip.frames, here.frames)
    assert there.clip.notices == here.notices != ()
    assert parts


def test_what_a_header_says_is_told_from_there(clips: dict[str, Path], tmp_path: Path) -> None:
    assert probe(str(clips["both"]), Limits()) == probe_here(clips["both"])
    with pytest.raises(MediaError, match="does not exist"):
        probe(str(tmp_path / "none.mp4"), Limits())


def test_paths_start_where_the_program_is_now(
    worker: Worker, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("silent", "dark")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "clip.mp4").write_bytes(clips[name].read_bytes())
        monkeypatch.chdir(folder)
        assert worker.fingerprint("clip.mp4") == sha256_of(clips[name])
        decoded = worker.decode("clip.mp4", PLAN).clip
        assert (decoded.path, decoded.frames is None) == ("clip.mp4", number == 1)


def test_whoever_stops_listening_ends_the_process(worker: Worker, clips: dict[str, Path]) -> None:
    """Its next words would be taken for the answer to another question."""
    parts = worker.stream(str(clips["both"]), DecodePlan(fps=25.0))
    next(parts)
    first = pid_of(worker)
    parts.close()
    assert gone(first)
    assert worker.fingerprint(str(clips["both"])) == sha256_of(clips["both"])


def test_borrowed_workers_are_used_again(clips: dict[str, Path]) -> None:
    with borrowed() as one, borrowed() as other:
        assert one is not other
        assert one.fingerprint(str(clips["dark"])) == other.fingerprint(str(clips["dark"]))
        pids = {pid_of(one), pid_of(other)}
    for _ in range(3):
        with borrowed() as again:
            again.fingerprint(str(clips["dark"]))
            assert pid_of(again) in pids


def test_crashes_hold_nothing(worker: Worker, clips: dict[str, Path]) -> None:
    """Neither descriptors, nor threads, nor processes that nobody has buried."""

    def held() -> tuple[int, int, int]:
        gc.collect()  # what tests before this one have left in circles may hold descriptors
        nursed = Path(f"/proc/{nursery_pid()}/task/{nursery_pid()}/children").read_text().split()
        return len(os.listdir("/proc/self/fd")), threading.active_count(), len(nursed)

    worker.decode(str(clips["dark"]), PLAN)
    before = held()
    for _ in range(20):
        os.kill(pid_of(worker), signal.SIGSEGV)
        assert gone(pid_of(worker))
        worker.decode(str(clips["dark"]), PLAN)
    assert held() == before


def test_a_bad_file_costs_no_process(worker: Worker, clips: dict[str, Path], tmp_path: Path) -> None:
    worker.fingerprint(str(clips["dark"]))
    first = pid_of(worker)
    (tmp_path / "text.mp4").write_text("no film\n" * 20)
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, said in (("text.mp4", "not a media file"), ("none.mp4", "does not exist"), ("pipe.mp4", "is a pipe")):
        with pytest.raises(MediaError, match=said):
            worker.decode(str(tmp_path / name), PLAN)
    for name, said in (("none.mp4", "does not exist"), ("pipe.mp4", "is a pipe"), ("a\0b.mp4", "cannot be opened")):
        with pytest.raises(MediaError, match=said):
            worker.fingerprint(str(tmp_path / name))
    assert pid_of(worker) == first


@pytest.fixture
def struck(worker: Worker, clips: dict[str, Path], tmp_path: Path) -> Callable[..., Future[Any]]:
    """What comes of a request whose worker gets a signal while it is at it: it has said that it took one, and stands
    still in the middle of that, when it is asked and dies."""

    def strike(number: signal.Signals, ask: Callable[..., Any], *arguments: Any) -> Future[Any]:
        silence(tmp_path / "long.wav", seconds=900)
        worker.fingerprint(str(clips["dark"]))
        first = pid_of(worker)
        here = os.open(".", os.O_RDONLY)
        channel_of(worker).send(("decode", str(tmp_path / "long.wav"), PLAN), here)
        os.close(here)
        assert select.select([channel_of(worker)], [], [], 20)[0]
        os.kill(first, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(ask, *arguments)
            time.sleep(0.1)
            assert not asked.done()
            os.kill(first, number)
            os.kill(first, signal.SIGCONT)
        assert gone(first)
        return asked

    return strike


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_fails_one_file(
    worker: Worker, clips: dict[str, Path], struck: Callable[..., Future[Any]], number: signal.Signals
) -> None:
    asked = struck(number, worker.decode, str(clips["dark"]), PLAN)
    with pytest.raises(MediaError, match=rf"dark\.m4a: the decoder crashed \({number.name}\)") as raised:
        asked.result(20)
    assert not isinstance(raised.value, FileLost)
    assert worker.decode(str(clips["dark"]), PLAN).clip.waveform is not None


def test_what_is_killed_is_tried_once_more(
    worker: Worker, clips: dict[str, Path], struck: Callable[..., Future[Any]]
) -> None:
    """No fault of the file: whatever was being done about it."""
    path, limits = str(clips["dark"]), PLAN.limits
    assert struck(signal.SIGKILL, worker.decode, path, PLAN).result(20).clip.waveform is not None
    assert struck(signal.SIGKILL, worker.fingerprint, path).result(20) == sha256_of(clips["dark"])
    assert struck(signal.SIGKILL, worker.identity, path).result(20) == identity_of(path)
    assert struck(signal.SIGKILL, worker.probe, path, limits).result(20) == probe_here(clips["dark"])


@pytest.mark.parametrize("what", ["decode", "fingerprint"])
def test_what_is_killed_twice_is_lost(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Both times after it took a request that takes long."""
    path, killed, begin = tmp_path / "long.wav", list[int](), Worker._begin
    silence(path, seconds=900)
    os.truncate(path, 200 * 2**30)  # and no room on the disk

    def killing(self: Worker, request: Any) -> Any:
        begun = begin(self, request)
        killed.append(pid_of(self))
        os.kill(pid_of(self), signal.SIGKILL)
        return begun

    monkeypatch.setattr(Worker, "_begin", killing)
    with pytest.raises(FileLost, match=r"long\.wav: the decoder crashed \(SIGKILL\)"):
        worker.decode(str(path), PLAN) if what == "decode" else worker.fingerprint(str(path))
    assert len(set(killed)) == 2


def test_a_worker_that_died_while_idle_harms_no_file(worker: Worker, clips: dict[str, Path]) -> None:
    worker.fingerprint(str(clips["dark"]))
    first = pid_of(worker)
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    assert worker.decode(str(clips["dark"]), PLAN).clip.waveform is not None


def test_a_hang_ends_at_the_timeout(worker: Worker, clips: dict[str, Path]) -> None:
    first = stopped(worker, clips["dark"])
    worker.timeout, began = 1.0, time.monotonic()
    with pytest.raises(MediaError, match=r"longer than 1 s") as raised:
        worker.decode(str(clips["dark"]), PLAN)
    assert time.monotonic() - began >= 1.0
    assert "--timeout" in raised.value.hint
    assert gone(first)
    worker.timeout = 30.0
    assert worker.decode(str(clips["dark"]), PLAN).clip.waveform is not None


def test_a_hang_in_the_middle_of_the_reply_ends_too(
    worker: Worker, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over a second after it hangs, however long it took to come so far."""
    deadlines, parts = list[Any](), list[Any]()

    def kept(end: float) -> Any:
        deadlines.append(deadline(end))
        return deadlines[-1]

    deadline = worker_module._Deadline
    monkeypatch.setattr(worker_module, "_Deadline", kept)
    worker.fingerprint(str(clips["both"]))
    first = pid_of(worker)
    with pytest.raises(MediaError, match="longer than 30 s"):
        for part in worker.stream(str(clips["both"]), PLAN):
            parts.append(part)
            os.kill(first, signal.SIGSTOP)
            while select.select([channel_of(worker)], [], [], 0.2)[0]:
                channel_of(worker).receive()  # what it had said before
            deadlines[-1].end = time.monotonic() + 1.0
    assert len(parts) == 1 and isinstance(parts[0], (Heard, Ready))
    assert gone(first)


def test_starting_is_not_the_files_time(
    worker: Worker, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it when a worker takes the place of another, long after the first."""
    worker.fingerprint(str(clips["dark"]))
    os.kill(pid_of(worker), signal.SIGKILL)
    assert gone(pid_of(worker))
    clock, passed, fork = time.monotonic, [0.0], worker_module.fork_worker

    def slowly(descriptor: int) -> int:
        passed[0] += 1000.0
        return fork(descriptor)

    monkeypatch.setattr(time, "monotonic", lambda: clock() + passed[0])
    monkeypatch.setattr(worker_module, "fork_worker", slowly)
    assert worker.fingerprint(str(clips["dark"])) == sha256_of(clips["dark"])
    assert passed == [1000.0]


@pytest.mark.slow
def test_the_process_that_workers_come_from_may_die(worker: Worker, clips: dict[str, Path]) -> None:
    worker.fingerprint(str(clips["dark"]))
    first, forking = pid_of(worker), nursery_pid()
    os.kill(forking, signal.SIGKILL)
    assert gone(forking)
    assert worker.decode(str(clips["dark"]), PLAN).clip.waveform is not None
    assert pid_of(worker) == first
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    assert worker.decode(str(clips["dark"]), PLAN).clip.waveform is not None
    assert nursery_pid() != forking


@pytest.fixture
def parent_of_orphans() -> Iterator[None]:
    """Workers whose nursery has died become this process's children, so that it is certain when they are reaped."""
    subreaper = 36  # PR_SET_CHILD_SUBREAPER
    assert ctypes.CDLL(None).prctl(subreaper, 1, 0, 0, 0) == 0
    yield
    ctypes.CDLL(None).prctl(subreaper, 0, 0, 0, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("parent_of_orphans")
@pytest.mark.parametrize("ending", ["close", "kill", "ask"])
def test_all_of_them_may_be_gone_and_buried(worker: Worker, clips: dict[str, Path], ending: str) -> None:
    """As after a signal to the process group. Only another request begins a nursery, which takes seconds."""
    worker.fingerprint(str(clips["dark"]))
    first, forking = pid_of(worker), nursery_pid()
    for pid in (forking, first):
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
    os.waitpid(first, 0)
    assert not os.path.exists(f"/proc/{first}")
    if ending == "ask":
        assert worker.fingerprint(str(clips["dark"])) == sha256_of(clips["dark"])
        assert nursery_pid() != forking
    elif ending == "kill":
        worker.kill()
    else:
        worker.close()
        assert worker._pid is None and nursery._control is None


@pytest.mark.slow
def test_a_nursery_that_was_reaped_elsewhere_is_dropped(worker: Worker, clips: dict[str, Path]) -> None:
    worker.fingerprint(str(clips["dark"]))
    os.kill(nursery_pid(), signal.SIGKILL)
    os.waitpid(nursery_pid(), 0)
    worker.close()
    assert nursery._control is nursery._started is None


def test_timeouts_may_be_longer_than_clocks_count(clips: dict[str, Path]) -> None:
    worker = Worker(timeout=1e300)
    try:
        assert worker.fingerprint(str(clips["dark"]))
    finally:
        worker.close()


def test_workers_are_replaced_before_leaks_add_up(
    worker: Worker, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_LIFETIME", 2)
    pids = []
    for _ in range(4):
        assert worker._started()
        pids.append(pid_of(worker))
        worker.fingerprint(str(clips["dark"]))
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert gone(pids[0])
