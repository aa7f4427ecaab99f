"""Limits: what is absurd is refused with a message of its own, before it costs time or memory."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile
from makers import greys, tone, write_clip, write_picture

from echopix_cli.cli.options import Run
from echopix_cli.errors import MediaError, UsageError
from echopix_cli.media import DecodePlan, Limits, load_clip, probe
from echopix_cli.settings import SETTINGS

# One for each field, as far as the clip below exceeds it: the limit, and what is said.
EXCEEDED = {
    "max_side": (79, "the picture is 80x60; its edges may be at most 79 pixels"),
    "max_area": (4799, "the picture is 80x60; it may have at most 4799 pixels"),
    "max_tracks": (1, "declares 2 tracks; at most 1 are read"),
    "max_packets": (19, "holds more than 19 video packets"),
    "max_decoded_frames": (19, "more than 19 frames would have to be decoded"),
    "max_decoded_bytes": (20 * 80 * 60 * 3 - 1, "expands to more than 287999 bytes of decoded picture and sound"),
    "max_frame_bytes": (1000, "20 frames of 392x280 need more than 0 MiB"),
    "max_picture_seconds": (1.8, "the picture lasts 0.000527778 h, and at most 0.0005 h are read at once"),
    "max_sound_seconds": (1.5, "the sound is longer than 0.000416667 h"),
}


def test_every_limit_is_tried() -> None:
    assert set(EXCEEDED) == {field.name for field in fields(Limits)}


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


def test_a_picture_that_claims_gigapixels_costs_nothing(tmp_path: Path) -> None:
    """A PNG header of 60000x60000 before no data to speak of."""
    data = bytearray(write_picture(tmp_path / "a.png", greys(1)[0]).read_bytes())
    struct.pack_into(">II", data, data.index(b"IHDR") + 4, 60_000, 60_000)
    (tmp_path / "a.png").write_bytes(bytes(data))
    code = (
        "import resource, sys\nfrom echopix_cli.errors import MediaError\nfrom echopix_cli.media import load_clip\n"
        "try: load_clip(sys.argv[1])\nexcept MediaError: pass\nelse: raise SystemExit('read')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.png")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 1_000_000, "kilobytes: torch alone takes a few hundred thousand"


def test_hours_from_a_damaged_sampling_rate_do_not_fill_the_memory(tmp_path: Path) -> None:
    """400 kB of samples that would last 8 hours at the 7 Hz which the header states."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 200_000), 16_000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    struct.pack_into("<II", data, data.index(b"fmt ") + 12, 7, 14)
    (tmp_path / "a.wav").write_bytes(bytes(data))
    code = (
        "import resource, sys\nfrom echopix_cli.media import DecodePlan, load_clip\n"
        "clip = load_clip(sys.argv[1], DecodePlan(max_audio_seconds=100.0))\n"
        "print(clip.waveform.size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.wav")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    size, peak = map(int, done.stdout.split())
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


def test_limits_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config file and the environment set each of them, by the field's own name."""
    defaults = {setting.name: setting.default for setting in SETTINGS if setting.name.startswith("limit_")}
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
