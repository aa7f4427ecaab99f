"""What sampling frames from a long clip costs, against decoding it through: ``python tests/benchmarks/decoding.py``.

Every figure is a ratio of two measurements of one run on one machine, or a multiple of real time. The clips are 720p
H.264 of about 1.1 Mbit/s with 48 kHz stereo AAC, made once and kept in the temporary folder. A section of them is
encoded and its packets are repeated, so that minutes of video are made in seconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av import library_versions

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from echopix_cli.media import Clip, DecodePlan, load_clip, resize_frames, smart_resize
from echopix_cli.media.sampling import Pixels

FPS, HEIGHT, WIDTH, RATE = 25, 720, 1280, 48_000
FRAMES = 64  # sampled from the long clips
SECTIONS = {60: 300, 250: 500}  # frames that are encoded, by the distance of keyframes


def pictures(number: int) -> Iterator[Pixels]:
    """Frames ``(H, W, 3)``: a drifting gradient under two patches of noise, one moving and one that changes."""
    rng = np.random.default_rng(0)
    noise = rng.integers(-12, 13, (HEIGHT + 512, WIDTH + 1024, 1)).astype(np.int16)
    slope = (np.arange(WIDTH + 1024)[None, :, None] // 8 + np.arange(HEIGHT + 512)[:, None, None] // 6) % 224
    ground = (slope + 16 + noise // 4 + np.array([0, 10, 20])).astype(np.uint8)
    for step in range(number):
        x, y = step * 2 % 1024, step % 512
        picture = ground[y : y + HEIGHT, x : x + WIDTH].copy()
        left = step * 5 % (WIDTH - 256)
        picture[200:400, left : left + 256] = 128 + 6 * noise[100:300, 100:356]
        picture[500:564, 900:1028] = rng.integers(0, 255, (64, 128, 1))
        yield picture


def section(path: Path, keyframes: int, bframes: int) -> Path:
    """Encode one section, which begins with a keyframe and refers to nothing outside."""
    options = {
        "preset": "veryfast",
        "crf": "27",
        "x264-params": f"keyint={keyframes}:min-keyint={keyframes}:scenecut=0:bframes={bframes}:b-adapt=0:open-gop=0",
    }
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for picture in pictures(SECTIONS[keyframes]):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def speech(path: Path) -> Path:
    """60 s of AAC: noise in the rhythm of syllables, different left and right."""
    rng = np.random.default_rng(1)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=RATE, layout="stereo", options={"b": "128k"})
        for block in range(60 * RATE // 1024):
            loudness = abs(np.sin(block * 0.1)) * 0.3
            frame = av.AudioFrame.from_ndarray(
                (rng.standard_normal((2, 1024)) * loudness).astype(np.float32), format="fltp", layout="stereo"
            )
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), block * 1024
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def repeated(path: Path, seconds: float) -> Iterator[tuple[float, Any]]:
    """The packets of a file over and over: when each is decoded, in seconds, and the packet with its time moved on."""
    for turn in count():
        with av.open(str(path)) as source:
            stream = source.streams[0]
            length = int(sum(packet.duration or 0 for packet in source.demux(stream)))
            source.seek(0)
            for packet in source.demux(stream):
                if packet.dts is None or packet.pts is None:
                    continue
                packet.pts, packet.dts = packet.pts + turn * length, packet.dts + turn * length
                at = float(packet.dts * packet.time_base)
                if at >= seconds:
                    return
                yield at, packet


def long_clip(folder: Path, keyframes: int, bframes: int, seconds: float) -> Path:
    """A clip of so many seconds, from sections; made if it is not there yet."""
    path = folder / f"g{keyframes}-b{bframes}-{seconds:g}s.mp4"
    if path.exists():
        return path
    picture = section(folder / f"section-g{keyframes}-b{bframes}.mp4", keyframes, bframes)
    sound = speech(folder / "speech.mp4")
    half = path.with_suffix(".part")
    with av.open(str(picture)) as first, av.open(str(sound)) as second, av.open(str(half), "w", format="mp4") as out:
        tracks = [out.add_stream_from_template(source.streams[0]) for source in (first, second)]
        waiting = [repeated(picture, seconds), repeated(sound, seconds)]
        heads = [next(source, None) for source in waiting]
        while any(heads):
            turn = min((head[0], place) for place, head in enumerate(heads) if head)[1]
            packet = heads[turn][1]  # type: ignore[index]
            packet.stream = tracks[turn]
            out.mux(packet)
            heads[turn] = next(waiting[turn], None)
    half.rename(path)
    return path


def decoded_through(path: Path, plan: DecodePlan, chosen: np.ndarray[Any, Any], most: int | None = None) -> Pixels:
    """The plain path: decode every frame (or ``most``), keep and resize the chosen ones, skip nothing."""
    wanted, kept = set(chosen.tolist()), []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type, stream.codec_context.thread_count = "AUTO", 4
        size = smart_resize(HEIGHT, WIDTH, plan.size_factor, plan.min_pixels, plan.max_pixels)
        for decoded, frame in enumerate(container.decode(stream), 1):
            if round(frame.time * FPS) in wanted:
                pixels = frame.to_ndarray(format="rgb24").transpose(2, 0, 1)
                kept.append(resize_frames(pixels[None], *size)[0])
            if most is not None and decoded >= most:
                break
    return np.stack(kept)


@dataclass(frozen=True)
class Spent:
    """Seconds of the clock, and of all processors together: these tell more where others use the machine."""

    wall: float
    cpu: float

    def __truediv__(self, other: Spent) -> str:
        return f"{self.wall / other.wall:.2f} | {self.cpu / other.cpu:.2f}"


def timed(work: Callable[[], Any]) -> tuple[Spent, Any]:
    """What a piece of work takes, and what comes of it."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu), result


def memory(name: str) -> int:
    """Bytes of the process in memory: ``VmRSS`` now, ``VmHWM`` at most."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


def numbers_of(clip: Clip) -> np.ndarray[Any, Any]:
    """Which frames of the file were sampled."""
    assert clip.frame_times is not None
    return np.round(clip.frame_times * FPS).astype(int)


def long_row(path: Path, seconds: float, through: float) -> str:
    """Sampling a long clip against decoding it, of which so many seconds are decoded and the rest is reckoned."""
    plan, part = DecodePlan(max_frames=FRAMES, audio=False), round(min(seconds, through) * FPS)
    load_clip(path, DecodePlan(max_frames=4, end=1.0))  # imports and caches come first
    Path("/proc/self/clear_refs").write_text("5")  # the most memory is counted anew
    before = memory("VmRSS")
    sampled, clip = timed(lambda: load_clip(path, plan))
    grown = memory("VmHWM") - before
    chosen = numbers_of(clip)
    decoding, frames = timed(lambda: decoded_through(path, plan, chosen[chosen < part], part))
    assert clip.frames is not None and np.array_equal(clip.frames[: len(frames)], frames), "not the same frames"
    whole = Spent(decoding.wall * seconds * FPS / part, decoding.cpu * seconds * FPS / part)
    return f"| {path.stem} | {sampled.wall:.2f} s | {whole.wall:.1f} s | {whole / sampled} | {grown / 2**20:.0f} MiB |"


def short_row(path: Path, trials: int) -> str:
    """Sampling a short clip as by default against decoding it through, the fastest of several turns of each."""
    plan = DecodePlan(audio=False)
    chosen = numbers_of(load_clip(path, plan))
    ours, plain = [], []
    for _ in range(trials):
        spent, clip = timed(lambda: load_clip(path, plan))
        ours.append(spent)
        spent, frames = timed(lambda: decoded_through(path, plan, chosen))
        plain.append(spent)
        assert clip.frames is not None and np.array_equal(clip.frames, frames), "not the same frames"
    least = [Spent(min(one.wall for one in turns), min(one.cpu for one in turns)) for turns in (ours, plain)]
    return f"| {path.stem} | {least[0].wall:.3f} s | {least[1].wall:.3f} s | {least[0] / least[1]} |"


def sound_row(path: Path) -> str:
    """How fast a clip's sound is decoded, as a multiple of real time."""
    spent, clip = timed(lambda: load_clip(path, DecodePlan(video=False)))
    rates = [clip.audio_seconds / seconds for seconds in (spent.wall, spent.cpu)]
    return f"| {path.stem} | {spent.wall:.2f} s | {rates[0]:.0f} | {rates[1]:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--seconds", type=float, default=1200.0, help="length of the long clips")
    parser.add_argument("--through", type=float, default=120.0, help="seconds of them that are decoded through")
    parser.add_argument("--trials", type=int, default=3, help="turns on the short clips")
    asked = parser.parse_args()
    folder = Path(tempfile.gettempdir()) / "echopix-decoding"
    folder.mkdir(exist_ok=True)
    kinds = [(keyframes, bframes) for keyframes in SECTIONS for bframes in (0, 3)]
    long = [long_clip(folder, *kind, asked.seconds) for kind in kinds]
    short = [long_clip(folder, *kind, 8.0) for kind in kinds]
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, PyAV {av.__version__},")
    codecs = ".".join(str(part) for part in library_versions["libavcodec"])
    print(f"libavcodec {codecs} and torch {torch.__version__}")
    print(f"\n| {asked.seconds:g} s, {FRAMES} frames | sampled | decoded through | ratio | by CPU | memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for path in long:
        print(long_row(path, asked.seconds, asked.through), flush=True)
    print("\n| 8 s, default plan | ours | decoded through | ratio | by CPU |\n| --- | ---: | ---: | ---: | ---: |")
    for path in short:
        print(short_row(path, asked.trials), flush=True)
    print("\n| sound | spent | times real time | by CPU |\n| --- | ---: | ---: | ---: |")
    print(sound_row(long[0]))


if __name__ == "__main__":
    main()
