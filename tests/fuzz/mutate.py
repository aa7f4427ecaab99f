"""Damaged media files, each a function of ``(seed, index)`` and of the originals.

The originals are one real clip in a dozen containers. A mutation damages one as disks, networks and attackers do:
bits, lengths, structure, numbers. ``python tests/fuzz/mutate.py SEED INDEX OUT_FOLDER`` writes one of them.
"""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "echopix_cli" / "assets" / "demo.mp4"
TILES = Path(__file__).parent / "tiles.heic"
Originals = dict[str, bytes]  # file name → content

# Container → codecs. "": no such track.
_CONTAINERS = {
    "h264.mp4": ("libx264", "yuv420p", "aac"),
    "motion.mov": ("mjpeg", "yuvj420p", "pcm_s16le"),
    "h264.mkv": ("libx264", "yuv420p", "libopus"),
    "vp8.webm": ("libvpx", "yuv420p", "libopus"),
    "mpeg4.avi": ("mpeg4", "yuv420p", "libmp3lame"),
    "h264.ts": ("libx264", "yuv420p", "aac"),
    "h264.flv": ("libx264", "yuv420p", "aac"),
    "picture.gif": ("gif", "rgb8", ""),
    "picture.png": ("png", "rgb24", ""),
    "picture.jpg": ("mjpeg", "yuvj420p", ""),
    "sound.wav": ("", "", "pcm_s16le"),
    "sound.mp3": ("", "", "libmp3lame"),
    "sound.ogg": ("", "", "libopus"),
    "sound.flac": ("", "", "flac"),
    "sound.m4a": ("", "", "aac"),
}
_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".ts", ".gif", ".png", ".jpg", ".wav", ".mp3", ".ogg", ".flac", ".m3u8",
             ".txt", "")  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One damaged file, and how it came about."""

    name: str
    data: bytes
    recipe: str


def originals(extra: Path | None = None) -> Originals:
    """The demonstration clip as it is and, for a second, in every container; with ``extra``, a folder's files too."""
    made = {DEMO.name: DEMO.read_bytes()}
    with av.open(str(DEMO)) as source:
        pictures = [frame.reformat(160, 120) for frame in islice(source.decode(video=0), 10)]
    with av.open(str(DEMO)) as source:
        sound = list(islice(source.decode(audio=0), 16))  # 1024 samples each
    for name, codecs in _CONTAINERS.items():
        made[name] = _encoded(name, codecs, pictures, sound)
    made["joined.ts"] = made["h264.ts"] * 2
    made["sounds.ogg"] = made["sound.ogg"] * 2
    made["picture.heic"] = TILES.read_bytes()  # four tiles, a gain map and a preview, turned and mirrored
    if extra is not None:
        made |= {path.name: path.read_bytes() for path in sorted(extra.iterdir()) if path.suffix != ".md"}
    return made


class _Memory:
    """A file in memory with a name, by whose end PyAV chooses the container."""

    def __init__(self, name: str) -> None:
        self.name, self.buffer = name, io.BytesIO()
        self.write, self.seek, self.tell = self.buffer.write, self.buffer.seek, self.buffer.tell


def _encoded(name: str, codecs: tuple[str, str, str], pictures: list[Any], sound: list[Any]) -> bytes:
    video, pix_fmt, audio = codecs
    memory = _Memory(name)
    single = name.endswith((".png", ".jpg"))
    # bitexact: or the muxers would write times and random identities.
    with av.open(memory, "w", format="image2pipe" if single else None, container_options={"fflags": "bitexact"}) as out:
        if video:
            stream = out.add_stream(video, rate=25 if name.endswith(".avi") else 10)
            stream.width, stream.height, stream.pix_fmt = 160, 120, pix_fmt
            stream.codec_context.thread_count = 1
        if audio:
            track = out.add_stream(audio, rate=48_000 if audio == "libopus" else 16_000, layout="mono")
        for number, picture in enumerate(pictures[: 1 if single else None] if video else ()):
            frame = picture.reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25 if name.endswith(".avi") else 10)
            out.mux(stream.encode(frame))
        if audio:
            resampler = av.AudioResampler(
                format=track.codec_context.format,
                layout=track.codec_context.layout,
                rate=track.codec_context.sample_rate,
                frame_size=track.codec_context.frame_size or 1024,
            )
            for block in (*sound, None):
                for frame in resampler.resample(block):
                    out.mux(track.encode(frame))
            out.mux(track.encode(None))
        if video:
            out.mux(stream.encode(None))
    data = memory.buffer.getvalue()
    return _with_profile(data) if name.endswith(".png") else _with_exif(data) if single else data


def _with_profile(png: bytes) -> bytes:
    """A PNG with a named colour profile and a text, as screenshots have them."""
    for name, body in (
        (b"iCCP", b"Display P3\0\0" + zlib.compress(bytes(400))),
        (b"zTXt", b"k\0\0" + zlib.compress(b"x")),
    ):
        png = (
            png[:33]
            + struct.pack(">I", len(body))
            + name
            + body
            + struct.pack(">I", zlib.crc32(name + body))
            + png[33:]
        )
    return png


def _with_exif(jpeg: bytes) -> bytes:
    """A JPEG that is to be turned by a quarter, as cameras write them."""
    body = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def mutant(seed: int, index: int, files: Originals) -> Mutant:
    """The damaged file with this number; the same one whenever the originals are."""
    rng = random.Random(f"{seed}/{index}")
    name = rng.choice(sorted(files))
    damage = list(MUTATIONS)[index % len(MUTATIONS)]  # in turn, so that a short run has them all
    steps = [damage, *rng.choices(list(MUTATIONS), k=rng.choice((0, 0, 0, 1, 2)))]
    data = bytearray(files[name])
    stem, suffix = Path(name).stem, Path(name).suffix
    for step in steps:
        if step == "swapped extension":
            suffix = rng.choice(_SUFFIXES)
        else:
            data = bytearray(MUTATIONS[step](data, rng, files))
    return Mutant(f"{index:05d}-{stem}{suffix}", bytes(data), f"{name}: {', '.join(steps)}")


# Each takes the bytes, a source of chance and all originals, and gives other bytes.


def _flip(data: bytearray, rng: random.Random, count: int, end: int) -> bytearray:
    for _ in range(count if data else 0):
        data[rng.randrange(min(end, len(data)))] ^= 1 << rng.randrange(8)
    return data


def few_bits(data: bytearray, rng: random.Random, files: Originals) -> bytearray:
    return _flip(data, rng, rng.randint(1, 8), len(data))


def many_bits(data: bytearray, rng: random.Random, files: Originals) -> bytearray:
    return _flip(data, rng, int(len(data) * rng.choice((0.001, 0.01, 0.05))) + 1, len(data))


def bits_of_the_head(data: bytearray, rng: random.Random, files: Originals) -> bytearray:
    return _flip(data, rng, rng.randint(1, 16), rng.choice((64, 256, 1024)))


def truncated(data: bytearray, rng: random.Random, files: Originals) -> bytearray:
    return data[: rng.choice((rng.randint(0, len(data)), rng.randint(0, min(200, len(data))))) or 1]


def hole(data: bytearray, rng: random.Random, files: Originals) -> bytearray:
    begin = rng.randint(0, len(data))
    length = rng.randint(1, max(1, len(data) // 3))
    if rng.random() < 0.5:
        del data[begin : begin + length]
    else:
        data[begin : begin + length] = bytes(len(data[begin : begin + length]))
    return data


def spliced(data: bytearray, rng: random.Random, files: Originals) -> bytearray:
    """Atoms, chunks or plain blocks: twice, left out, exchanged, put into each other, or taken from another file."""
    if not data:
        return data
    found = list(pieces(data))
    if len(found) < 2:
        size = max(1, len(data) // 8)
        found = [(at, min(size, len(data) - at)) for at in range(0, len(data), size)]
    (first, length), (second, other) = rng.choice(found), rng.choice(found)
    one, two = bytes(data[first : first + length]), bytes(data[second : second + other])
    match rng.randrange(6):
        case 0:
            data[first:first] = one * rng.choice((1, 2, 50))
        case 1:
            del data[first : first + length]
        case 2 if first + length <= second:
            data[second : second + other], data[first : first + length] = one, two
        case 3:
            data[second + min(8, other) : second + min(8, other)] = one
        case 4:
            data[first : first + length] = bytes(reversed(one))
        case _:
            donor = bytearray(files[rng.choice(sorted(files))])
            at, size = rng.choice(list(pieces(donor)) or [(0, min(4096, len(donor)))])
            data[first:first] = donor[at : at + size]
    return data


def zero_lengths(data: bytearray, rng: random.Random, files: Originals) -> bytearray:
    """The length fields of some atoms or chunks are 0; without any, the whole file is, or a run of its bytes."""
    found = [at for at, _ in pieces(data)]
    if not found:
        return bytearray() if rng.random() < 0.3 else hole(data, rng, files)
    big = data[4:8] == b"ftyp"
    for at in rng.sample(found, min(len(found), rng.randint(1, 4))):
        where = at if big else at + 4
        data[where : where + 4] = bytes(4)
    return data


def absurd_numbers(data: bytearray, rng: random.Random, files: Originals) -> bytearray:
    """Sizes, counts, dimensions, durations, rates and channels of the header become extreme."""
    fields = list(numbers(data))
    for _ in range(rng.randint(1, 3)):
        at, size, big = rng.choice(fields) if fields and rng.random() < 0.8 else (
            rng.randrange(max(1, min(len(data), 2048))), rng.choice((1, 2, 4, 8)), rng.random() < 0.5)  # fmt: skip
        most = 2 ** (8 * size) - 1
        value = rng.choice((0, 1, 2, 7, most, most // 2, most // 2 + 1, most - 1, most // 256, rng.randint(0, most)))
        data[at : at + size] = value.to_bytes(size, "big" if big else "little")
    return data


def two_in_one(data: bytearray, rng: random.Random, files: Originals) -> bytearray:
    other = files[rng.choice(sorted(files))]
    return data + other if rng.random() < 0.5 else bytearray(other) + data


def head_before_noise(data: bytearray, rng: random.Random, files: Originals) -> bytearray:
    kept = rng.choice((16, 64, 512, 2048, len(data) // 4))
    return data[:kept] + rng.randbytes(rng.choice((100, 10_000, len(data))))


MUTATIONS: dict[str, Callable[[bytearray, random.Random, Originals], bytearray]] = {
    "few bits": few_bits,
    "many bits": many_bits,
    "bits of the head": bits_of_the_head,
    "truncated": truncated,
    "hole": hole,
    "spliced": spliced,
    "swapped extension": lambda data, rng, files: data,
    "zero lengths": zero_lengths,
    "absurd numbers": absurd_numbers,
    "absurd numbers too": absurd_numbers,  # the richest vein gets a double share
    "two in one": two_in_one,
    "head before noise": head_before_noise,
}

# Where structure and numbers lie, as far as it pays to know.

_NESTED = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta"}
# Atom → offset and size of numbers in it, after size and name.
_ATOM_NUMBERS = {
    b"mvhd": ((12, 4), (16, 4)),  # time scale, duration
    b"tkhd": ((12, 4), (20, 4), (76, 4), (80, 4)),  # track, duration, width, height
    b"mdhd": ((12, 4), (16, 4)),
    b"elst": ((4, 4), (8, 4), (12, 4), (16, 4)),
    b"stsd": ((4, 4), (8, 4), (16 + 16, 2), (40, 2), (42, 2), (32, 2), (34, 2), (40, 4)),
    b"stts": ((4, 4), (8, 4), (12, 4)),
    b"ctts": ((4, 4), (8, 4), (12, 4)),
    b"stss": ((4, 4), (8, 4)),
    b"stsc": ((4, 4), (8, 4), (12, 4), (16, 4)),
    b"stsz": ((4, 4), (8, 4), (12, 4)),
    b"stco": ((4, 4), (8, 4)),
    b"hdlr": ((8, 4),),
}
# RIFF chunk → numbers in it, after name and size.
_CHUNK_NUMBERS = {
    b"fmt ": ((0, 2), (2, 2), (4, 4), (8, 4), (12, 2), (14, 2)),
    b"avih": ((0, 4), (16, 4), (24, 4), (28, 4), (32, 4), (36, 4)),
    b"strh": ((20, 4), (24, 4), (28, 4), (32, 4), (36, 4), (44, 4)),
    b"strf": ((4, 4), (8, 4), (12, 2), (14, 2), (20, 4)),
}
# Matroska elements (identity and length as bytes): dimensions, rates, channels, durations, time scale.
_ELEMENTS = (b"\xb0", b"\xba", b"\xb5", b"\x9f", b"\x44\x89", b"\x2a\xd7\xb1", b"\x23\xe3\x83", b"\xd7", b"\xe7")


def pieces(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Place and length of the atoms of an MP4, or of the chunks of a RIFF file; nothing of others."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        yield from _atoms(data, 0, len(data))
    elif data[:4] == b"RIFF":
        yield from _chunks(data, 12, len(data))


def _atoms(data: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int]]:
    while at + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, at)
        if size < 8 or at + size > end:
            return
        yield at, size
        if name in _NESTED:
            yield from _atoms(data, at + 8, at + size)
        at += size


def _chunks(data: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int]]:
    while at + 8 <= end:
        name, size = struct.unpack_from("<4sI", data, at)
        if at + 8 + size > end:
            return
        yield at, 8 + size
        if name == b"LIST":
            yield from _chunks(data, at + 12, at + 8 + size)
        at += 8 + size + size % 2


def numbers(data: bytes | bytearray) -> Iterator[tuple[int, int, bool]]:
    """Place, size and whether big-endian of numbers that headers hold."""
    riff = data[:4] == b"RIFF"
    known = _CHUNK_NUMBERS if riff else _ATOM_NUMBERS
    for at, length in pieces(data):
        name = bytes(data[at : at + 4] if riff else data[at + 4 : at + 8])
        yield (at + 4 if riff else at), 4, not riff  # its own length
        yield from ((at + 8 + o, size, not riff) for o, size in known.get(name, ()) if o + size <= length - 8)
    if data[:4] == b"\x1a\x45\xdf\xa3":
        for element in _ELEMENTS:
            at = data.find(element, 40, 2000)
            while at >= 0:
                size = data[at + len(element)] & 0x7F if at + len(element) < len(data) else 0
                if 1 <= size <= 8:
                    yield at + len(element) + 1, size, True
                at = data.find(element, at + 1, 2000)
    if data[:4] == b"\x89PNG":
        yield from ((16, 4, True), (20, 4, True), (8, 4, True), (24, 1, True), (25, 1, True), (33, 4, True))
    if data[:3] == b"GIF":
        yield from ((6, 2, False), (8, 2, False), (10, 1, False))
    if data[:4] == b"fLaC":
        yield from ((8, 2, True), (10, 2, True), (18, 4, True), (20, 2, True), (22, 4, True), (5, 1, True))
    if data[:4] == b"OggS":
        yield from ((6, 8, False), (14, 4, False), (26, 1, False), (37, 1, False), (40, 4, False))
    if data[:3] == b"FLV":
        yield from ((5, 4, True), (14, 2, True), (16, 1, True))


if __name__ == "__main__":
    made = mutant(int(sys.argv[1]), int(sys.argv[2]), originals(Path(sys.argv[4]) if len(sys.argv) > 4 else None))
    (Path(sys.argv[3]) / made.name).write_bytes(made.data)
    print(f"{Path(sys.argv[3]) / made.name}: {made.recipe}")
