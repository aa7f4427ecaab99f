"""Fixtures that several rooms' tests share: a tiny random checkpoint, small real clips, a clean environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from places import GOLDEN


@pytest.fixture(scope="session", autouse=True)
def no_hub() -> Iterator[None]:
    """No test may reach a model hub, whatever the machine's settings."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    yield
    if before is None:
        del os.environ["HF_HUB_OFFLINE"]
    else:
        os.environ["HF_HUB_OFFLINE"] = before


@pytest.fixture(autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person's own config file and ECHOPIX_* variables do not reach the tests."""
    for name in list(os.environ):
        if name.startswith("ECHOPIX_") and name != "ECHOPIX_REQUIRE_GPU":
            monkeypatch.delenv(name)
    monkeypatch.setenv("ECHOPIX_CONFIG", str(tmp_path_factory.getbasetemp() / "no-config.toml"))


@pytest.fixture(scope="session")
def reference() -> Path:
    """The shipped part of the authors' vectors."""
    return GOLDEN / "reference"


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the bundled model's shape with seeded random weights, tokenizer and all."""
    from echopix_cli.model.processing import Processor
    from echopix_cli.training import tiny
    from echopix_cli.weights.checkpoint import save_model

    words = ["What instrument is playing?", "What do you see?", "trumpet", "violin", "dog", "yes", "no"]
    tokenizer = tiny.build_tokenizer(words)
    config = tiny.build_config(tokenizer)
    folder = tmp_path_factory.mktemp("random-checkpoint")
    tiny.save_processor(Processor(tokenizer, config, tiny.pixel_rules()), folder)
    save_model(tiny.build_model(config, seed=3), folder)
    return folder


def write_clip(path: Path, seconds: float = 3.0, fps: int = 10, sound: bool = True, picture: bool = True) -> Path:
    """A small H.264 + AAC mp4 (or either alone): a moving bright square and a 440 Hz tone."""
    import av

    with av.open(str(path), "w") as container:
        video = audio = None
        if picture:
            video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
            video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        if sound:
            audio = container.add_stream("aac", rate=16000, layout="mono")
        for index in range(int(seconds * fps) if video else 0):
            image = np.full((120, 160, 3), 30, np.uint8)
            image[20:60, index % 120 : index % 120 + 40] = (250, 200, 40)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        if audio:
            tone = (0.4 * np.sin(np.arange(int(seconds * 16000)) * 2 * np.pi * 440 / 16000)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(audio.encode(frame))
        for stream in (video, audio):
            if stream:
                container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``both``, ``silent`` (picture only) and ``dark`` (sound only)."""
    folder = tmp_path_factory.mktemp("clips")
    return {
        "both": write_clip(folder / "both.mp4"),
        "silent": write_clip(folder / "silent.mp4", sound=False),
        "dark": write_clip(folder / "dark.m4a", picture=False),
    }
