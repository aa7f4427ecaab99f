"""What is written to files: the mp4, the packed assets, the build script's MIDI."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from places import TESTS, load_script

from echopix_cli.errors import EchopixError
from echopix_cli.scenes import make_script, render_audio, render_frames, write_mp4
from echopix_cli.scenes.notes import ASSETS, FONTS, sources

build = load_script(TESTS / "tools" / "scene_assets.py")


def test_an_mp4_decodes_back_to_the_scene(tmp_path: Path) -> None:
    script = make_script("train", 11, "order")
    path = tmp_path / "scene.mp4"
    write_mp4(script, path, size=96, fps=10)
    assert [p.name for p in tmp_path.iterdir()] == ["scene.mp4"]
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.audio[0].codec_context.name == "aac"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(frames) == 80
    truth = render_frames(script, np.array([4.0]), 96)[0].transpose(1, 2, 0)
    assert np.abs(frames[40].astype(int) - truth).mean() < 14
    source = render_audio(script)
    assert source is not None
    assert abs(len(wave) - len(source)) < 3000
    n = min(len(wave), len(source))
    assert max(_likeness(wave[:n], np.roll(source[:n], lag)) for lag in (0, 1024, -1024)) > 0.9


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def test_a_clip_without_a_sound_track_has_none(tmp_path: Path) -> None:
    script = next(s for s in (make_script("train", i, "silent") for i in range(40)) if not s.sound.track)
    write_mp4(script, tmp_path / "mute.mp4", size=(48, 64), fps=4)
    with av.open(str(tmp_path / "mute.mp4")) as container:
        assert not container.streams.audio
        assert (container.streams.video[0].width, container.streams.video[0].height) == (64, 48)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(EchopixError):
        write_mp4(make_script("train", 0), tmp_path / "odd.mp4", size=33)
    assert not list(tmp_path.iterdir())


def test_the_packed_assets_are_small_licensed_and_complete() -> None:
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 8 * 2**20
    licences = (ASSETS / "LICENSES.md").read_text()
    names = (
        *("FluidR3 GM", "Frank Wen", "MuseScore General", "SIL OPEN FONT LICENSE", "Permission is hereby"),
        *("Noto Emoji", "Twemoji", "Fluent Emoji", "EmojiTwo", "Firefox OS Emoji", "OpenMoji", "sf_GMbank"),
    )
    for phrase in names:
        assert phrase in licences
    wanted = {(name, pitch, velocity) for name, _, pitch, velocity in build.wanted_notes(with_training=True)}
    for font in FONTS:
        packed = {(name, *pair) for name in {n for n, _, _ in wanted} for pair in sources(font, name)}
        assert packed == wanted


def test_the_unseen_bank_wants_held_out_notes_only() -> None:
    everything = set(build.wanted_notes(with_training=True))
    unseen = set(build.wanted_notes(with_training=False))
    assert unseen < everything and len(unseen) == 60


def test_midi_is_well_formed(tmp_path: Path) -> None:
    path = tmp_path / "notes.mid"
    build.write_midi(path, [("piano", 0, 60, 64), ("drum", 8, 38, 112)])
    data = path.read_bytes()
    assert data[:4] == b"MThd" and data[14:18] == b"MTrk"
    assert int.from_bytes(data[18:22], "big") == len(data) - 22
    assert bytes([0x90, 60, 64]) in data and bytes([0x99, 38, 112]) in data
    assert data.endswith(b"\xff\x2f\x00")


def test_a_missing_soundfont_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    with pytest.raises(EchopixError) as caught:
        build.synthesise(build.UNSEEN["timgm"], [("piano", 0, 60, 64)])
    assert "timgm6mb-soundfont" in caught.value.hint
    assert build.main(["--unseen-font", str(tmp_path / "bank.ogg")]) == 1


def test_trimming_keeps_the_note_and_refuses_silence() -> None:
    slot = np.zeros(16_000, dtype=np.float32)
    slot[4000:8000] = 0.1 * np.sin(np.arange(4000) * 0.3)
    note, seconds, rms = build.trim(slot)
    assert 3900 <= len(note) <= 4300 and seconds == pytest.approx(0.25, abs=0.02)
    assert np.abs(note).max() == pytest.approx(0.8, rel=0.01) and 0.4 < rms < 0.65
    with pytest.raises(EchopixError):
        build.trim(np.zeros(16_000, dtype=np.float32))
