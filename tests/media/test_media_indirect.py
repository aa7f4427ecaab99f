"""Files that name other files: planted ones point at a secret file and at a server, and neither is touched."""

from __future__ import annotations

import os
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import av
import pytest
from makers import greys, numbers, tone, write_clip, write_picture

from echopix_cli.errors import ExitCode, MediaError
from echopix_cli.media import DecodePlan, load_clip, probe

CANARY = "top-secret-4711"  # stands in every secret

_MPD = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="x" type="static" '
    'mediaPresentationDuration="PT1S" minBufferTime="PT1S"><Period><AdaptationSet><Representation id="1" '
    'mimeType="video/mp2t" bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
# Own extension → text. {target} is a path or a URL.
PLANTED = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
    "master.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
    "key.m3u8": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n',
    "subtitles.m3u8": '#EXTM3U\n#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="s",URI="{target}"\n'
    '#EXT-X-STREAM-INF:BANDWIDTH=1,SUBTITLES="s"\n{target}\n',
    "ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "mpd": _MPD,
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "pls": "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    "asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "smil": '<smil><body><video src="{target}"/></body></smil>',
    "ref": "[Reference]\nRef1={target}\n",
}
# These name other files as well, but nothing in FFmpeg tells them apart from any text.
UNNAMED = {
    "srt": "1\n00:00:00,000 --> 00:00:01,000\n<img src='{target}'>\n",
    "ass": "[Script Info]\nScriptType: v4.00+\nVideo File: {target}\nAudio File: {target}\n[Events]\n"
    "Dialogue: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,x\n",
    "idx": "# VobSub index file, v7 (do not modify this line!)\nsize: 720x576\nid: en, index: 0\n"
    "timestamp: 00:00:00:001, filepos: 000000000\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="{target}"/></svg>',
    "cue": 'FILE "{target}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
}


@dataclass
class Bait:
    """A secret beside the planted file, and a server that would give it away."""

    folder: Path
    secret: Path
    server: ThreadingHTTPServer
    connections: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the server has the secret."""
        return f"http://127.0.0.1:{self.server.server_port}/{self.secret.name}"

    def untouched(self) -> bool:
        """Whether nobody has read the secret or spoken to the server."""
        return self.secret.stat().st_atime_ns == 1 and not self.connections


@pytest.fixture
def bait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bait]:
    secret = write_clip(tmp_path / "secret.ts", greys(10), codec="libx264", pix_fmt="yuv420p", fps=25)
    secret.write_bytes(secret.read_bytes() + CANARY.encode())
    (tmp_path / "holiday.sub").write_bytes(secret.read_bytes())  # what the VobSub index leads to
    connections: list[Any] = []

    class Counting(ThreadingHTTPServer):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            connections.append(client_address)
            return True

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.chdir(tmp_path)
    server = Counting(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    os.utime(secret, ns=(1, 1))
    yield Bait(tmp_path, secret, server, connections)
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_bait_would_notice(bait: Bait) -> None:
    assert bait.untouched()
    with urlopen(bait.url) as answer:
        assert answer.read().endswith(CANARY.encode())
    assert len(bait.connections) == 1
    bait.connections.clear()
    os.utime(bait.secret, ns=(1, 1))
    bait.secret.read_bytes()
    if bait.secret.stat().st_atime_ns == 1:
        pytest.skip("this disk keeps no access times")
    assert not bait.untouched()


def refused(path: Path, bait: Bait) -> MediaError:
    """What both entrances say; the secret and the server stay alone, and so does every other file."""
    opened: list[str] = []
    listening = True

    def listen(event: str, arguments: tuple[object, ...]) -> None:
        if listening and event in ("open", "socket.connect", "socket.bind", "subprocess.Popen"):
            opened.append(f"{event} {arguments[0]}")

    sys.addaudithook(listen)
    errors = []
    try:
        for entrance in (load_clip, probe):
            with pytest.raises(MediaError) as caught:
                entrance(path)
            errors.append(caught.value)
    finally:
        listening = False
    assert bait.untouched()
    assert not [what for what in opened if "secret" in what or "socket" in what]
    for error in errors:
        assert error.exit_code is ExitCode.MEDIA and error.hint
        for said in (error.message, error.hint):
            assert CANARY not in said and "secret" not in said and "127.0.0.1" not in said
    return errors[0]


@pytest.mark.parametrize("kind", [*PLANTED, *UNNAMED])
@pytest.mark.parametrize("where", ["file", "server"])
@pytest.mark.parametrize("own_name", [True, False])
def test_what_names_other_files_is_refused(bait: Bait, kind: str, where: str, own_name: bool) -> None:
    target = str(bait.secret) if where == "file" else bait.url
    text = {**PLANTED, **UNNAMED}[kind].format(target=target, port=bait.server.server_port)
    path = bait.folder / f"holiday.{kind if own_name else 'mp4'}"
    path.write_text(text)
    error = refused(path, bait)
    assert ("names other files" if kind in PLANTED else "not a media file") in error.message


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat"])
def test_the_command_says_it_in_one_line(
    bait: Bait, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from echopix_cli.cli.app import main

    (bait.folder / "holiday.mp4").write_text(PLANTED[kind].format(target=bait.secret))
    monkeypatch.setattr(sys, "argv", ["echopix", "ask", "-m", "tiny", "holiday.mp4", "What is this?", "--json"])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (ExitCode.MEDIA, "")
    assert "names other files, which are not opened" in err and CANARY not in err
    assert bait.untouched()


@pytest.mark.parametrize(("kind", "where"), [("m3u8", "file"), ("m3u8", "server"), ("ffconcat", "file"),
                                             ("ffconcat", "server")])  # fmt: skip
def test_ffmpeg_would_have_followed(bait: Bait, kind: str, where: str) -> None:
    """The planted files are real: without the walls FFmpeg shows the secret."""
    target = str(bait.secret) if where == "file" else bait.url
    path = bait.folder / f"holiday.{kind}"
    path.write_text(PLANTED[kind].format(target=target))
    options = {"protocol_whitelist": "file,http,tcp", "safe": "0", "allowed_extensions": "ALL"}
    with av.open(str(path), container_options=options) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10
    assert bool(bait.connections) == (where == "server")


# Media files that refer to others from within.


def _atom(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def _replace_atom(data: bytes, path: tuple[bytes, ...], body: bytes) -> bytes:
    """MP4 bytes with the body of one nested atom replaced, and the sizes around it corrected."""
    out, at = b"", 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        inner = data[at + 8 : at + size]
        if name == path[0]:
            out += _atom(name, body if len(path) == 1 else _replace_atom(inner, path[1:], body))
        else:
            out += data[at : at + size]
        at += size
    return out


def _alias(target: Path) -> bytes:
    """A QuickTime alias record that names an absolute path, as a data reference table."""
    name, full = target.name.encode(), str(target).encode()
    record = bytes(10) + bytes([1]) + b"x".ljust(27, b"\0") + bytes(12)
    record += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    record += struct.pack(">HH", 2, len(full)) + full + bytes(len(full) % 2) + struct.pack(">HH", 0xFFFF, 0)
    entry = _atom(b"alis", bytes(4) + record)
    return bytes(4) + struct.pack(">I", 1) + entry


def test_a_movie_cannot_keep_its_samples_in_another_file(bait: Bait) -> None:
    """QuickTime's data references: a track whose samples lie in a file that the header names."""
    other = write_clip(bait.folder / "secret.mov", greys(10), codec="mjpeg", pix_fmt="yuvj420p")
    movie = _replace_atom(other.read_bytes(), (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"), _alias(other))
    path = bait.folder / "holiday.mov"
    path.write_bytes(movie.replace(b"\xff\xd8", b"\0\0"))  # its own samples are no pictures any more
    options = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(path), container_options=options) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10, "FFmpeg would have followed, had it been allowed to"
    os.utime(other, ns=(1, 1))
    with pytest.raises(MediaError):
        load_clip(path)
    assert other.stat().st_atime_ns == 1 and bait.untouched()


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _avi_with_subtitles(picture: bytes, text: bytes) -> bytes:
    """An AVI of one MJPEG picture, and a subtitle track whose only packet holds a file of its own."""
    head = struct.pack("<14I", 40_000, 0, 0, 0x10, 1, 0, 2, 0, 80, 60, 0, 0, 0, 0)
    video = b"vidsMJPG" + struct.pack("<IHHIIIIIIII4H", 0, 0, 0, 0, 1, 25, 0, 1, 0, 0, 0, 0, 0, 80, 60)
    bitmap = struct.pack("<IiiHH4sIiiII", 40, 80, 60, 1, 24, b"MJPG", 0, 0, 0, 0, 0)
    words = b"txts\0\0\0\0" + struct.pack("<IHHIIIIIIII4H", 0, 0, 0, 0, 1, 25, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    gab2 = b"GAB2\0" + struct.pack("<HI", 2, 2) + b"\0\0" + struct.pack("<HI", 4, len(text)) + text
    lists = _chunk(b"avih", head)
    for header, form in ((video, bitmap), (words, b"")):
        lists += _chunk(b"LIST", b"strl" + _chunk(b"strh", header) + _chunk(b"strf", form))
    movi = b"movi" + _chunk(b"00dc", picture) + _chunk(b"01tx", gab2)
    return _chunk(b"RIFF", b"AVI " + _chunk(b"LIST", b"hdrl" + lists) + _chunk(b"LIST", movi))


@pytest.mark.parametrize("where", ["file", "server"])
@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "sdp", "srt"])
def test_subtitles_inside_an_avi_open_nothing(bait: Bait, kind: str, where: str) -> None:
    """FFmpeg reads the packets of such a track with whatever demuxer fits: once, that could be a playlist's."""
    picture = write_picture(bait.folder / "p.jpg", greys(8)[7], "mjpeg", "yuvj420p").read_bytes()
    target = str(bait.secret) if where == "file" else bait.url
    text = {**PLANTED, **UNNAMED}[kind].format(target=target, port=bait.server.server_port)
    path = bait.folder / "holiday.avi"
    path.write_bytes(_avi_with_subtitles(picture, text.encode()))
    if kind == "srt":
        with av.open(str(path)) as container:
            assert container.streams[1].codec_context.name == "srt", "FFmpeg does look into the packet"
    clip = load_clip(path, DecodePlan(min_pixels=784))
    assert clip.frames is not None and numbers(clip.frames) == [7]
    assert [track.kind for track in clip.info.tracks] == ["video"] and bait.untouched()


def test_an_attachment_is_not_a_track(bait: Bait) -> None:
    """A Matroska file with a playlist attached: only its sound is read."""
    path = bait.folder / "holiday.mka"
    sound = tone(0.5)
    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=16_000, layout="mono")
        out.add_attachment("list.m3u8", "application/x-mpegurl", PLANTED["m3u8"].format(target=bait.url).encode())
        frame = av.AudioFrame.from_ndarray((sound * 32767).astype("int16"), format="s16", layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert b"list.m3u8" in path.read_bytes()
    clip = load_clip(path)
    assert clip.frames is None and clip.waveform is not None and clip.waveform.size == 8_000
    assert len(clip.info.tracks) == 1 and bait.untouched()
