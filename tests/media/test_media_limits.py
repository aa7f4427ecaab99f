"""Limits: what is absurd is refused with a message of its own, before it costs time or memory."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import threading
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile
from makers import greys, tone, write_clip, write_picture

from echopix_cli.cli.options import Run
from echopix_cli.errors import MediaError, UsageError
from echopix_cli.media import DecodePlan, Limits, load_clip, memory, probe
from echopix_cli.settings import TABLE

# One for each field, as far as the clip below exceeds it: the limit, and what is said.
EXCEEDED = {
    "max_side": (79, "the picture is 80x60; its edges may be at most 79 pixels"),
    "max_area": (4799, "the picture is 80x60; it may have at most 4799 pixels"),
    "max_tracks": (1, "declares 2 tracks; at most 1 are read"),
    "max_packets": (19, "holds more than 19 video packets"),
    "max_decoded_frames": (19, "more than 19 frames would have to be decoded"),
    "max_decoded_bytes": (20 * 80 * 60 * 3 - 1, "expands to more than 287999B of decoded picture and sound"),
    "max_frame_bytes": (1000, "20 frames of 392x280 need more than 1kB"),
    "max_picture_seconds": (1.8, "the picture lasts 0.000527778 h, and at most 0.0005 h are read at once"),
    "max_sound_seconds": (1.5, "the sound is longer than 0.000416667 h"),
}


def test_every_limit_is_tried() -> None:
    assert {*EXCEEDED, "max_memory"} == {field.name for field in fields(Limits)}, "memory has its tests below"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of 80x60 in 1.9 s, each needed to decode the last, and 2 s of sound."""
    return write_clip(
        tmp_path_factory.mktemp("limits") / "l.mkv", greys(20), codec="libx264", pix_fmt="yuv420p", sound=tone(2)
    )


@pytest.mark.parametrize("name", sorted(EXCEEDED))
def test_each_limit_has_its_own_message(clip: Path, name: str) -> None:
    limit, message = EXCEEDED[name]
    plan = DecodePlan(fps=10, limits=Limits(**{name: limit}))
    with pytest.raises(MediaError) as caught:
        load_clip(clip, plan)
    assert message in caught.value.message
    assert name.replace("max_", "limit_") in caught.value.hint, "it says which setting to raise"


def test_packets_of_no_sound_come_to_an_end_too(tmp_path: Path) -> None:
    """What is decoded counts as bytes and as seconds; a container may hold packets without end that are neither."""
    path = write_clip(tmp_path / "a.mka", sound=tone(2), audio_codec="flac")
    data = bytearray(path.read_bytes())
    for at in range(len(data) - 1):
        if data[at : at + 2] == b"\xff\xf8":  # each FLAC frame begins so
            data[at] = 0
    path.write_bytes(bytes(data))
    with pytest.raises(MediaError, match="could not be decoded"):
        load_clip(path, DecodePlan())
    with pytest.raises(MediaError, match="holds more than 3 audio packets without sound") as caught:
        load_clip(path, DecodePlan(limits=Limits(max_packets=3)))
    assert "limit_packets" in caught.value.hint


def test_a_clip_at_its_limits_is_read(clip: Path) -> None:
    samples = 2 * 16_000
    limits = Limits(
        max_side=80,
        max_area=4800,
        max_tracks=2,
        max_packets=20,
        max_decoded_frames=20,
        max_decoded_bytes=20 * 80 * 60 * 3 + samples * 4,
        max_frame_bytes=20 * 3 * 392 * 280,
        max_memory=2**31,
        max_picture_seconds=1.95,
        max_sound_seconds=2.0,
    )
    found = load_clip(clip, DecodePlan(fps=10, limits=limits))
    assert found.frames is not None and len(found.frames) == 20
    assert found.waveform is not None and found.waveform.size == samples


def test_sound_counts_towards_the_decoded_bytes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((16_000, 4)), 16_000)
    track = write_clip(tmp_path / "a.mkv", sound=tone(1))
    for path, size in ((tmp_path / "a.wav", 16_000 * 4 * 4), (track, 16_000 * 4)):
        assert load_clip(path, DecodePlan(limits=Limits(max_decoded_bytes=size))).waveform is not None
        with pytest.raises(MediaError, match="expands to more than"):
            load_clip(path, DecodePlan(limits=Limits(max_decoded_bytes=size - 1)))


def test_a_small_file_that_expands_absurdly_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """400 black frames of 1920x1080 in a few kilobytes, all to be decoded to reach the last."""
    black = np.zeros((1080, 1920, 3), np.uint8)
    path = write_clip(
        tmp_path / "bomb.mp4",
        [black] * 40,
        codec="libx264",
        pix_fmt="yuv420p",
        options={"preset": "ultrafast", "g": "1000"},
    )
    assert path.stat().st_size < 20_000
    expanded = 40 * 1080 * 1920 * 3
    with pytest.raises(MediaError, match="expands to more than") as caught:
        load_clip(path, DecodePlan(limits=Limits(max_decoded_bytes=expanded - 1)))
    assert "limit_decoded_bytes" in caught.value.hint
    # A span that needs fewer frames is let through: what counts is what would be decoded.
    assert load_clip(path, DecodePlan(end=1.0, limits=Limits(max_decoded_bytes=expanded // 2))).frames is not None


def test_dimensions_that_grow_in_the_middle_are_refused(tmp_path: Path) -> None:
    """The header states the first picture's size; what counts is the size that comes out."""
    small, large = (
        write_picture(tmp_path / f"{side}.jpg", greys(1, side, side)[0], "mjpeg", "yuvj444p").read_bytes()
        for side in (64, 640)
    )
    path = tmp_path / "grown.mjpeg"
    path.write_bytes(12 * small + 12 * large)
    assert probe(path).tracks[0].width == 64
    with pytest.raises(MediaError, match="picture is 640x640"):
        load_clip(path, DecodePlan(fps=25, limits=Limits(max_side=100)))


# Largest resident size in kB. Not ru_maxrss, which a child begins with as its parent left it.
PEAK = "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"


def printed(code: str, path: Path) -> str:
    """What code prints in a process of its own, where memory starts afresh."""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_picture_that_claims_gigapixels_costs_nothing(tmp_path: Path) -> None:
    """A PNG header of 60000x60000 before no data to speak of."""
    data = bytearray(write_picture(tmp_path / "a.png", greys(1)[0]).read_bytes())
    struct.pack_into(">II", data, data.index(b"IHDR") + 4, 60_000, 60_000)
    (tmp_path / "a.png").write_bytes(bytes(data))
    code = (
        PEAK + "import sys, torch\nfrom echopix_cli.errors import MediaError\nfrom echopix_cli.media import load_clip\n"
        "before = peak()\ntry: load_clip(sys.argv[1])\nexcept MediaError: pass\nelse: raise SystemExit('read')\n"
        "print(peak() - before)"
    )
    assert int(printed(code, tmp_path / "a.png")) < 100_000, "kilobytes: the picture would take ten million"


def test_hours_from_a_damaged_sampling_rate_do_not_fill_the_memory(tmp_path: Path) -> None:
    """400 kB of samples that would last 8 hours at the 7 Hz which the header states."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 200_000), 16_000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    struct.pack_into("<II", data, data.index(b"fmt ") + 12, 7, 14)
    (tmp_path / "a.wav").write_bytes(bytes(data))
    code = (
        PEAK + "import sys, torch\nfrom echopix_cli.media import DecodePlan, load_clip\n"
        "before = peak()\nclip = load_clip(sys.argv[1], DecodePlan(max_audio_seconds=100.0))\n"
        "print(clip.waveform.size, peak() - before)"
    )
    size, peak = map(int, printed(code, tmp_path / "a.wav").split())
    assert size == 1_600_000
    assert peak < 1_000_000, "kilobytes: one block, resampled at once, takes four million"
    with pytest.raises(MediaError, match="the sound is longer than 1 h"):
        load_clip(tmp_path / "a.wav", DecodePlan(limits=Limits(max_sound_seconds=3600.0)))


def test_reading_again_from_the_start_is_left_when_it_would_take_too_much(tmp_path: Path) -> None:
    """A lost frame is worth another try, but not the ones that were found already."""
    path = write_clip(tmp_path / "a.mov", greys(60), codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT", len(data) // 2)
    data[at : at + 40] = bytes(40)
    path.write_bytes(bytes(data))
    whole = load_clip(path, DecodePlan(fps=10))
    assert whole.frames is not None and whole.notices
    found = load_clip(path, DecodePlan(fps=10, end=5.0, limits=Limits(max_decoded_frames=70)))
    assert found.frames is not None and len(found.frames) >= 48
    assert "could not be decoded" in found.notices[0]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much a process has")
def test_a_small_file_of_a_huge_picture_takes_little_memory(tmp_path: Path) -> None:
    """A GIF of one dot on 36 million pixels: its decoder holds 8 bytes for each, the rest few more."""
    gif = b"GIF89a" + struct.pack("<HHBBB", 6000, 6000, 0xF0, 0, 0) + b"\xff\xff\xff\0\0\0"
    gif += b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00\x3b"
    (tmp_path / "a.gif").write_bytes(gif)
    code = (
        PEAK + "import sys, torch\nfrom echopix_cli.media import DecodePlan, load_clip\n"
        "before = peak()\nclip = load_clip(sys.argv[1], DecodePlan())\n"
        "print(clip.source_size[0], (peak() - before) * 1024 / 36e6)"
    )
    height, taken = map(float, printed(code, tmp_path / "a.gif").split())
    assert height == 6000 and taken < 15, "bytes for each pixel: 16 where it is copied twice"


# Reads a file on a machine that has 50 MiB left, as the files beside it say; prints what came of it.
SHORT = """
import sys
from pathlib import Path
from echopix_cli.errors import MediaError
from echopix_cli.media import DecodePlan, load_clip, memory
folder = Path(sys.argv[1]).parent
memory._MEMINFO, memory._GROUP, memory._GROUPS = folder / "meminfo", folder / "cgroup", folder
try:
    print("read", load_clip(sys.argv[1], DecodePlan()).source_size)
except MediaError as error:
    print(error.message)
"""


def test_no_more_than_the_machine_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a container's share is less: what its files take of it can be given up."""
    path = write_picture(tmp_path / "a.png", np.zeros((6000, 6000, 3), np.uint8))
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 51200 kB\n")
    (tmp_path / "cgroup").write_text("0::/own\n")
    said = printed(SHORT, path)  # in a process of its own: other readers' ceilings, and freed memory, would count here
    assert said.strip().endswith("needs more than 50.0 MiB of memory to be read, which is what is free")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    assert memory.available_memory() == 50 * 2**20
    (tmp_path / "own").mkdir()
    for name, text in {
        "memory.max": "1000",
        "memory.current": "900",
        "memory.stat": "anon 7\ninactive_file 50",
    }.items():
        (tmp_path / "own" / name).write_text(text + "\n")
    assert memory.available_memory() == 150
    (tmp_path / "own" / "memory.max").write_text("max\n")
    assert memory.available_memory() == 50 * 2**20


# Reads a file with 256 MiB to spend; prints what came of it, the largest resident size in MiB, and the ceiling after.
SPEND = (
    PEAK
    + """
import resource, sys, torch
from echopix_cli.errors import MediaError
from echopix_cli.media import DecodePlan, Limits, load_clip
before = peak()
try:
    said = f"read {load_clip(sys.argv[1], DecodePlan(limits=Limits(max_memory=2**28))).source_size}"
except MediaError as error:
    said = error.message
grown = (peak() - before) // 1024
print(said, grown, resource.getrlimit(resource.RLIMIT_DATA)[0], sep="\\n")
"""
)


def spend(path: Path) -> tuple[str, int]:
    """What reading a file comes to with 256 MiB, and how many MiB it took."""
    said, grown, ceiling = printed(SPEND, path).splitlines()
    assert int(ceiling) == resource.RLIM_INFINITY, "the ceiling falls away afterwards"
    return said, int(grown)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much a process has")
@pytest.mark.parametrize("most", [12, 20])
def test_a_decoder_without_memory_is_no_damage_of_the_file(tmp_path: Path, most: int) -> None:
    """Its threads do not begin: the stack of one alone is as large as what is left."""
    code = (
        "import sys, torch\n"
        "from echopix_cli.media import DecodePlan, Limits, load_clip\n"
        "try:\n"
        f"    print(load_clip(sys.argv[1], DecodePlan(limits=Limits(max_memory={most} * 2**20))).notices)\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    path = tmp_path / "a.mp4"
    write_clip(path, greys(20), codec="libx264", pix_fmt="yuv420p", sound=tone(2.0))
    assert printed(code, path) == f"{path} needs more than {most}.0 MiB of memory to be read\n"


def squeezed(size: int) -> bytes:
    """Zlib data that unpacks to ``size`` MiB."""
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(b"a" * 2**20) for _ in range(size)), packer.flush()])


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk, after its header."""
    checked = name + body
    return png[:33] + struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked)) + png[33:]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much a process has")
@pytest.mark.parametrize("name", [b"zTXt", b"iCCP"])
def test_a_pngs_text_cannot_unpack_into_all_memory(tmp_path: Path, name: bytes) -> None:
    """400 kB of text or colour profile that FFmpeg unpacks to 400 MB."""
    plain = write_picture(tmp_path / "plain.png", greys(1)[0])
    assert spend(plain)[0] == "read (60, 80)"
    path = tmp_path / "bomb.png"
    path.write_bytes(with_chunk(plain.read_bytes(), name, b"k\0\0" + squeezed(400)))
    assert path.stat().st_size < 500_000
    assert spend(path)[1] < 500, "MiB; unbounded, 800 and more"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much a process has")
def test_a_compressed_movie_header_cannot_unpack_into_all_memory(tmp_path: Path) -> None:
    """A QuickTime header of 500 kB that states, and holds, 500 MiB."""

    def atom(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", 8 + len(body)) + name + body

    packed = struct.pack(">I", 500 * 2**20) + squeezed(500)
    header = atom(b"moov", atom(b"cmov", atom(b"dcom", b"zlib") + atom(b"cmvd", packed)))
    path = tmp_path / "bomb.mov"
    path.write_bytes(atom(b"ftyp", b"qt  \0\0\0\0qt  ") + header)
    said, grown = spend(path)
    assert said == f"{path} needs more than 256.0 MiB of memory to be read"
    assert grown < 200


def test_files_read_at_once_share_the_ceiling(clip: Path) -> None:
    """It stays until the last of them is done, and is then as it was."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    failed: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(5):
                load_clip(clip, DecodePlan())
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.slow
def test_a_named_colour_profile_does_not_crash(tmp_path: Path) -> None:
    """As screenshots have it: PyAV frees the profile's name twice if the frame's side data was looked at."""
    path = tmp_path / "screenshot.png"
    plain = write_picture(tmp_path / "plain.png", greys(8)[7]).read_bytes()
    path.write_bytes(with_chunk(plain, b"iCCP", b"Display P3\0\0" + zlib.compress(bytes(500))))
    code = (
        "import gc, sys\nfrom echopix_cli.media import load_clip, probe\n"
        "for _ in range(5):\n    probe(sys.argv[1]); print(load_clip(sys.argv[1]).frames.mean()); gc.collect()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", ["29.0"] * 5)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_png_tracks_are_turned_all_the_same(tmp_path: Path, turn: int) -> None:
    """Their angle is applied, without a look at the frame's side data."""
    pictures = [np.arange(60 * 80 * 3, dtype=np.uint32).reshape(60, 80, 3).astype(np.uint8)] * 2
    frames = [
        load_clip(write_clip(tmp_path / f"{codec}.mov", pictures, codec=codec, pix_fmt=kind, rotation=turn)).frames
        for codec, kind in (("png", "rgb24"), ("qtrle", "rgb24"))
    ]
    assert frames[0] is not None and frames[1] is not None
    assert np.array_equal(frames[0], frames[1])


def test_limits_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config file and the environment set each of them, by the field's own name."""
    defaults = {name: own.default for name, own in TABLE.items() if name.startswith("limit_")}
    assert defaults == {field.name.replace("max_", "limit_"): field.default for field in fields(Limits)}
    (tmp_path / "config.toml").write_text("limit_tracks = 3\nlimit_picture_seconds = 7.5\nlimit_side = 5\n")
    monkeypatch.setenv("ECHOPIX_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("ECHOPIX_LIMIT_SIDE", "100")
    monkeypatch.setenv("ECHOPIX_LIMIT_SOUND_SECONDS", "1:30:00")
    assert Run.begin({}).limits() == Limits(
        max_tracks=3, max_picture_seconds=7.5, max_side=100, max_sound_seconds=5400.0
    )


@pytest.mark.parametrize("name", sorted(field.name for field in fields(Limits)))
@pytest.mark.parametrize("value", ["0", "-1", "lots"])
def test_a_limit_that_lets_nothing_through_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    variable = "ECHOPIX_" + name.replace("max_", "limit_").upper()
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=variable):
        Run.begin({})
