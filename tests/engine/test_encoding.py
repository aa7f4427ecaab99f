"""The towers in slices: what one pass over everything gives, and no more memory for a longer clip."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from echopix_cli.engine import Engine
from echopix_cli.engine.encoding import ClipEncoder, encode_sound, slice_mel_frames, slice_steps
from echopix_cli.engine.meters import Clock
from echopix_cli.errors import MediaError
from echopix_cli.measure.live_bytes import LiveBytes
from echopix_cli.media import Clip, DecodePlan, MediaInfo, load_clip
from echopix_cli.model.processing import patchify
from echopix_cli.results import AudioStatus

CPU = torch.device("cpu")
STEPS, MEL_FRAMES = slice_steps(CPU), slice_mel_frames(CPU)

SIDE = 112


@pytest.fixture(scope="module")
def engine(random_checkpoint: Path) -> Engine:
    return Engine.load(str(random_checkpoint), device="cpu")


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, SIDE, SIDE), np.uint8)


def encoder(engine: Engine) -> ClipEncoder:
    return ClipEncoder(engine.model.thinker, engine.processor.rules, Clock(engine.device))


def seen(frames: np.ndarray | None, waveform: np.ndarray | None = None) -> Clip:
    return Clip(
        path="noise", frames=frames, frame_times=None if frames is None else np.arange(len(frames)) / 2,
        waveform=waveform, audio_status=AudioStatus.USED, start=0.0, end=None, info=MediaInfo("noise", None, ()),
    )  # fmt: skip


def picture_of(encoder: ClipEncoder, frames: np.ndarray) -> tuple[torch.Tensor, tuple[int, int, int]]:
    inputs, features, _ = encoder.finish(seen(frames))
    assert features is not None and inputs.grid_thw is not None
    return features, inputs.grid_thw


@pytest.mark.parametrize("count", [1, 2, 3, 2 * STEPS - 1, 2 * STEPS, 2 * STEPS + 1, 5 * STEPS])
def test_slices_of_the_picture_are_the_whole_picture(engine: Engine, count: int) -> None:
    frames = noise(count)
    pixels, grid = patchify(frames, engine.processor.rules)
    with torch.inference_mode():
        whole = engine.model.thinker.encode_pixels(pixels, torch.tensor([grid]))
    features, found = picture_of(encoder(engine), frames)
    assert found == grid
    torch.testing.assert_close(features, whole, rtol=1e-5, atol=1e-5)


def test_frames_are_encoded_as_they_come_and_each_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, picture, sizes = noise(5 * STEPS), encoder(engine), []
    encode = type(engine.model.thinker).encode_pixels

    def counted(self: object, pixels: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        sizes.append(int(grid[0, 0]))
        return encode(self, pixels, grid)

    monkeypatch.setattr(type(engine.model.thinker), "encode_pixels", counted)
    for ready in (3, 2 * STEPS, 2 * STEPS + 1, 5 * STEPS - 1):
        picture.look(frames, ready)
    assert sizes == [STEPS, STEPS], "only whole slices before the end"
    features, _ = picture_of(picture, frames)
    assert sizes == [STEPS, STEPS, STEPS // 2]
    assert torch.equal(features, picture_of(encoder(engine), frames)[0]), "whenever they came"


def test_another_array_is_another_picture(engine: Engine) -> None:
    """Where frames were lost, the finished clip holds fewer than were announced."""
    frames, picture = noise(3 * STEPS), encoder(engine)
    picture.look(frames, 2 * STEPS)
    fewer = frames[1:]
    features, grid = picture_of(picture, fewer)
    expected, same = picture_of(encoder(engine), fewer.copy())
    assert grid == same == (-(-len(fewer) // 2), SIDE // 14, SIDE // 14)
    assert torch.equal(features, expected)


@pytest.mark.parametrize("extra", [3, 200, 777, MEL_FRAMES - 1, MEL_FRAMES, MEL_FRAMES + 1, MEL_FRAMES + 2])
def test_slices_of_the_sound_are_the_whole_sound(engine: Engine, extra: int) -> None:
    mel = torch.randn(128, MEL_FRAMES + extra, generator=torch.Generator().manual_seed(extra))
    with torch.inference_mode():
        whole = engine.model.thinker.encode_mel(mel[None], torch.tensor([mel.shape[1]]))
    torch.testing.assert_close(encode_sound(engine.model.thinker, mel, engine.device), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_window", [150, 64, 25])
def test_slices_of_the_sound_are_whole_windows_of_any_tower(
    engine: Engine, n_window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.model.thinker.audio_tower.config, "n_window", n_window)
    assert engine.model.thinker.config.audio_config.n_window == n_window
    mel = torch.randn(128, 2 * MEL_FRAMES + 100, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = engine.model.thinker.encode_mel(mel[None], torch.tensor([mel.shape[1]]))
    torch.testing.assert_close(encode_sound(engine.model.thinker, mel, engine.device), whole, rtol=1e-5, atol=1e-5)


def test_a_longer_clip_takes_no_more_memory(engine: Engine) -> None:
    """Beyond the features themselves; counted, not measured."""

    def beyond_features(seconds: int) -> tuple[int, int]:
        frames, mel = noise(2 * seconds), torch.zeros(128, 100 * seconds)
        with LiveBytes() as seeing:
            video, _ = picture_of(encoder(engine), frames)
        with LiveBytes() as hearing:
            audio = encode_sound(engine.model.thinker, mel, engine.device)
        return seeing.peak - video.nbytes, hearing.peak - audio.nbytes

    short, long = beyond_features(28), beyond_features(112)
    assert long[0] <= 1.1 * short[0]
    assert long[1] <= 1.1 * short[1]


def test_what_is_encoded_beside_decoding_is_what_is_encoded_after_it(engine: Engine, clips: dict[str, Path]) -> None:
    plan = engine.plan(DecodePlan(fps=25.0))
    beside, after = engine.read(str(clips["both"]), plan), engine.encode(load_clip(clips["both"], plan))
    assert beside.video is not None and after.video is not None and beside.audio is not None and after.audio is not None
    assert torch.equal(beside.video, after.video)
    assert torch.equal(beside.audio, after.audio)
    assert beside.inputs.grid_thw == after.inputs.grid_thw
    assert beside.inputs.grid_times.tolist() == after.inputs.grid_times.tolist()
    assert set(beside.seconds) == set(after.seconds) == {"decode", "vision", "audio"}


def test_slices_are_encoded_while_frames_are_decoded(
    engine: Engine, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sound before the first frame is there; each tower's work done by the thread that asked."""
    order, looker, listener = [], ClipEncoder.look, ClipEncoder.listen

    def look(self: ClipEncoder, frames: np.ndarray, ready: int) -> None:
        order.append((threading.current_thread().name, ready))
        looker(self, frames, ready)

    def listen(self: ClipEncoder, waveform: np.ndarray) -> None:
        order.append((threading.current_thread().name, "sound"))
        listener(self, waveform)

    monkeypatch.setattr(ClipEncoder, "look", look)
    monkeypatch.setattr(ClipEncoder, "listen", listen)
    encoded = engine.read(str(clips["both"]), engine.plan(DecodePlan(fps=25.0)))
    here = threading.current_thread().name
    frames = encoded.sampling.frames
    assert order == [(here, "sound"), *((here, ready) for ready in range(1, frames + 1)), (here, frames)]


def test_what_is_wrong_with_a_file_is_told_where_it_was_asked_for(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(MediaError, match=r"a\.mp4"):
        engine.read(str(tmp_path / "a.mp4"), engine.plan(DecodePlan()))


def test_nobody_decodes_for_a_run_that_failed(
    engine: Engine, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(self: ClipEncoder, frames: np.ndarray, ready: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ClipEncoder, "look", look)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        engine.read(str(clips["both"]), engine.plan(DecodePlan(fps=25.0)))
    for thread in threading.enumerate():
        if thread.name == "decode":
            thread.join(timeout=60)
    assert threading.active_count() <= before
