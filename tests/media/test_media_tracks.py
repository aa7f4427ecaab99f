"""Which tracks are taken and which are refused: programmes, attachments, too many, encrypted ones."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import pytest
from makers import (
    CODED_RATE,
    coded,
    codes,
    greys,
    seconds_heard,
    tone,
    tones,
    write_clip,
    write_coded,
    write_two_tracks,
)

from echopix_cli.errors import MediaError
from echopix_cli.media import DecodePlan, Limits, load_clip
from echopix_cli.results import AudioStatus

SMALL: dict[str, Any] = {"min_pixels": 28 * 28, "max_pixels": 100 * 28 * 28}


def _crc(data: bytes, bits: int = 0xFFFFFFFF) -> bytes:
    for byte in data:
        bits ^= byte << 24
        for _ in range(8):
            bits = (bits << 1 ^ (0x04C11DB7 if bits & 0x80000000 else 0)) & 0xFFFFFFFF
    return struct.pack(">I", bits)


def two_programmes(folder: Path, *, silent_first: bool = False) -> Path:
    """One transport stream of two programmes: seconds 0-3 with sound that belongs, and others with other sound."""
    first = write_coded(folder / "1.ts", 0, 4, sound=None if silent_first else tones(0, 4),
                        container_options={"mpegts_start_pid": "0x100", "mpegts_pmt_start_pid": "0x1000"})  # fmt: skip
    second = write_clip(folder / "2.ts", [coded(4095)] * 100, fps=25, codec="libx264", pix_fmt="yuv420p",
                        sound=tones(20, 24), audio_codec="aac",
                        options={"preset": "ultrafast"},
                        container_options={"mpegts_start_pid": "0x200", "mpegts_pmt_start_pid": "0x1100",
                                           "mpegts_service_id": "2"})  # fmt: skip
    body = bytes.fromhex("00b0110001c10000") + struct.pack(">HHHH", 1, 0xF000, 2, 0xF100)
    table = (bytes.fromhex("4740001000") + body + _crc(body)).ljust(188, b"\xff")
    packets = []
    for path in (first, second):
        data = path.read_bytes()
        cells = [data[at : at + 188] for at in range(0, len(data), 188)]
        packets.append([cell for cell in cells if (cell[1] & 31) << 8 | cell[2] not in (0, 17)])
    mixed = [cell for pair in zip(*packets, strict=False) for cell in pair]
    rest = [cell for some in packets for cell in some[min(map(len, packets)) :]]
    path = folder / "two.ts"
    path.write_bytes(table + b"".join(mixed + rest))
    return path


@pytest.mark.parametrize("track", [0, 1])
def test_the_sound_is_that_of_the_pictures_programme(tmp_path: Path, track: int) -> None:
    clip = load_clip(two_programmes(tmp_path), DecodePlan(video_track=track, **SMALL))
    assert clip.frames is not None and clip.waveform is not None
    seen, heard = codes(clip.frames), seconds_heard(clip.waveform)
    assert heard == (list(range(4)) if seen[0] == 0 else list(range(20, 24)))
    unasked = load_clip(two_programmes(tmp_path), DecodePlan(**SMALL))
    assert unasked.frames is not None and unasked.waveform is not None
    assert (codes(unasked.frames)[0] == 0) is (seconds_heard(unasked.waveform)[0] == 0)


def test_a_programme_without_sound_does_not_borrow_any(tmp_path: Path) -> None:
    path = two_programmes(tmp_path, silent_first=True)
    both = [load_clip(path, DecodePlan(video_track=track, **SMALL)) for track in (0, 1)]
    silent = next(clip for clip in both if clip.frames is not None and codes(clip.frames)[0] != 4095)
    loud = next(clip for clip in both if clip is not silent)
    assert silent.waveform is None and loud.waveform is not None
    asked = load_clip(path, DecodePlan(audio_track=0, **SMALL))
    assert asked.waveform is not None, "whoever names a track gets it"


def test_sound_that_tells_nothing_of_itself_is_not_called_absent(tmp_path: Path) -> None:
    """Without rate and channels no track is the best one, and still there is one."""
    path = write_clip(tmp_path / "a.mkv", greys(10), sound=tone(1, 48_000), sound_rate=48_000, audio_codec="libopus")
    data = bytearray(path.read_bytes())
    track = data.index(b"A_OPUS")
    data[track : track + 6] = b"A_XXXX"
    rate = data.index(b"\xb5\x88", track) + 2
    data[rate : rate + 8] = bytes(8)
    path.write_bytes(bytes(data))
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.audio_status is AudioStatus.UNDECODABLE and len(clip.notices) == 1


def test_attachments_are_no_tracks(tmp_path: Path) -> None:
    path = tmp_path / "fonts.mkv"
    source = write_clip(tmp_path / "a.mkv", greys(10), sound=tone(1))
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in container.streams}
        for number in range(72):
            out.add_attachment(f"{number}.ttf", "font/ttf", b"font")
        for packet in container.demux():
            if packet.size and packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.frames is not None and clip.waveform is not None
    two = write_two_tracks(tmp_path / "two.mkv", tone(1), tone(1))
    with pytest.raises(MediaError, match="declares 2 tracks; at most 1 are read"):
        load_clip(two, DecodePlan(limits=Limits(max_tracks=1)))


def _page(serial: int) -> bytes:
    head = b"OpusHead\1\1" + struct.pack("<HIhB", 312, 48_000, 0, 0)
    page = b"OggS\0\2" + struct.pack("<qIII", 0, serial, 0, 0) + bytes([1, len(head)]) + head
    return page[:22] + _crc(page, 0)[::-1] + page[26:]


def test_thousands_of_streams_are_refused_before_memory_is(tmp_path: Path) -> None:
    path = tmp_path / "many.ogg"
    path.write_bytes(b"".join(_page(serial) for serial in range(1, 1200)))
    with pytest.raises(MediaError, match="declares more than 1000 tracks"):
        load_clip(path)


def encrypted(path: Path, **more: Any) -> Path:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
           "encryption_kid": "a7e61c373e219033c21091fa607bf3b8"}  # fmt: skip
    return write_coded(path, 0, 2, container_options=key, **more)


def test_encrypted_media_are_called_so(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="picture and sound are encrypted"):
        load_clip(encrypted(tmp_path / "both.mp4"), DecodePlan(**SMALL))
    with pytest.raises(MediaError, match="the picture is encrypted"):
        load_clip(encrypted(tmp_path / "picture.mp4", sound=None), DecodePlan(**SMALL))
    with pytest.raises(MediaError, match="the sound is encrypted"):
        load_clip(encrypted(tmp_path / "both.mp4"), DecodePlan(video=False))


@pytest.mark.parametrize("head", [b"BIKi", b"SMK4", b"MLVI", b"FWS\x05"])
def test_containers_that_are_not_opened_are_called_so(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(head + bytes(2000))
    with pytest.raises(MediaError, match="not among the containers that are opened"):
        load_clip(tmp_path / "a.bin")


def test_what_an_edit_list_hides_is_not_the_clips_end(tmp_path: Path) -> None:
    """Two of four seconds are shown: the edit's length is changed where the file tells it."""
    path = write_coded(tmp_path / "a.mp4", 0, 4, sound=None, options={"bf": "0", "g": "25", "preset": "ultrafast"})
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    assert struct.unpack_from(">I", data, at)[0] == 4000
    struct.pack_into(">I", data, at, 2000)
    path.write_bytes(bytes(data))
    clip = load_clip(path, DecodePlan(fps=100, **SMALL))
    assert clip.frames is not None and clip.frame_times is not None
    assert codes(clip.frames) == list(range(2 * CODED_RATE))
    assert clip.end == pytest.approx(2, abs=0.05) and clip.notices == ()


def test_a_gif_with_one_bright_dot_is_shown(tmp_path: Path) -> None:
    gif = b"GIF89a" + struct.pack("<HHBBB", 2000, 1500, 0xF0, 0, 0) + b"\xff\xff\xff\0\0\0"
    gif += b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00\x3b"
    (tmp_path / "a.gif").write_bytes(gif)
    clip = load_clip(tmp_path / "a.gif", DecodePlan(**SMALL))
    assert clip.source_size == (1500, 2000) and clip.audio_status is AudioStatus.ABSENT
