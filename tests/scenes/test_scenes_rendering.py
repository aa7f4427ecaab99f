"""Pictures, sounds and labels: shapes, levels, reproducibility, and agreement with the script."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from clean_scenes import clean

from echopix_cli.scenes import (
    FAMILIES,
    INSTRUMENTS,
    PICTURES,
    heard,
    make_script,
    render_audio,
    render_frames,
    seen,
)
from echopix_cli.scenes.notes import FONTS, find, samples, sources

TIMES = np.arange(16) / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_have_the_promised_shape_and_depend_on_the_time_alone(family: str) -> None:
    script = make_script("train", 3, family)
    frames = render_frames(script, TIMES)
    assert frames.shape == (16, 3, 112, 112) and frames.dtype == np.uint8
    assert np.array_equal(frames, render_frames(script, TIMES))
    assert np.array_equal(frames[[9, 2]], render_frames(script, TIMES[[9, 2]]))


def test_frames_of_other_sizes() -> None:
    script = make_script("train", 5, "object")
    assert render_frames(script, TIMES[:2], (72, 128)).shape == (2, 3, 72, 128)
    assert render_frames(script, TIMES[:2], 448).shape == (2, 3, 448, 448)
    assert render_frames(script, np.zeros(0)).shape == (0, 3, 112, 112)


@pytest.mark.parametrize("seed", range(12))
def test_sprites_are_drawn_where_and_when_the_labels_say(seed: int) -> None:
    script = clean(make_script("train", seed, "when"))
    without = render_frames(replace(script, sprites=()), TIMES)
    changed = (render_frames(script, TIMES) != without).any(axis=1)  # (T, 112, 112)
    labels = seen(script, TIMES, (4, 4))
    cells = changed.reshape(16, 4, 28, 4, 28).mean(axis=(2, 4))
    assert np.array_equal(changed.any(axis=(1, 2)), (labels >= 0).any(axis=(1, 2)))
    assert (cells[labels >= 0] > 0).mean() > 0.95  # emoji are round: the corner of a box may be empty
    assert (cells[labels < 0] < 0.25).all()
    for t, now in enumerate(TIMES):
        shown = {s.name for s in script.sprites if s.show[0] <= now < s.show[1]}
        assert {PICTURES[i] for i in labels[t].ravel() if i >= 0} == shown


def test_the_largest_share_of_a_cell_wins() -> None:
    script = make_script("train", 1, "sync")
    labels = seen(script, np.array([0.0]), (2, 2))
    assert labels.dtype == np.int8 and labels.shape == (1, 2, 2)
    for sprite in script.sprites:
        column, row = int(sprite.path[0] * 2), int(sprite.path[1] * 2)
        assert labels[0, row, column] >= 0


def test_hops_move_the_sprite_at_two_frames_a_second() -> None:
    for seed in range(20):
        script = clean(make_script("train", seed, "sync"))
        for sprite in script.sprites:
            alone = replace(script, sprites=(sprite,))
            still = render_frames(replace(script, sprites=(replace(sprite, hops=()),)), TIMES)
            moved = (render_frames(alone, TIMES) != still).any(axis=(1, 2, 3))
            for start, end in sprite.hops:
                inside = (start < TIMES) & (end > TIMES)
                assert moved[inside].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_sound_has_the_promised_shape_and_level(family: str) -> None:
    for seed in range(8):
        script = make_script("train", seed, family)
        wave = render_audio(script)
        again = render_audio(script)
        if wave is None or again is None:
            assert family == "silent" and not script.sound.track
            continue
        assert wave.shape == (128_000,) and wave.dtype == np.float32
        assert np.array_equal(wave, again)
        peak = np.abs(wave).max()
        if script.notes:
            assert peak == pytest.approx(10 ** (script.sound.level_db / 20), rel=0.02)
        else:
            assert peak < 0.03


def test_silence_comes_in_three_kinds() -> None:
    waves = [render_audio(make_script("train", seed, "silent")) for seed in range(40)]
    assert any(wave is None for wave in waves)
    assert any(wave is not None and not wave.any() for wave in waves)
    assert any(wave is not None and wave.any() for wave in waves)


def test_notes_are_heard_when_the_labels_say() -> None:
    grid = np.arange(0, 8, 0.02) + 0.01
    for seed in range(12):
        script = clean(make_script("val", seed, "order"))
        wave = render_audio(script)
        assert wave is not None
        level = np.sqrt((wave.reshape(-1, 320) ** 2).mean(axis=1))
        labels = heard(script, grid)
        assert labels.shape == (400, len(INSTRUMENTS)) and labels.dtype == bool
        sounding = labels.any(axis=1)
        near = np.convolve(sounding, np.ones(5), "same") > 0
        assert level[~near].max() < 1e-3 * level.max()
        for note in script.notes:
            loud = level[(grid > note.start) & (grid < note.start + 0.1)].max()
            assert loud > 0.03 * level.max()
            middle = np.argmin(np.abs(grid - (note.start + note.end) / 2))
            assert labels[middle, INSTRUMENTS.index(note.instrument)]


def test_other_sample_rates_keep_the_sound() -> None:
    script = clean(make_script("train", 2, "instrument"))
    wave, up = render_audio(script), render_audio(script, 48_000)
    assert wave is not None and up is not None and up.shape == (384_000,)
    assert np.abs(up[::3] - wave).max() < 0.05


@pytest.mark.parametrize("instrument", [name for name in INSTRUMENTS if name != "drum"])
def test_recordings_have_their_pitch(instrument: str) -> None:
    errors = []
    for font in FONTS:
        for pitch, velocity in sources(font, instrument)[::3]:
            note = samples(find(font, instrument, pitch, velocity)).astype(np.float64)[400:12_000]
            spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)), 1 << 17))
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            # Harmonics of the pitch must hold more than those of one half a semitone off.
            errors.append(_comb(spectrum, hertz) > 1.5 * _comb(spectrum, hertz * 2 ** (0.5 / 12)))
    assert np.mean(errors) > 0.9


def _comb(spectrum: np.ndarray, hertz: float) -> float:
    bins = np.arange(1, 5) * hertz / 16_000 * (1 << 17)
    width = max(3, round(bins[0] * 0.008))
    inside = [round(b) for b in bins if b < 65_000 - width]
    return float(sum(spectrum[b - width : b + width + 1].max() for b in inside))


def test_every_recording_is_audible_and_both_kinds_of_pitch_exist() -> None:
    for font in FONTS:
        for instrument in INSTRUMENTS:
            pairs = sources(font, instrument)
            assert len(pairs) >= 18 and len({velocity for _, velocity in pairs}) >= 2
            for pair in pairs:
                recording = find(font, instrument, *pair)
                assert recording.audible > 0.1
                assert 0.5 < np.abs(samples(recording) / 32768).max() <= 1.0
