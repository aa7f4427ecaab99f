"""Scenes of the wide splits: true, well formed, reproducible, and rendered as their labels say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from clean_scenes import clean
from hypothesis import given, settings
from hypothesis import strategies as st
from wide_oracle import answer, camera

from echopix_cli.scenes import (
    FAMILIES,
    INSTRUMENTS,
    PICTURES,
    WIDE_FAMILIES,
    Script,
    ask_everything,
    families_of,
    make_gallery,
    make_script,
    render_audio,
    render_frames,
    sample_times,
    seen,
)
from echopix_cli.scenes.pictures import drawings
from echopix_cli.scenes.script import COUNTED, Look
from echopix_cli.scenes.wide_questions import CORNERS
from echopix_cli.scenes.worlds import WORLDS

TIMES = sample_times(8.0)
ANSWERS = {*INSTRUMENTS, *PICTURES, *COUNTED, *CORNERS, "yes", "no", "nothing"}

any_script = st.builds(
    make_script, st.sampled_from(tuple(WORLDS)), st.integers(0, 2**40), st.sampled_from(WIDE_FAMILIES)
)


@settings(max_examples=80, derandomize=True)
@given(any_script)
def test_every_answer_is_what_a_careful_observer_would_say(script: Script) -> None:
    for item in ask_everything(script, np.random.default_rng(script.seed % 1000)):
        assert answer(script, item.question) == item.answer, item


@settings(max_examples=100, derandomize=True)
@given(any_script)
def test_items_are_well_formed_and_evidence_lies_in_the_picture(script: Script) -> None:
    assert script.items[0].family == script.family
    for item in script.items:
        assert item.family in WIDE_FAMILIES
        assert set(item.answer.split(", ")) <= ANSWERS
        assert item.evidence
        for evidence in item.evidence:
            assert 0 <= evidence.start < evidence.end <= script.duration
            if evidence.box is not None:
                x0, y0, x1, y1 = evidence.box
                assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


@settings(max_examples=60, derandomize=True)
@given(any_script, st.floats(0.0, 7.99))
def test_a_box_of_evidence_holds_what_it_is_about_at_any_moment(script: Script, moment: float) -> None:
    left, top, right, bottom = camera(script, moment)
    for item in script.items:
        boxes = [e.box for e in item.evidence if e.box is not None and e.start <= moment < e.end]
        names = set(item.answer.split(", ")) & set(PICTURES)
        if item.family not in ("object", "corner", "list") or len(names) != 1 or not boxes:
            continue
        for sprite in script.sprites:
            if sprite.name in names and sprite.show[0] <= moment < sprite.show[1]:
                share = (moment - sprite.show[0]) / (sprite.show[1] - sprite.show[0])
                x = left + (sprite.path[0] + share * (sprite.path[2] - sprite.path[0])) * (right - left)
                y = top + (sprite.path[1] + share * (sprite.path[3] - sprite.path[1])) * (bottom - top)
                assert any(a - 1e-6 <= x <= c + 1e-6 and b - 1e-6 <= y <= d + 1e-6 for a, b, c, d in boxes)


@settings(max_examples=60, derandomize=True)
@given(any_script)
def test_sprites_stay_whole_and_large_enough(script: Script) -> None:
    for sprite in script.sprites:
        for moment in np.linspace(max(0, sprite.show[0]), min(7.999, sprite.show[1] - 1e-6), 9):
            left, top, right, bottom = camera(script, float(moment))
            share = (moment - sprite.show[0]) / (sprite.show[1] - sprite.show[0])
            half = sprite.size * min(right - left, bottom - top) / 2
            assert 2 * half >= 0.15
            for dx, dy in ((0.0, 0.0), sprite.hop):
                x = left + (sprite.path[0] + share * (sprite.path[2] - sprite.path[0]) + dx) * (right - left)
                y = top + (sprite.path[1] + share * (sprite.path[3] - sprite.path[1]) + dy) * (bottom - top)
                assert half - 1e-6 <= x <= 1 - half + 1e-6 and half - 1e-6 <= y <= 1 - half + 1e-6


def test_hops_that_matter_are_in_sampled_frames() -> None:
    for split in ("wide-train", "wide-composer"):
        for seed in range(40):
            for sprite in make_script(split, seed, "sync").sprites:
                taken = [((a < TIMES) & (b > TIMES)).any() for a, b in sprite.hops]
                assert not taken or sum(taken) >= len(taken) / 2


def test_the_same_seed_writes_the_same_script_and_families_are_those_of_the_split() -> None:
    for split in WORLDS:
        assert families_of(split) == WIDE_FAMILIES
        for family in (None, "each", "dark"):
            assert make_script(split, 7, family) == make_script(split, 7, family)
    assert families_of("test") == FAMILIES
    assert {make_script("wide-train", seed).family for seed in range(150)} == set(WIDE_FAMILIES)
    keys = {
        make_script(split, 3, "object").key[0] for split in ("wide-train", "wide-val", "wide-test", "wide-composer")
    }
    assert len(keys) == 4


def test_two_shifts_repeat_the_test_split() -> None:
    """Another soundfont changes what notes are played from, another style what pictures are drawn by: nothing else."""
    for seed in range(26):
        family = WIDE_FAMILIES[seed % len(WIDE_FAMILIES)]
        known = make_script("wide-test", seed, family)
        style, font = make_script("wide-style", seed, family), make_script("wide-font", seed, family)
        assert style.notes == known.notes and style.filming == known.filming and style.sound == known.sound
        plain = [replace(s, drawing="") for s in known.sprites]
        assert [replace(s, drawing="") for s in style.sprites] == plain
        assert all(a.drawing != b.drawing for a, b in zip(style.sprites, known.sprites, strict=True))
        if font.key == known.key:  # a note may be over sooner, and leave another question open
            assert font.sprites == known.sprites and font.filming == known.filming
            played = [(n.instrument, n.start, n.gain) for n in known.notes]
            assert [(n.instrument, n.start, n.gain) for n in font.notes] == played
            assert {n.font for n in font.notes} <= {"gmbank"}


@pytest.mark.parametrize("family", [f for f in WIDE_FAMILIES if f not in ("silent", "dark")])
def test_answers_are_balanced(family: str) -> None:
    answers = Counter(make_script("wide-train", seed, family).items[0].answer for seed in range(130))
    expected = {"exists": 2, "count": 9, "corner": 15, "list": 60}.get(family, 10)
    assert len(answers) >= expected
    assert max(answers.values()) <= {"exists": 85}.get(family, 36)


def test_training_has_what_the_composer_adds_left_out() -> None:
    scripts = {split: [make_script(split, seed) for seed in range(80)] for split in ("wide-train", "wide-composer")}
    for split, own in scripts.items():
        films = [script.filming for script in own if script.filming is not None]
        other = split == "wide-composer"
        assert len(films) == 80
        assert any(len(film.shots) > 1 for film in films) == other
        assert any(film.surround is not None for film in films) == other
        assert {film.fps for film in films} <= set(WORLDS[split].fps)
        assert any(film.viewport != (0, 0, 1, 1) for film in films)
        assert any(film.shots[0].begin != film.shots[0].finish for film in films)
    assert not set(WORLDS["wide-train"].fps) & set(WORLDS["wide-composer"].fps)


@pytest.mark.parametrize("seed", range(12))
def test_sprites_are_drawn_where_and_when_the_labels_say(seed: int) -> None:
    script = clean(make_script("wide-composer", seed, ("when", "count", "corner")[seed % 3]))
    changed = (render_frames(script, TIMES) != render_frames(replace(script, sprites=()), TIMES)).any(axis=1)
    labels = seen(script, TIMES, (4, 4))
    cells = changed.reshape(16, 4, 28, 4, 28).mean(axis=(2, 4))
    assert np.array_equal(changed.any(axis=(1, 2)), (labels >= 0).any(axis=(1, 2)))
    assert (cells[labels >= 0] > 0).mean() > 0.95
    for t, now in enumerate(TIMES):
        assert script.filming is not None
        taken = np.floor(now * script.filming.fps + 1e-6) / script.filming.fps
        shown = {s.name for s in script.sprites if s.show[0] <= taken < s.show[1]}
        assert {PICTURES[i] for i in labels[t].ravel() if i >= 0} <= shown


def test_frames_depend_on_the_time_alone_and_have_any_size() -> None:
    for split, seed in (("wide-train", 4), ("wide-composer", 9)):
        script = make_script(split, seed)
        frames = render_frames(script, TIMES)
        assert frames.shape == (16, 3, 112, 112) and frames.dtype == np.uint8
        assert np.array_equal(frames[[9, 2]], render_frames(script, TIMES[[9, 2]]))
        assert render_frames(script, TIMES[:2], (72, 128)).shape == (2, 3, 72, 128)


def test_a_slow_recording_repeats_its_frames() -> None:
    script = make_script("wide-train", 4, "sync")
    assert script.filming is not None
    slow = replace(script, filming=replace(script.filming, fps=2), background=replace(script.background, noise=0))
    frames = render_frames(slow, np.array([1.0, 1.2, 1.49, 1.5]))
    assert np.array_equal(frames[0], frames[1]) and np.array_equal(frames[0], frames[2])


def test_bars_and_surrounds_hide_what_is_outside_the_viewport() -> None:
    script = make_script("wide-train", 4, "object")
    assert script.filming is not None
    barred = replace(script, filming=replace(script.filming, viewport=(0.0, 0.25, 1.0, 0.75), gain=1.0, gamma=1.0))
    quiet = replace(barred, background=replace(script.background, noise=0))
    frames = render_frames(quiet, TIMES, 96)
    assert not frames[:, :, :24].any() and not frames[:, :, 72:].any()
    assert frames[:, :, 24:72].any(axis=(0, 1)).all()


def test_company_is_heard_and_changes_no_label() -> None:
    found = [s for s in (make_script("wide-composer", seed, "instrument") for seed in range(30)) if s.bed is not None]
    assert len(found) > 10
    for script in found[:6]:
        with_it, without = render_audio(script), render_audio(replace(script, bed=None))
        assert with_it is not None and without is not None
        assert np.abs(with_it - without).max() > 0.01
        assert np.abs(with_it).max() == pytest.approx(10 ** (script.sound.level_db / 20), rel=0.02)
    assert all(make_script("wide-train", seed, "silent").bed is None for seed in range(20))


def test_looks_change_colour_and_outline_but_not_the_place() -> None:
    script = clean(make_script("wide-test", 3, "object"))
    (sprite, *_) = script.sprites
    alone = replace(script, sprites=(replace(sprite, angle=0, tint=(1.0, 1.0, 1.0), look=Look()),))
    time = np.array([(max(0.0, sprite.show[0]) + min(8.0, sprite.show[1])) / 2])
    nothing = render_frames(replace(script, sprites=()), time).astype(int)
    plain = render_frames(alone, time).astype(int)
    masks = []
    for look in (
        Look(),
        Look(hue=0.5),
        Look(texture="stripes", depth=0.4),
        Look(stretch=0.8, shear=0.2),
        Look(colour=0.0),
    ):
        changed = replace(alone, sprites=(replace(alone.sprites[0], look=look),))
        frames = render_frames(changed, time).astype(int)
        assert (look == Look()) == bool((frames == plain).all())
        masks.append((frames != nothing).any(axis=(0, 1)))
    overlap = [(mask & masks[0]).sum() / (mask | masks[0]).sum() for mask in masks]
    assert min(overlap[:3]) > 0.95 and 0.3 < overlap[3] < 0.98


def test_galleries_are_full_of_the_splits_pictures() -> None:
    for seed in range(8):
        script = make_gallery("wide-train", seed)
        assert script == make_gallery("wide-train", seed)
        assert not script.notes and script.items[0].answer == "yes"
        for time in (1.0, 7.0):
            shown = [sprite for sprite in script.sprites if sprite.show[0] <= time < sprite.show[1]]
            assert len(shown) in (4, 9) and len({sprite.name for sprite in shown}) == len(shown)
            assert {sprite.drawing for sprite in shown} <= {one for s in shown for one in drawings(s.name, "train")}
            assert (seen(script, np.array([time]), (4, 4)) >= 0).mean() >= 0.4
