"""Scripts: reproducible, well formed, true, balanced, and disjoint between splits."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scene_oracle import answer

from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.scenes import (
    FAMILIES,
    INSTRUMENTS,
    OBJECTS,
    PICTURES,
    SPLITS,
    Script,
    ask_everything,
    make_script,
    surroundings,
)
from echopix_cli.scenes.backgrounds import HELD_OUT_GENERATORS, hue_is_held_out
from echopix_cli.scenes.layout import HELD_OUT_SIZES
from echopix_cli.scenes.notes import ASSETS, UNSEEN_FONT, UNSEEN_FONT_VARIABLE, find, is_held_out, unseen_font_path

OWN_SPLITS = SPLITS[:3]  # those whose notes are in the repository
ANSWERS = {*INSTRUMENTS, *PICTURES, "one", "two", "three", "four", "five", "yes", "no", "nothing"}

any_script = st.builds(make_script, st.sampled_from(OWN_SPLITS), st.integers(0, 2**40), st.sampled_from(FAMILIES))


def many(split: str, family: str, n: int = 60) -> list[Script]:
    return [make_script(split, seed, family) for seed in range(n)]


@settings(max_examples=250, derandomize=True)
@given(any_script)
def test_every_answer_is_what_a_careful_observer_would_say(script: Script) -> None:
    for item in script.items:
        assert answer(script, item.question) == item.answer, item


@settings(max_examples=120, derandomize=True)
@given(any_script)
def test_items_are_well_formed_and_evidence_lies_inside_the_scene(script: Script) -> None:
    assert script.items[0].family == script.family
    for item in script.items:
        assert item.family in FAMILIES
        assert item.answer in ANSWERS
        assert item.evidence
        for evidence in item.evidence:
            assert 0 <= evidence.start < evidence.end <= script.duration
            if evidence.box is not None:
                assert evidence.modality == "video"
                x0, y0, x1, y1 = evidence.box
                assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


@settings(max_examples=120, derandomize=True)
@given(any_script)
def test_scenes_are_physically_sound(script: Script) -> None:
    for note in script.notes:
        assert note.start >= 0
        assert note.end <= script.duration - 0.15
        assert 0.1 < note.end - note.start < 2.0
    for sprite in script.sprites:
        assert 0.22 <= sprite.size <= 0.45
        for hop_start, hop_end in sprite.hops:
            assert hop_end - hop_start >= 0.5  # two frames a second must be able to show it
        for x, y in (sprite.path[:2], sprite.path[2:]):
            for dx, dy in ((0.0, 0.0), sprite.hop):
                half = sprite.size / 2 - 1e-6
                assert half <= x + dx <= 1 - half and half <= y + dy <= 1 - half
    shown_together = [
        (a, b)
        for i, a in enumerate(script.sprites)
        for b in script.sprites[i + 1 :]
        if a.show[0] < b.show[1] and b.show[0] < a.show[1]
    ]
    for a, b in shown_together:  # their lanes keep them apart in at least one direction
        gaps = [
            abs(pa - pb) - (a.size + b.size) / 2
            for axis in (0, 1)
            for pa, pb in [(a.path[axis], b.path[axis])]
            if a.path[axis] == a.path[axis + 2] and b.path[axis] == b.path[axis + 2]
        ]
        assert max(gaps) >= -1e-6


def test_the_same_seed_writes_the_same_script() -> None:
    for family in (None, *FAMILIES):
        assert make_script("train", 7, family) == make_script("train", 7, family)
    assert make_script("train", 7) != make_script("train", 8)
    assert {make_script("train", seed).family for seed in range(120)} == set(FAMILIES)


def test_splits_never_share_a_scene() -> None:
    for seed in range(20):
        keys = {make_script(split, seed).key for split in OWN_SPLITS}
        assert len(keys) == len(OWN_SPLITS)


@pytest.mark.parametrize("split", OWN_SPLITS)
def test_pitches_sizes_and_backgrounds_of_the_test_split_are_unseen_in_training(split: str) -> None:
    testing = split == "test"
    for family in FAMILIES:
        for script in many(split, family, 25):
            assert all(is_held_out(n.instrument, n.pitch) == testing for n in script.notes)
            assert all(is_held_out(n.instrument, n.source) == testing for n in script.notes)
            assert all((round(100 * s.size) in HELD_OUT_SIZES) == testing for s in script.sprites)
            assert all(hue_is_held_out(hue) == testing for hue in script.background.hues)
            if family != "dark":
                assert (script.background.kind in HELD_OUT_GENERATORS) == testing


def test_held_out_sizes_differ_from_trained_ones_in_whole_pixels() -> None:
    pixels = {size: round(size / 100 * 112) for size in range(22, 46)}
    held = {pixels[size] for size in HELD_OUT_SIZES}
    assert not held & {edge for size, edge in pixels.items() if size not in HELD_OUT_SIZES}


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("silent", "dark")])
def test_answers_are_balanced(family: str) -> None:
    answers = Counter(script.items[0].answer for script in many("train", family, 300))
    expected = {"count": 5, "exists": 2, "object": 17, "when": 17, "sync": 17}.get(family, 10)
    assert len(answers) == expected
    if expected == 17:  # pictures of instruments are rarer on purpose
        assert sum(answers[name] for name in OBJECTS) > 0.6 * answers.total()
    else:
        assert max(answers.values()) < 2.5 * min(answers.values())


def test_silent_and_dark_scenes_lack_what_they_should() -> None:
    for script in many("train", "silent"):
        assert not script.notes
        assert script.items[0].answer in ("nothing", "no")
    for script in many("train", "dark"):
        assert not script.sprites and script.notes
        assert script.items[0].answer in ("nothing", "no")


def test_pictures_tempt_to_answer_without_listening() -> None:
    scripts = many("train", "instrument", 200)
    tempted = [s for s in scripts if {p.name for p in s.sprites} & (set(INSTRUMENTS) - {s.items[0].answer})]
    assert len(tempted) > 60


def test_the_wordings_promised_by_the_manual_occur() -> None:
    asked = {item.question for family in FAMILIES for s in many("train", family, 60) for item in s.items}
    assert asked >= {
        "What instrument is playing?",
        "What is on the left?",
        "What is on the right?",
        "How many notes are played?",
        "Which one moves with the sound?",
        "Which instrument plays first?",
        "Which instrument plays last?",
        "What is on the screen when the trumpet plays?",
        "What plays while the dog is on the screen?",
    }


@pytest.mark.parametrize("arguments", [("training", 1), ("train", -1), ("train", 1, "colour")])
def test_nonsense_is_refused_with_the_choices(arguments: tuple[str, int]) -> None:
    with pytest.raises(UsageError) as caught:
        make_script(*arguments)
    assert caught.value.hint


def test_the_unseen_font_asks_to_be_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(UNSEEN_FONT_VARIABLE, str(tmp_path / "none.ogg"))
    with pytest.raises(EchopixError) as caught:
        make_script("unseen-font", 0, "instrument")
    assert "python tests/tools/scene_assets.py --unseen-font" in caught.value.hint


def test_the_unseen_font_is_looked_for_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(UNSEEN_FONT_VARIABLE, raising=False)
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path))
    assert unseen_font_path() == tmp_path / "unseen-font.ogg"
    monkeypatch.setenv(UNSEEN_FONT_VARIABLE, str(tmp_path / "bank.ogg"))
    assert unseen_font_path() == tmp_path / "bank.ogg"


def test_the_unseen_font_repeats_the_test_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bank = tmp_path / "stand-in.ogg"
    shutil.copy(ASSETS / "notes.ogg", bank)
    entries = [e for e in json.loads((ASSETS / "notes.json").read_text()) if e["font"] == "fluid"]
    bank.with_suffix(".json").write_text(json.dumps([{**e, "font": UNSEEN_FONT} for e in entries]))
    monkeypatch.setenv(UNSEEN_FONT_VARIABLE, str(bank))
    for seed in range(30):
        known, unseen = make_script("test", seed), make_script("unseen-font", seed)
        assert unseen.sprites == known.sprites
        assert [(n.instrument, n.start, n.pitch) for n in unseen.notes] == [
            (n.instrument, n.start, n.pitch) for n in known.notes
        ]
        assert {n.font for n in unseen.notes} <= {UNSEEN_FONT}
        assert all(answer(unseen, item.question) == item.answer for item in unseen.items)
    assert find(UNSEEN_FONT, "drum", 40, 64).length > 0


@settings(max_examples=60, derandomize=True)
@given(any_script)
def test_everything_that_can_be_asked_is_true_and_asked_once(script: Script) -> None:
    items = ask_everything(script, np.random.default_rng(script.seed % 1000))
    assert len({item.question for item in items}) == len(items)
    assert {item.family for item in items} >= {item.family for item in script.items}
    for item in items:
        assert answer(script, item.question) == item.answer, item


@settings(max_examples=60, derandomize=True)
@given(any_script, st.floats(0.0, 7.99))
def test_surroundings_agree_with_the_script_at_any_moment(script: Script, moment: float) -> None:
    (row,) = surroundings(script, [moment])
    shown, away, begun = row[: len(PICTURES)], row[len(PICTURES) : 2 * len(PICTURES)], row[2 * len(PICTURES) :]
    present = {s.name for s in script.sprites if s.show[0] <= moment < s.show[1]}
    assert {PICTURES[i] for i in shown.nonzero()[0]} == present
    hopping = {s.name for s in script.sprites if any(a <= moment < b for a, b in s.hops)}
    assert {PICTURES[i] for i in away.nonzero()[0]} <= hopping
    assert begun.sum() == min(9, sum(note.start <= moment for note in script.notes))
    dark = surroundings(script, [moment], dark=True)[0]
    assert not dark[: 2 * len(PICTURES)].any()
    assert (dark[2 * len(PICTURES) :] == begun).all()
