"""Bad input: one line and a hint, never a traceback, a hang, or a look at another file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from makers import greys, tone, write_clip, write_picture

from echopix_cli.errors import ExitCode, MediaError
from echopix_cli.media import DecodePlan, load_clip, probe
from echopix_cli.media.plan import Limits
from echopix_cli.media.source import opened


def refused(path: str | os.PathLike[str]) -> MediaError:
    """The error that both entrances give; within a second, or the test fails."""
    caught: list[BaseException] = []

    def attempt() -> None:
        for entrance in (load_clip, probe):
            try:
                entrance(path)
            except BaseException as error:
                caught.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "opening it hangs"
    assert [isinstance(error, MediaError) for error in caught] == [True, True]
    error = caught[0]
    assert isinstance(error, MediaError)
    assert error.exit_code is ExitCode.MEDIA and error.hint
    assert "\n" not in error.message and "\x1b" not in error.message
    return error


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "no\x1b[31m such\n.mp4"
    assert "does not exist" in refused(path).message
    assert "\\x1b[31m such\\n.mp4" in refused(path).message


def test_folder_and_file_used_as_folder(tmp_path: Path) -> None:
    assert "is a folder" in refused(tmp_path).message
    (tmp_path / "a.mp4").write_text("x")
    assert "does not exist" in refused(tmp_path / "a.mp4" / "b.mp4").message


def test_empty_text_and_noise(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"")
    assert "is empty" in refused(path).message
    path.write_text("this is no video at all\n" * 50)
    assert "not a media file" in refused(path).message
    path.write_bytes(np.random.default_rng(1).bytes(50_000))
    refused(path)


def test_an_mp4_without_its_index(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "w.mp4", greys(20), codec="libx264", pix_fmt="yuv420p").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
    assert "index of the MP4 is missing" in refused(tmp_path / "a.mp4").message


def test_no_usable_track(tmp_path: Path) -> None:
    path = tmp_path / "subtitles.srt"
    path.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    refused(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", greys(4))
    path.chmod(0)
    assert "permission denied" in refused(path).message


def test_permission_denied_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = write_clip(tmp_path / "a.mkv", greys(4))
    monkeypatch.setattr(os, "open", deny)
    assert "permission denied" in refused(path).message


@pytest.fixture
def special(tmp_path: Path) -> Iterator[dict[str, Path]]:
    os.mkfifo(tmp_path / "fifo.mp4")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s.mp4"))
    (tmp_path / "link.mp4").symlink_to("/dev/zero")
    yield {"fifo": tmp_path / "fifo.mp4", "socket": tmp_path / "s.mp4", "link": tmp_path / "link.mp4"}
    listener.close()


@pytest.mark.parametrize("kind", ["fifo", "socket", "link"])
def test_what_is_no_regular_file_is_refused_at_once(special: dict[str, Path], kind: str) -> None:
    assert "pipe, socket or device" in refused(special[kind]).message


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", greys(4))
    (tmp_path / "link").symlink_to("a.mkv")
    assert load_clip(tmp_path / "link").frames is not None


@pytest.mark.parametrize(
    "name",
    ["http://localhost:9/a.mp4", "rtsp://localhost/a", "file:a.mkv", "file:///a.mkv", "concat:a.mkv|a.mkv",
     "data:video/mp4;base64,AAAA", "pipe:0", "subfile,,start,0,end,9,,:a.mkv", "fd:0", "nul\0byte", "-",
     "%d.png"],
)  # fmt: skip
def test_urls_and_protocols_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_clip(tmp_path / "a.mkv", greys(4))
    write_picture(tmp_path / "1.png", greys(1)[0])
    monkeypatch.chdir(tmp_path)
    refused(name)


@pytest.mark.parametrize(
    "name",
    ["-i.mkv", "50%d.mkv", "a:b.mkv", "concat:x", "data:x.png", "ü [x].mkv", "*?.mkv", "caf\udce9.mkv"],
)
def test_odd_names_are_taken_literally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_clip(tmp_path / "plain.mkv", greys(4)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    clip = load_clip(name)
    assert clip.frames is not None and clip.path == name


def test_an_image_pattern_is_one_file(tmp_path: Path) -> None:
    for name, number in (("f%d.jpg", 2), ("f1.jpg", 40)):
        write_picture(tmp_path / name, greys(number + 1)[number], "mjpeg", "yuvj444p")
    clip = load_clip(tmp_path / "f%d.jpg")
    assert clip.frames is not None and float(clip.frames.mean()) < 50


def test_every_wall_is_up(tmp_path: Path) -> None:
    with opened(write_clip(tmp_path / "a.mkv", greys(4)), Limits()) as container:
        assert container.name == "media"
        assert container.container_options["protocol_whitelist"] == "file"
        allowed = container.container_options["format_whitelist"].split(",")
        assert "enable_drefs" not in container.container_options  # FFmpeg's default refuses MOV references
        with pytest.raises(PermissionError):
            container.io_open("secret", 0, {})
    indirect = "hls applehttp concat concatf dash image2 image2pipe sdp rtsp rtp sap lavfi tedcaptions imf"
    assert not {*indirect.split(), "webm_dash_manifest", "svg_pipe", "vobsub"} & set(allowed)


def test_a_span_beyond_the_end_names_the_duration(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", greys(20), sound=tone(2))
    for file in (
        path,
        write_clip(tmp_path / "s.wav", sound=tone(2)),
        write_clip(tmp_path / "v.mkv", greys(20)),
    ):
        with pytest.raises(MediaError, match=r"starts at 0:07, but .* ends at 0:02(\.0\d)?"):
            load_clip(file, DecodePlan(start=7.0))


def test_no_chatter_on_the_terminal(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "w.mp4", greys(50), codec="libx264", pix_fmt="yuv420p", sound=tone(5),
                      audio_codec="aac", container_options={"movflags": "faststart"})  # fmt: skip
    whole = bytearray(path.read_bytes())
    for place in range(len(whole) // 3, len(whole), 50):
        whole[place] ^= 0xFF
    path.write_bytes(bytes(whole))
    code = "import sys; from echopix_cli.media import load_clip; load_clip(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_animated_webp_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    path.write_bytes(b"RIFF" + (40).to_bytes(4, "little") + b"WEBPVP8X" + bytes([10, 0, 0, 0, 2, 0, 0, 0]) + bytes(28))
    with pytest.raises(MediaError, match="is an animated WebP, which cannot be read") as caught:
        load_clip(path)
    assert caught.value.hint == "convert it to MP4 or GIF" and caught.value.exit_code is ExitCode.MEDIA
